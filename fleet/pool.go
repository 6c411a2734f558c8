package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// TagPool hands out VLANs or partition keys. One that was given back rests until every device was read without it and a while has passed: a write that
// another system held back, or a device that slept, would put the next tenant together with the last one.
type TagPool struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
	// Rest is how long one that was read clean everywhere stays unused.
	Rest time.Duration `json:"rest"`
	// Used maps each tag that is out to its owner.
	Used map[uint16]string `json:"used,omitempty"`
	// Resting are those that were given back.
	Resting []RestingTag `json:"resting,omitempty"`
}

// RestingTag is a tag that was given back.
type RestingTag struct {
	Tag   uint16    `json:"tag"`
	Freed time.Time `json:"freed"`
	// Unread are the devices that were not yet read clean since.
	Unread []string `json:"unread,omitempty"`
	// Clean is when the last of them was; zero before.
	Clean time.Time `json:"clean,omitzero"`
}

// Validate lists what is wrong with the pool's settings, for tags up to most.
func (p *TagPool) Validate(least, most uint16) []FieldError {
	var f faults
	f.check(p.First >= least && p.Last <= most && p.First <= p.Last, "first", fmt.Sprintf("to last is no range within %d and %d", least, most))
	f.check(p.Rest >= 0, "rest", "is negative")
	return f
}

// Take gives owner a tag that nobody has and that does not rest any more; what rested longest comes last. Unavailable where there is none.
func (p *TagPool) Take(owner string, now time.Time) (uint16, error) {
	resting := map[uint16]bool{}
	var rested []RestingTag
	for _, r := range p.Resting {
		resting[r.Tag] = true
		if len(r.Unread) == 0 && now.Sub(r.Clean) >= p.Rest {
			rested = append(rested, r)
		}
	}
	for t := int(p.First); t <= int(p.Last); t++ {
		if _, used := p.Used[uint16(t)]; !used && !resting[uint16(t)] {
			return p.give(uint16(t), owner), nil
		}
	}
	if len(rested) == 0 {
		return 0, Errorf(Unavailable, "MC-NET-POOL", "none of the %d tags of the pool %d to %d is free: %d are in use and %d rest",
			int(p.Last)-int(p.First)+1, p.First, p.Last, len(p.Used), len(p.Resting)).WithHint("metalctl partition list and metalctl network list show who has them, metalctl fabric list and metalctl switch list how many rest")
	}
	oldest := slices.MinFunc(rested, func(a, b RestingTag) int { return cmp.Or(a.Clean.Compare(b.Clean), cmp.Compare(a.Tag, b.Tag)) })
	p.Resting = slices.DeleteFunc(p.Resting, func(r RestingTag) bool { return r.Tag == oldest.Tag })
	return p.give(oldest.Tag, owner), nil
}

func (p *TagPool) give(tag uint16, owner string) uint16 {
	if p.Used == nil {
		p.Used = map[uint16]string{}
	}
	p.Used[tag] = owner
	return tag
}

// Free takes a tag back; it rests until each of the devices was read clean. A tag that nobody has is left as it is.
func (p *TagPool) Free(tag uint16, devices []string, now time.Time) {
	if _, used := p.Used[tag]; !used {
		return
	}
	delete(p.Used, tag)
	r := RestingTag{Tag: tag, Freed: now, Unread: slices.Clone(devices)}
	if len(devices) == 0 {
		r.Clean = now
	}
	p.Resting = append(p.Resting, r)
}

// Read notes what was read of a device: seen are the tags that any of its ports carries. A reading that began before a tag was freed proves nothing of it,
// and one that finds a resting tag makes it wait for that device again.
func (p *TagPool) Read(device string, seen []uint16, began time.Time) {
	for i := range p.Resting {
		r := &p.Resting[i]
		if began.Before(r.Freed) {
			continue
		}
		if slices.Contains(seen, r.Tag) {
			r.Clean = time.Time{}
			if !slices.Contains(r.Unread, device) {
				r.Unread = append(r.Unread, device)
			}
			continue
		}
		r.Unread = slices.DeleteFunc(r.Unread, func(d string) bool { return d == device })
		if len(r.Unread) == 0 && r.Clean.IsZero() {
			r.Clean = began
		}
	}
}

// Forget takes a device out of what tags wait for: it is no device of the pool any more.
func (p *TagPool) Forget(device string, now time.Time) {
	for i := range p.Resting {
		r := &p.Resting[i]
		r.Unread = slices.DeleteFunc(r.Unread, func(d string) bool { return d == device })
		if len(r.Unread) == 0 && r.Clean.IsZero() {
			r.Clean = now
		}
	}
}

// Check lists what is wrong with the pool's books: a tag out of range, or one that is in use and rests.
func (p *TagPool) Check() []FieldError {
	var f faults
	inRange := func(t uint16) bool { return t >= p.First && t <= p.Last }
	for t := range p.Used {
		f.check(inRange(t), "used", strconv.Itoa(int(t))+" is none of the pool's")
	}
	seen := map[uint16]bool{}
	for i, r := range p.Resting {
		at := "resting[" + strconv.Itoa(i) + "]"
		_, used := p.Used[r.Tag]
		f.check(inRange(r.Tag), at, strconv.Itoa(int(r.Tag))+" is none of the pool's")
		f.check(!used && !seen[r.Tag], at, strconv.Itoa(int(r.Tag))+" is in use, or rests twice")
		f.check(len(r.Unread) == 0 != r.Clean.IsZero(), at, "is clean and unread, or neither")
		seen[r.Tag] = true
	}
	slices.SortFunc(f, func(a, b FieldError) int {
		return cmp.Or(cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	return f
}

// Claim gives owner that very tag, where nobody has it and it does not rest any more.
func (p *TagPool) Claim(tag uint16, owner string, now time.Time) error {
	refuse := func(format string, args ...any) error {
		return Errorf(Conflict, "MC-NET-TAG", format, args...).WithHint("leave it out, and a free one is taken")
	}
	if tag < p.First || tag > p.Last {
		return refuse("%d (0x%04x) is not between %d (0x%04x) and %d (0x%04x)", tag, tag, p.First, p.First, p.Last, p.Last)
	}
	if by, used := p.Used[tag]; used {
		return refuse("%d (0x%04x) is that of %s", tag, tag, by)
	}
	i := slices.IndexFunc(p.Resting, func(r RestingTag) bool { return r.Tag == tag })
	if i >= 0 {
		if r := p.Resting[i]; len(r.Unread) > 0 || now.Sub(r.Clean) < p.Rest {
			return refuse("%d (0x%04x) was given back at %s and rests still", tag, tag, r.Freed.UTC().Format(time.TimeOnly))
		}
		p.Resting = slices.Delete(p.Resting, i, i+1)
	}
	p.give(tag, owner)
	return nil
}
