// Package reach says, of everything that was observed of switches and fabrics, who can exchange a packet with whom.
package reach

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Owner is whose a port is: a lease, or one of the words below.
type Owner string

const (
	// Fabric is the owner of ports that serve all: subnet managers, gateways. Everybody may reach them.
	Fabric Owner = "fabric"
	// Quarantine is the owner of ports that nobody has. They may reach nobody, not even each other.
	Quarantine Owner = "quarantine"
)

// Port is one port with its owner.
type Port struct {
	// Device and Port name it as its view does.
	Device string
	Port   string
	Owner  Owner
}

// Segment is what two ports meet in.
type Segment struct {
	// Domain is where the tag counts: a fabric's name, or that of the switches that pass each other's VLANs on.
	Domain string
	VLAN   fleet.VLAN
	PKey   fleet.PKey
}

func (s Segment) String() string {
	if s.PKey != 0 {
		return fmt.Sprintf("partition %s of %s", s.PKey, s.Domain)
	}
	return fmt.Sprintf("VLAN %d of %s", s.VLAN, s.Domain)
}

// Meeting is two owners that can exchange a packet and must not, by one pair of ports that shows it.
type Meeting struct {
	A, B    Port
	Segment Segment
}

func (m Meeting) String() string {
	return fmt.Sprintf("%s (%s) and %s (%s) meet in %s", m.A.Port, m.A.Owner, m.B.Port, m.B.Owner, m.Segment)
}

// Observed is everything that was read.
type Observed struct {
	Views []fleet.WireView
	// Domains says which switches pass each other's VLANs on: a device that is not named is a domain of its own.
	Domains map[string]string
	// Owners are the ports that are known. A port that was seen and has no owner counts as one of its own, which may meet nobody but the fabric.
	Owners []Port
}

// side is what is in a segment: who may speak to whom depends on who is a full member.
type side struct {
	port Port
	full bool
	// protected ports of one device exchange nothing with each other.
	protected bool
}

// Check returns the meetings that must not be, one for each pair of owners and segment, in order. None is the proof, as far as what was read is true, that
// no two tenants can exchange a packet. Unread lists ports that are known and were not seen, or cannot be believed: of them nothing is proven.
func Check(o Observed) (meetings []Meeting, unread []Port) {
	owners := map[[2]string]Owner{}
	for _, p := range o.Owners {
		owners[[2]string{p.Device, p.Port}] = p.Owner
	}
	seen := map[[2]string]bool{}
	segments := map[Segment][]side{}
	for _, v := range o.Views {
		domain := cmp.Or(o.Domains[v.Device], v.Device)
		for _, pv := range v.Ports {
			at := [2]string{v.Device, pv.Port}
			owner, known := owners[at]
			if !known {
				owner = Owner("unknown " + v.Device + " " + pv.Port)
			}
			p := Port{v.Device, pv.Port, owner}
			if pv.Doubt != "" {
				continue
			}
			seen[at] = true
			for _, s := range sidesOf(domain, p, pv.Carries) {
				segments[s.segment] = append(segments[s.segment], s.side)
			}
		}
	}
	for s, sides := range segments {
		meetings = append(meetings, meet(s, sides)...)
	}
	for _, p := range o.Owners {
		if !seen[[2]string{p.Device, p.Port}] {
			unread = append(unread, p)
		}
	}
	slices.SortFunc(meetings, func(a, b Meeting) int { return strings.Compare(a.key(), b.key()) })
	slices.SortFunc(unread, comparePorts)
	return meetings, unread
}

func (m Meeting) key() string { return m.A.sort() + "\x00" + m.B.sort() + "\x00" + m.Segment.String() }

func (p Port) sort() string { return string(p.Owner) + "\x00" + p.Device + "\x00" + p.Port }

func comparePorts(a, b Port) int { return strings.Compare(a.sort(), b.sort()) }

type placed struct {
	segment Segment
	side    side
}

// sidesOf are the segments that a port is in. A port that is down is in none; all ports of a VLAN speak to each other, as full members do.
func sidesOf(domain string, p Port, c fleet.Carries) []placed {
	if c.Down {
		return nil
	}
	var out []placed
	if c.Untagged != 0 {
		out = append(out, placed{Segment{Domain: domain, VLAN: c.Untagged}, side{p, true, c.Protected}})
	}
	for _, v := range c.Tagged {
		if v != c.Untagged {
			out = append(out, placed{Segment{Domain: domain, VLAN: v}, side{p, true, c.Protected}})
		}
	}
	for _, m := range c.Partitions {
		out = append(out, placed{Segment{Domain: domain, PKey: m.PKey}, side{p, m.Full, false}})
	}
	return out
}

// meet finds the owners that can speak to each other in one segment: two full members, or a full and a limited one. One pair of ports stands for all of two
// owners, the first in order.
func meet(s Segment, sides []side) []Meeting {
	type membersOf struct {
		full, limited *Port
		// shut is the device whose protected ports are all that the owner has here; "" where it has any other.
		shut string
	}
	by := map[Owner]*membersOf{}
	var owners []Owner
	var quarantined []side
	slices.SortFunc(sides, func(a, b side) int { return comparePorts(a.port, b.port) })
	for _, x := range sides {
		if x.port.Owner == Quarantine {
			quarantined = append(quarantined, x)
		}
		m := by[x.port.Owner]
		if m == nil {
			m = &membersOf{shut: x.port.Device}
			by[x.port.Owner] = m
			owners = append(owners, x.port.Owner)
		}
		if !x.protected || m.shut != x.port.Device {
			m.shut = ""
		}
		if p := &x.port; x.full && m.full == nil {
			m.full = p
		} else if !x.full && m.limited == nil {
			m.limited = p
		}
	}
	var out []Meeting
	for i, a := range owners {
		for _, b := range owners[i+1:] {
			if a == Fabric || b == Fabric {
				continue
			}
			x, y := by[a], by[b]
			switch {
			case x.shut != "" && x.shut == y.shut:
			case x.full != nil && y.full != nil:
				out = append(out, Meeting{*x.full, *y.full, s})
			case x.full != nil && y.limited != nil:
				out = append(out, Meeting{*x.full, *y.limited, s})
			case x.limited != nil && y.full != nil:
				out = append(out, Meeting{*x.limited, *y.full, s})
			}
		}
	}
	// Ports in quarantine do not belong together.
	for i, x := range quarantined {
		for _, y := range quarantined[i+1:] {
			if x.full || y.full {
				return append(out, Meeting{x.port, y.port, s})
			}
		}
	}
	return out
}
