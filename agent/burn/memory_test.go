package burn

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// smallNode is memory of 8 MiB that stands for 8 GiB, whose clock goes with the work, and which settle may spoil.
func smallNode(settle func(words []uint64)) func() ([]MemoryNode, error) {
	clock := newTicker()
	return func() ([]MemoryNode, error) {
		return []MemoryNode{{ID: 1, Total: 10 << 30, Free: 8 << 30, Workers: 2, Bind: func() error { return nil }, Clock: clock.now, Map: func(bytes int64) (*Block, error) {
			words := make([]uint64, 1<<20)
			return &Block{
				Words: words, Bytes: bytes, Free: func() error { return nil }, Address: func(i int) string { return "word " + string(rune('A'+i)) },
				Settle: func(_ context.Context, pause time.Duration) {
					clock.add(pause)
					if settle != nil {
						settle(words)
					}
				},
				Worked: func(n int64) { clock.add(time.Duration(n << 10 / 100)) }, // 100 GB/s
			}, nil
		}}}, nil
	}
}

func runMemory(t *testing.T, nodes func() ([]MemoryNode, error), l Load) (map[string]fleet.Measured, []fleet.Untold, error) {
	t.Helper()
	s := newSink()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	s.stop = cancel
	if err := Memory(nodes)(ctx, l, s); err != nil {
		t.Fatal(err)
	}
	list, untold, _ := s.take()
	got := map[string]fleet.Measured{}
	for _, m := range list {
		got[m.Check] = m
	}
	return got, untold, context.Cause(ctx)
}

func TestMemory(t *testing.T) {
	t.Run("healthy", func(t *testing.T) {
		got, untold, stopped := runMemory(t, smallNode(nil), Load{For: 10 * time.Second})
		if stopped != nil || len(untold) > 0 || got["memory-mismatches"].Value != 0 || got["memory-mismatches"].N < 8<<20 || got["memory-mismatches"].Component != "numa/1" {
			t.Errorf("%+v, %v, %v", got, untold, stopped)
		}
		if v := got["memory-tested"].Value; v != 80 {
			t.Errorf("%g percent, want 80", v)
		}
		if v := got["memory-bandwidth"].Value; v < 99 || v > 101 {
			t.Errorf("%g GB/s, want 100", v)
		}
	})
	for situation, c := range map[string]struct {
		settle func(words []uint64)
		want   string
	}{
		"a cell that is stuck":    {func(w []uint64) { w[3] |= 1 << 17 }, "word D: expected "},
		"two places that are one": {func(w []uint64) { w[4] = w[2] }, "own address: word E: expected 0000000000000004, read 0000000000000002 (2 bits), and the same again"},
	} {
		t.Run(situation, func(t *testing.T) {
			got, _, stopped := runMemory(t, smallNode(c.settle), Load{For: time.Hour})
			m := got["memory-mismatches"]
			if stopped == nil || m.Value == 0 || len(m.Details) < 2 || !strings.Contains(m.Details[1], c.want) {
				t.Errorf("stopped %v, %+v, want %q", stopped, m, c.want)
			}
		})
	}
	t.Run("the machine needs its memory", func(t *testing.T) {
		nodes := func() ([]MemoryNode, error) {
			list, err := smallNode(nil)()
			list[0].Short = func() string { return "somebody else needs memory" }
			return list, err
		}
		_, untold, stopped := runMemory(t, nodes, Load{For: time.Hour})
		if stopped != nil || len(untold) != 1 || untold[0].Cause != "no-memory" {
			t.Errorf("%+v, %v", untold, stopped)
		}
	})
	t.Run("there is none", func(t *testing.T) {
		nodes := func() ([]MemoryNode, error) { return []MemoryNode{{ID: 0, Total: 1 << 30, Free: 1 << 20}}, nil }
		if _, untold, _ := runMemory(t, nodes, Load{For: time.Hour}); len(untold) != 1 || untold[0].Cause != "no-memory" {
			t.Errorf("%+v", untold)
		}
	})
	t.Run("it is refused", func(t *testing.T) {
		nodes := func() ([]MemoryNode, error) {
			list, err := smallNode(nil)()
			list[0].Map = func(int64) (*Block, error) { return nil, errors.New("cannot allocate memory") }
			return list, err
		}
		if _, untold, _ := runMemory(t, nodes, Load{For: time.Hour}); len(untold) != 1 || untold[0].Cause != "no-memory" {
			t.Errorf("%+v", untold)
		}
	})
}

// TestPatternsFindEveryFlip flips one bit of one word in each pattern, before each turn.
func TestPatternsFindEveryFlip(t *testing.T) {
	for _, p := range patterns(7, true) {
		for _, turn := range []uint64{0, ^uint64(0)} {
			w := make([]uint64, 300)
			p.fill(w, 1000)
			for i := range w {
				w[i] ^= turn
				if want := p.at(1000+uint64(i), turn); w[i] != want {
					t.Fatalf("%s: word %d is filled with %x and wants %x", p.name, i, w[i], want)
				}
			}
			if k := p.wrong(w, 0, 1000, turn); k != len(w) {
				t.Errorf("%s: word %d of a healthy block is wrong", p.name, k)
			}
			w[123] ^= 1 << 40
			if k := p.wrong(w, 0, 1000, turn); k != 123 {
				t.Errorf("%s: word %d is found, not 123", p.name, k)
			}
			if k := p.wrong(w, 124, 1000, turn); k != len(w) {
				t.Errorf("%s: word %d is wrong, too", p.name, k)
			}
		}
	}
}

func TestThisMemory(t *testing.T) {
	nodes, err := ThisMemory()
	if err != nil {
		t.Fatal(err)
	}
	few := func() ([]MemoryNode, error) {
		for i := range nodes {
			if nodes[i].Free > 64<<20 {
				nodes[i].Free = 64 << 20
			}
		}
		return nodes, nil
	}
	if nodes[0].Free < minMemory {
		t.Skip("hardware: this machine has too little free memory")
	}
	if limit := nodes[0].Total - reserve(nodes[0].Total); nodes[0].Free > limit {
		t.Errorf("%d bytes may be taken of %d", nodes[0].Free, nodes[0].Total)
	}
	got, untold, stopped := runMemory(t, few, Load{For: time.Hour, Passes: 3})
	if stopped != nil || len(untold) > 0 || got["memory-mismatches"].Value != 0 || got["memory-mismatches"].N == 0 || got["memory-bandwidth"].Value <= 0 || got["memory-tested"].Value <= 0 {
		t.Errorf("%+v, %v, %v", got, untold, stopped)
	}
}

func TestGroupLimit(t *testing.T) {
	for situation, c := range map[string]struct {
		files       map[string]string
		limit, used int64
		ok          bool
	}{
		"none":                     {map[string]string{"proc/self/cgroup": "0::/\n"}, 0, 0, false},
		"of a parent":              {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "1000", "sys/fs/cgroup/a/memory.current": "100", "sys/fs/cgroup/a/b/memory.max": "max", "sys/fs/cgroup/a/b/memory.current": "50"}, 1000, 100, true},
		"the tighter of two":       {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/memory.max": "5000", "sys/fs/cgroup/memory.current": "100", "sys/fs/cgroup/a/memory.max": "2000", "sys/fs/cgroup/a/memory.current": "50"}, 2000, 50, true},
		"the first version's":      {map[string]string{"proc/self/cgroup": "4:memory:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "700", "sys/fs/cgroup/memory/x/memory.usage_in_bytes": "7"}, 700, 7, true},
		"lines that are not lines": {map[string]string{"proc/self/cgroup": "nonsense\n:\n"}, 0, 0, false},
	} {
		dir := t.TempDir()
		for name, text := range c.files {
			path := filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if limit, used, ok := groupLimit(sysfs.New(dir)); limit != c.limit || used != c.used || ok != c.ok {
			t.Errorf("%s: %d, %d, %t; want %d, %d, %t", situation, limit, used, ok, c.limit, c.used, c.ok)
		}
	}
}
