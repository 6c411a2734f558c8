package disk

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// managed is an NVMe drive of 1 GiB that manages its namespaces, with blocks of 512 and 4096 bytes and of 512 with metadata.
type managed struct {
	fixed    bool // has no namespace management
	forgets  bool // takes a creation and does nothing
	refuses  uint8
	sanitize uint8 // state of its log
	left     int
	list     []Namespace
	ops      []uint8
}

func (m *managed) NSID() uint32 { return 1 }

func (m *managed) Admin(_ context.Context, c Command) error {
	le := binary.LittleEndian
	if c.Opcode != opIdentify && c.Opcode != opLogPage {
		m.ops = append(m.ops, c.Opcode)
		if m.sanitize == sanRunning {
			return Status(0x1d)
		}
	}
	if m.refuses != 0 && m.refuses == c.Opcode {
		return Status(0x15)
	}
	at := func(id uint32) int { return slices.IndexFunc(m.list, func(n Namespace) bool { return n.ID == id }) }
	formats := func(b []byte) {
		b[25] = 2
		for i, f := range []uint32{9 << 16, 12 << 16, 9<<16 | 8} {
			le.PutUint32(b[128+4*i:], f)
		}
	}
	switch c.Opcode {
	case opIdentify:
		switch c.CDW10 {
		case 1:
			copy(c.Data[4:], "S1                  ")
			if !m.fixed {
				le.PutUint16(c.Data[256:], 2|8)
			}
			if m.sanitize != sanNever {
				le.PutUint32(c.Data[328:], 1)
			}
		case identifyActive, identifyAllocated:
			i := 0
			for _, n := range m.list {
				if c.CDW10 == identifyAllocated || !n.Detached {
					le.PutUint32(c.Data[4*i:], n.ID)
					i++
				}
			}
		case identifyNamespace, identifyAnyOne:
			formats(c.Data)
			if i := at(c.NSID); i >= 0 {
				n := m.list[i]
				le.PutUint64(c.Data, uint64(n.SizeBytes)/uint64(n.BlockBytes))
				if n.BlockBytes == 4096 {
					c.Data[26] = 1
				}
			}
		case identifyControllers:
			le.PutUint16(c.Data, 2)
			le.PutUint16(c.Data[2:], 7)
			le.PutUint16(c.Data[4:], 8)
		}
		return nil
	case opLogPage:
		if m.left--; m.left < 0 && m.sanitize == sanRunning {
			m.sanitize = sanDone
		}
		le.PutUint16(c.Data[2:], uint16(m.sanitize))
		return nil
	case opFormat:
		i := at(c.NSID)
		m.list[i].BlockBytes = []int{512, 4096, 520}[c.CDW10&0xf]
		return nil
	case opNamespaceManage:
		if c.CDW10 == 1 {
			m.list = slices.Delete(m.list, at(c.NSID), at(c.NSID)+1)
			return nil
		}
		block := []int{512, 4096, 520}[c.Data[26]&0xf]
		n := Namespace{SizeBytes: int64(le.Uint64(c.Data)) * int64(block), BlockBytes: block, Detached: true}
		free := int64(1 << 30)
		for _, x := range m.list {
			free -= x.SizeBytes
			n.ID = max(n.ID, x.ID)
		}
		n.ID++
		if n.SizeBytes > free {
			return Status(0x115)
		}
		*c.Result = n.ID
		if !m.forgets {
			m.list = append(m.list, n)
		}
		return nil
	case opNamespaceAttach:
		if got := le.Uint16(c.Data); got != 2 || le.Uint16(c.Data[2:]) != 7 || le.Uint16(c.Data[4:]) != 8 {
			return Status(0x11c)
		}
		if i := at(c.NSID); i >= 0 {
			m.list[i].Detached = false
		}
		return nil
	}
	return Status(1)
}

func TestNamespacesAreRestored(t *testing.T) {
	const half, whole = 1 << 29, 1 << 30
	ns := func(id uint32, size int64, block int) Namespace {
		return Namespace{ID: id, SizeBytes: size, BlockBytes: block}
	}
	detached := ns(1, whole, 512)
	detached.Detached = true
	one := []Namespace{{SizeBytes: whole, BlockBytes: 512}}
	two := []Namespace{{SizeBytes: half, BlockBytes: 512}, {SizeBytes: half, BlockBytes: 512}}
	for name, c := range map[string]struct {
		drive managed
		want  []Namespace
		ops   []uint8
		words string // of the failure
	}{
		"as accepted":                {managed{list: []Namespace{ns(1, whole, 512)}}, one, nil, ""},
		"as accepted, cannot manage": {managed{fixed: true, list: []Namespace{ns(1, whole, 512)}}, one, nil, ""},
		"split":                      {managed{list: []Namespace{ns(1, half, 512), ns(2, half, 512)}}, one, []uint8{opNamespaceManage, opNamespaceManage, opNamespaceManage, opNamespaceAttach}, ""},
		"joined":                     {managed{list: []Namespace{ns(1, whole, 512)}}, two, []uint8{opNamespaceManage, opNamespaceManage, opNamespaceManage, opNamespaceAttach, opNamespaceAttach}, ""},
		"one of two was resized":     {managed{list: []Namespace{ns(1, half, 512), ns(2, half/2, 512)}}, two, []uint8{opNamespaceManage, opNamespaceManage, opNamespaceAttach}, ""},
		"detached":                   {managed{list: []Namespace{detached}}, one, []uint8{opNamespaceAttach}, ""},
		"deleted":                    {managed{}, one, []uint8{opNamespaceManage, opNamespaceAttach}, ""},
		"another size of block":      {managed{list: []Namespace{ns(1, whole, 4096)}}, one, []uint8{opFormat}, ""},
		"a sanitize runs":            {managed{sanitize: sanRunning, left: 3}, one, []uint8{opNamespaceManage, opNamespaceAttach}, ""},
		"a sanitize never ends":      {managed{sanitize: sanRunning, left: 1 << 30}, one, nil, "the drive with the serial S1 in slot 3 is at 0 % of its sanitize"},
		"cannot manage":              {managed{fixed: true, list: []Namespace{ns(1, half, 512), ns(2, half, 512)}}, one, nil, "cannot create or delete any"},
		"refuses to delete":          {managed{refuses: opNamespaceManage, list: []Namespace{ns(1, half, 512)}}, one, []uint8{opNamespaceManage}, "serial S1 in slot 3 does not have the namespaces that were accepted: delete namespace 1"},
		"refuses to attach":          {managed{refuses: opNamespaceAttach}, one, []uint8{opNamespaceManage, opNamespaceAttach}, "attach namespace 1"},
		"takes it and forgets":       {managed{forgets: true}, one, []uint8{opNamespaceManage, opNamespaceAttach}, "the drive took every command and shows no namespace"},
		"a block that it has not":    {managed{}, []Namespace{{SizeBytes: whole, BlockBytes: 8192}}, nil, "no LBA format with blocks of 8192 bytes"},
		"more than it holds":         {managed{}, []Namespace{{SizeBytes: whole, BlockBytes: 512}, {SizeBytes: half, BlockBytes: 512}}, []uint8{opNamespaceManage, opNamespaceManage}, "create a namespace of 536870912 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &c.drive
			o := fastClock(EraseOptions{Admin: func(Device) (Admin, func() error, error) { return d, func() error { return nil }, nil }})
			out, err := RestoreNamespaces(t.Context(), Device{Path: "/dev/nvme0", Serial: "S1", Transport: "nvme", Place: "slot 3", SizeBytes: whole}, c.want, o)
			if (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) {
				t.Fatalf("got %v, want %q", err, c.words)
			}
			if diff := cmp.Diff(d.ops, c.ops); diff != "" {
				t.Errorf("commands (-got +want):\n%s", diff)
			}
			if err != nil {
				return
			}
			surplus, missing := compareNamespaces(d.list, c.want)
			if len(surplus)+len(missing) > 0 || slices.ContainsFunc(d.list, func(n Namespace) bool { return n.Detached }) || len(out.After) != len(c.want) {
				t.Errorf("it has %s, reported %+v", words(d.list), out)
			}
			if len(out.Did) != len(c.ops) {
				t.Errorf("did %q by %d commands", out.Did, len(c.ops))
			}
			if waited := strings.Contains(name, "sanitize"); waited != (out.Waited != "") {
				t.Errorf("waited: %q", out.Waited)
			}
		})
	}
	o := EraseOptions{Admin: func(Device) (Admin, func() error, error) { return &managed{}, func() error { return nil }, nil }}
	if _, err := RestoreNamespaces(t.Context(), Device{Serial: "S2"}, one, o); fleet.CodeOf(err) != "MC-ERASE-IDENTITY" {
		t.Errorf("another drive answers: %v", err)
	}
}
