package disk

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Claim is what an erasure can be said to be (NIST SP 800-88); the order of strength is clear, purge.
type Claim string

// The claims.
const (
	Clear Claim = "clear"
	Purge Claim = "purge"
)

// method is one way to erase a disk. run leaves all of the disk without its old contents, or fails.
type method struct {
	name  string
	claim Claim
	// zeros: everything must read as zeros after it; else constant or random contents are what a crypto erase leaves.
	zeros bool
	run   func(ctx context.Context, e *eraser) error
}

// methods lists what the disk can do, best first. It trusts what the drive advertises, never that a command succeeds: drives (and QEMU) accept a
// cryptographic Format that they do not implement.
func (e *eraser) methods(ctx context.Context) ([]method, error) {
	zero := method{"zeros", Clear, true, zeroAll}
	if e.admin == nil {
		return []method{zero}, nil
	}
	c, err := identifyController(ctx, e.admin)
	if err != nil {
		return nil, err
	}
	if c.Serial != "" && e.h.dev.Serial != "" && c.Serial != e.h.dev.Serial {
		return nil, fleet.Errorf(fleet.Refused, "MC-ERASE-IDENTITY", "%s answers as serial %s: not touched", e.h.dev, c.Serial).WithHint("metalctl node inspect NODE")
	}
	e.evidence.Model, e.evidence.Firmware = c.Model, c.Firmware
	var list []method
	if c.SanCrypto {
		list = append(list, method{"nvme sanitize: crypto erase", Purge, false, sanitize(4, 2)})
	}
	if c.SanBlock {
		list = append(list, method{"nvme sanitize: block erase", Purge, false, sanitize(2, 1)})
	}
	active, allocated, err := namespaces(ctx, e.admin, c)
	if err != nil {
		return nil, err
	}
	for _, id := range allocated {
		if !slices.Contains(active, id) && len(list) == 0 {
			return nil, fleet.Errorf(fleet.Refused, "MC-ERASE-DETACHED", "%s: namespace %d is allocated but not attached, and the drive has no sanitize that would reach it", e.h.dev, id).
				WithHint("attach or delete the namespace (nvme attach-ns, nvme delete-ns) and clean again")
		}
	}
	// A Format that reaches other namespaces, too, is only chosen where there are none.
	alone := len(active) == 1
	claim := Clear
	if e.policy.AcceptFormat && (c.EraseAll || c.Unallocated == 0) {
		claim = Purge // what a deleted namespace left behind would be in no namespace that is formatted
	}
	if c.Format && c.Crypto && (alone || !c.EraseAll) {
		list = append(list, method{"nvme format: crypto erase", claim, false, format(2)})
	}
	if c.Format && (alone || !c.EraseAll && !c.FormatAll) {
		list = append(list, method{"nvme format: user data erase", claim, false, format(1)})
	}
	return append(list, zero), nil
}

// zeroAll overwrites the disk with zeros by the kernel's or the drive's own command.
func zeroAll(ctx context.Context, e *eraser) error {
	return e.h.clear(ctx, 0, e.h.size, e.meter.add)
}

// clear zeroes without unmapping: on a block device the drive is told to write zeros, or they are written.
func (h *handle) clear(ctx context.Context, off, n int64, done func(int64)) error {
	if !h.block {
		return h.zero(ctx, off, n, done)
	}
	const step = 256 << 20
	for end := off + n; off < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		k := min(step, end-off)
		err := blkzeroout(h.f.Fd(), off, k)
		if err != nil && unsupported(err) {
			err = h.overwrite(off, k)
		}
		if err != nil {
			return fmt.Errorf("zero %d bytes at %d of %s: %w", k, off, h.dev, err)
		}
		off += k
		done(k)
	}
	return nil
}

func format(ses uint32) func(context.Context, *eraser) error {
	return func(ctx context.Context, e *eraser) error {
		lbaf, err := formatOf(ctx, e.admin)
		if err != nil {
			return err
		}
		cdw10 := lbaf | ses<<9
		e.evidence.CDW10 = fmt.Sprintf("%#08x", cdw10)
		return e.admin.Admin(ctx, Command{Opcode: opFormat, NSID: e.admin.NSID(), CDW10: cdw10, Timeout: 8 * time.Hour})
	}
}

// sanitize starts the action and waits for its end; estimate is the index of the drive's own estimate in the log.
func sanitize(action uint32, estimate int) func(context.Context, *eraser) error {
	return func(ctx context.Context, e *eraser) error {
		before, err := e.settled(ctx)
		if err != nil {
			return err
		}
		e.evidence.CDW10, e.evidence.LogBefore = fmt.Sprintf("%#08x", action), hex.EncodeToString(before.raw)
		if err := e.admin.Admin(ctx, Command{Opcode: opSanitize, CDW10: action}); err != nil {
			return err
		}
		limit := deadline(before.estimate[estimate], action)
		// From here on only the drive can end it: an abort of ours must not leave a half sanitized drive in anybody's hands.
		ctx = context.WithoutCancel(ctx)
		ran := false
		for start := e.now(); ; {
			log, err := readSanitizeLog(ctx, e.admin)
			if err != nil {
				return err
			}
			e.evidence.LogAfter = hex.EncodeToString(log.raw)
			switch log.state {
			case sanRunning:
				ran = true
				e.meter.set(int64(float64(e.h.size) * float64(log.progress) / 65536))
			case sanFailed:
				return errors.New("the drive reports that the sanitize failed")
			case sanDone, sanDoneDe:
				if log.command != action {
					return fmt.Errorf("the log is about command %#x, not ours (%#x)", log.command, action)
				}
				if !ran && hex.EncodeToString(before.raw) == e.evidence.LogAfter {
					return errors.New("the log did not change: nothing shows that the drive did anything")
				}
				return nil
			}
			if e.now().Sub(start) > limit {
				return fmt.Errorf("the sanitize is not done after %s", limit)
			}
			if err := e.wait(ctx, time.Second); err != nil {
				return err
			}
		}
	}
}

// settled waits for a sanitize that somebody started before: it survives resets and power cycles.
func (e *eraser) settled(ctx context.Context) (sanitizeLog, error) {
	for start := e.now(); ; {
		log, err := readSanitizeLog(ctx, e.admin)
		if err != nil || log.state != sanRunning {
			return log, err
		}
		if e.now().Sub(start) > deadline(log.estimate[0], log.command&7) {
			return log, errors.New("a sanitize of before is still running")
		}
		if err := e.wait(ctx, time.Second); err != nil {
			return log, err
		}
	}
}

// deadline is twice the drive's own estimate in seconds; where it gives none, ten minutes for a crypto erase and four hours for others.
func deadline(seconds, action uint32) time.Duration {
	switch {
	case seconds != 0 && seconds != 0xffffffff:
		return 2*time.Duration(seconds)*time.Second + time.Minute
	case action == 4:
		return 10 * time.Minute
	}
	return 4 * time.Hour
}
