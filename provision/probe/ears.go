package probe

import (
	"cmp"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

// kind is what frames have in common that are counted together.
type kind struct {
	from        uint16
	sent, heard fleet.FrameTag
}

// ears count what was heard at one interface in one round.
type ears map[kind]*fleet.ProbeHeard

// maxKinds bounds what one round can make an interface remember: each of a few senders may be heard with each tag.
const maxKinds = 1 << 15

// hear counts a frame. One that comes twice is one; one with a tag that names no VLAN has none.
func (e ears) hear(f frame, tag fleet.FrameTag) {
	if tag == fleet.PriorityTag {
		tag = fleet.Untagged
	}
	k := kind{f.from, f.sent, tag}
	h := e[k]
	burst := int(f.burst)
	switch {
	case h == nil && len(e) < maxKinds:
		e[k] = &fleet.ProbeHeard{From: int(f.from), Sent: f.sent, Heard: tag, Count: 1, First: burst, Last: burst}
	case h != nil && burst > h.Last:
		h.Count, h.Last = h.Count+1, burst
	}
}

// enough is how many bursts of a sender are heard before what was not heard counts as silence: frames of one burst may overtake each other, and those of the burst
// after the next do not.
const enough = 3

// often reports whether frames were heard in enough bursts.
func (e ears) often(k kind) bool {
	h := e[k]
	return h != nil && h.Count >= enough
}

// list is what was heard, in order.
func (e ears) list() []fleet.ProbeHeard {
	out := make([]fleet.ProbeHeard, 0, len(e))
	for _, h := range e {
		out = append(out, *h)
	}
	slices.SortFunc(out, func(a, b fleet.ProbeHeard) int {
		return cmp.Or(a.From-b.From, int(a.Sent-b.Sent), int(a.Heard-b.Heard))
	})
	return out
}

// heardBy makes ears of what somebody reports.
func heardBy(list []fleet.ProbeHeard) ears {
	e := ears{}
	for _, h := range list {
		e[kind{uint16(h.From), h.Sent, h.Heard}] = &h
	}
	return e
}
