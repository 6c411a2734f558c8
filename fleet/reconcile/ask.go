package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// Ask takes somebody's wish for a node. What the table, the facts or the plan's digest do not allow is refused, and nothing is changed. The operation
// is "" for verbs that change facts and start nothing.
func (l *Loop) Ask(ctx context.Context, id fleet.NodeID, verb string, p api.NodeVerb, by string) (fleet.OperationID, error) {
	var op fleet.OperationID
	var err error
	switch verb {
	case api.VerbHold, api.VerbUnhold, api.VerbProtect, api.VerbUnprotect, api.VerbClearFault:
		err = l.update(ctx, id, func(v *view) error { return v.changeFact(verb, p, by) })
	case api.VerbRepair:
		err = l.repair(ctx, id, p, by)
	case api.VerbRetry:
		op, err = l.retry(ctx, id, p, by)
	case string(fleet.VerbAbort):
		op, err = l.abort(ctx, id, p, by)
	case string(fleet.VerbRetire), string(fleet.VerbForget), string(fleet.VerbAdopt):
		var d *destruction
		if d, err = l.destroyed(ctx, id, fleet.Verb(verb), p.Destroyed); err == nil {
			err = l.update(ctx, id, func(v *view) error { return l.atOnce(v, fleet.Verb(verb), d, by) })
		}
	default:
		op, err = l.wish(ctx, id, fleet.Verb(verb), p, by)
	}
	if err == nil {
		l.interrupted(ctx, id)
		l.Bell(id)
	}
	return op, err
}

// wish plans what a verb asks for, checks the table and the digest, and stores wish and operation in one commit.
func (l *Loop) wish(ctx context.Context, id fleet.NodeID, verb fleet.Verb, p api.NodeVerb, by string) (fleet.OperationID, error) {
	use, ok := useOf(verb)
	if !ok {
		return "", l.noPlan(ctx, id, verb)
	}
	power := ""
	var untold error
	if use != step.Release {
		// A release does not wait for a BMC that may be dead.
		power, untold = l.askPower(ctx, id)
	}
	inv, err := l.listed(ctx, id, verb)
	if err != nil {
		return "", err
	}
	image, err := l.named(ctx, use, p.Image)
	if err != nil {
		return "", err
	}
	opID := fleet.OperationID(l.NewID())
	harm, harms := deedOf(verb, p, by)
	err = l.updateFenced(ctx, id, harm.harm, nil, func(v *view) error {
		if err := v.thawed(verb, p); err != nil {
			return err
		}
		n := v.node.v
		f := v.guards(verb)
		if verb == fleet.VerbAccept {
			if err := agree(n, inv, p.Devices); err != nil {
				return err
			}
			if len(p.Devices) == 0 && p.Plan == "" {
				return unnamed(n, n.Accepted)
			}
			f = v.guards(verb)
			f.Agreed = true
			if err := burnable(v); err != nil {
				return err
			}
		}
		f.MachineOff, f.OutOfBandOnly = power == "off", p.OutOfBand
		f.RebootAllowed = f.RebootAllowed || p.AllowReboot
		up, _ := l.Agents.Up(id, n.Boot.Generation)
		f.MachineOff = f.MachineOff || up // nothing is restarted while the agent answers
		if verb == fleet.VerbClean && n.State == fleet.Grace && p.WaiveGrace {
			f.GraceOver = !f.LeaseExtended
		}
		if err := v.askable(verb, f); err != nil {
			return notTold(err, n, untold)
		}
		if harms && (verb != fleet.VerbClean || n.State == fleet.Grace) {
			harm.lease = n.Lease
			if err := v.book.take(harm, []*fleet.Node{n}); err != nil {
				return err
			}
		}
		if image != nil {
			v.image = image
		}
		if v.op.v != nil { // a release ends what runs and begins then, and a clean-up makes room for everything
			v.op.v.Abort = true
			n.Wish = &fleet.Wish{Verb: verb, By: by, At: v.now, Operation: opID, OutOfBand: p.OutOfBand, AllowReboot: p.AllowReboot, Image: p.Image, Profile: p.Profile, Plan: p.Plan}
			v.event("node.wish", "%s: %s asked by %s, the running %s is aborted first", n.Name, verb, by, v.op.v.Use)
			return nil
		}
		plan, err := step.Compose(use, l.planFacts(v, power), step.Request{OutOfBand: p.OutOfBand, AllowReboot: p.AllowReboot, Profile: p.Profile})
		if err != nil {
			return err
		}
		if p.Plan != "" && p.Plan != plan.Digest {
			return l.otherPlan(n, p.Plan, plan)
		}
		n.Wish = &fleet.Wish{Verb: verb, By: by, At: v.now, Operation: opID}
		l.take(v, step.Begin(plan, opID, *n, verb, by, n.Lease, v.now))
		return nil
	})
	if err != nil {
		return "", l.fenced(ctx, err)
	}
	return opID, nil
}

// askable asks the table, and refuses a second wish beside one that waits or runs; a release comes through all the same.
func (v *view) askable(verb fleet.Verb, f fleet.Facts) error {
	n := v.node.v
	if err := guarded(n, verb); err != nil {
		return err
	}
	if n.Hold != nil && verb != fleet.VerbRelease {
		return fleet.Errorf(fleet.Refused, "MC-NODE-HELD", "%s is held by %s: %s", n.Name, n.Hold.By, n.Hold.Reason).WithHint("metalctl node unhold %s", n.Name)
	}
	if n.Wish != nil {
		return fleet.Errorf(fleet.Conflict, "MC-NODE-BUSY", "%s was already asked of %s by %s", n.Wish.Verb, n.Name, n.Wish.By).
			WithHint("metalctl operation show %s", n.Wish.Operation)
	}
	if v.op.v != nil && !v.undoing() && (verb != fleet.VerbRelease || n.State == fleet.Releasing) {
		return fleet.Errorf(fleet.Conflict, "MC-NODE-BUSY", "%s runs on %s", v.op.v.Use, n.Name).WithHint("metalctl operation show %s, or: metalctl node abort %s", v.op.v.ID, n.Name)
	}
	if x := v.barred(verb, f); x != nil {
		return fleet.Errorf(fleet.Refused, "MC-NODE-BARRED", "%s is not asked of %s while it has the fault %s on %s: %s", verb, n.Name, x.Code, x.Component, x.Evidence).
			WithHint("%s", fleet.HintFor(x.Hint, n.Name))
	}
	_, err := fleet.Move(n.State, verb, f)
	switch {
	case err == nil:
		return nil
	case fleet.CodeOf(err) == "MC-NODE-GUARD" && verb == fleet.VerbInspect: // inspect has that one guard
		return fleet.Errorf(fleet.Refused, "MC-NODE-RUNNING", "%s is running, and an inspection from inside would restart it", n.Name).
			WithHint("metalctl node inspect %s --out-of-band, or --allow-reboot, or power it off first", n.Name)
	case fleet.HintOf(err) == "":
		return fleet.Errorf(fleet.Conflict, fleet.CodeOf(err), "%s: %w", n.Name, err).WithHint("metalctl node explain %s", n.Name)
	}
	return fmt.Errorf("%s: %w", n.Name, err)
}

// guarded refuses what a protected node does not let be done to it.
func guarded(n *fleet.Node, verb fleet.Verb) error {
	if !n.Protected || !slices.Contains(protectedAgainst, verb) {
		return nil
	}
	return fleet.Errorf(fleet.Refused, "MC-NODE-PROTECTED", "%s is protected against %s", n.Name, verb).WithHint("metalctl node unprotect %s", n.Name)
}

// barred is the fault that a person has to deal with before the verb may boot the machine or erase it, or nil. An inspection through the BMC alone only reads.
func (v *view) barred(verb fleet.Verb, f fleet.Facts) *fleet.Fault {
	n := v.node.v
	switch {
	case verb == fleet.VerbAccept, verb == fleet.VerbBurn, verb == fleet.VerbRebuild, verb == fleet.VerbClean && n.State != fleet.Grace:
		return n.Barred(true)
	case verb == fleet.VerbInspect && !f.OutOfBandOnly:
		return n.Barred(false)
	}
	return nil
}

// thawed refuses the verbs that write to the outside while the node is frozen. An inspection through the BMC alone only reads.
func (v *view) thawed(verb fleet.Verb, p api.NodeVerb) error {
	if v.frozen == nil || verb == fleet.VerbInspect && p.OutOfBand {
		return nil
	}
	return v.frozen.Refuse(*v.node.v, string(verb))
}

// noPlan refuses a verb of the table that needs a plan which nothing composes, and one that is no verb at all.
func (l *Loop) noPlan(ctx context.Context, id fleet.NodeID, verb fleet.Verb) error {
	v, err := l.look(ctx, id)
	if err != nil {
		return err
	}
	if _, err := fleet.Move(v.node.v.State, verb, v.guards(verb)); err != nil {
		return err
	}
	return fleet.Errorf(fleet.Refused, "MC-PLAN-USE", "nothing composes a plan for %q", verb).WithHint("metalctl capabilities lists what this server does")
}

// named reads the image that a rebuild asks for instead of the lease's; nil where it names none.
func (l *Loop) named(ctx context.Context, use step.Use, name string) (*fleet.Image, error) {
	if use != step.Rebuild || name == "" {
		return nil, nil
	}
	var img doc[fleet.Image]
	err := l.Store.View(ctx, func(s fleet.Snapshot) (err error) {
		img, err = maybe[fleet.Image](s, fleet.KeyOf(fleet.KindImage, name))
		return err
	})
	if err == nil && img.v == nil {
		err = fleet.Errorf(fleet.NotFound, "MC-IMAGE-UNKNOWN", "there is no image %q", name).WithHint("metalctl image list")
	}
	return img.v, err
}

// imageOf is the name of the image that a plan writes, or "".
func imageOf(op fleet.Operation) string {
	for _, s := range op.Steps {
		var p step.ImageParams
		if s.Name == step.WriteImage && json.Unmarshal(s.Params, &p) == nil {
			return p.Image.Name
		}
	}
	return ""
}

// listed reads the inventory that accept agrees to; nil for other verbs. A node whose ports are another's, too, is not accepted.
func (l *Loop) listed(ctx context.Context, id fleet.NodeID, verb fleet.Verb) (*fleet.Inventory, error) {
	if verb != fleet.VerbAccept {
		return nil, nil
	}
	v, inv, err := l.inspected(ctx, id)
	if err == nil {
		err = l.Store.View(ctx, func(s fleet.Snapshot) error { return fleet.Alone(s, *v.node.v) })
	}
	return inv, err
}

// agree makes of the node what accept agrees to: the devices, and the inventory as what a cleaning brings the machine back to.
func agree(n *fleet.Node, inv *fleet.Inventory, serials []string) error {
	devices, err := chooseDevices(n, inv, serials)
	if err == nil {
		n.Accepted, n.AcceptedAs, n.AcceptedVariables = devices, n.Inventory, len(inv.Variables) > 0
	}
	return err
}

// chooseDevices is what accept may erase: every device that would be erased, or just the named ones.
func chooseDevices(n *fleet.Node, inv *fleet.Inventory, serials []string) ([]fleet.AcceptedDevice, error) {
	all := inv.WouldErase()
	if len(serials) == 0 {
		if len(all) == 0 {
			return nil, fleet.Errorf(fleet.Conflict, "MC-ACCEPT-NONE", "the inventory of %s shows no disk that could be accepted", n.Name).
				WithHint("metalctl node inventory %s", n.Name)
		}
		return all, nil
	}
	refused := fleet.Errorf(fleet.Invalid, "MC-ACCEPT-SERIAL", "not every device can be accepted").WithHint("metalctl node show %s lists them as would_erase", n.Name)
	var out []fleet.AcceptedDevice
	seen := map[string]bool{}
	for i, s := range serials {
		at := fmt.Sprintf("devices[%d]", i)
		found := false
		for _, d := range all {
			if d.Serial == s && !seen[s] {
				out, found = append(out, d), true
			}
		}
		switch {
		case seen[s]:
			refused.Fields = append(refused.Fields, fleet.FieldError{Field: at, Message: fmt.Sprintf("%q is named twice", s)})
		case !found:
			refused.Fields = append(refused.Fields, fleet.FieldError{Field: at, Message: fmt.Sprintf("%q is no disk of the inventory that may be erased", s)})
		}
		seen[s] = true
	}
	if len(refused.Fields) > 0 {
		return nil, refused
	}
	return out, nil
}

// unnamed refuses an accept that names neither devices nor a plan that was shown: nobody agreed to anything in particular.
func unnamed(n *fleet.Node, listed []fleet.AcceptedDevice) error {
	e := fleet.Errorf(fleet.Invalid, "MC-ACCEPT-DEVICES", "accept names neither the devices of %s that may be erased nor a plan that was shown", n.Name)
	for _, d := range listed {
		e.Fields = append(e.Fields, fleet.FieldError{Field: "devices", Message: fmt.Sprintf("could name %s (%s, %d bytes)", d.Serial, firstOf(d.Model, "no model"), d.SizeBytes)})
	}
	return e.WithHint("metalctl node show %s, then: metalctl node accept %s", n.Name, n.Name)
}

// burnable refuses at accept what would only fail after hours of erasing: a class whose burn-in does not exist.
func burnable(v *view) error {
	if v.class.Name != "" && v.class.BurnIn == fleet.NoBurnIn {
		return nil
	}
	_, _, err := step.ProfileFor(step.PlanFacts{Node: *v.node.v, Class: v.class, Profiles: v.profiles}, step.Request{})
	return err
}

// Plan says what would run for a use, and why; it has no side effects. Its digest is that of the verb that is asked with the same settings.
func (l *Loop) Plan(ctx context.Context, id fleet.NodeID, q api.PlanQuery) (api.Plan, error) {
	power, untold := l.askPower(ctx, id)
	v, err := l.look(ctx, id)
	if err != nil {
		return api.Plan{}, err
	}
	if step.Use(q.Use) == step.Clean && v.node.v.State == fleet.Managed { // accept begins it, and what it would agree to is what would be erased
		inv, err := l.inventory(ctx, v.node.v)
		if err != nil {
			return api.Plan{}, err
		}
		if err := agree(v.node.v, inv, q.Devices); err != nil {
			return api.Plan{}, err
		}
	}
	image, err := l.named(ctx, step.Use(q.Use), q.Image)
	if err != nil {
		return api.Plan{}, err
	}
	if image != nil {
		v.image = image
	}
	p, err := step.Compose(step.Use(q.Use), l.planFacts(v, power), step.Request{OutOfBand: q.OutOfBand, AllowReboot: q.AllowReboot, Profile: q.Profile})
	if err != nil {
		return api.Plan{}, notTold(err, v.node.v, untold)
	}
	l.shown.keep(shownPlan{of: v.node.v.Name, plan: p, at: l.Now()})
	out := api.Plan{Use: q.Use, Digest: p.Digest, Reboots: p.Reboots, Destroys: p.Destroys, Erases: p.Erases}
	for _, s := range p.Steps {
		out.Steps = append(out.Steps, api.PlannedStep{Name: s.Name, Side: s.Side, Why: s.Why, Destroys: s.Destroys, Params: step.Shown(s.Name, s.Params)})
	}
	return out, nil
}
