package reconcile

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/allocate"
	"github.com/metalctl/metalctl/fleet/api"
)

// checkCount checks what belongs to a request that counts, and that it does not name nodes as well.
func (d *draft) checkCount(r fleet.LeaseRequest) {
	if r.Count == 0 {
		if len(r.Nodes) == 0 {
			d.wrong("nodes", "names no node, and count is 0")
		}
		for field, given := range map[string]bool{"class": r.Class != "", "topology": r.Topology != "", "selector": r.Selector != ""} {
			if given {
				d.wrong(field, "goes with count")
			}
		}
		return
	}
	if r.Count < 0 || r.Count > maxMembers {
		d.wrong("count", "%d is not between 1 and %d", r.Count, maxMembers)
	}
	if len(r.Nodes) > 0 {
		d.wrong("nodes", "does not go with count")
	}
	if r.Class == "" {
		d.wrong("class", "says which nodes are counted, and is missing")
	}
	if r.Topology != "" && !r.Topology.Valid() {
		d.wrong("topology", "%q is none of %s", r.Topology, fleet.TopologyNames())
	}
	if _, err := fleet.ParseSelector(r.Selector); err != nil {
		d.wrong("selector", "%v", err)
	}
}

func ofClass(r fleet.LeaseRequest) string {
	if r.Count == 0 {
		return ""
	}
	return " of class " + r.Class
}

// draftChoice chooses the nodes of a request that counts.
func (l *Loop) draftChoice(s fleet.Snapshot, d *draft, now time.Time) error {
	r := d.lease.Request
	class, err := seen[fleet.Class](s, fleet.KeyOf(fleet.KindClass, r.Class))
	if err != nil {
		return err
	}
	if class == nil {
		d.wrong("class", "there is no class %q", r.Class)
		return nil
	}
	all, err := l.candidates(s, *class, r)
	if err != nil {
		return err
	}
	selector, err := fleet.ParseSelector(r.Selector)
	if err != nil {
		return err
	}
	d.choice = allocate.Choose(all, allocate.Request{Count: r.Count, Class: r.Class, Topology: r.Topology, Selector: selector, Options: true}, now)
	return nil
}

// candidates are the nodes of a class, with what decides whether each can be handed out at this snapshot.
func (l *Loop) candidates(s fleet.Snapshot, class fleet.Class, r fleet.LeaseRequest) ([]allocate.Candidate, error) {
	site, err := seen[fleet.Site](s, fleet.SiteKey)
	if err != nil {
		return nil, err
	}
	freezes, err := fleet.Freezes(s)
	if err != nil {
		return nil, err
	}
	var keys []fleet.Key
	if err := s.Revisions(fleet.KindNode, func(k fleet.Key, _ fleet.Revision) bool {
		keys = append(keys, k)
		return true
	}); err != nil {
		return nil, err
	}
	var out []allocate.Candidate
	for _, k := range keys {
		n, err := seen[fleet.Node](s, k)
		if err != nil {
			return nil, err
		}
		if n == nil || n.Class != class.Name {
			continue
		}
		v := &view{node: doc[fleet.Node]{key: k, v: n}, class: class}
		if site != nil {
			v.site = *site
		}
		c := allocate.Candidate{Node: n, Facts: v.guards(fleet.VerbAllocate), Busy: n.Operation != "" || n.Wish != nil}
		if c.Holder, err = l.leasebook.holder(s, n.ID); err != nil {
			return nil, err
		}
		if f := fleet.FrozenBy(*n, freezes); f != nil {
			c.Frozen = f.Why(*n)
		}
		if !c.Facts.ClassMatches {
			c.Class = v.unlike()
		}
		var w *fleet.NodeWires
		if l.Wires != nil {
			if w, err = seen[fleet.NodeWires](s, fleet.KeyOf(fleet.KindWires, n.ID)); err != nil {
				return nil, err
			}
		}
		c.Place = allocate.PlaceOf(n, w)
		if n.State == fleet.Available {
			if unfit := l.wiresFit(s, v, r); unfit != nil {
				c.Wires = unfit.Error()
			}
		} else if c.Free, c.After, err = expected(s, n); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// unlike says how the node differs from its class.
func (v *view) unlike() string {
	n := v.node.v
	switch {
	case n.Inventory == "":
		return n.Name + " was never inspected from inside"
	case n.Compared != v.class.Compared(n.Inventory):
		return "the class of " + n.Name + " is another than it was last compared with"
	}
	for _, f := range n.Faults {
		if classDiffers(&fleet.Node{Faults: []fleet.Fault{f}}) {
			return n.Name + ": " + f.Evidence
		}
	}
	return n.Name + " differs"
}

// expected is when a node that somebody works with is given back, as far as that was said, and what ends then.
func expected(s fleet.Snapshot, n *fleet.Node) (at time.Time, what string, err error) {
	switch {
	case n.State == fleet.Burning && n.Operation != "":
		op, err := seen[fleet.Operation](s, fleet.KeyOf(fleet.KindOperation, n.Operation))
		if err != nil || op == nil || op.StartedAt.IsZero() {
			return at, "", err
		}
		if d := burnProfile(*op).Duration(); d > 0 {
			return op.StartedAt.Add(d), "the burn-in", nil
		}
	case n.Lease != "":
		x, err := seen[fleet.Lease](s, leaseKey(n.Lease))
		if err != nil || x == nil {
			return at, "", err
		}
		name := firstOf(x.Name, string(x.ID))
		switch {
		case n.State == fleet.Grace:
			return x.GraceEnds, "the grace time of lease " + name, nil
		case !x.Request.Until.IsZero() && !x.Protected && !n.Protected:
			return x.Request.Until.Add(seconds(x.Request.GraceSeconds)), "lease " + name + " with its grace time", nil
		}
	}
	return at, "", nil
}

// PlanLease chooses as CreateLease does, and takes nothing. Where the nodes are named it says that each could be had.
func (l *Loop) PlanLease(ctx context.Context, r api.LeaseCreate, by string) (fleet.Choice, error) {
	if r.Ready == "" {
		r.Ready = fleet.ReadyOS
	}
	d, _, err := l.draft(ctx, r, by)
	if err != nil {
		return fleet.Choice{}, err
	}
	if r.Count > 0 {
		return d.choice, nil
	}
	out := fleet.Choice{Fits: true, Count: len(d.nodes), Considered: len(d.nodes), Free: len(d.nodes)}
	for _, m := range d.lease.Members {
		out.Chosen = append(out.Chosen, fleet.Pick{Node: m.Node, Name: m.Name, Why: "it is named, and can be handed out"})
	}
	return out, nil
}

// noFit refuses a request that counts, with what binds and what would make it fit.
func noFit(c fleet.Choice) error {
	if c.Considered == 0 {
		return fleet.Errorf(fleet.Conflict, "MC-LEASE-NOFIT", "%d nodes of class %s are wanted, and there is none", c.Count, c.Class).WithHint("metalctl node set NODE --class %s", c.Class)
	}
	e := fleet.Errorf(fleet.Conflict, "MC-LEASE-NOFIT", "%d of class %s are wanted, and %s", c.Count, c.Class, binds(c))
	for _, f := range c.Fell {
		e.Fields = append(e.Fields, fleet.FieldError{Field: string(f.Reason), Message: fmt.Sprintf("%s: %s", f.Text, fewNames(f))})
	}
	if len(c.Relaxations) > 0 {
		return e.WithHint("%s", relaxation(c.Relaxations[0]))
	}
	return e.WithHint("metalctl node list --class %s", c.Class)
}

func binds(c fleet.Choice) string {
	var why []string
	for _, f := range c.Fell {
		why = append(why, f.Text)
	}
	return fmt.Sprintf("of its %d nodes %s", c.Considered, strings.Join(why, ", "))
}

func fewNames(f fleet.Fall) string {
	out := strings.Join(f.Nodes, ", ")
	if more := f.Count - len(f.Nodes); more > 0 {
		out += fmt.Sprintf(" and %d more", more)
	}
	return out
}

func relaxation(r fleet.Relaxation) string {
	if r.Command == "" {
		return r.Text
	}
	return r.Text + ": " + r.Command
}
