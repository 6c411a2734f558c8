package cleaning

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// memory is the machine's, cleared by having been off.
func (c *composer) memory() {
	x := fleet.CleanedComponent{Component: "memory", Model: fmt.Sprintf("%d bytes", c.Inventory.Memory.TotalBytes), Result: fleet.CleanNotDone}
	r := c.run(step.StayOff)
	var off step.StayedOff
	switch {
	case r.finished() && json.Unmarshal(r.Evidence, &off) == nil:
		var asked step.StayOffParams
		if json.Unmarshal(r.Params, &asked) == nil {
			x.Asked = fmt.Sprintf("off for %d s", asked.Seconds)
		}
		x.Result, x.Method, x.Step, x.At = fleet.CleanDone, "power off and on through the BMC", step.StayOff, r.FinishedAt
		x.Said = fmt.Sprintf("off from %s to %s", off.Since.UTC().Format(time.RFC3339), off.Until.UTC().Format(time.RFC3339))
		x.ReadBack = fmt.Sprintf("off at each of %d readings; boot %d came after", off.Readings, c.Operation.Generation)
	case r != nil:
		x.Why = r.short(step.StayOff)
	case c.Class.Clean.Memory == fleet.CleanKeep:
		x.Result, x.Why = fleet.CleanKept, "the class says so"
	default:
		x.Why = "the class asks for no cold cycle"
	}
	c.add(x)
}
