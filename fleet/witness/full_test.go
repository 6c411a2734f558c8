package witness

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
)

// TestFileOnAFullDisk: what does not fit is refused; what was written before can be read, and what is written again once there is space is not lost behind
// the line that was cut off.
func TestFileOnAFullDisk(t *testing.T) {
	disk := contract.SmallDisk(t, 4)
	l := open(t, filepath.Join(disk, "witness"))
	if err := l.Append(t.Context(), []Line{line(Boot, "a", 1, "first")}); err != nil {
		t.Fatal(err)
	}
	free := contract.Fill(t, disk)
	var batch []Line
	for i := range 100 { // more than what is left of the file's last block
		batch = append(batch, line(Boot, "a", fleet.Revision(2+i), "later"))
	}
	for range 2 {
		if err := l.Append(t.Context(), batch); !fleet.NoSpace(err) {
			t.Fatalf("got %v", err)
		}
	}
	if got := read(t, l); len(got) == 0 || len(got) > 2*len(batch) || got[0].Name != "first" {
		t.Errorf("on a full disk there are %d lines, the first %+v", len(got), got)
	}
	free()
	if err := l.Append(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	seen := map[fleet.Revision]bool{}
	for _, x := range read(t, l)[1:] {
		seen[x.Revision] = true
	}
	for _, x := range batch {
		if !seen[x.Revision] {
			t.Errorf("the line of revision %d is lost", x.Revision)
		}
	}
}

// refusing is a log that takes lines only while it is told to.
type refusing struct {
	mu    sync.Mutex // guards the rest
	full  bool
	lines []Line
}

func (r *refusing) String() string                         { return "refusing" }
func (r *refusing) Read(context.Context, func(Line)) error { return nil }

func (r *refusing) Append(_ context.Context, lines []Line) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full {
		return errors.New("it is full")
	}
	r.lines = append(r.lines, lines...)
	return nil
}

func (r *refusing) fill(full bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.full = full
}

func (r *refusing) taken() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.lines)
}

// TestFollowBehind: a log that takes no lines is named, with how many wait since when, until it has taken them all.
func TestFollowBehind(t *testing.T) {
	db := contract.OpenStore(t)
	l := &refusing{full: true}
	f := &Follower{Store: db, Logs: []Log{l}, Now: func() time.Time { return at }, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.Run(ctx) //nolint:errcheck // it ends with ctx
	}()
	defer func() { cancel(); <-ended }()
	put := func(name string) {
		t.Helper()
		n := fleet.Node{ID: fleet.NodeID(name), Name: name, State: fleet.Available, Boot: fleet.BootRecord{Generation: 1}}
		_, err := db.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindNode, n.ID), Value: n}}, Events: []fleet.Event{{Type: "node.state", Node: n.ID}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	put("n1")
	until(t, func() bool {
		b := f.Behind()
		return len(b) == 1 && b[0].Log == "refusing" && b[0].Lines == 2 && b[0].Since.Equal(at) && b[0].Err != nil // the start, and the boot
	})
	l.fill(false)
	put("n2")
	until(t, func() bool { return len(f.Behind()) == 0 && l.taken() >= 3 })
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) != 3 || l.lines[1].Name != "n1" || l.lines[2].Name != "n2" {
		t.Errorf("it took %+v", l.lines)
	}
}
