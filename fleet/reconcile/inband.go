package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/fleet/verdict"
)

// TaskFor returns what the agent of that boot generation should do now, or nil. The same step is handed out until its result is here: the agent
// answers a repeat from memory.
func (l *Loop) TaskFor(ctx context.Context, id fleet.NodeID, generation int64) (*api.Task, error) {
	v, err := l.look(ctx, id)
	if err != nil {
		return nil, err
	}
	n, op := v.node.v, v.op.v
	if n.Boot.Generation != generation {
		return nil, fleet.Errorf(fleet.Conflict, "MC-AGENT-GENERATION", "boot generation %d of %s is over, %d is the newest", generation, n.Name, n.Boot.Generation)
	}
	if op == nil {
		return nil, nil
	}
	i := op.Current()
	if i < 0 || op.Steps[i].Side != step.InBand || op.Steps[i].State != fleet.StepStarted || op.Generation != generation {
		return nil, nil
	}
	run := op.Steps[i]
	decl, _ := step.Find(run.Name)
	abort := (op.Abort || run.Name == step.BurnStage && v.loadStopped()) && decl.Abort == step.AbortNow
	if v.frozen != nil && !decl.Observes && !abort {
		return nil, nil // an agent that is at it already is not disturbed by that: it asks for no more while it works
	}
	var denied []string
	if name := op.Steps[i].Name; l.Denied != nil && (name == step.WriteImage || name == step.VerifyImage) {
		denied = l.Denied(ctx, n.BMC) // it may look up a name, so that no commit waits for it
	}
	params, err := l.fill(*op, i, denied, v.site)
	if err == nil && run.Name == step.ProbeWires {
		params, err = l.probeParams(ctx, id, op, i)
	}
	if err == nil {
		err = agentKnows(n, op.Steps[i].Name, params)
	}
	if err != nil {
		return nil, err
	}
	if !l.handOut(id, op, i) {
		return nil, nil
	}
	return &api.Task{Operation: op.ID, Index: i, Try: run.Try, Step: run.Name, Params: params,
		LimitSeconds: int64(step.LimitOf(run) / time.Second), Abort: abort}, nil
}

// fill completes the parameters of an in-band step with what must not stand in the journal: the addresses of this run, the ranges that images never come
// from, and the keys that the site trusts now.
func (l *Loop) fill(op fleet.Operation, i int, denied []string, site fleet.Site) (json.RawMessage, error) {
	params, err := step.Fill(op, i)
	if err != nil {
		return nil, err
	}
	switch op.Steps[i].Name {
	case step.WriteImage, step.VerifyImage:
		var p step.ImageParams
		if err := json.Unmarshal(params, &p); err != nil {
			return nil, fmt.Errorf("parameters of %s: %w", op.Steps[i].Name, err)
		}
		sources, err := l.Sources(op.ID, p.Image)
		if err != nil {
			return nil, err
		}
		add := map[string]any{"sources": sources}
		if len(denied) > 0 {
			add["denied"] = append(p.Denied, denied...)
		}
		return step.Merge(params, add)
	case step.FetchPacks:
		return step.Merge(params, map[string]any{"keys": site.PackKeys})
	case step.ConfigDrive:
		var p step.ConfigDriveParams
		if err := json.Unmarshal(params, &p); err != nil {
			return nil, fmt.Errorf("parameters of %s: %w", op.Steps[i].Name, err)
		}
		if p.UserDigest != "" {
			return step.Merge(params, map[string]any{"user_data_path": api.AgentUserDataPath})
		}
	}
	return params, nil
}

// agentKnows refuses a step that the agent of the node's boot does not understand.
func agentKnows(n *fleet.Node, name string, params json.RawMessage) error {
	needs, err := step.AgentNeeds(name, params)
	if err != nil || needs <= n.Boot.Speaks() {
		return err
	}
	return fleet.Errorf(fleet.Refused, "MC-AGENT-OLD", "%s needs an agent that speaks version %d of the protocol, and the one on %s speaks %d", name, needs, n.Name, n.Boot.Speaks()).
		WithHint("boot it with a newer ramdisk: metalctl node retry %s", n.Name)
}

// Report takes what became of a task. A late result of an older try, or of a plan that is over, is ignored without error.
func (l *Loop) Report(ctx context.Context, id fleet.NodeID, generation int64, res api.Result) error {
	r := step.Result{Evidence: res.Evidence, Problem: res.Error}
	if res.Error != nil {
		r.Faults = res.Error.Faults
	}
	v, err := l.look(ctx, id)
	if err != nil {
		return err
	}
	if !awaited(v, generation, res) {
		l.Log.Info("late result ignored", fleet.LogNode, v.node.v.Name, fleet.LogOperation, res.Operation, fleet.LogStep, res.Step, fleet.LogTry, res.Try)
		return nil
	}
	if len(r.Evidence) > step.MaxEvidence {
		return fleet.Errorf(fleet.Invalid, "MC-STEP-EVIDENCE", "%d bytes of evidence are more than %d", len(r.Evidence), step.MaxEvidence).
			WithHint("send it as attachment")
	}
	var inventory string
	var parts []fleet.BurnedPart
	if res.Step == step.Inventory && r.Problem == nil {
		if inventory, parts, err = l.takeInventory(ctx, res.Attachment); err != nil {
			if fleet.KindOf(err) != fleet.Invalid {
				return err
			}
			r.Problem = fleet.ProblemOf(err)
		}
	} else if r.Attachment = res.Attachment; res.Step == step.BurnStage && (len(r.Attachment) > 0 || r.Problem == nil) {
		if err := l.takePart(ctx, v, res.Index, &r); err != nil {
			return err
		}
	} else if res.Step == step.ProbeWires && r.Problem == nil {
		if err := l.takeProbe(ctx, v, res, &r); err != nil {
			return err
		}
	} else if len(r.Attachment) > 0 {
		if err := l.attach(ctx, &r); err != nil {
			return err
		}
	}
	var m Move
	err = l.updateSeen(ctx, id, v, func(v *view) error {
		m = Move{}
		if !awaited(v, generation, res) {
			return nil
		}
		if inventory != "" {
			if v.node.v.Inventory != inventory {
				v.node.v.LastInventory = v.node.v.Inventory
			}
			v.node.v.Inventory, v.node.v.InventoryAt = inventory, v.now
			v.repairsSeen(parts, true)
		}
		if err := v.result(res.Index, r); err != nil {
			return err
		}
		if err := l.onward(v, nil); err != nil {
			return err
		}
		if !v.op.v.State.Over() {
			m = l.decide(v)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if m.Kind == Await && !l.bells.busy(id) {
		l.setWaits(id, m.Why) // the agent asks for it by itself, and nobody else has anything to do
		return nil
	}
	l.Bell(id)
	return nil
}

// awaited reports whether the result is of the try that runs now.
func awaited(v *view, generation int64, res api.Result) bool {
	n, op := v.node.v, v.op.v
	if op == nil || op.ID != res.Operation || n.Boot.Generation != generation || op.Generation != generation || op.Current() != res.Index || res.Index < 0 {
		return false
	}
	run := op.Steps[res.Index]
	return run.Side == step.InBand && run.State == fleet.StepStarted && run.Try == res.Try && run.Name == res.Step
}

// maxInventory bounds what an agent may send as its inventory.
const maxInventory = 8 << 20

// takeInventory checks and stores an inventory, and says what parts it has; Invalid where it is none.
func (l *Loop) takeInventory(ctx context.Context, b []byte) (digest string, parts []fleet.BurnedPart, err error) {
	inv, err := parseInventory(b)
	if err != nil {
		return "", nil, err
	}
	if inv.System.UUID == "" && inv.System.Serial == "" {
		return "", nil, fleet.Errorf(fleet.Invalid, "MC-INVENTORY-IDENTITY", "the inventory names neither UUID nor serial number of the machine")
	}
	digest, err = l.Blobs.PutBlob(ctx, "inventory", bytes.NewReader(b))
	return digest, verdict.Parts(inv), err
}

func parseInventory(b []byte) (*fleet.Inventory, error) {
	if len(b) == 0 || len(b) > maxInventory {
		return nil, fleet.Errorf(fleet.Invalid, "MC-INVENTORY-SIZE", "an inventory of %d bytes is empty or over %d", len(b), maxInventory)
	}
	var inv fleet.Inventory
	if err := json.Unmarshal(b, &inv); err != nil {
		return nil, fleet.Errorf(fleet.Invalid, "MC-INVENTORY-DECODE", "decode the inventory: %w", err)
	}
	return &inv, nil
}

// inspected is a node as it is now, with its newest inventory; NotFound before the first.
func (l *Loop) inspected(ctx context.Context, id fleet.NodeID) (*view, *fleet.Inventory, error) {
	v, err := l.look(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	inv, err := l.inventory(ctx, v.node.v)
	return v, inv, err
}

// inventory reads the node's newest inventory; NotFound before the first.
func (l *Loop) inventory(ctx context.Context, n *fleet.Node) (*fleet.Inventory, error) {
	if n.Inventory == "" {
		return nil, fleet.Errorf(fleet.NotFound, "MC-INVENTORY-NONE", "%s has no inventory yet", n.Name).WithHint("metalctl node inspect %s", n.Name)
	}
	return l.readInventory(ctx, n.Name, n.Inventory)
}

// lastInventory reads the inventory before the newest, nil where there was none or it is kept no more.
func (l *Loop) lastInventory(ctx context.Context, n *fleet.Node) (*fleet.Inventory, error) {
	if n.LastInventory == "" {
		return nil, nil
	}
	inv, err := l.readInventory(ctx, n.Name, n.LastInventory)
	if fleet.KindOf(err) == fleet.NotFound && err != nil {
		return nil, nil
	}
	return inv, err
}

func (l *Loop) readInventory(ctx context.Context, name, digest string) (*fleet.Inventory, error) {
	f, err := l.Blobs.OpenBlob(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("open the inventory of %s: %w", name, err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		return nil, fmt.Errorf("read the inventory of %s: %w", name, err)
	}
	return parseInventory(b.Bytes())
}

// UserData returns the user-data of the lease that the node is deployed for now; NotFound where none is being deployed.
func (l *Loop) UserData(ctx context.Context, id fleet.NodeID, generation int64) ([]byte, error) {
	v, err := l.look(ctx, id)
	if err != nil {
		return nil, err
	}
	n, op, lease := v.node.v, v.op.v, v.lease.v
	deploying := op != nil && (op.Use == string(step.Deploy) || op.Use == string(step.Rebuild)) && n.State.Working()
	if !deploying || n.Boot.Generation != generation || lease == nil || lease.UserData == "" {
		return nil, fleet.Errorf(fleet.NotFound, "MC-LEASE-USERDATA", "no user-data is being deployed on %s", n.Name)
	}
	f, err := l.Blobs.OpenBlob(ctx, lease.UserData)
	if err != nil {
		return nil, fmt.Errorf("open user-data: %w", err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		return nil, fmt.Errorf("read user-data: %w", err)
	}
	return b.Bytes(), nil
}
