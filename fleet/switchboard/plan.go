package switchboard

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/reach"
)

// intent is what the ports of one device shall carry, as the books have it, and the node of each.
type intent struct {
	want map[string]fleet.Carries
	node map[string]string
	// shared are ports that two nodes name, with what is said of them; held those that one of the nodes has, who alone decides then. Others are left as they are.
	shared map[string]string
	held   map[string]bool
}

func newIntent() *intent {
	return &intent{map[string]fleet.Carries{}, map[string]string{}, map[string]string{}, map[string]bool{}}
}

// intents reads the books. A node in no lease whose wires were never moved may still serve somebody before it is cleaned first: its ports stay as they are.
func (b *Board) intents(ctx context.Context) (out map[string]*intent, wires []fleet.NodeWires, err error) {
	err = b.Store.View(ctx, func(s fleet.Snapshot) error {
		out, wires = map[string]*intent{}, nil
		nodes, err := fleet.List[fleet.Node](s, fleet.KindNode)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if len(n.Wires()) == 0 {
				continue
			}
			w, _, err := maybe[fleet.NodeWires](s, wiresKey(n.ID))
			if err != nil {
				return err
			}
			if w != nil {
				wires = append(wires, *w)
			}
			if err := intend(s, out, n, w); err != nil {
				return err
			}
		}
		return nil
	})
	return out, wires, err
}

// untouched are the states of a node that metalctl has not yet taken for its own.
var untouched = []fleet.State{fleet.Enrolled, fleet.Inspecting, fleet.Managed}

func intend(s fleet.Snapshot, out map[string]*intent, n fleet.Node, w *fleet.NodeWires) error {
	keep := w == nil || w.Lease == "" && (slices.Contains(untouched, n.State) || !slices.Contains(atRest, n.State))
	set := fleet.NodeWires{Node: n.ID}
	if w != nil {
		set = *w
	}
	r, err := rulesOf(s, set)
	if err != nil {
		return err
	}
	for _, x := range n.Wires() {
		if out[x.Device] == nil {
			out[x.Device] = newIntent()
		}
		in := out[x.Device]
		mine, other := has(w, x), in.node[x.Port]
		if other != "" {
			in.shared[x.Port] = fmt.Sprintf("%s of %s is named by %s and by %s", x.Port, x.Device, other, n.Name)
			if in.held[x.Port] {
				continue
			}
			delete(in.want, x.Port)
		}
		in.node[x.Port], in.held[x.Port] = n.Name, mine
		if other != "" && !mine || keep && (x.Fabric || !set.Open) {
			continue
		}
		if c, _, err := set.Shall(x, r); err == nil { // what has no place is a doubt of the node's
			in.want[x.Port] = c
		}
	}
	return nil
}

// Plan reads every fabric and switch and says what would be written so that each port carries what it shall.
func (b *Board) Plan(ctx context.Context) (api.NetworkPlan, error) {
	out := api.NetworkPlan{Devices: []api.DevicePlan{}, Gained: []string{}, Lost: []string{}}
	wants, _, err := b.intents(ctx)
	if err != nil {
		return out, err
	}
	names, err := b.names(ctx)
	if err != nil {
		return out, err
	}
	var digests []string
	for _, name := range names {
		in := wants[name]
		if in == nil {
			in = newIntent()
		}
		plan, digest, err := b.planDevice(ctx, name, in, &out)
		if err != nil {
			return out, err
		}
		out.Devices = append(out.Devices, plan)
		if digest != "" {
			digests = append(digests, digest)
		}
	}
	if len(digests) == 0 {
		return out, nil
	}
	text, err := json.Marshal(digests)
	if err != nil {
		return out, fmt.Errorf("encode the plan: %w", err)
	}
	sum := sha256.Sum256(text)
	out.Digest = "sha256:" + hex.EncodeToString(sum[:])
	return out, nil
}

// planDevice plans one device and adds who reaches whom by it; its digest is "" where nothing would be written.
func (b *Board) planDevice(ctx context.Context, name string, in *intent, out *api.NetworkPlan) (api.DevicePlan, string, error) {
	plan := api.DevicePlan{Device: name, Changes: []fleet.WireChange{}}
	d, err := b.device(ctx, name)
	if err != nil {
		return plan, "", err
	}
	driver := d.bound()
	view, err := driver.Observe(ctx)
	if err != nil {
		return plan, "", err
	}
	want := map[string]fleet.Carries{}
	for _, p := range view.Ports {
		c, ours := in.want[p.Port]
		switch {
		case !ours:
		case p.Doubt != "" && !p.Absent:
			out.Notes = append(out.Notes, fmt.Sprintf("%s of %s (%s): %s", p.Port, name, in.node[p.Port], p.Doubt))
		case p.Doubt == "" && !p.Carries.Equal(c):
			want[p.Port] = c
		}
	}
	out.Notes = slices.AppendSeq(out.Notes, maps.Values(in.shared))
	for port := range in.want {
		if view.Port(port) == nil {
			out.Notes = append(out.Notes, fmt.Sprintf("%s of %s (%s) is not among the device's managed ports", port, name, in.node[port]))
		}
	}
	slices.Sort(out.Notes)
	if len(want) == 0 {
		return plan, "", nil
	}
	wp, err := driver.Plan(view, want)
	if err != nil {
		plan.Refused = err.Error()
		return plan, "", nil
	}
	plan.Changes = wp.Changes
	gained, lost := reach.Change(filtered(d.asSwitch(), view), wp.Changes, func(port string) string {
		if n := in.node[port]; n != "" {
			return n
		}
		return port
	})
	for _, p := range gained {
		out.Gained = append(out.Gained, p.String())
	}
	for _, p := range lost {
		out.Lost = append(out.Lost, p.String())
	}
	return plan, wp.Digest(), nil
}

// Apply does the plan with that digest; where anything has changed since it was made, nothing is written.
func (b *Board) Apply(ctx context.Context, digest, by string) error {
	frozen, err := b.frozen(ctx)
	if err != nil {
		return err
	}
	if frozen {
		return fleet.Errorf(fleet.Refused, "MC-FROZEN", "everything is frozen, wires included").WithHint("metalctl freeze status")
	}
	plan, err := b.Plan(ctx)
	if err != nil {
		return err
	}
	if digest == "" || plan.Digest != digest {
		return fleet.Errorf(fleet.Conflict, "MC-PLAN-DIGEST", "the plan is another by now: %s", plan.Digest).WithHint("metalctl network plan")
	}
	var errs []error
	for _, d := range plan.Devices {
		want := map[string]fleet.Carries{}
		for _, c := range d.Changes {
			want[c.Port] = c.To
		}
		if len(want) == 0 {
			continue
		}
		if _, err := b.Move(ctx, d.Device, want); err != nil {
			errs = append(errs, err)
			continue
		}
		_, err := b.Store.Commit(ctx, fleet.Change{Events: []fleet.Event{{Type: "network.applied", At: b.Now().UTC(), Subject: fleet.KeyOf(b.entry(d.Device).what(), d.Device),
			Text: fmt.Sprintf("%s %s: %s had %d ports put where they belong", b.entry(d.Device).what(), d.Device, by, len(want))}}})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Verdict reads every fabric and switch and says who is where, and who reaches whom and must not.
func (b *Board) Verdict(ctx context.Context) (api.NetworkVerdict, error) {
	out := api.NetworkVerdict{Meetings: []string{}, Doubts: []string{}, Nodes: []fleet.NodeWires{}}
	names, err := b.names(ctx)
	if err != nil {
		return out, err
	}
	for _, name := range names {
		if err := b.look(ctx, name); err != nil {
			out.Doubts = append(out.Doubts, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		if why := b.whyNot(b.entry(name)); why != "" {
			out.Doubts = append(out.Doubts, name+": "+why)
		}
	}
	if err := b.checkReach(ctx); err != nil {
		return out, err
	}
	b.mu.Lock()
	out.Meetings = append(out.Meetings, b.meet...)
	b.mu.Unlock()
	_, wires, err := b.intents(ctx)
	for _, w := range wires {
		out.Nodes = append(out.Nodes, w)
		for _, p := range w.Ports {
			if p.Doubt != "" {
				out.Doubts = append(out.Doubts, fmt.Sprintf("%s of %s: %s", p.Port, p.Device(), p.Doubt))
			}
		}
	}
	out.Proven = len(out.Meetings) == 0 && len(out.Doubts) == 0 && len(names) > 0
	return out, err
}
