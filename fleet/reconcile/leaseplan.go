package reconcile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// ReleasePlan says what the release of a lease would run on each of its nodes; it has no side effects. Where asked is the digest of another plan than the
// one that would run now, it is refused with what differs.
func (l *Loop) ReleasePlan(ctx context.Context, id fleet.LeaseID, asked string) (api.LeasePlan, error) {
	var x fleet.Lease
	err := l.Store.View(ctx, func(s fleet.Snapshot) (err error) {
		x, _, err = fleet.Get[fleet.Lease](s, fleet.KeyOf(fleet.KindLease, id))
		return err
	})
	if fleet.KindOf(err) == fleet.NotFound {
		err = fleet.Errorf(fleet.NotFound, "MC-LEASE-UNKNOWN", "there is no lease %s", id).WithHint("metalctl lease list")
	}
	if err != nil {
		return api.LeasePlan{}, err
	}
	out := api.LeasePlan{Lease: id, Name: x.Name, State: x.State, GraceSeconds: x.Request.GraceSeconds}
	digests := map[string]string{}
	for _, m := range x.Members {
		if x.State == fleet.LeaseReleasing || x.State.Over() || m.Out() || m.State == fleet.MemberReleased {
			continue
		}
		p, err := l.Plan(ctx, m.Node, api.PlanQuery{Use: string(step.Release)})
		if err != nil {
			return out, fmt.Errorf("plan the release of %s: %w", m.Name, err)
		}
		digests[m.Name] = p.Digest
		out.Nodes = append(out.Nodes, api.NodePlan{Node: m.Name, Plan: p})
	}
	b, err := json.Marshal([]any{step.Release, id, x.State, out.GraceSeconds, digests})
	if err != nil {
		return out, fmt.Errorf("digest of the release: %w", err)
	}
	sum := sha256.Sum256(b)
	out.Digest = "sha256:" + hex.EncodeToString(sum[:])
	if asked != "" && asked != out.Digest {
		return out, l.otherRelease(x, asked, out.Digest, digests)
	}
	l.shown.keep(shownPlan{of: "lease " + firstOf(x.Name, string(id)), plan: step.Plan{Use: step.Release, Digest: out.Digest}, members: digests, grace: out.GraceSeconds, state: x.State, at: l.Now()})
	return out, nil
}

// otherRelease refuses a digest that is not that of what the release would run now.
func (l *Loop) otherRelease(x fleet.Lease, asked, now string, digests map[string]string) error {
	name := firstOf(x.Name, string(x.ID))
	e := fleet.Errorf(fleet.Conflict, "MC-PLAN-DIGEST", "the release has become another: %s was asked for, %s is what would run now", asked, now).
		WithHint("metalctl lease release %s --dry-run", name)
	was, ok := l.shown.find(asked, l.Now())
	switch {
	case !ok:
		e.Msg += notShown
		return e
	case was.of != "lease "+name:
		e.Msg += fmt.Sprintf("; the former is a plan of %s and not of lease %s", was.of, name)
		return e
	}
	note := func(field, format string, args ...any) {
		e.Fields = append(e.Fields, fleet.FieldError{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if was.state != x.State {
		note("state", "the lease was %s, is %s", was.state, x.State)
	}
	if was.grace != x.Request.GraceSeconds {
		note("grace_seconds", "was %d, is %d", was.grace, x.Request.GraceSeconds)
	}
	for _, m := range x.Members {
		before, had := was.members[m.Name]
		after, has := digests[m.Name]
		switch {
		case before == after:
		case !had:
			note(m.Name, "is released, too")
		case !has:
			note(m.Name, "is not released any more: it is %s", m.State)
		default:
			old, knew := l.shown.find(before, l.Now())
			fresh, knows := l.shown.find(after, l.Now())
			if !knew || !knows {
				note(m.Name, "has another plan")
				continue
			}
			for _, d := range step.Differences(old.plan, fresh.plan) {
				note(m.Name+" "+d.Field, "%s", d.Message)
			}
		}
	}
	return e
}
