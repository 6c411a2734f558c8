package cleaning

import (
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// variables has the firmware's variables as one component, and each that differs as one of its own.
func (c *composer) variables() {
	const component = "firmware/variables"
	x := fleet.CleanedComponent{Component: component, Asked: "as they were accepted, new ones removed", Result: fleet.CleanNotDone}
	compared, cleaned := c.run(step.CompareAccepted), c.run(step.CleanVars)
	if compared != nil {
		var found Compared
		compared.read("differences", &found.Differences)
		for _, d := range found.Differences {
			if strings.HasPrefix(d.Component, component) {
				c.add(fleet.CleanedComponent{Component: d.Component, Asked: d.Want, Method: "compared with the accepted inventory", ReadBack: d.Got, Result: fleet.CleanFailed, Why: d.Words, Step: step.CompareAccepted, At: compared.FinishedAt})
			}
		}
	}
	var why string
	var removed []string
	switch {
	case !compared.finished():
		x.Why = compared.short(step.CompareAccepted)
	case compared.read("skipped", &why) || compared.read("variables_unknown", &why):
		x.Why = why
	case cleaned != nil && cleaned.read("skipped", &why):
		x.Why = why
	case !cleaned.finished():
		x.Why = cleaned.short(step.CleanVars)
		if cleaned != nil && cleaned.Error != nil {
			x.Result = fleet.CleanFailed
		}
	default:
		x.Step, x.At, x.Result, x.Method = step.CleanVars, cleaned.FinishedAt, fleet.CleanChecked, "compared with the accepted inventory"
		if cleaned.read("removed", &removed); len(removed) > 0 {
			x.Result, x.Method, x.ReadBack = fleet.CleanDone, "EFI variables deleted", "gone: "+strings.Join(removed, ", ")
		} else {
			x.Said = "no new one"
		}
	}
	c.add(x)
}
