package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// book is the fence's account of one kind of harm, read in the snapshot that the harm is decided on and written in the commit that begins it.
type book struct {
	harm      doc[fleet.HarmRecord]
	approvals []doc[fleet.Approval]
	limit     int
	ran       time.Duration
	now, late time.Time
}

// overFence is returned by what the fence holds back; a request is made of it.
type overFence struct{ ask fleet.Approval }

func (e *overFence) Error() string { return e.ask.Why }

// deed is what somebody is about to do to nodes in use.
type deed struct {
	harm  fleet.Harm
	act   string
	lease fleet.LeaseID
	by    string
}

func harmKey(h fleet.Harm) fleet.Key { return fleet.KeyOf(fleet.KindHarm, h) }

// harm lets those who enter something into one book take turns: they would only refuse each other's commits. Without harm nobody waits.
func (l *Loop) harm(ctx context.Context, h fleet.Harm) (leave func(), err error) {
	if h == "" {
		return func() {}, nil
	}
	if err := enter(ctx, l.harms); err != nil {
		return nil, err
	}
	return func() { <-l.harms }, nil
}

func (l *Loop) readBook(s fleet.Snapshot, h fleet.Harm) (*book, error) {
	if err := l.anchor(s); err != nil {
		return nil, err
	}
	b := &book{ran: l.clock.ran(l.Mono()), now: l.Now().UTC(), late: l.clock.later(l.Now(), l.Mono()).UTC()}
	var err error
	if b.harm, err = maybe[fleet.HarmRecord](s, harmKey(h)); err != nil {
		return nil, err
	}
	if b.harm.v == nil {
		b.harm.v = &fleet.HarmRecord{Harm: h}
	}
	all, err := fleet.List[fleet.Approval](s, fleet.KindApproval)
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		d, err := load[fleet.Approval](s, fleet.KeyOf(fleet.KindApproval, a.ID))
		if err != nil {
			return nil, err
		}
		b.approvals = append(b.approvals, d)
	}
	site, err := maybe[fleet.Site](s, fleet.SiteKey)
	if err != nil {
		return nil, err
	}
	if site.v == nil {
		site.v = &fleet.Site{}
	}
	inUse, err := l.countInUse(s)
	b.limit = fleet.FenceLimit(inUse, *site.v)
	return b, err
}

// countInUse counts the nodes in use; a count is good for ten seconds, as a large fleet takes a while to read.
func (l *Loop) countInUse(s fleet.Snapshot) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counted && l.Mono()-l.countedAt < 10*time.Second {
		return l.inUse, nil
	}
	nodes, err := fleet.List[fleet.Node](s, fleet.KindNode)
	if err != nil {
		return 0, err
	}
	l.inUse = 0
	for _, n := range nodes {
		if fleet.InUse(n) {
			l.inUse++
		}
	}
	l.counted, l.countedAt = true, l.Mono()
	return l.inUse, nil
}

// take enters the deed for these nodes, or returns *overFence and enters nothing. A node that was harmed in this way within the hour is not counted
// again; what was approved is not counted at all.
func (b *book) take(d deed, nodes []*fleet.Node) error {
	recent := b.harm.v.Recent(b.ran)
	var fresh []fleet.NodeID
	uses := map[int][]fleet.NodeID{}
	ask := fleet.Approval{Harm: d.harm, Act: d.act, Lease: d.lease, AskedBy: d.by}
	for _, n := range nodes {
		if !fleet.InUse(*n) || slices.Contains(ask.Nodes, n.ID) {
			continue
		}
		ask.Nodes, ask.Names = append(ask.Nodes, n.ID), append(ask.Names, n.Name)
		if i := slices.IndexFunc(b.approvals, func(a doc[fleet.Approval]) bool { return a.v.Allows(d.harm, d.act, n.ID, b.late) }); i >= 0 {
			uses[i] = append(uses[i], n.ID)
		} else if !fleet.Has(recent.Done, n.ID) {
			fresh = append(fresh, n.ID)
		}
	}
	already := recent.Nodes()
	if len(fresh) > 0 && already+len(fresh) > b.limit {
		ask.Digest = fleet.ApprovalDigest(d.harm, d.act, ask.Nodes)
		ask.Why = fmt.Sprintf("%s of %d nodes in use would make %d within an hour, and more than %d need a second person", d.harm, len(ask.Nodes), already+len(fresh), b.limit)
		return &overFence{ask}
	}
	for i, ids := range uses {
		a := b.approvals[i].v
		a.Used = append(a.Used, ids...)
		if len(a.Used) == len(a.Nodes) {
			a.State = fleet.ApprovalUsed
		}
	}
	for _, id := range fresh {
		recent.Add(fleet.Harmed{Node: id, Ran: b.ran, At: b.now, By: d.by})
	}
	if len(fresh) > 0 {
		*b.harm.v = recent
	}
	return nil
}

// put adds what take entered to a change.
func (b *book) put(c *fleet.Change) error {
	if b.harm.rev != 0 || len(b.harm.v.Done) > 0 {
		if err := b.harm.put(c); err != nil {
			return err
		}
	}
	for _, a := range b.approvals {
		if err := a.put(c); err != nil {
			return err
		}
	}
	return nil
}

// deedOf is the harm that a verb does to a node in use, and whether it does any.
func deedOf(verb fleet.Verb, p api.NodeVerb, by string) (deed, bool) {
	switch verb {
	case fleet.VerbRelease:
		return deed{harm: fleet.HarmRelease, act: "node release", by: by}, true
	case fleet.VerbRebuild:
		act := "node rebuild"
		if p.Image != "" {
			act += ", image " + p.Image
		}
		if p.Plan != "" {
			act += ", plan " + p.Plan
		}
		return deed{harm: fleet.HarmRebuild, act: act, by: by}, true
	case fleet.VerbClean:
		return deed{harm: fleet.HarmRelease, act: "node clean, grace waived", by: by}, p.WaiveGrace
	}
	return deed{}, false
}

// fenced turns what the fence held back into a request for approval, and into the error that tells of it. Other errors it leaves alone.
func (l *Loop) fenced(ctx context.Context, err error) error {
	var over *overFence
	if !errors.As(err, &over) {
		return err
	}
	a, rerr := l.request(ctx, over.ask)
	if rerr != nil {
		return fmt.Errorf("ask for approval: %w", rerr)
	}
	e := fleet.Errorf(fleet.Refused, "MC-FENCE", "%s: it waits for the approval %s", a.Why, a.ID)
	if a.State == fleet.ApprovalDenied {
		e = fleet.Errorf(fleet.Refused, "MC-FENCE", "%s: %s denied it until %s: %s", a.Why, a.DecidedBy, a.Expires.UTC().Format(time.RFC3339), a.Reason)
	}
	return e.WithHint("let a second person look: metalctl approve grant %s; then the same command again", a.ID)
}

// request stores a request for approval; the same thing that was asked already, and was not answered or was denied, is not asked again.
func (l *Loop) request(ctx context.Context, ask fleet.Approval) (fleet.Approval, error) {
	for try := 1; ; try++ {
		var b *book
		err := l.Store.View(ctx, func(s fleet.Snapshot) (err error) {
			b, err = l.readBook(s, ask.Harm)
			return err
		})
		if err != nil {
			return ask, err
		}
		var c fleet.Change
		for _, a := range b.approvals {
			state := a.v.Now(b.late)
			if a.v.Digest == ask.Digest && (state == fleet.ApprovalAsked || state == fleet.ApprovalDenied) {
				return *a.v, nil
			}
			// What is long over makes room.
			if len(c.Writes) < 20 && (state == fleet.ApprovalExpired || state == fleet.ApprovalUsed) && b.late.Sub(a.v.Expires) > 30*24*time.Hour {
				a.drop = true
				if err := a.put(&c); err != nil {
					return ask, err
				}
			}
		}
		ask.ID, ask.State, ask.AskedAt, ask.Expires = fleet.ApprovalID(l.NewID()), fleet.ApprovalAsked, b.now, b.late.Add(fleet.ApprovalLife)
		key := fleet.KeyOf(fleet.KindApproval, ask.ID)
		c.If = append(c.If, fleet.Precondition{Key: key})
		c.Writes = append(c.Writes, fleet.Write{Key: key, Value: ask})
		c.Events = []fleet.Event{{Type: "approval.asked", At: b.now, Subject: key, Lease: ask.Lease, Text: fmt.Sprintf("%s asks for approval: %s: %s", ask.AskedBy, ask.Act, ask.Why)}}
		if _, err = l.Store.Commit(ctx, c); err == nil {
			l.Log.Warn("held back by the fence", "approval", ask.ID, "act", ask.Act, "by", ask.AskedBy, "why", ask.Why)
			return ask, nil
		}
		if fleet.CodeOf(err) != "MC-STORE-STALE" || try == most {
			return ask, err
		}
	}
}

// byLoop is who asks for what nobody asked: the ends of leases.
const byLoop = "the loop"

// Decide grants or denies a request. Whoever asked cannot grant, nor can a token that the asker made, or that was made after the request.
func (l *Loop) Decide(ctx context.Context, id fleet.ApprovalID, verb string, who api.Approver, reason string) (fleet.Approval, error) {
	for try := 1; ; try++ {
		var d doc[fleet.Approval]
		err := l.Store.View(ctx, func(s fleet.Snapshot) (err error) {
			if err := l.anchor(s); err != nil {
				return err
			}
			d, err = maybe[fleet.Approval](s, fleet.KeyOf(fleet.KindApproval, id))
			return err
		})
		if err != nil {
			return fleet.Approval{}, err
		}
		if d.v == nil {
			return fleet.Approval{}, fleet.Errorf(fleet.NotFound, "MC-APPROVAL-UNKNOWN", "there is no request for approval %q", cut(string(id), 100)).WithHint("metalctl approve list")
		}
		late := l.clock.later(l.Now(), l.Mono()).UTC()
		if state := d.v.Now(late); state != fleet.ApprovalAsked {
			return *d.v, fleet.Errorf(fleet.Conflict, "MC-APPROVAL-STATE", "the request %s is %s", id, state).WithHint("metalctl approve list; ask again where it is still wanted")
		}
		if verb == "grant" && who.Name == d.v.AskedBy {
			return *d.v, fleet.Errorf(fleet.Refused, "MC-APPROVAL-SELF", "%s asked for it, and somebody else must grant it", who.Name).WithHint("let a second person, with a token of their own: metalctl approve grant %s", id)
		}
		if verb == "grant" && who.MadeBy != "" && who.MadeBy == d.v.AskedBy {
			return *d.v, fleet.Errorf(fleet.Refused, "MC-APPROVAL-SELF", "the token of %s was made by %s, who asked for it", who.Name, who.MadeBy).
				WithHint("ask with a token of your own instead: metalctl token create NAME, once, for each person")
		}
		if verb == "grant" && who.Since.After(d.v.AskedAt) {
			return *d.v, fleet.Errorf(fleet.Refused, "MC-APPROVAL-SELF", "the token of %s is younger than the request", who.Name).WithHint("let somebody grant it whose token was there before it was asked")
		}
		d.v.DecidedBy, d.v.DecidedAt, d.v.Reason = who.Name, l.Now().UTC(), cut(reason, 300)
		d.v.State = fleet.ApprovalDenied
		if verb == "grant" {
			d.v.State, d.v.Expires = fleet.ApprovalGranted, late.Add(fleet.GrantLife)
		}
		c := fleet.Change{Events: []fleet.Event{{Type: "approval." + string(d.v.State), At: d.v.DecidedAt, Subject: d.key, Lease: d.v.Lease,
			Text: fmt.Sprintf("%s %s by %s: %s", d.v.Act, d.v.State, who.Name, d.v.Reason)}}}
		if err := d.put(&c); err != nil {
			return *d.v, err
		}
		if _, err = l.Store.Commit(ctx, c); err == nil {
			l.bells.ringLeases()
			return *d.v, nil
		}
		if fleet.CodeOf(err) != "MC-STORE-STALE" || try == most {
			return *d.v, err
		}
	}
}

// Harm enters what is about to be done to a node without a plan, such as switching it off by hand, or returns MC-FENCE.
func (l *Loop) Harm(ctx context.Context, id fleet.NodeID, h fleet.Harm, act, by string) error {
	return l.fenced(ctx, l.account(ctx, deed{harm: h, act: act, by: by}, []fleet.NodeID{id}, true))
}

// Leave asks whether something may be done to several nodes at once; where it may not, one request is made for all of it, and nothing is done.
func (l *Loop) Leave(ctx context.Context, r api.Leave, by string) error {
	d, harms := deedOf(fleet.Verb(r.Verb), api.NodeVerb{Image: r.Image, WaiveGrace: r.WaiveGrace}, by)
	if act := PowerAct(r.Verb); act != "" {
		d, harms = deed{harm: fleet.HarmPower, act: act, by: by}, true
	}
	if !harms {
		return nil
	}
	var ids []fleet.NodeID
	err := l.Store.View(ctx, func(s fleet.Snapshot) (err error) {
		ids, err = nodesNamed(s, r.Nodes)
		return err
	})
	if err != nil {
		return err
	}
	return l.fenced(ctx, l.account(ctx, d, ids, false))
}

// PowerAct is what an approval calls a power action that harms; verb is power-off, power-cycle or power-shutdown, or "" comes back.
func PowerAct(verb string) string {
	switch verb {
	case "power-off", "power-cycle", "power-shutdown":
		return "power " + verb[len("power-"):]
	}
	return ""
}

// account takes a deed; keep says whether it is entered, or only tried.
func (l *Loop) account(ctx context.Context, d deed, ids []fleet.NodeID, keep bool) error {
	for try := 1; ; try++ {
		var b *book
		var nodes []*fleet.Node
		err := l.Store.View(ctx, func(s fleet.Snapshot) (err error) {
			nodes = nil
			for _, id := range ids {
				n, err := load[fleet.Node](s, fleet.KeyOf(fleet.KindNode, id))
				if err != nil {
					return err
				}
				nodes = append(nodes, n.v)
			}
			b, err = l.readBook(s, d.harm)
			return err
		})
		if err == nil {
			err = b.take(d, nodes)
		}
		var c fleet.Change
		if err == nil && keep {
			err = b.put(&c)
		}
		if err != nil || len(c.Writes) == 0 {
			return err
		}
		if _, err = l.Store.Commit(ctx, c); err == nil || fleet.CodeOf(err) != "MC-STORE-STALE" || try == most {
			return err
		}
	}
}
