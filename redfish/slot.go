package redfish

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/stmcginnis/gofish/schemas"
)

// slot is one virtual media device with what is needed to judge and use it.
type slot struct {
	uri      string
	res      *resource
	media    *schemas.VirtualMedia
	insert   string // target of InsertMedia, or ""
	action   map[string]any
	inSystem bool
	score    int
	// unfit says why a slot is never used; empty for one that may be.
	unfit string
	why   []string
}

// collections are the virtual media collections of the host and of its managers; the flag tells the host's.
func (b *BMC) mediaCollections(ctx context.Context) (uris []string, inSystem map[string]bool, err error) {
	s, err := b.look(ctx)
	if err != nil {
		return nil, nil, err
	}
	inSystem = map[string]bool{}
	host, err := b.get(ctx, s.host)
	if err != nil {
		return nil, nil, explain(err, "read the host system")
	}
	if l := host.link("VirtualMedia"); l != "" {
		uris, inSystem[l] = append(uris, l), true
	}
	for _, m := range s.managers {
		r, err := b.get(ctx, m)
		if err != nil {
			return nil, nil, explain(err, "read the manager")
		}
		if l := r.link("VirtualMedia"); l != "" && !slices.Contains(uris, l) {
			uris = append(uris, l)
		}
	}
	return uris, inSystem, nil
}

// slots reads all slots, merged by URI and ranked: the best first, the unfit last.
func (b *BMC) slots(ctx context.Context) ([]*slot, error) {
	uris, inSystem, err := b.mediaCollections(ctx)
	if err != nil {
		return nil, err
	}
	var all []*slot
	seen := map[string]bool{}
	for _, c := range uris {
		members, err := b.members(ctx, c)
		if err != nil {
			if s := statusOf(err); s >= 400 && s < 500 && s != 401 {
				b.log().DebugContext(ctx, "a virtual media collection cannot be read", "uri", c, "err", err)
				continue
			}
			return nil, explain(err, "list virtual media")
		}
		for _, uri := range members {
			if seen[uri] {
				continue
			}
			seen[uri] = true
			r, err := b.get(ctx, uri)
			if err != nil {
				if s := statusOf(err); s >= 400 && s < 500 && s != 401 {
					all = append(all, &slot{uri: uri, unfit: fmt.Sprintf("answers %d", s)})
					continue
				}
				return nil, explain(err, "read a virtual media slot")
			}
			all = append(all, b.slotOf(r, inSystem[c]))
		}
	}
	b.mu.Lock()
	remembered := b.learned.Slot
	b.mu.Unlock()
	for _, s := range all {
		if s.unfit == "" && s.uri == remembered {
			s.score += 200
			s.why = append(s.why, "worked before")
		}
	}
	slices.SortStableFunc(all, func(x, y *slot) int {
		if (x.unfit == "") != (y.unfit == "") {
			if x.unfit == "" {
				return -1
			}
			return 1
		}
		return y.score - x.score
	})
	return all, nil
}

// slotOf judges one slot. Reasons: only CD and DVD start a UEFI host from an ISO everywhere; the system's slots outlive the
// manager's shadows of them (iDRAC9 6.00); an InsertMedia action beats a PATCH; a slot that somebody holds is not taken while
// another is free.
func (b *BMC) slotOf(r *resource, inSystem bool) *slot {
	p := b.profile()
	s := &slot{uri: r.uri, res: r, media: typed[schemas.VirtualMedia](r), inSystem: inSystem}
	s.insert, s.action = r.action("VirtualMedia.InsertMedia")
	add := func(n int, why string) {
		s.score += n
		s.why = append(s.why, why)
	}
	types := r.strs("MediaTypes")
	switch {
	case slices.Contains(types, "CD"):
		add(50, "takes CD")
	case slices.Contains(types, "DVD"):
		add(45, "takes DVD")
	case len(types) == 0:
		add(10, "does not say what it takes")
	default:
		s.unfit = "takes only " + clean(strings.Join(types, ", "))
	}
	if inSystem != p.ManagerMediaFirst {
		add(20, "belongs to the system")
	}
	switch {
	case s.insert != "":
		add(30, "has InsertMedia")
	case r.has("Image") && (r.allow == "" || strings.Contains(strings.ToUpper(r.allow), "PATCH")):
		add(5, "takes a PATCH")
	default:
		s.unfit = first(s.unfit, "has no way to insert")
	}
	switch p.SlotBias(s.uri) {
	case 1:
		add(15, "is the vendor's slot for URLs")
	case -1:
		if s.insert == "" {
			s.unfit = first(s.unfit, "does not take URLs on this BMC")
		} else {
			add(-25, "is not the vendor's slot for CDs")
		}
	}
	if s.media.ConnectedVia == schemas.AppletConnectedVia {
		add(-60, "is held by a remote console")
	} else if s.occupied(p.EmptyByConnection) {
		add(-10, "holds an image")
	}
	return s
}

// occupied reports whether something is in the slot. Supermicro keeps Image after an eject, ConnectedVia tells there; elsewhere
// Inserted rules, and where it is missing Image does.
func (s *slot) occupied(byConnection bool) bool {
	if s.res == nil {
		return false
	}
	if byConnection && s.media.ConnectedVia != "" {
		return s.media.ConnectedVia != schemas.NotConnectedConnectedVia
	}
	if in, ok := s.res.boolean("Inserted"); ok {
		return in
	}
	return s.media.Image != ""
}

// schemes are the URL schemes that a slot takes, in lower case; nil: unknown.
func (s *slot) schemes(info actionInfo, fromProfile []string) []string {
	allowed := info.values("TransferProtocolType")
	if allowed == nil {
		allowed = s.res.strs("TransferProtocolType@Redfish.AllowableValues")
	}
	if allowed == nil {
		return fromProfile
	}
	var all []string
	for _, a := range allowed {
		all = append(all, strings.ToLower(a))
	}
	return all
}

func schemeOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Scheme)
}
