package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// powerKey counts how often something was taken from a budget: whoever takes must have seen the newest, so that two never take the same room.
const powerKey fleet.Key = fleet.KindMeta + "/power-epoch"

// room is what the budgets that a node counts in leave it.
type room struct {
	shares []share
	epoch  doc[int64]
	taken  bool
}

// readPower reads what bounds the node's power. Where the site has no budgets there is nothing to read.
func (l *Loop) readPower(s fleet.Snapshot, v *view) error {
	stops, err := fleet.LoadStops(s)
	if err != nil {
		return err
	}
	v.stop = fleet.StoppedBy(*v.node.v, stops)
	v.held, _ = holds(v.node.v, v.op.v, v.site.PowerOf(v.class))
	if len(v.site.Power.Budgets) == 0 {
		return nil
	}
	shares, err := l.powerbook.shares(s, v.node.v.ID)
	if err != nil || len(shares) == 0 {
		return err
	}
	r := &room{shares: shares}
	if r.epoch, err = maybe[int64](s, powerKey); err != nil {
		return err
	}
	v.room = r
	return nil
}

// needs is what the node draws once its current step has started; false where that step makes it draw no more.
func (v *view) needs() (int64, bool) {
	op := v.op.v
	if op == nil || op.Current() < 0 {
		return 0, false
	}
	return powerNeed(op.Steps[op.Current()], v.node.v, v.site.PowerOf(v.class))
}

// drawsMore reports whether it then draws more than the store says it does: a stage that begins in the commit in which the one before ends does not, so that
// a burn-in which has begun goes on before others begin.
func (v *view) drawsMore() bool {
	need, ok := v.needs()
	return ok && need > v.held
}

// PowerWait is why a step that makes a machine draw more does not start.
type PowerWait struct {
	Text, Command string
	Since         time.Time
	// Stopped: somebody stopped all load. Never: the budget is smaller than what this one machine draws.
	Stopped, Never bool
}

// lacksPower says why the step that is next may not start yet; nil where it may, or where none is next.
func (v *view) lacksPower() *PowerWait {
	op := v.op.v
	need, ok := v.needs()
	if !ok || op.Steps[op.Current()].State != fleet.StepPending {
		return nil
	}
	w := &PowerWait{Since: latest(op.CreatedAt, prevEnded(*op))}
	name := op.Steps[op.Current()].Name
	if v.stop != nil {
		w.Text, w.Command, w.Stopped = name+" waits: "+v.stop.Why(), v.stop.Command(), true
		w.Since = latest(w.Since, v.stop.Since)
		return w
	}
	if v.room == nil || !v.drawsMore() {
		return nil
	}
	x := v.room.full(need)
	if x == nil {
		return nil
	}
	w.Command = "metalctl burnin power"
	w.Text = fmt.Sprintf("%s waits for power: the machine then draws %s, and of the %s of %s %s are left beside %d others", name, fleet.Watts(need), fleet.Watts(x.budget.Watts), x.budget.Name(), fleet.Watts(x.left()), x.nodes)
	if w.Never = need > x.budget.Watts; w.Never {
		w.Text = fmt.Sprintf("%s would have the machine draw %s, and %s has no more than %s in all", name, fleet.Watts(need), x.budget.Name(), fleet.Watts(x.budget.Watts))
	}
	return w
}

// loadStopped reports whether the load that runs is to end now.
func (v *view) loadStopped() bool {
	_, loads := v.needs()
	return loads && v.stop != nil
}

// mostSpared is how often a stage whose load was stopped is taken up again: an agent that always says so must not go on for ever.
const mostSpared = 50

// sparedLoad reports whether a stage ended because its load was stopped, and takes it back where it did: it runs again, and costs none of its tries. What it
// had measured is kept.
func (v *view) sparedLoad(i int, r step.Result) bool {
	run := v.op.v.Steps[i]
	if run.Name != step.BurnStage || v.op.v.Abort || run.Spared >= mostSpared || r.Problem.Code != "MC-AGENT-ABORTED" && r.Problem.Code != "MC-AGENT-SILENT" {
		return false
	}
	*v.op.v = step.Spared(*v.op.v, i, v.now)
	v.op.v.Steps[i].Evidence = r.Evidence
	v.stepEvent(i, fmt.Sprintf("%s: %s has ended its load, and runs again later: %s", v.node.v.Name, run.Name, cut(r.Problem.Detail, 300)))
	return true
}

// reason is what explain says of it.
func (w *PowerWait) reason() api.Reason {
	r := api.Reason{Kind: "power", On: api.OnTime, Since: w.Since, Text: w.Text, Command: w.Command, Code: "MC-POWER-BUDGET", Then: "it goes on by itself when others draw less"}
	if w.Never || w.Stopped {
		r.On, r.Then = api.OnPerson, ""
	}
	if w.Stopped {
		r.Kind, r.Code = "load-stop", "MC-POWER-STOPPED"
	}
	return r
}

// takes notes that the step which starts in this commit draws from budgets.
func (v *view) takes() {
	if v.room != nil && v.drawsMore() {
		v.room.taken = true
	}
}

// put adds to a change that the room is taken.
func (r *room) put(c *fleet.Change) {
	next := int64(1)
	if r.epoch.v != nil {
		next += *r.epoch.v
	}
	c.If = append(c.If, fleet.Precondition{Key: powerKey, Revision: r.epoch.rev})
	c.Writes = append(c.Writes, fleet.Write{Key: powerKey, Value: next})
}

// powerTurn waits until nobody else here takes from the budgets, where the step does: at once they would only refuse each other's commits.
func (l *Loop) powerTurn(ctx context.Context, v *view) (leave func(), err error) {
	if v.room == nil || !v.drawsMore() {
		return func() {}, nil
	}
	if err := enter(ctx, l.drawing); err != nil {
		return nil, err
	}
	return func() { <-l.drawing }, nil
}

// MayPowerOn returns nil where a machine may be switched on by hand, and else why it may not.
func (l *Loop) MayPowerOn(ctx context.Context, id fleet.NodeID) error {
	v, err := l.look(ctx, id)
	if err != nil {
		return err
	}
	n := v.node.v
	if v.stop != nil {
		return fleet.Errorf(fleet.Conflict, "MC-POWER-STOPPED", "%s is not switched on: %s", n.Name, v.stop.Why()).WithHint("%s", v.stop.Command())
	}
	need, _ := powerNeed(fleet.StepRun{Name: step.PowerOn}, n, v.site.PowerOf(v.class))
	if v.room == nil || need <= v.held {
		return nil
	}
	if x := v.room.full(need); x != nil {
		return fleet.Errorf(fleet.Conflict, "MC-POWER-BUDGET", "%s is not switched on: it then draws %s, and of the %s of %s %s are left beside %d others", n.Name, fleet.Watts(need),
			fleet.Watts(x.budget.Watts), x.budget.Name(), fleet.Watts(x.left()), x.nodes).WithHint("metalctl burnin power shows who draws; it can be switched on once others draw less")
	}
	return nil
}

// full returns a budget that has no room for what the node then draws, nil where all have.
func (r *room) full(need int64) *share {
	for i, x := range r.shares {
		if x.others+need > x.budget.Watts {
			return &r.shares[i]
		}
	}
	return nil
}
