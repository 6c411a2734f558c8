package store_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

// garbledEnv names a folder with files that are to be opened as stores, one after the other.
const garbledEnv = "METALCTL_STORE_GARBLED"

// opened is what became of opening a file.
type opened struct {
	File string
	// State is a digest of all records and events, "" where the store was refused, with Code and Hint.
	State, Code, Hint, Text string
	Revision                fleet.Revision
}

// TestChildOpener is the program that opens damaged stores, so that what kills a process kills only that one.
func TestChildOpener(t *testing.T) {
	dir := os.Getenv(garbledEnv)
	if dir == "" {
		t.Skip("child: runs as the child of TestGarbled")
	}
	files, err := filepath.Glob(filepath.Join(dir, "garbled", "*"))
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	for _, file := range files {
		fmt.Printf("opening %s\n", file)
		if err := os.Rename(file, filepath.Join(data, "store.db")); err != nil {
			t.Fatal(err)
		}
		line, err := json.Marshal(open(data, filepath.Base(file)))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("opened %s\n", line)
	}
}

func open(dir, name string) opened {
	o := opened{File: name}
	db, err := store.Open(dir, store.Options{Key: contract.TestKey()})
	if err == nil {
		o.State, o.Revision, err = stateOf(db)
		if err == nil {
			if problems := db.Check(context.Background()); problems != nil {
				o.Text = fmt.Sprint(problems)
			}
		}
		if cerr := db.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		o.State, o.Code, o.Hint, o.Text = "", fleet.CodeOf(err), fleet.HintOf(err), err.Error()
	}
	return o
}

// stateOf digests all that a store holds.
func stateOf(db *store.DB) (string, fleet.Revision, error) {
	h := sha256.New()
	var rev fleet.Revision
	err := db.View(context.Background(), func(s fleet.Snapshot) error {
		rev = s.Revision()
		for _, kind := range []string{"node", "x", "secret"} {
			if err := s.List(kind, func(r fleet.Record) bool {
				fmt.Fprintf(h, "%s %d %s\n", r.Key, r.Revision, r.Data)
				return true
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return "", 0, err
	}
	events, err := db.Events(context.Background(), 0, 10000)
	if err != nil {
		return "", 0, err
	}
	for _, e := range events {
		fmt.Fprintf(h, "event %d %d %s\n", e.ID, e.Revision, e.Text)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), rev, nil
}

// TestGarbled damages a store's file in many places and ways. Each is opened by another process: what it finds is all that was there, or it refuses in words,
// with the newest sound backup and the command that restores it. Where the newest first page is damaged, the commit before is all that is there, as after
// a power cut.
func TestGarbled(t *testing.T) {
	root, err := os.MkdirTemp("/dev/shm", "metalctl-garbled-")
	if err != nil {
		root = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	data := filepath.Join(root, "data")
	db := mustOpen(t, data)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 120 {
		commit := fleet.Change{Events: []fleet.Event{{Type: "made", Text: fmt.Sprint(i)}}, Writes: []fleet.Write{
			{Key: fleet.Key(fmt.Sprintf("x/%03d", rng.IntN(60))), Value: strings.Repeat("v", 200+rng.IntN(300))}}}
		if i%10 == 0 {
			commit.Writes = append(commit.Writes, fleet.Write{Key: "x/large", Value: strings.Repeat("w", 9000)},
				fleet.Write{Key: fleet.Key(fmt.Sprintf("secret/%d", i)), Value: fleet.NewSecret("hunter2")})
		}
		if _, err := db.Commit(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
		if i == 100 {
			if _, err := db.Backup(t.Context(), filepath.Join(data, "backups", "old"), ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	backup := filepath.Join(data, "backups", "new")
	if _, err := db.Backup(t.Context(), backup, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Backup(t.Context(), filepath.Join(data, "backups", "rotten"), ""); err != nil {
		t.Fatal(err)
	}
	flip(t, filepath.Join(data, "backups", "rotten", "store.db"), 20000)
	before, rev, err := stateOf(db)
	if err != nil {
		t.Fatal(err)
	}
	put(t, db, "x/last", "the newest commit")
	now, last, err := stateOf(db)
	if err != nil || last != rev+1 {
		t.Fatalf("the store is at %d after %d: %v", last, rev, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(data, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	// The file is larger than what is in it; what lies behind is nobody's.
	garbled := garble(whole[:garbledPage*max(binary.NativeEndian.Uint64(whole[16+40:]), binary.NativeEndian.Uint64(whole[garbledPage+16+40:]))], rng)
	// make test-long opens all; make test takes a part, and -short a few.
	for i, name := range slices.Sorted(maps.Keys(garbled)) {
		if every := garbledPart(); i%every != every-1 {
			delete(garbled, name)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "garbled"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range garbled {
		if err := os.WriteFile(filepath.Join(root, "garbled", name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	outcomes := openGarbled(t, root, len(garbled))
	counts := map[string]int{}
	want := "metalctl server restore " + backup + " --data-dir " + data + " --move-aside"
	for name := range garbled {
		switch o, ok := outcomes[name]; {
		case !ok:
			t.Errorf("%s: nobody knows what became of it", name)
		case o.State == "" && (o.Code != "MC-STORE-DAMAGED" && o.Code != "MC-STORE-KEY" && o.Code != "MC-STORE-NEWER" && o.Code != "MC-STORE-DECODE" || o.Hint == "" || strings.Contains(o.Text, "goroutine")):
			t.Errorf("%s: %s: %s (try: %s)", name, o.Code, o.Text, o.Hint)
		case o.State == "" && o.Code == "MC-STORE-DAMAGED" && !strings.Contains(o.Hint, want):
			t.Errorf("%s: the hint is %q, want %q in it", name, o.Hint, want)
		case o.State == "":
			counts[o.Code]++
		case o.Text != "":
			t.Errorf("%s: opened, and the check says %s", name, o.Text)
		case o.State == now || o.State == before && strings.HasPrefix(name, "meta"):
			counts["right"]++
		default:
			t.Errorf("%s: it opened at revision %d with another state than was written", name, o.Revision)
		}
	}
	t.Logf("%d files: %v", len(garbled), counts)
	if counts["right"] == 0 || counts["MC-STORE-DAMAGED"] < len(garbled)/4 {
		t.Errorf("of %d files these were right or refused: %v", len(garbled), counts)
	}
}

func garbledPart() int {
	switch {
	case os.Getenv("METALCTL_LONG") != "":
		return 1
	case testing.Short():
		return 20
	}
	return 4
}

const garbledPage = 4096

// garble makes the damaged files by name.
func garble(whole []byte, rng *rand.Rand) map[string][]byte {
	const page = garbledPage
	out := map[string][]byte{"nothing at all": {}, "whole": whole}
	kinds := map[uint16]string{1: "branch", 2: "leaf", 4: "meta", 16: "freelist"}
	change := func(name string, f func(b []byte)) {
		b := bytes.Clone(whole)
		f(b)
		out[name] = b
	}
	for at := 0; at < len(whole); at += page {
		n := at / page
		kind := kinds[binary.NativeEndian.Uint16(whole[at+8:])]
		if kind == "" || binary.NativeEndian.Uint64(whole[at:]) != uint64(n) {
			kind = "rest"
		}
		where := fmt.Sprintf("%s %d", kind, n)
		change(where+" zeroed", func(b []byte) { clear(b[at : at+page]) })
		change(where+" half zeroed", func(b []byte) { clear(b[at+page/2 : at+page]) })
		change(where+" of another", func(b []byte) { copy(b[at:at+page], whole[(at+3*page)%len(whole):]) })
		for _, field := range []int{0, 8, 10, 12, 16, 20, 24, 28} {
			change(fmt.Sprintf("%s byte %d", where, field), func(b []byte) { b[at+field] ^= byte(1 + rng.IntN(255)) })
		}
		out[fmt.Sprintf("cut %d", at)] = whole[:at]
		out[fmt.Sprintf("cut %d", at+777)] = whole[:at+777]
	}
	change("metas zeroed", func(b []byte) { clear(b[:2*page]) })
	change("meta fields", func(b []byte) { b[16+40]++; b[page+16+16]++ })
	for i := range 150 {
		at := rng.IntN(len(whole))
		name := fmt.Sprintf("flip %d at %d", i, at)
		if at < 2*page {
			name = "meta " + name
		}
		change(name, func(b []byte) { b[at] ^= 1 << rng.IntN(8) })
	}
	return out
}

func flip(t *testing.T, file string, at int) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 4
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// openGarbled has another process open all files; one that dies of a file is followed by another one for the rest.
func openGarbled(t *testing.T, root string, files int) map[string]opened {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	out := map[string]opened{}
	for deaths := 0; len(out)+deaths < files && deaths < 5; deaths++ {
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestChildOpener$", "-test.v")
		cmd.Env = append(os.Environ(), garbledEnv+"="+root)
		said, err := cmd.CombinedOutput()
		at := ""
		for s := bufio.NewScanner(bytes.NewReader(said)); s.Scan(); {
			if name, ok := strings.CutPrefix(s.Text(), "opening "); ok {
				at = filepath.Base(name)
			}
			var o opened
			if line, ok := strings.CutPrefix(s.Text(), "opened "); ok && json.Unmarshal([]byte(line), &o) == nil {
				out[o.File] = o
				at = ""
			}
		}
		if err != nil {
			t.Errorf("the process that opened %q died: %v\n%s", at, err, said[max(0, len(said)-3000):])
		}
	}
	return out
}
