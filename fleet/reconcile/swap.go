package reconcile

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/allocate"
	"github.com/metalctl/metalctl/fleet/api"
)

// spares is how many nodes may take the places of others by the server's own decision, for a lease of so many.
func spares(count int) int { return max(2, count/4) }

// swap is a place of a lease that another node takes.
type swap struct {
	out fleet.NodeID
	api.LeaseReplace
	// by is who asked; "" where the node failed on its way. dry looks only.
	by  string
	dry bool

	lease    doc[fleet.Lease]
	epoch    doc[int64]
	nodes    map[fleet.NodeID]*fleet.Node
	brakes   *brakes
	old      *fleet.Member
	in       doc[fleet.Node]
	choice   fleet.Choice
	hostname string
	index    int
	// addresses are what the other node's system gets, of the network as it was.
	addresses []string
	network   doc[fleet.Network]
}

// ReplaceNode puts another node into the place of a lease's node, which is isolated and released and keeps its faults. MC-LEASE-NOFIT where none fits.
func (l *Loop) ReplaceNode(ctx context.Context, id fleet.LeaseID, out fleet.NodeID, r api.LeaseReplace, by string) (fleet.Lease, error) {
	w := &swap{out: out, LeaseReplace: r, by: by}
	if err := l.swap(ctx, id, w); err != nil {
		return fleet.Lease{}, l.fenced(ctx, err)
	}
	return *w.lease.v, nil
}

// PlanReplace says what ReplaceNode would do, and changes nothing.
func (l *Loop) PlanReplace(ctx context.Context, id fleet.LeaseID, out fleet.NodeID, r api.LeaseReplace, by string) (api.LeaseSwap, error) {
	w := &swap{out: out, LeaseReplace: r, by: by, dry: true}
	if err := l.swap(ctx, id, w); err != nil {
		return api.LeaseSwap{}, err
	}
	return api.LeaseSwap{Lease: id, Out: w.old.Name, In: w.in.v.Name, Hostname: w.hostname, KeepIdentity: r.KeepIdentity, Choice: w.choice}, nil
}

// replaceFailed puts another node into the place of one that failed on its way, or notes on the member why none does.
func (l *Loop) replaceFailed(ctx context.Context, id fleet.LeaseID, out fleet.NodeID) error {
	err := l.swap(ctx, id, &swap{out: out})
	switch fleet.CodeOf(err) {
	case "MC-LEASE-NOFIT", "MC-LEASE-REPLACED", "MC-NODE-BUSY", "MC-NODE-GUARD", "MC-NET-ADDRESS":
	default:
		return err
	}
	why := err
	_, err = l.updateLease(ctx, id, func(x *fleet.Lease, _ map[fleet.NodeID]*fleet.Node, at time.Time) ([]fleet.Event, error) {
		m := x.Member(out)
		if m == nil || !replaceable(*x, *m) {
			return nil, nil
		}
		m.Unreplaced = cut(why.Error(), 300)
		return []fleet.Event{leaseEvent(x, at, "lease.member", "no other node takes the place of %s: %s", m.Name, m.Unreplaced)}, nil
	})
	return err
}

// swap looks, decides and claims in one commit under the epoch, as whoever makes a lease does.
func (l *Loop) swap(ctx context.Context, id fleet.LeaseID, w *swap) error {
	harm := fleet.Harm("")
	if w.by != "" && !w.dry {
		harm = fleet.HarmRelease
	}
	leave, err := l.harm(ctx, harm)
	if err != nil {
		return err
	}
	defer leave()
	if err := enter(ctx, l.claiming); err != nil {
		return err
	}
	defer func() { <-l.claiming }()
	for try := 1; ; try++ {
		now := l.Now().UTC()
		if err := l.Store.View(ctx, func(s fleet.Snapshot) error { return l.lookForSwap(s, id, w, harm, now) }); err != nil {
			return err
		}
		if w.dry {
			return nil
		}
		c, err := w.change(now)
		if err != nil {
			return err
		}
		if _, err = l.Store.Commit(ctx, c); err == nil {
			l.leaseMoved(*w.lease.v, w.nodes, c.Events)
			return nil
		}
		if fleet.CodeOf(err) != "MC-STORE-STALE" || try == most {
			return err
		}
	}
}

func (l *Loop) lookForSwap(s fleet.Snapshot, id fleet.LeaseID, w *swap, harm fleet.Harm, now time.Time) (err error) {
	if err = l.anchor(s); err != nil {
		return err
	}
	if w.lease, err = load[fleet.Lease](s, leaseKey(id)); err != nil {
		return err
	}
	if w.epoch, err = maybe[int64](s, fleet.AllocationEpoch); err != nil {
		return err
	}
	w.nodes = map[fleet.NodeID]*fleet.Node{}
	if err = membersOf(s, w.lease.v, w.nodes); err != nil {
		return err
	}
	if w.brakes, err = l.readBrakes(s, harm); err != nil {
		return err
	}
	if w.old = w.lease.v.Member(w.out); w.old == nil || w.old.Out() {
		return fleet.Errorf(fleet.NotFound, "MC-LEASE-MEMBER", "that node is none of lease %s's", firstOf(w.lease.v.Name, string(id))).WithHint("metalctl lease show %s", id)
	}
	if err := w.allowed(); err != nil {
		return err
	}
	picked, err := l.chooseFor(s, w, now)
	if err != nil {
		return err
	}
	v, err := l.read(s, picked)
	if err != nil {
		return err
	}
	f := v.guards(fleet.VerbAllocate)
	f.Lease = id
	if err := v.allocatable(f); err != nil {
		return err
	}
	w.in = v.node
	if err := w.named(); err != nil {
		return err
	}
	return l.addressedAs(s, w)
}

// allowed says what keeps the lease from giving that node away now.
func (w *swap) allowed() error {
	x, name := w.lease.v, firstOf(w.lease.v.Name, string(w.lease.v.ID))
	if w.by == "" {
		replaced := 0
		for _, m := range x.Members {
			if m.Out() && m.Replaced == "" {
				replaced++
			}
		}
		if replaced >= spares(x.Request.Count) {
			return fleet.Errorf(fleet.Conflict, "MC-LEASE-REPLACED", "%d nodes were replaced already, which is as many as a lease of %d may have", replaced, x.Request.Count)
		}
		return nil
	}
	n := w.nodes[w.out]
	switch {
	case x.State != fleet.LeaseActive && x.State != fleet.LeaseDeploying:
		return fleet.Errorf(fleet.Conflict, "MC-LEASE-VERB", "a lease that is %s gets no other node", x.State).WithHint("metalctl lease show %s", name)
	case x.Protected:
		return fleet.Errorf(fleet.Refused, "MC-LEASE-PROTECTED", "lease %s is protected, and keeps its nodes", name).WithHint("metalctl lease unprotect %s", name)
	case len(x.Members) >= 2*maxMembers:
		return fleet.Errorf(fleet.Conflict, "MC-LEASE-REPLACED", "lease %s has had %d nodes, which is as many as its record tells of", name, len(x.Members)).
			WithHint("make a new lease: metalctl lease create --help")
	case n == nil || n.Lease != x.ID:
		return nil // it left already, and its place is empty
	case n.Protected:
		return fleet.Errorf(fleet.Refused, "MC-NODE-PROTECTED", "%s is protected against release", n.Name).WithHint("metalctl node unprotect %s", n.Name)
	}
	if f := fleet.FrozenBy(*n, w.brakes.freezes); f != nil {
		return f.Refuse(*n, "replace")
	}
	if w.dry {
		return nil
	}
	return w.brakes.book.take(deed{harm: fleet.HarmRelease, act: "lease replace " + name, lease: x.ID, by: w.by}, []*fleet.Node{n})
}

// chooseFor finds the node that takes the place: near to those that stay, as the lease asks, and none that it had already, unless a person names it.
func (l *Loop) chooseFor(s fleet.Snapshot, w *swap, now time.Time) (fleet.NodeID, error) {
	x := w.lease.v
	r := allocate.Request{Count: 1, Class: x.Request.Class, Topology: x.Request.Topology}
	var err error
	if r.Selector, err = fleet.ParseSelector(x.Request.Selector); err != nil {
		return "", err
	}
	if n := w.nodes[w.out]; r.Class == "" && n != nil {
		r.Class = n.Class
	}
	with := fleet.NodeID("")
	if w.With != "" {
		id, ok, err := named(s, w.With)
		if err != nil {
			return "", err
		}
		if !ok {
			return "", fleet.Errorf(fleet.NotFound, "MC-NODE-UNKNOWN", "there is no node %q", w.With).WithHint("metalctl node list --state available")
		}
		with = id
	}
	class, err := seen[fleet.Class](s, fleet.KeyOf(fleet.KindClass, r.Class))
	if err != nil {
		return "", err
	}
	var all []allocate.Candidate
	if class != nil {
		if all, err = l.candidates(s, *class, x.Request); err != nil {
			return "", err
		}
	}
	had := map[fleet.NodeID]bool{}
	for _, m := range x.Members {
		had[m.Node] = true
	}
	for _, c := range all {
		if m := x.Member(c.Node.ID); m != nil && m.Node != w.out && !m.Out() && m.State != fleet.MemberReleased {
			r.Beside = append(r.Beside, c.Place)
		}
	}
	all = slices.DeleteFunc(all, func(c allocate.Candidate) bool {
		return with != "" && c.Node.ID != with || with == "" && had[c.Node.ID]
	})
	if w.choice = allocate.Choose(all, r, now); !w.choice.Fits {
		err := noFit(w.choice)
		if with != "" && w.choice.Considered == 0 {
			err = fleet.Errorf(fleet.Conflict, "MC-LEASE-NOFIT", "%s is not of class %s, as the node that it would replace is", w.With, r.Class).WithHint("metalctl node list --class %s --state available", r.Class)
		}
		return "", err
	}
	return w.choice.Chosen[0].Node, nil
}

// named gives the node that comes in its place and its host name.
func (w *swap) named() error {
	x := w.lease.v
	w.index, w.hostname = w.old.Index, w.old.Hostname
	if w.KeepIdentity {
		return nil
	}
	if w.by != "" { // whoever knew the old one by its place does not meet another under it
		for _, m := range x.Members {
			w.index = max(w.index, m.Index+1)
		}
	}
	w.hostname = hostname(*x, w.in.v.Name, w.index)
	if !validHost.MatchString(w.hostname) || slices.ContainsFunc(x.Members, func(m fleet.Member) bool { return m.Hostname == w.hostname && (w.by != "" || m.Node != w.out) }) {
		return fleet.Errorf(fleet.Conflict, "MC-LEASE-HOSTNAME", "the template gives %s the host name %q, which is none or another member's", w.in.v.Name, w.hostname).
			WithHint("to give it the old one's: metalctl lease replace %s --node %s --keep-identity", firstOf(x.Name, string(x.ID)), w.old.Name)
	}
	return nil
}

// change is the commit that claims the place for the other node.
func (w *swap) change(now time.Time) (fleet.Change, error) {
	x, why := w.lease.v, w.choice.Chosen[0].Why
	w.old.ReplacedBy = w.in.v.ID
	told := w.old.Proof
	if w.by != "" {
		w.old.Replaced = "as " + w.by + " asked"
		if n := w.nodes[w.out]; n != nil && len(n.Faults) > 0 {
			w.old.Replaced += fmt.Sprintf(": %s on %s", n.Faults[0].Code, n.Faults[0].Component)
		}
		told = w.old.Replaced
	}
	m := fleet.Member{Node: w.in.v.ID, Name: w.in.v.Name, Hostname: w.hostname, State: fleet.MemberReserved, Since: now, Index: w.index, Chosen: why, Addresses: w.addresses}
	if w.KeepIdentity {
		m.Identity = firstOf(w.old.Identity, w.old.Name)
	}
	e := leaseEvent(x, now, "lease.member", "%s takes the place of %s (%s): %s", m.Name, w.old.Name, told, why)
	x.Members = append(x.Members, m)
	next := int64(1)
	if w.epoch.v != nil {
		next = *w.epoch.v + 1
	}
	c := fleet.Change{If: []fleet.Precondition{{Key: fleet.AllocationEpoch, Revision: w.epoch.rev}, {Key: w.in.key, Revision: w.in.rev}}, Writes: []fleet.Write{{Key: fleet.AllocationEpoch, Value: next}},
		Events: []fleet.Event{e}}
	if w.network.v != nil {
		c.If = append(c.If, fleet.Precondition{Key: w.network.key, Revision: w.network.rev})
	}
	if err := w.lease.put(&c); err != nil {
		return c, err
	}
	return c, w.brakes.put(&c)
}
