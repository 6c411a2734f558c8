package cleaning

import (
	"fmt"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/fleet/verdict"
)

// gpus has every GPU of the inventory, and those that only the step met.
func (c *composer) gpus() {
	r := c.run(step.CleanGPUs)
	var did []fleet.GPUCleaned
	var unseen, driver string
	if r != nil {
		r.read("gpus", &did)
		r.read("unseen", &unseen)
		r.read("driver", &driver)
	}
	met := map[string]bool{}
	for i, g := range c.Inventory.GPUs {
		x := fleet.CleanedComponent{Component: verdict.Component(c.Inventory, i), Identity: firstOf(g.Serial, g.UUID, g.PCIAddress), Model: g.Model}
		found := false
		for _, y := range did {
			if y.PCIAddress == g.PCIAddress {
				c.gpu(x, r, driver, y)
				met[y.PCIAddress], found = true, true
			}
		}
		if found {
			continue
		}
		x.Result = fleet.CleanNotDone
		switch {
		case r == nil:
			x.Why = "the class expects no GPUs, so that the plan has no step for them"
		case unseen != "":
			x.Why = "not looked at: " + unseen
		default:
			x.Why = r.short(step.CleanGPUs)
		}
		c.add(x)
	}
	if n := len(c.Inventory.GPUs); n > 0 {
		c.add(fleet.CleanedComponent{Component: "gpu-memory", Identity: plural(n, "GPU"), Result: fleet.CleanNotDone,
			Why: "it is neither overwritten nor read: that needs the CUDA driver, which no cleaning calls; what is in use stands beside each GPU"})
	}
	for _, y := range did {
		if !met[y.PCIAddress] {
			c.gpu(fleet.CleanedComponent{Component: "gpu/" + y.PCIAddress, Identity: y.Serial}, r, driver, y)
		}
	}
}

// gpu is one GPU that was gone through.
func (c *composer) gpu(x fleet.CleanedComponent, r *run, driver string, g fleet.GPUCleaned) {
	x.Step, x.At, x.Method = step.CleanGPUs, r.FinishedAt, strings.TrimSpace("NVML, driver "+driver)
	x.Asked = "settings as the class says, no process, no memory in use"
	if g.Serial != "" {
		x.Identity = g.Serial
	}
	var said, back []string
	x.Result = fleet.CleanChecked
	for _, s := range g.Settings {
		if s.Said != "" {
			said = append(said, s.Name+": "+s.Said)
		}
		if s.Before != "" && s.Before != s.Asked {
			x.Result = fleet.CleanDone
			back = append(back, fmt.Sprintf("%s was %s, is %s", s.Name, s.Before, s.After))
		} else if s.After != "" {
			back = append(back, s.Name+" "+s.After)
		}
	}
	if g.MemoryUsedBytes != nil {
		back = append(back, fmt.Sprintf("%d bytes in use", *g.MemoryUsedBytes))
	}
	x.Said, x.ReadBack = strings.Join(said, "; "), strings.Join(back, "; ")
	if len(g.Faults) > 0 || !g.Whole {
		x.Result, x.Why = fleet.CleanFailed, strings.Join(g.Faults, "; ")
		if x.Why == "" {
			x.Why = "it was not gone through whole"
		}
	}
	c.add(x)
}
