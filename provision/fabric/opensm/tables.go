package opensm

import (
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/fabric"
)

// Port is a port that the subnet manager sees.
type Port struct {
	GUID fleet.GUID
	Type fabric.NodeType
}

// table is what a port shall hold: whether it is a full member, by key.
type table struct {
	keys   map[uint16]bool
	index0 uint16
}

// Tables says what the ports come to hold when the subnet manager at self reads the file. Ports that the fabric does not have are passed over.
func (f *File) Tables(ports []Port, self fleet.GUID) map[fleet.GUID]fleet.Carries {
	t := map[fleet.GUID]*table{}
	for _, p := range ports {
		t[p.GUID] = &table{keys: map[uint16]bool{uint16(fleet.DefaultPKey): p.GUID == self}}
	}
	for _, e := range f.entries {
		switch {
		case e.self:
			t[self].add(e)
		case e.guid != 0:
			t[fleet.GUIDOf(e.guid)].add(e)
		default:
			for _, p := range ports {
				if e.kind == 0 || e.kind == p.Type {
					t[p.GUID].add(e)
				}
			}
		}
	}
	return carried(t)
}

// add is osm_prtn_add_port: the last line that names a port decides.
func (t *table) add(e entry) {
	if t == nil {
		return
	}
	t.keys[e.part.key] = e.member != limited
	if e.index0 {
		t.index0 = e.part.key
	} else if t.index0 == e.part.key {
		t.index0 = 0
	}
}

// FailedOpen is what ports come to hold where the file is missing or bad.
func FailedOpen(ports []Port) map[fleet.GUID]fleet.Carries {
	t := map[fleet.GUID]*table{}
	for _, p := range ports {
		t[p.GUID] = &table{keys: map[uint16]bool{uint16(fleet.DefaultPKey): true}}
	}
	return carried(t)
}

func carried(t map[fleet.GUID]*table) map[fleet.GUID]fleet.Carries {
	out := make(map[fleet.GUID]fleet.Carries, len(t))
	for g, x := range t {
		c := fleet.Carries{Index0: fleet.PKey(x.index0)}
		for k, isFull := range x.keys {
			c.Partitions = append(c.Partitions, fleet.Membership{PKey: fleet.PKey(k), Full: isFull})
		}
		slices.SortFunc(c.Partitions, func(a, b fleet.Membership) int { return int(a.PKey) - int(b.PKey) })
		out[g] = c
	}
	return out
}
