package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

const (
	opNamespaceManage = 0x0d
	opNamespaceAttach = 0x15

	identifyNamespace   = 0x00
	identifyActive      = 0x02
	identifyAllocated   = 0x10
	identifyAnyOne      = 0x11 // an allocated namespace, attached or not
	identifyControllers = 0x13

	manageTimeout = 2 * time.Minute // creating and deleting may write tables over all of the media
)

// Namespace is one namespace of an NVMe drive.
type Namespace struct {
	ID        uint32 `json:"id,omitempty"`
	SizeBytes int64  `json:"size_bytes"`
	// BlockBytes is the size of a logical block.
	BlockBytes int `json:"block_bytes"`
	// Detached: it is there, and no controller shows it.
	Detached bool `json:"detached,omitempty"`
}

func (n Namespace) same(o Namespace) bool {
	return n.SizeBytes == o.SizeBytes && n.BlockBytes == o.BlockBytes
}

// Restored is what became of the namespaces of one drive.
type Restored struct {
	Serial string      `json:"serial"`
	Place  string      `json:"place,omitempty"`
	Before []Namespace `json:"before"`
	After  []Namespace `json:"after,omitempty"`
	// Did are the commands that changed something, in words; none where all was as it should be.
	Did []string `json:"did,omitempty"`
	// Waited says what was found of a sanitize of before.
	Waited string `json:"waited,omitempty"`
}

// RestoreNamespaces brings a drive back to the namespaces that it is wanted to have, in number, size and size of block: what is not wanted is deleted, what is
// missing is created, all are attached, and the whole is read back. What is as wanted is not touched. dev is the drive by any of its names; o.Admin opens it.
// A drive that cannot be brought there is MC-NVME-NAMESPACES.
func RestoreNamespaces(ctx context.Context, dev Device, want []Namespace, o EraseOptions) (out Restored, err error) {
	out = Restored{Serial: dev.Serial, Place: dev.Place}
	o = o.filled()
	admin, closeAdmin, err := o.Admin(dev)
	if err != nil {
		return out, fmt.Errorf("namespaces of %s: %w", dev, err)
	}
	defer func() { err = errors.Join(err, closeAdmin()) }()
	c, err := identifyController(ctx, admin)
	if err != nil {
		return out, fmt.Errorf("namespaces of %s: %w", dev, err)
	}
	if c.Serial != dev.Serial {
		return out, fleet.Errorf(fleet.Refused, "MC-ERASE-IDENTITY", "%s answers as serial %s: not touched", dev, c.Serial).WithHint("metalctl node inspect NODE")
	}
	r := &restorer{admin: admin, c: c, out: &out}
	if out.Before, err = r.list(ctx); err != nil {
		return out, r.fail(dev, err)
	}
	if r.reached(out.Before, want) {
		out.After = out.Before
		return out, nil
	}
	if c.SanCrypto || c.SanBlock || c.SanOver {
		e := &eraser{h: &handle{dev: dev, size: dev.SizeBytes}, admin: admin, policy: o.Policy, now: o.Now, wait: o.Wait}
		e.meter = newMeter("erase", dev.SizeBytes, Options{Now: o.Now, Progress: func(p Progress) {
			if o.Progress != nil {
				o.Progress(dev, p)
			}
		}})
		if err := e.takeOver(ctx, nil); err != nil {
			return out, err
		}
		out.Waited = e.evidence.TakenOver
	}
	if err := r.restore(ctx, out.Before, want); err != nil {
		return out, r.fail(dev, err)
	}
	if out.After, err = r.list(ctx); err != nil {
		return out, r.fail(dev, err)
	}
	if !r.reached(out.After, want) {
		return out, r.fail(dev, fmt.Errorf("the drive took every command and shows %s, wanted are %s", words(out.After), words(want)))
	}
	return out, nil
}

type restorer struct {
	admin Admin
	c     controller
	out   *Restored
}

func (r *restorer) fail(dev Device, err error) error {
	at := dev.Place
	if at == "" {
		at = dev.Path
	}
	return fleet.Errorf(fleet.Broken, "MC-NVME-NAMESPACES", "the drive with the serial %s in %s does not have the namespaces that were accepted: %w", dev.Serial, at, err).
		WithHint("metalctl node show NODE; where they are meant to be so: metalctl node inspect NODE, then: metalctl node accept NODE")
}

// reached reports whether the namespaces are those that are wanted, all of them attached.
func (r *restorer) reached(have, want []Namespace) bool {
	surplus, missing := compareNamespaces(have, want)
	return len(surplus)+len(missing) == 0 && !slices.ContainsFunc(have, func(n Namespace) bool { return n.Detached })
}

// compareNamespaces says which of have are not wanted, and which that are wanted are not there.
func compareNamespaces(have, want []Namespace) (surplus, missing []Namespace) {
	missing = slices.Clone(want)
	for _, n := range have {
		if i := slices.IndexFunc(missing, n.same); i >= 0 {
			missing = slices.Delete(missing, i, i+1)
			continue
		}
		surplus = append(surplus, n)
	}
	return surplus, missing
}

// list reads all namespaces of the drive, those that no controller shows, too.
func (r *restorer) list(ctx context.Context) ([]Namespace, error) {
	active, all, err := namespaces(ctx, r.admin, r.c)
	if err != nil {
		return nil, err
	}
	cns := uint32(identifyNamespace)
	if r.c.NamespaceManagement {
		cns = identifyAnyOne
	}
	out := []Namespace{}
	for _, id := range all {
		b := AlignedBytes(4096)
		if err := r.admin.Admin(ctx, Command{Opcode: opIdentify, NSID: id, CDW10: cns, Data: b}); err != nil {
			return nil, fmt.Errorf("identify namespace %d: %w", id, err)
		}
		blocks, shift := binary.LittleEndian.Uint64(b), lbaShift(b, int(b[26]&0xf|b[26]>>1&0x30))
		if shift < 9 || shift > 16 || blocks > 1<<62>>shift {
			return nil, fmt.Errorf("namespace %d says that it has %d blocks of 2^%d bytes", id, blocks, shift)
		}
		out = append(out, Namespace{ID: id, SizeBytes: int64(blocks << shift), BlockBytes: 1 << shift, Detached: !slices.Contains(active, id)})
	}
	return out, nil
}

// lbaShift is the size of a block of an LBA format, as a power of two (Identify Namespace, bytes 128 and on; at most 64 formats).
func lbaShift(identify []byte, format int) uint { return uint(identify[128+4*format+2]) }

// lbaFormat finds the format with that size of block and no metadata.
func (r *restorer) lbaFormat(ctx context.Context, block int) (int, error) {
	b := AlignedBytes(4096)
	// The formats that any namespace of the drive may have are those of the common namespace, where the drive manages namespaces.
	nsid := uint32(nsidAll)
	if !r.c.NamespaceManagement {
		nsid = r.admin.NSID()
	}
	if err := r.admin.Admin(ctx, Command{Opcode: opIdentify, NSID: nsid, CDW10: identifyNamespace, Data: b}); err != nil {
		return 0, fmt.Errorf("identify the drive's LBA formats: %w", err)
	}
	for i := range min(int(b[25])+1, 64) {
		if binary.LittleEndian.Uint16(b[128+4*i:]) == 0 && 1<<lbaShift(b, i) == block {
			return i, nil
		}
	}
	return 0, fmt.Errorf("the drive has no LBA format with blocks of %d bytes", block)
}

func (r *restorer) restore(ctx context.Context, have, want []Namespace) error {
	surplus, missing := compareNamespaces(have, want)
	if len(surplus) == 1 && len(missing) == 1 && surplus[0].SizeBytes == missing[0].SizeBytes && r.c.Format && !surplus[0].Detached {
		return r.format(ctx, surplus[0], missing[0])
	}
	if !r.c.NamespaceManagement {
		return fmt.Errorf("it has %s, and cannot create or delete any", words(have))
	}
	controllers, err := r.controllers(ctx)
	if err != nil {
		return err
	}
	for _, n := range surplus {
		if err := r.admin.Admin(ctx, Command{Opcode: opNamespaceManage, NSID: n.ID, CDW10: 1, Timeout: manageTimeout}); err != nil {
			return fmt.Errorf("delete namespace %d: %w", n.ID, err)
		}
		r.did("deleted namespace %d of %s", n.ID, words([]Namespace{n}))
	}
	var attach []uint32
	for _, n := range have {
		if n.Detached && !slices.ContainsFunc(surplus, func(s Namespace) bool { return s.ID == n.ID }) {
			attach = append(attach, n.ID)
		}
	}
	for _, n := range missing {
		id, err := r.create(ctx, n)
		if err != nil {
			return err
		}
		attach = append(attach, id)
	}
	for _, id := range attach {
		b := AlignedBytes(4096)
		binary.LittleEndian.PutUint16(b, uint16(len(controllers)))
		for i, c := range controllers {
			binary.LittleEndian.PutUint16(b[2+2*i:], c)
		}
		if err := r.admin.Admin(ctx, Command{Opcode: opNamespaceAttach, NSID: id, Data: b, Timeout: manageTimeout}); err != nil {
			return fmt.Errorf("attach namespace %d: %w", id, err)
		}
		r.did("attached namespace %d", id)
	}
	return nil
}

func (r *restorer) did(format string, args ...any) {
	r.out.Did = append(r.out.Did, fmt.Sprintf(format, args...))
}

// format gives a namespace another size of block; its size in bytes stays.
func (r *restorer) format(ctx context.Context, n, want Namespace) error {
	f, err := r.lbaFormat(ctx, want.BlockBytes)
	if err != nil {
		return err
	}
	if err := r.admin.Admin(ctx, Command{Opcode: opFormat, NSID: n.ID, CDW10: uint32(f)&0xf | uint32(f)>>4&3<<12, Timeout: 8 * time.Hour}); err != nil {
		return fmt.Errorf("format namespace %d with blocks of %d bytes: %w", n.ID, want.BlockBytes, err)
	}
	r.did("formatted namespace %d with blocks of %d bytes in place of %d", n.ID, want.BlockBytes, n.BlockBytes)
	return nil
}

// create makes a namespace and returns its id.
func (r *restorer) create(ctx context.Context, n Namespace) (uint32, error) {
	f, err := r.lbaFormat(ctx, n.BlockBytes)
	if err != nil {
		return 0, err
	}
	b := AlignedBytes(4096)
	binary.LittleEndian.PutUint64(b, uint64(n.SizeBytes)/uint64(n.BlockBytes))     // NSZE
	binary.LittleEndian.PutUint64(b[8:], uint64(n.SizeBytes)/uint64(n.BlockBytes)) // NCAP
	b[26] = byte(f&0xf | f>>4&3<<5)
	var id uint32
	if err := r.admin.Admin(ctx, Command{Opcode: opNamespaceManage, Data: b, Result: &id, Timeout: manageTimeout}); err != nil {
		return 0, fmt.Errorf("create a namespace of %s: %w", words([]Namespace{n}), err)
	}
	r.did("created namespace %d of %s", id, words([]Namespace{n}))
	return id, nil
}

// controllers are all of the drive's, so that a drive with two ports shows its namespaces at both.
func (r *restorer) controllers(ctx context.Context) ([]uint16, error) {
	b := AlignedBytes(4096)
	if err := r.admin.Admin(ctx, Command{Opcode: opIdentify, CDW10: identifyControllers, Data: b}); err != nil {
		return nil, fmt.Errorf("list the drive's controllers: %w", err)
	}
	n := int(binary.LittleEndian.Uint16(b))
	if n == 0 || n > 2047 {
		return nil, fmt.Errorf("the drive says that it has %d controllers", n)
	}
	out := make([]uint16, n)
	for i := range out {
		out[i] = binary.LittleEndian.Uint16(b[2+2*i:])
	}
	return out, nil
}

// words counts namespaces by size and block.
func words(list []Namespace) string {
	if len(list) == 0 {
		return "no namespace"
	}
	out := ""
	for i, n := range list {
		if i > 0 {
			out += ", "
		}
		out += fmt.Sprintf("%d bytes in blocks of %d", n.SizeBytes, n.BlockBytes)
		if n.Detached {
			out += " (detached)"
		}
	}
	return out
}
