package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// StepJudgeBurnIn is the step that raises the faults of a burn-in, and clears them when it finds them no more.
const StepJudgeBurnIn = "judge-burn-in"

// Fatal says whether a part shows that going on is useless: a part is gone, its data is wrong, or its driver has given it up. What is only slow, hot or
// not measured is worth the rest of the burn-in, and what was so before is known. nil goes on.
func Fatal(part *fleet.BurnPart, class fleet.Class) *fleet.Check {
	b := newBurner(BurnInput{Parts: []fleet.BurnPart{*part}, Class: class, Finished: true})
	b.inventories()
	b.counters()
	b.measured()
	b.explain()
	b.blame()
	var known []fleet.Difference
	if part.Before != nil {
		known = Judge(*part.Before, class)
	}
	i := slices.IndexFunc(b.checks, func(f found) bool {
		old := slices.ContainsFunc(known, func(d fleet.Difference) bool { return d.Code == f.Code && d.Component == f.Component })
		return !old && f.Outcome == fleet.Fail && slices.Contains([]family{ofPresence, ofMemory, ofDriver, ofData, ofDisk}, f.family)
	})
	if i < 0 {
		return nil
	}
	return &b.checks[i].Check
}

// Faults are what a report raises on its node: each finding that is no pass keeps it from being handed out. That it did not finish is no fault of the node.
func Faults(r *fleet.BurnReport) []fleet.Fault {
	var out []fleet.Fault
	for _, c := range r.Checks {
		if c.Outcome != fleet.Fail && c.Outcome != fleet.CouldNotTell || c.Code == "MC-BURN-UNFINISHED" {
			continue
		}
		hint := "metalctl burnin report " + r.Node
		if p, ok := partOf(r.Machine.Parts, c.Component); c.Do == "replace" && ok && p.Serial != "" {
			hint = fmt.Sprintf("replace it, then: metalctl node repair %s --replaced %s --old %s --new SERIAL", r.Node, p.Component, p.Serial)
		}
		out = append(out, fleet.Fault{Code: c.Code, Component: c.Component, Severity: fleet.Critical, Since: r.EndedAt, Evidence: c.Words, Hint: hint, Blocks: fleet.BlocksAllocate, Step: StepJudgeBurnIn, Check: c.ID})
	}
	return out
}

// Looked reports whether a burn-in that passed has looked again for what a fault of an earlier one says, in that part: only then is it gone.
func Looked(r *fleet.BurnReport, f fleet.Fault) bool {
	passed := func(id string) bool {
		return slices.ContainsFunc(r.Checks, func(c fleet.Check) bool {
			at := c.Component == f.Component || strings.HasPrefix(f.Component, c.Component+"/") || f.Component == "node" || f.Component == fleet.MoreComponents
			return c.ID == id && at && (c.Outcome == fleet.Pass || c.Outcome == fleet.Warn)
		})
	}
	if f.Check == "nvswitch-links" {
		return slices.ContainsFunc(r.Checks, func(c fleet.Check) bool { return strings.HasPrefix(c.ID, "nvlink-") && c.Outcome == fleet.Pass })
	}
	if s, ok := fleet.FindStressor(f.Check); ok { // it had measured nothing
		return slices.ContainsFunc(r.Stages, func(x fleet.StageRun) bool {
			return x.Stopped == "" && slices.ContainsFunc(x.Ran, func(ran fleet.StressRun) bool { return ran.Stress == s.Name })
		}) && (proof[s.Name] == "" || passed(proof[s.Name]))
	}
	_, measured := fleet.FindMeasured(f.Check)
	counted := slices.ContainsFunc(counterRules, func(c counterRule) bool { return c.id == f.Check })
	switch {
	case counted && strings.HasPrefix(f.Component, "pci/"): // which stands in a report where it moved, and is always read
		return true
	case measured, counted, f.Check == "restarts", f.Check == "gpu-throttled":
		return passed(f.Check)
	}
	// What the inventory says: each run reads it whole. A part that is not there any more was not looked at.
	kind, _, is := strings.Cut(f.Component, "/")
	if !is || !slices.Contains([]string{"cpu", "dimm", "gpu", "nvswitch", "hca", "disk"}, kind) {
		return true
	}
	_, there := partOf(r.Machine.Parts, f.Component)
	return there
}
