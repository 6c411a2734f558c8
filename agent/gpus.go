package agent

import (
	"context"
	"fmt"

	"github.com/metalctl/metalctl/agent/inspect"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// cleanGPUs puts the GPUs back to what the class wants and looks for what a tenant left on them. What is not as it should be is a fault of that GPU.
func (m *machine) cleanGPUs(ctx context.Context, c step.Call) (step.Outcome, error) {
	var p fleet.CleanGPUs
	if err := decodeParams(c, &p); err != nil {
		return step.Outcome{}, err
	}
	done := fleet.GPUCleaning{Unseen: "this agent has nobody who speaks to GPUs"}
	if m.CleanGPUs != nil {
		opts := m.Inspect
		opts.Only, opts.Sanitize, opts.SmartLog, opts.Progress = []string{inspect.PartPCI}, nil, nil, nil
		if err := m.simulated(&opts); err != nil {
			return step.Outcome{}, err
		}
		if opts.Simulated != "" { // its GPUs are the only ones
			opts.Root, opts.Simulated = opts.Simulated, ""
		}
		inv, err := inspect.Read(ctx, opts)
		if err != nil {
			return step.Outcome{}, err
		}
		done = m.CleanGPUs(ctx, opts.Root, inv.PCI, p)
	}
	if err := ctx.Err(); err != nil {
		return step.Outcome{}, err
	}
	out := step.Outcome{Attachment: done}
	add := func(code, component, hint, evidence string) {
		out.Faults = append(out.Faults, fleet.Fault{Code: code, Component: component, Severity: fleet.Critical, Since: m.Now().UTC(), Blocks: fleet.BlocksAllocate,
			Evidence: shorten(evidence, 300), Hint: hint})
	}
	if done.Unseen != "" && (p.Required || done.Failed) {
		add("MC-FAULT-GPU-UNSEEN", "gpus", "give the class a pack with the driver: metalctl pack list; then: metalctl node clean NODE", done.Unseen)
	}
	for _, g := range done.GPUs {
		for i, f := range g.Faults {
			if i == 3 {
				break // the rest stands in the attachment
			}
			add("MC-FAULT-GPU-LEFT", gpuComponent(g), "metalctl node cleaning NODE, then: metalctl node power cycle NODE and metalctl node clean NODE", f)
		}
	}
	out.Evidence = map[string]any{"driver": done.Driver, "unseen": done.Unseen, "cleaned": len(done.GPUs), "faults": len(out.Faults)}
	if len(out.Faults) > 0 {
		return out, fleet.Errorf(fleet.Broken, "MC-GPU-NOT-CLEAN", "GPUs are not shown to be clean, first %s: %s", out.Faults[0].Component, out.Faults[0].Evidence).
			WithHint("metalctl node cleaning NODE")
	}
	return out, nil
}

// gpuComponent is a GPU's name by its module id, else its index, else its address.
func gpuComponent(g fleet.GPUCleaned) string {
	switch {
	case g.ModuleID > 0:
		return fmt.Sprintf("gpu/%d", g.ModuleID)
	case g.Index >= 0:
		return fmt.Sprintf("gpu/%d", g.Index)
	}
	return "gpu/" + g.PCIAddress
}
