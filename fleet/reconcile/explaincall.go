package reconcile

import (
	"context"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// trouble is an error that keeps the loop from moving a node.
type trouble struct {
	err   error
	since time.Time
}

// setTrouble notes why a node could not be moved; nil: it could.
func (l *Loop) setTrouble(id fleet.NodeID, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.troubles, id)
		return
	}
	t := trouble{err, l.Now().UTC()}
	if old, ok := l.troubles[id]; ok {
		t.since = old.since
	}
	l.troubles[id] = t
}

// Explain says what the node waits for, since when, until when, and what unsticks it. Who is seen of the agent is added by the server.
func (l *Loop) Explain(ctx context.Context, id fleet.NodeID) (api.Explain, error) {
	var s Situation
	err := l.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		s, err = l.situation(sn, id)
		return err
	})
	if err != nil {
		return api.Explain{}, err
	}
	n := s.Node
	e := api.Explain{Node: n.Name, State: n.State, Since: n.StateSince, Reasons: Explain(s), Faults: n.Faults, Hold: n.Hold, Operation: n.Operation}
	if op := s.Operation; op != nil {
		if i := op.Current(); i >= 0 {
			e.Step, e.Try = op.Steps[i].Name, op.Steps[i].Try
		}
	}
	e.Next = s.advice(e.Reasons)
	return e, nil
}

// situation is what is read of a node, with what only this process knows.
func (l *Loop) situation(sn fleet.Snapshot, id fleet.NodeID) (Situation, error) {
	v, err := l.read(sn, id)
	if err != nil {
		return Situation{}, err
	}
	freezes, err := fleet.Freezes(sn)
	if err != nil {
		return Situation{}, err
	}
	s := Situation{Node: *v.node.v, Operation: v.op.v, Last: v.last, Lease: v.lease.v, Class: v.class, Site: v.site, Facts: l.facts(v.node.v), Now: v.now, Late: v.late}
	s.Facts.Power = v.lacksPower()
	s.Facts.Sure, s.Freeze = v.sure, fleet.FrozenBy(s.Node, freezes)
	if free := l.freeAt(v.claim, v.now); v.now.Before(free) {
		s.ClaimedBy, s.ClaimedUntil = v.claim.v.Worker, free
	}
	if l.Breaker != nil {
		s.Breaker = l.Breaker(s.Node.ID)
	}
	approvals, err := fleet.List[fleet.Approval](sn, fleet.KindApproval)
	if err != nil {
		return Situation{}, err
	}
	s.Approvals = approvalsOf(approvals, s.Node.ID)
	if l.Silent != nil {
		s.SilentSince, s.Silent = l.Silent(s.Node.ID)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t, ok := l.troubles[s.Node.ID]; ok {
		s.Trouble, s.TroubleSince = t.err, t.since
	}
	return s, nil
}

// advice are the commands that the node takes now, those of its reasons first.
func (s Situation) advice(reasons []api.Reason) []api.Advice {
	out := []api.Advice{}
	add := func(why, command string) {
		if command != "" && !slices.ContainsFunc(out, func(a api.Advice) bool { return a.Command == command }) {
			out = append(out, api.Advice{Command: command, Why: why})
		}
	}
	for _, r := range reasons {
		add(r.Text, r.Command)
	}
	if op := s.Operation; op != nil {
		add("follow what runs", "metalctl operation show "+string(op.ID))
		if s.abortable() {
			add("stop it where its step allows", s.command("node abort NODE"))
		}
	}
	for _, v := range fleet.Takes(s.Node.State) {
		if v == fleet.VerbAbort || s.refuses(v) != nil {
			continue
		}
		flags := ""
		if v == fleet.VerbClean && s.Node.State == fleet.Grace {
			flags = " --waive-grace"
		}
		i := slices.IndexFunc(fleet.Lifecycle, func(t fleet.Transition) bool { return t.Verb == v && slices.Contains(t.From, s.Node.State) })
		add(fleet.Lifecycle[i].Why, s.command("node %s NODE%s", v, flags))
	}
	return out
}
