package burn

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/metalctl/metalctl/agent/disk"
	"github.com/metalctl/metalctl/fleet"
)

// A run that loses its power cannot zero what it wrote. The disk's last block says, while a run is under way, how far it has come, so that the next one zeroes
// what was left before it begins: the disk is then again what the record of its cleaning says.

// A note has magic, round, cycle, extent, and the sum of these.
const (
	noteMagic = 0x6d63746c4c454654 // mctlLEFT
	noteBytes = 40
)

// noteAt is where the note stands: behind the last extent.
func (r *diskRun) noteAt() int64 { return r.drive.Size()/blockBytes*blockBytes - blockBytes }

// note says, before a cycle writes anything, that it will. A drive that refuses it has an error like any other, for which it is not handed out.
func (r *diskRun) note(cycle int) {
	b := disk.AlignedBytes(blockBytes)
	putNote(b, r.load.Round, cycle, r.extent)
	if _, err := r.drive.WriteAt(b, r.noteAt()); r.worked(err) {
		r.worked(r.drive.Flush())
	}
}

func putNote(b []byte, round, cycle int, extent int64) {
	le := binary.LittleEndian
	le.PutUint64(b, noteMagic)
	le.PutUint64(b[8:], uint64(round))
	le.PutUint64(b[16:], uint64(cycle))
	le.PutUint64(b[24:], uint64(extent))
	le.PutUint64(b[32:], uint64(crc32.Checksum(b[:32], castagnoli)))
}

// readNote returns what a note says; ok is false where b holds none that could be of a disk of that size.
func readNote(b []byte, size int64) (round, cycle int, extent int64, ok bool) {
	le := binary.LittleEndian
	if len(b) < noteBytes || le.Uint64(b) != noteMagic || le.Uint64(b[32:]) != uint64(crc32.Checksum(b[:32], castagnoli)) {
		return 0, 0, 0, false
	}
	rounds, cycles, bytes := le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])
	if rounds > 1<<20 || cycles > 1<<40 || bytes < pieceBytes || bytes > extentBytes || bytes%pieceBytes != 0 || int64(bytes) > size-blockBytes {
		return 0, 0, 0, false
	}
	return int(rounds), int(cycles), int64(bytes), true
}

// leftovers zeroes what a run that was cut short has left.
func (r *diskRun) leftovers(ctx context.Context) error {
	b := disk.AlignedBytes(blockBytes)
	if _, err := r.drive.ReadAt(b, r.noteAt()); !r.worked(err) {
		return nil // an error for which it is not handed out
	}
	round, last, extent, ok := readNote(b, r.drive.Size())
	if !ok {
		return nil
	}
	n := (r.drive.Size() - blockBytes) / extent
	done := map[int64]bool{}
	for cycle := 0; cycle <= last && int64(len(done)) < n; cycle++ {
		at := extentOf(n, extent, round, cycle)
		if done[at] {
			continue
		}
		done[at] = true
		r.say.Progress(r.load.Stress, fmt.Sprintf("%s: zeroing what an earlier run left at %d MiB", r.component, at>>20))
		if err := r.drive.Zero(ctx, at, extent); err != nil {
			return fmt.Errorf("zero what an earlier run left: %w", err)
		}
		r.beats.Add(1)
	}
	if err := r.forget(ctx); err != nil {
		return err
	}
	r.say.Measured(fleet.Measured{Check: "disk-leftovers", Component: r.component, Value: float64(len(done)), N: 1, Engine: "builtin",
		Details: []string{fmt.Sprintf("%d extents of %d MiB that round %d of a run cut short had written read as zeros again", len(done), extent>>20, round)}})
	return nil
}

// forget removes the note, once nothing is left.
func (r *diskRun) forget(ctx context.Context) error {
	if err := r.drive.Zero(ctx, r.noteAt(), blockBytes); err != nil {
		return fmt.Errorf("remove the note of what was written: %w", err)
	}
	r.beats.Add(1)
	return nil
}
