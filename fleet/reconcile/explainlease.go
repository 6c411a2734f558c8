package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// ExplainLease says what the lease waits for, and for each member on the way what its node waits for.
func (l *Loop) ExplainLease(ctx context.Context, id fleet.LeaseID) (api.LeaseExplain, error) {
	var x doc[fleet.Lease]
	nodes := map[fleet.NodeID]*Situation{}
	err := l.Store.View(ctx, func(s fleet.Snapshot) error {
		var err error
		if x, err = load[fleet.Lease](s, leaseKey(id)); err != nil {
			return err
		}
		clear(nodes)
		for _, m := range x.v.Members {
			at, err := l.situation(s, m.Node)
			if fleet.KindOf(err) == fleet.NotFound {
				continue // forgotten since
			}
			if err != nil {
				return err
			}
			nodes[m.Node] = &at
		}
		return nil
	})
	if err != nil {
		return api.LeaseExplain{}, err
	}
	now, _ := l.clock.earlier(l.Now(), l.Mono())
	return ExplainLease(*x.v, nodes, now.UTC()), nil
}

// ExplainLease says what keeps a lease where it is. It is pure; nodes are those of its members that still exist, and now is the earlier of all clocks.
func ExplainLease(l fleet.Lease, nodes map[fleet.NodeID]*Situation, now time.Time) api.LeaseExplain {
	e := api.LeaseExplain{Lease: l.ID, Name: l.Name, State: l.State, Since: l.Since, Members: []api.MemberExplain{}}
	var waits []api.MemberExplain
	for _, m := range l.Members {
		me := api.MemberExplain{Node: m.Name, State: m.State, Since: m.Since}
		if s := nodes[m.Node]; s != nil && s.Node.Lease == l.ID && !settled(l, m) {
			r := Explain(*s)[0]
			me.Reason = &r
			waits = append(waits, me)
		}
		e.Members = append(e.Members, me)
	}
	e.Reasons = slices.Concat(leaseReasons(l, nodes, waits, now), leaseApprovals(l, nodes), memberReasons(waits))
	return e
}

// settled reports whether the lease waits for nothing of that member.
func settled(l fleet.Lease, m fleet.Member) bool {
	switch l.State {
	case fleet.LeaseReleasing:
		return m.State == fleet.MemberReleased || m.State == fleet.MemberReplaced
	case fleet.LeaseReleased, fleet.LeaseFailed:
		return true
	}
	return m.State == fleet.MemberReady || m.State == fleet.MemberReleased || m.State == fleet.MemberReplaced
}

func leaseReasons(l fleet.Lease, nodes map[fleet.NodeID]*Situation, waits []api.MemberExplain, now time.Time) []api.Reason {
	r := api.Reason{Kind: "rest", On: api.OnNobody, Since: l.Since}
	_, ready, failure := alive(l)
	switch l.State {
	case fleet.LeasePending, fleet.LeaseAllocating, fleet.LeaseDeploying:
		r.Kind, r.On = "members", api.OnServer
		r.Text = fmt.Sprintf("%d of %d nodes are ready, %d are needed", ready, l.Request.Wanted(), need(l))
		if l.GraceEnds.IsZero() {
			r.Until, r.Then = deadlineOf(l), "the lease fails and its nodes are released"
		}
		if failure != "" {
			r.Text += "; failed: " + failure
		}
	case fleet.LeaseActive:
		r.Text = fmt.Sprintf("%d nodes are ready", ready)
		if u := l.Request.Until; !u.IsZero() {
			r.Until, r.Then, r.Command = u, "its nodes are isolated and switched off", "metalctl lease extend "+string(l.ID)+" --until TIME"
			if !now.Before(u) {
				return []api.Reason{overdue(l, nodes, u)}
			}
			if ahead(nodes, u) {
				return []api.Reason{r, {Kind: "clock", On: api.OnTime, Until: u, Then: "it ends when as much time has really passed",
					Text: "the server's clock was set forward, beyond the end of the lease; no lease ends on a clock that was set: look at it with metalctl doctor, and set it right"}}
			}
		}
	case fleet.LeaseReleasing:
		r.Kind, r.On, r.Text = "members", api.OnServer, fmt.Sprintf("%d nodes are still to be isolated and switched off", len(waits))
	case fleet.LeaseReleased:
		r.Text = "it is over"
		back := slices.ContainsFunc(l.Members, func(m fleet.Member) bool {
			s := nodes[m.Node]
			return s != nil && s.Node.State == fleet.Grace && s.Node.Lease == l.ID
		})
		if back && l.GraceOver.IsZero() && now.Before(l.GraceEnds) {
			r.Kind, r.Text, r.Until, r.Then = "grace", "it is over, and the disks of its nodes are kept for the grace time", l.GraceEnds, "they are erased"
			r.Command = "metalctl lease extend " + string(l.ID) + " --until TIME"
		}
	case fleet.LeaseFailed:
		r.Text, r.Code = "it failed and holds nothing: "+l.Fault, "MC-LEASE-FAILED"
	}
	return []api.Reason{r}
}

// ahead reports whether the server's clock alone says that a time has come.
func ahead(nodes map[fleet.NodeID]*Situation, t time.Time) bool {
	for _, s := range nodes {
		if !s.Now.Before(t) {
			return true
		}
	}
	return false
}

// overdue is about a lease whose time is over and that has not begun to end.
func overdue(l fleet.Lease, nodes map[fleet.NodeID]*Situation, until time.Time) api.Reason {
	r := api.Reason{Kind: "moving", On: api.OnServer, Since: until, Text: "its time is over; it is about to be released"}
	if l.Protected {
		r.Kind, r.On, r.Code, r.Text = "protect", api.OnPerson, "MC-LEASE-PROTECTED", "its time is over, but it is protected"
		r.Command = "metalctl lease unprotect " + string(l.ID)
	}
	for _, m := range l.Members {
		if s := nodes[m.Node]; s != nil && s.Node.Protected && s.Node.Lease == l.ID {
			r.Kind, r.On, r.Code, r.Text, r.Command = "protect", api.OnPerson, "MC-NODE-PROTECTED", "its time is over, but its node "+m.Name+" is protected", "metalctl node unprotect "+m.Name
		}
	}
	if l.Overdue != "" && r.Kind == "moving" {
		r.Kind, r.On, r.Text, r.Command = "overdue", api.OnPerson, l.Overdue, commandIn(l.Overdue)
	}
	return r
}

// memberReasons are the different things that members wait for, those that need a person first, each with the names of all that wait for it.
func memberReasons(waits []api.MemberExplain) []api.Reason {
	var out []api.Reason
	names := map[int][]string{}
	for _, w := range waits {
		i := slices.IndexFunc(out, func(r api.Reason) bool {
			return r.Kind == w.Reason.Kind && r.On == w.Reason.On && r.Text == w.Reason.Text
		})
		if i < 0 {
			i = len(out)
			out = append(out, *w.Reason)
		}
		names[i] = append(names[i], w.Node)
	}
	for i := range out {
		out[i].Text = nameList(names[i]) + ": " + out[i].Text
	}
	slices.SortStableFunc(out, func(a, b api.Reason) int { return boolToInt(b.On == api.OnPerson) - boolToInt(a.On == api.OnPerson) })
	return out
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func nameList(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
