package burn

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// sickDrive is a file that does to calls what a test says.
type sickDrive struct {
	Drive
	mu    sync.Mutex // serialises the calls, so that a test can count them
	write func(p []byte, off int64, do func([]byte, int64) (int, error)) (int, error)
	read  func(p []byte, off int64) error
}

func (d *sickDrive) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.write != nil {
		return d.write(p, off, d.Drive.WriteAt)
	}
	return d.Drive.WriteAt(p, off)
}

func (d *sickDrive) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.Drive.ReadAt(p, off)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.read != nil {
		err = errors.Join(err, d.read(p, off))
	}
	return n, err
}

func TestDisks(t *testing.T) {
	const size = 16 << 20
	victim := int64(5*blockBytes + 100) // in the first extent, at the disk's begin
	covers := func(p []byte, off int64) bool { return off <= victim && victim < off+int64(len(p)) }
	for situation, c := range map[string]struct {
		sick   *sickDrive
		wrong  string // in the first detail
		errors float64
	}{
		"a healthy drive": {&sickDrive{}, "", 0},
		"a bit that flips": {&sickDrive{read: func(p []byte, off int64) error {
			if covers(p, off) {
				p[victim-off] ^= 4
			}
			return nil
		}}, "flipped: offset 20480: 1 bits differ, first in byte 100", 0},
		"writes that are dropped": {&sickDrive{write: func(p []byte, off int64, do func([]byte, int64) (int, error)) (int, error) {
			if covers(p, off) {
				return len(p), nil
			}
			return do(p, off)
		}}, "foreign: offset 0: holds nothing that was written", 0},
		"small writes that are dropped": {&sickDrive{write: func(p []byte, off int64, do func([]byte, int64) (int, error)) (int, error) {
			if len(p) == blockBytes {
				return len(p), nil
			}
			return do(p, off)
		}}, "stale: offset", 0},
		"writes that go elsewhere": {&sickDrive{write: func(p []byte, off int64, do func([]byte, int64) (int, error)) (int, error) {
			if off == 1<<20 && len(p) > blockBytes {
				return do(p, 0)
			}
			if off == 0 && len(p) > blockBytes {
				return len(p), nil
			}
			return do(p, off)
		}}, "misplaced: offset 0: holds what was written to offset 1048576", 0},
		"reads that are refused": {&sickDrive{read: func(p []byte, off int64) error {
			if covers(p, off) && len(p) > blockBytes {
				return errors.New("input/output error")
			}
			return nil
		}}, "", 1},
	} {
		t.Run(situation, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
			s := newSink()
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			s.stop = cancel
			good := fleet.Disk{Name: "nvme0n1", Path: path, Serial: "S1", SizeBytes: size}
			before := &fleet.Inventory{Disks: []fleet.Disk{good, {Name: "nvme1n1", Path: "/nowhere", Serial: "S2", SizeBytes: size}}}
			stress := Disks([]fleet.AcceptedDevice{{Serial: "S1", SizeBytes: size}}, func(ctx context.Context, d fleet.Disk) (Drive, error) {
				drive, err := ThisDrive(ctx, d)
				c.sick.Drive = drive
				return c.sick, err
			})
			if err := stress(ctx, Load{Stress: fleet.StressDisks, For: time.Hour, Bytes: 16 << 20, Speed: 1, Before: before}, s); err != nil {
				t.Fatal(err)
			}
			measured, untold, ran := s.take()
			got := map[string]fleet.Measured{}
			for _, m := range measured {
				got[m.Check] = m
			}
			stopped := context.Cause(ctx)
			if c.wrong == "" {
				if stopped != nil || got["disk-mismatches"].Value != 0 {
					t.Errorf("stopped: %v; %+v", stopped, got["disk-mismatches"])
				}
				for _, check := range []string{"disk-mismatches", "disk-read", "disk-write", "disk-read-latency", "disk-write-latency"} {
					if got[check].N == 0 || got[check].Component != "disk/nvme0n1" {
						t.Errorf("%s: %+v", check, got[check])
					}
				}
			} else if details := got["disk-mismatches"].Details; len(details) < 2 || !strings.HasPrefix(details[1], c.wrong) || stopped == nil {
				t.Errorf("stopped: %v; details %q, want %q", stopped, details, c.wrong)
			}
			if v := got["disk-io-errors"].Value; v < c.errors || c.errors == 0 && v != 0 {
				t.Errorf("%g errors, want %g", v, c.errors)
			}
			if len(untold) != 1 || untold[0].Component != "disk/nvme1n1" || !untold[0].Skipped || len(ran) != 1 {
				t.Errorf("untold %+v, ran %+v", untold, ran)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, make([]byte, size)) {
				t.Error("data is left")
			}
		})
	}
}

func TestADriveThatRefusesAllIsLeftAlone(t *testing.T) {
	s := newSink()
	s.stop = func(err error) { t.Error(err) }
	dead := errors.New("input/output error")
	path := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, 16<<20)); err != nil {
		t.Fatal(err)
	}
	stress := Disks([]fleet.AcceptedDevice{{Serial: "S1"}}, func(ctx context.Context, d fleet.Disk) (Drive, error) {
		drive, err := ThisDrive(ctx, d)
		refuse := func([]byte, int64, func([]byte, int64) (int, error)) (int, error) { return 0, dead }
		return &sickDrive{Drive: drive, write: refuse}, err
	})
	before := &fleet.Inventory{Disks: []fleet.Disk{{Name: "nvme0n1", Path: path, Serial: "S1", SizeBytes: 16 << 20}}}
	if err := stress(t.Context(), Load{For: time.Hour, Speed: 1, Before: before}, s); err != nil {
		t.Fatal(err)
	}
	measured, untold, _ := s.take()
	for _, m := range measured {
		if m.Check == "disk-mismatches" || m.Check == "disk-io-errors" && (m.Value < maxIOErrors || m.Value > maxIOErrors+depth || len(m.Details) != maxDetails) {
			t.Errorf("%+v", m)
		}
	}
	if len(untold) != 1 || untold[0].Cause != "other" || !strings.Contains(untold[0].Words, "left alone") {
		t.Errorf("untold %+v", untold)
	}
}

// TestLeftoversOfARunCutShort: a run that loses its power in the middle leaves patterns, and the next one zeroes them, wherever they are, before its own.
func TestLeftoversOfARunCutShort(t *testing.T) {
	const size = 64 << 20
	path := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, size)); err != nil {
		t.Fatal(err)
	}
	before := &fleet.Inventory{Disks: []fleet.Disk{{Name: "nvme0n1", Path: path, Serial: "S1", SizeBytes: size}}}
	cut, writes := atomic.Bool{}, atomic.Int64{}
	run := func(bytes int64, dies bool) map[string]fleet.Measured {
		t.Helper()
		s := newSink()
		s.stop = func(err error) {
			if !cut.Load() {
				t.Error(err)
			}
		}
		stress := Disks([]fleet.AcceptedDevice{{Serial: "S1"}}, func(ctx context.Context, d fleet.Disk) (Drive, error) {
			drive, err := ThisDrive(ctx, d)
			return &mortalDrive{Drive: drive, cut: &cut, writes: &writes, last: map[bool]int64{true: 1200}[dies]}, err
		})
		if err := stress(t.Context(), Load{Stress: fleet.StressDisks, For: time.Hour, Bytes: bytes, Speed: 1, Round: 3, Before: before}, s); err != nil {
			t.Fatal(err)
		}
		got := map[string]fleet.Measured{}
		measured, _, _ := s.take()
		for _, m := range measured {
			got[m.Check] = m
		}
		return got
	}
	read := func() []byte {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	run(64<<20, true)
	if bytes.Equal(read(), make([]byte, size)) {
		t.Fatal("the run that was cut short left nothing, so that nothing is shown here")
	}
	cut.Store(false)
	got := run(2<<20, false) // a shorter one, which does not come to all the places of the first
	if !bytes.Equal(read(), make([]byte, size)) {
		t.Error("patterns are left")
	}
	if m := got["disk-leftovers"]; m.Value < 3 || len(m.Details) != 1 {
		t.Errorf("%+v", m)
	}
	if got := run(2<<20, false); got["disk-leftovers"].N != 0 || got["disk-mismatches"].N == 0 {
		t.Errorf("after a run that ended well: %+v", got)
	}
}

// mortalDrive loses its power after so many writes: what comes later does nothing and says so.
type mortalDrive struct {
	Drive
	cut    *atomic.Bool
	writes *atomic.Int64
	last   int64 // 0: never
}

var errCut = errors.New("input/output error")

func (d *mortalDrive) WriteAt(p []byte, off int64) (int, error) {
	if d.last > 0 && d.writes.Add(1) > d.last {
		d.cut.Store(true)
	}
	if d.cut.Load() {
		return 0, errCut
	}
	return d.Drive.WriteAt(p, off)
}

func (d *mortalDrive) Zero(ctx context.Context, off, n int64) error {
	if d.cut.Load() {
		return errCut
	}
	return d.Drive.Zero(ctx, off, n)
}

// FuzzNote: whatever stands at the place of a note, a run works within the disk.
func FuzzNote(f *testing.F) {
	b := make([]byte, blockBytes)
	putNote(b, 1, 7, 4<<20)
	f.Add(b[:noteBytes], int64(64<<20))
	putNote(b, 1, 7, extentBytes)
	f.Add(b[:noteBytes], int64(1<<20))
	f.Add([]byte("GPT"), int64(1<<20))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		round, last, extent, ok := readNote(b, size)
		if !ok {
			return
		}
		n := (size - blockBytes) / extent
		for _, cycle := range []int{0, 1, 2, last} {
			if at := extentOf(n, extent, round, cycle); at < 0 || at+extent > size-blockBytes {
				t.Errorf("cycle %d of round %d is at %d of %d", cycle, round, at, size)
			}
		}
	})
}

func TestHistogram(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.add(time.Duration(i+1) * time.Microsecond)
	}
	if got := h.percentile(99); got < 980 || got > 1000 {
		t.Errorf("99th percentile of 1 to 1000 us: %g", got)
	}
	if h.least != 1 || h.most != 1000 {
		t.Errorf("range %g to %g", h.least, h.most)
	}
}
