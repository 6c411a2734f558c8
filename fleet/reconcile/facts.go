package reconcile

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// Facts are what Decide looks at besides the records.
type Facts struct {
	// AgentUp and AgentSince are about the agent of the node's present boot generation.
	AgentUp    bool
	AgentSince time.Time
	// Sure is the time that has passed by every clock, whatever the wall clock was set to. What ends and destroys is judged by it.
	Sure time.Time
	// Frozen says why nothing outside may be written for the node, "" where it may.
	Frozen string
	// Steady is the time by which the node's operation is judged, whatever the wall clock was set to; zero: the time that Decide is told.
	Steady time.Time
	// Power is why the step that is next must not make the machine draw more yet, nil where it may.
	Power *PowerWait
}

// guards gathers what the lifecycle's guards look at, for a verb. What only the wish knows is added by the caller.
func (v *view) guards(verb fleet.Verb) fleet.Facts {
	n := v.node.v
	f := fleet.Facts{
		Dirty: n.Dirty, Isolated: n.Isolated, IsolationWaived: v.site.IsolationWaived(),
		Held: n.Hold != nil, Protected: n.Protected,
		RebootAllowed: n.AllowReboot,
		HasInventory:  n.Inventory != "",
		Fresh:         n.Inventory != "" && v.class.Erases(n.Erased),
		Agreed:        n.Inventory != "" && len(n.Accepted) > 0,
		BurnInDue:     v.class.BurnInDue(*n),
		ClassMatches:  v.class.Name != "" && n.Compared == v.class.Compared(n.Inventory) && !classDiffers(n),
		IdentityKnown: n.BMC.Serial != "" || n.BMC.UUID != "",
		Lease:         n.Lease,
		// Only a record of every medium of the node is ever written.
		Destroyed:    len(n.Destroyed) > 0,
		RootDiskOnly: true,
	}
	blocks := fleet.BlocksAllocate
	if verb == fleet.VerbDeploy || verb == fleet.VerbRebuild {
		blocks = fleet.BlocksDeploy
	}
	f.Barred = len(n.Blocked(fleet.BlocksEverything)) > 0
	for _, x := range n.Faults {
		if x.Blocks == fleet.BlocksEverything || x.Blocks == fleet.BlocksDeploy || x.Blocks == blocks {
			f.Blocked = true
		}
	}
	f.Matches = f.ClassMatches && len(n.Blocked(fleet.BlocksAllocate)) == 0
	if v.op.v != nil {
		f.FromAvailable = v.op.v.From == fleet.Available
	}
	if l := v.lease.v; l != nil {
		// A lease, or a member of it, that was never ready left nothing worth keeping; one that came back from its grace time did.
		m := l.Member(n.ID)
		f.LeaseGrantsGrace = l.Request.GraceSeconds > 0 && (l.Fault == "" || !l.GraceEnds.IsZero()) && n.Dirty == fleet.Dirty(l.ID) && (m == nil || !m.Undeployed)
		f.LeaseExtended = n.State == fleet.Grace && extended(l, n.ID)
		f.GraceOver = !f.LeaseExtended && !v.sure.Before(l.GraceEnds)
	}
	return f
}

// classDiffers reports whether the newest comparisons, from inside and through the BMC, found the machine to be other than it must be.
func classDiffers(n *fleet.Node) bool {
	for _, x := range n.Faults {
		if (x.Step == step.CompareClass || x.Step == step.ReadBoard) && x.Blocks != fleet.BlocksNothing {
			return true
		}
	}
	return false
}

// planFacts gathers what Compose looks at. power is "on", "off" or "".
func (l *Loop) planFacts(v *view, power string) step.PlanFacts {
	n := v.node.v
	up, _ := l.Agents.Up(n.ID, n.Boot.Generation)
	f := step.PlanFacts{Node: *n, Class: v.class, Site: v.site, Packs: v.packs, Profiles: v.profiles, Power: power, Canary: v.canary,
		// A machine that is off runs no agent, however lately it was heard of.
		AgentUp: up && n.Boot.Generation > 0 && power != "off"}
	if v.lease.v != nil {
		f.Lease, f.Member = v.lease.v, v.lease.v.Member(n.ID)
	}
	if v.image != nil {
		f.Image = v.image
	}
	f.Network = v.network
	return f
}

// power asks the BMC; "" where it does not say within the call deadline.
func (l *Loop) power(ctx context.Context, id fleet.NodeID) string {
	s, err := l.askPower(ctx, id)
	if err != nil {
		return ""
	}
	return s
}

// askPower asks the BMC, and says why where it does not say.
func (l *Loop) askPower(ctx context.Context, id fleet.NodeID) (string, error) {
	if l.Machine == nil {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.CallDeadline)
	defer cancel()
	s, err := l.Machine.PowerState(ctx, id)
	if err != nil {
		return "", err
	}
	return lowerPower(s), nil
}

// notTold replaces the refusal to restart a machine that runs where nobody could tell whether it does: why is the error of the one who was asked.
func notTold(refusal error, n *fleet.Node, why error) error {
	if why == nil || fleet.CodeOf(refusal) != "MC-NODE-RUNNING" {
		return refusal
	}
	return fmt.Errorf("%s may be running, and an inspection from inside would restart it; its BMC was asked: %w", n.Name, why)
}

// lowerPower is "on", "off", or "" for what is on its way or not known.
func lowerPower(s string) string {
	if s = strings.ToLower(s); s != "on" && s != "off" {
		return ""
	}
	return s
}

func (l *Loop) facts(n *fleet.Node) Facts {
	up, since := l.Agents.Up(n.ID, n.Boot.Generation)
	// Whom this process has not heard of yet is not silent for longer than the process is there.
	since = latest(since, l.began)
	if now := l.Now(); since.After(now) { // it was noted before the clock was set back
		since = now.Add(-l.age())
	}
	return Facts{AgentUp: up && n.Boot.Generation > 0, AgentSince: since}
}
