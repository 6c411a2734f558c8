package store_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

const childEnv = "METALCTL_STORE_CHILD"

// TestChildWriter is the program that TestKilledWriter kills: four writers that print each acknowledged key.
func TestChildWriter(t *testing.T) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		t.Skip("child: runs as the child of TestKilledWriter")
	}
	db, err := store.Open(dir, store.Options{Key: contract.TestKey(), Limits: store.Limits{Events: 50}})
	if err != nil {
		t.Fatal(err)
	}
	var out sync.Mutex
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				rev, err := db.Commit(context.Background(), fleet.Change{
					If:     []fleet.Precondition{{Key: fleet.Key("x/" + id)}},
					Writes: []fleet.Write{{Key: fleet.Key("x/" + id), Value: strings.Repeat("v", i%3000)}, {Key: fleet.Key("secret/" + id), Value: fleet.NewSecret(id)}},
					Events: []fleet.Event{{Type: "made", Text: id}},
				})
				if err != nil {
					panic(err)
				}
				out.Lock()
				fmt.Printf("ack %s %d %d\n", id, i%3000, rev)
				out.Unlock()
			}
		})
	}
	wg.Wait()
}

// TestKilledWriter kills a writer at random moments: whatever it acknowledged is there, whole and with its event's revision.
func TestKilledWriter(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: starts and kills processes")
	}
	dir := t.TempDir()
	var newest fleet.Revision
	for round := range 4 {
		acks := killedChild(t, dir, 50+rand.IntN(400))
		db := contract.OpenStoreIn(t, dir, store.Options{Limits: store.Limits{Events: 50}})
		if problems := db.Check(context.Background()); problems != nil {
			t.Fatalf("round %d: %v", round, problems)
		}
		for _, a := range acks {
			if got := get[string](t, db, "x/"+a.id); len(got) != a.size {
				t.Fatalf("round %d: %s has %d bytes, want %d", round, a.id, len(got), a.size)
			}
			if got := get[string](t, db, "secret/"+a.id); got != a.id {
				t.Fatalf("round %d: the secret of %s is %q", round, a.id, got)
			}
			newest = max(newest, a.rev)
		}
		if err := db.View(context.Background(), func(s fleet.Snapshot) error {
			if s.Revision() < newest {
				t.Errorf("round %d: the store is at %d and had acknowledged %d", round, s.Revision(), newest)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

type ack struct {
	id   string
	size int
	rev  fleet.Revision
}

// killedChild runs a writer, kills it after about n acknowledgements and returns all it printed.
func killedChild(t *testing.T, dir string, n int) []ack {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChildWriter$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acks []ack
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // also a half-printed line: nobody saw that acknowledgement
		}
		var a ack
		if _, err := fmt.Sscanf(line, "ack %s %d %d", &a.id, &a.size, &a.rev); err != nil {
			continue
		}
		acks = append(acks, a)
		if len(acks) == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd.Wait() //nolint:errcheck // it was killed
	if len(acks) < n {
		t.Fatalf("the writer ended by itself after %d of %d acknowledgements", len(acks), n)
	}
	return acks
}

// TestPowerCut builds what a disk may hold when the power fails: before the first sync any part of the data pages, before the second any sectors
// of the meta page. The store opens at the last commit before or, with a whole meta page, after.
func TestPowerCut(t *testing.T) {
	const page = 4096
	dir := t.TempDir()
	db := mustOpen(t, dir)
	file := filepath.Join(dir, "store.db")
	rng := rand.New(rand.NewPCG(1, 2))
	read := func() []byte {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for i := range 12 {
		before := read()
		for k := range 5 {
			put(t, db, fmt.Sprintf("x/%d", rng.IntN(20)), strings.Repeat(strconv.Itoa(k), rng.IntN(9000)))
			if k < 4 {
				before = read()
			}
		}
		after := read()
		rev := fleet.Revision((i + 1) * 5)
		before = append(before, make([]byte, max(0, len(after)-len(before)))...)
		data := bytes.Clone(before)
		for p := 2 * page; p < len(after); p += page {
			if rng.IntN(2) == 0 {
				copy(data[p:min(p+page, len(data))], after[p:])
			}
		}
		openCut(t, data, rev-1, rev-1)
		meta := bytes.Clone(after)
		for s := 0; s < 2*page; s += 512 {
			if rng.IntN(2) == 0 {
				copy(meta[s:s+512], before[s:])
			}
		}
		openCut(t, meta, rev-1, rev)
		openCut(t, after, rev, rev)
	}
}

func openCut(t *testing.T, image []byte, least, most fleet.Revision) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "store.db"), image, 0o600); err != nil {
		t.Fatal(err)
	}
	db := contract.OpenStoreIn(t, dir, store.Options{})
	err := db.View(context.Background(), func(s fleet.Snapshot) error {
		if s.Revision() < least || s.Revision() > most {
			t.Errorf("the store woke at revision %d, want %d to %d", s.Revision(), least, most)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if problems := db.Check(context.Background()); problems != nil {
		t.Error(problems)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
