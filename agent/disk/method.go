package disk

import (
	"context"
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
		list = append(list, method{"nvme sanitize: crypto erase", Purge, false, sanitize(sanitizeCrypto)})
	}
	if c.SanBlock {
		list = append(list, method{"nvme sanitize: block erase", Purge, false, sanitize(sanitizeBlock)})
	}
	if c.SanCrypto || c.SanBlock || c.SanOver {
		if err := e.takeOver(ctx, list); err != nil {
			return nil, err
		}
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
	if e.policy.AcceptFormat && (c.EraseAll || !c.NamespaceManagement && c.Unallocated == 0) {
		claim = Purge // elsewhere a namespace may have been deleted, by a tenant or to restore what was accepted, and what it left behind is in none that is formatted
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
