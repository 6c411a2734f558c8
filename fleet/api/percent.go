package api

import (
	"math"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// weight is how much of an operation a step counts for: the root of its time limit, so that long steps count more, but not for everything.
func weight(name string) float64 {
	st, ok := step.Find(name)
	if !ok {
		return 1
	}
	return math.Sqrt(st.Limit.Minutes())
}

// HowFar is the operation's percentage: its finished steps, and the share of the running one that its progress tells.
func (o *Operation) HowFar() float64 {
	if o.State == fleet.OperationDone {
		return 100
	}
	finished, all := 0.0, 0.0
	for _, st := range o.Steps {
		all += weight(st.Name)
		if st.State == fleet.StepFinished {
			finished += weight(st.Name)
		}
	}
	if i := o.Current(); o.Progress != nil && !o.State.Over() && i >= 0 && o.Steps[i].Name == o.Progress.Step {
		finished += weight(o.Progress.Step) * o.Progress.Percent / 100
	}
	if all == 0 {
		return 0
	}
	return math.Round(1000*min(1, max(0, finished/all))) / 10
}
