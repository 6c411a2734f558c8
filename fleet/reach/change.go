package reach

import (
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Pair is two ports that can exchange a packet in a segment; A comes before B.
type Pair struct {
	A, B    string
	Segment Segment
}

// Change says which pairs of a device's ports can exchange a packet only with what changes, and which only without. name is how a port is called in the
// answer; ports of one name make no pair, and pairs of equal names are told once.
func Change(v fleet.WireView, changes []fleet.WireChange, name func(port string) string) (gained, lost []Pair) {
	before, after := map[string]fleet.Carries{}, map[string]fleet.Carries{}
	for _, p := range v.Ports {
		if p.Doubt == "" {
			before[p.Port], after[p.Port] = p.Carries, p.Carries
		}
	}
	for _, c := range changes {
		after[c.Port] = c.To
	}
	seen := map[Pair]bool{}
	for _, c := range changes {
		for other := range after {
			a, b := name(c.Port), name(other)
			if a == b {
				continue
			}
			was, will := meetIn(v.Device, before[c.Port], before[other]), meetIn(v.Device, after[c.Port], after[other])
			a, b = min(a, b), max(a, b)
			for _, k := range will {
				if x := (Pair{a, b, k}); !slices.Contains(was, k) && !seen[x] {
					seen[x] = true
					gained = append(gained, x)
				}
			}
			for _, k := range was {
				if x := (Pair{a, b, k}); !slices.Contains(will, k) && !seen[x] {
					seen[x] = true
					lost = append(lost, x)
				}
			}
		}
	}
	sortPairs(gained)
	sortPairs(lost)
	return gained, lost
}

// meetIn are the segments in which two ports can exchange a packet: one of the two is a full member.
func meetIn(device string, a, b fleet.Carries) []Segment {
	var out []Segment
	theirs := sidesOf(device, Port{}, b)
	for _, m := range sidesOf(device, Port{}, a) {
		if !(a.Protected && b.Protected) && slices.ContainsFunc(theirs, func(x placed) bool { return x.segment == m.segment && (x.side.full || m.side.full) }) {
			out = append(out, m.segment)
		}
	}
	return out
}

func (p Pair) String() string { return p.A + " and " + p.B + " in " + p.Segment.String() }

func sortPairs(pairs []Pair) {
	slices.SortFunc(pairs, func(a, b Pair) int { return strings.Compare(a.String(), b.String()) })
}
