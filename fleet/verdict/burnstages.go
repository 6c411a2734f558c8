package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// proof is what a stressor must have measured of each part of its kind, so that one that did nothing does not pass.
var proof = map[string]string{
	fleet.StressCPU: "cpu-mismatches", fleet.StressMemory: "memory-mismatches", fleet.StressDisks: "disk-mismatches", fleet.StressGPUMemory: "gpu-memory-mismatches", fleet.StressGPUCompute: "gpu-mismatches",
	fleet.StressGPUTensor: "gpu-mismatches", fleet.StressGPUCopy: "gpu-copy-mismatches",
}

// complete enters that the burn-in did not finish, and which stressor of a stage that ran told nothing.
func (b *burner) complete() {
	in := b.in
	if !in.Finished || len(b.parts) == 0 {
		c := fleet.Check{ID: "finished", Component: "node", Outcome: fleet.CouldNotTell, Code: "MC-BURN-UNFINISHED", Do: "retest"}
		stages, ran := len(in.Profile.Stages)*max(1, in.Profile.Rounds), map[stageAt]bool{}
		for i := range b.parts {
			ran[atStage(&b.parts[i])] = true
		}
		c.Words = fmt.Sprintf("the burn-in is not over: %d of %s were run", len(ran), count(stages, "stage"))
		if in.Stopped != "" {
			c.Words = fmt.Sprintf("the burn-in was stopped after %d of %s: %s", len(ran), count(stages, "stage"), in.Stopped)
		}
		if slices.ContainsFunc(b.checks, func(x found) bool { return x.Outcome == fleet.Fail }) {
			c.Do = "none" // what failed has its own
		}
		b.add(ofOther, c)
	}
	missing := map[[2]string]bool{}
	for i := range b.parts {
		p := &b.parts[i]
		k := slices.IndexFunc(in.Profile.Stages, func(s fleet.BurnStage) bool { return s.Name == p.Stage })
		if k < 0 {
			continue
		}
		if p.Stopped != "" {
			b.excused(p)
			continue
		}
		for _, stress := range in.Profile.Stages[k].Stress {
			for _, at := range b.unproved(p, stress) {
				if missing[[2]string{stress, at}] {
					continue
				}
				missing[[2]string{stress, at}] = true
				b.add(ofUntold, fleet.Check{ID: stress, Component: at, Outcome: fleet.CouldNotTell, Code: "MC-BURN-UNTOLD", Do: "retest", Stage: p.Stage, Round: p.Round,
					Words: fmt.Sprintf("%s: stage %s was to load it with %s and measured nothing of it", b.name(at), p.Stage, stress)})
			}
		}
	}
}

// stageAt is one stage of one round, which may have been tried more than once.
type stageAt struct {
	stage string
	round int
}

func atStage(p *fleet.BurnPart) stageAt { return stageAt{p.Stage, p.Round} }

// excused enters that a stage ended before its time for no reason that shows in what was found: then it has proven nothing.
func (b *burner) excused(p *fleet.BurnPart) {
	reason, _, _ := strings.Cut(p.Stopped, ":")
	words := ""
	switch reason {
	case fleet.StoppedAborted, fleet.StoppedLimit:
		again := slices.ContainsFunc(b.parts, func(o fleet.BurnPart) bool { return atStage(&o) == atStage(p) && o.Stopped == "" })
		if again || !b.in.Finished {
			return
		}
		words = "and nobody ran it again"
	case fleet.StoppedWrong, fleet.StoppedKernel:
		if slices.ContainsFunc(b.checks, func(f found) bool { return f.Outcome == fleet.Fail || f.Outcome == fleet.CouldNotTell }) {
			return
		}
		words = "and nothing that was found says so"
	default:
		words = "which is no reason that this judge knows"
	}
	b.add(ofUntold, fleet.Check{ID: "stage", Component: "node", Outcome: fleet.CouldNotTell, Code: "MC-BURN-UNTOLD", Do: "retest", Stage: p.Stage, Round: p.Round,
		Words: fmt.Sprintf("stage %s of round %d ended before its time (%s), %s", p.Stage, p.Round, p.Stopped, words)})
}

// restarted enters how often the machine went down under load: once it may have lost its power, twice it has a fault.
func (b *burner) restarted() {
	n := float64(len(b.in.Restarts))
	if n == 0 && (!b.in.Finished || len(b.parts) == 0) {
		return
	}
	c := fleet.Check{ID: "restarts", Component: "system", Outcome: fleet.Pass, Value: &n, Unit: "times", Words: "the machine stayed up"}
	for _, r := range b.in.Restarts {
		c.Stage, c.Round = r.Stage, r.Round
		words := fmt.Sprintf("stage %s of round %d: %s", r.Stage, r.Round, r.Why)
		if !r.At.IsZero() {
			words = r.At.UTC().Format("2006-01-02 15:04:05") + ", " + words
		}
		c.Evidence = append(c.Evidence, words)
	}
	if n > 0 {
		c.Code, c.Limit = "MC-BURN-RESTART", &fleet.CheckLimit{Unit: c.Unit, Against: "metalctl", Source: "a machine stays up under load"}
		c.Outcome, c.Do = fleet.Warn, "retest"
		c.Words = fmt.Sprintf("the machine went down, or its agent fell silent, while stage %s of round %d ran: look into the BMC's event log", c.Stage, c.Round)
	}
	if n > 1 {
		c.Outcome, c.Do = fleet.Fail, "cold-cycle"
		c.Words = fmt.Sprintf("the machine went down %s under load, the last time in stage %s of round %d: look into the BMC's event log, and at its power supplies", times(len(b.in.Restarts)), c.Stage, c.Round)
	}
	b.add(ofOther, c)
}

// unproved are the components that a stressor should have measured in a part and neither did nor said why not.
func (b *burner) unproved(p *fleet.BurnPart, stress string) (out []string) {
	check := proof[stress]
	if check == "" {
		return nil
	}
	s, _ := fleet.FindStressor(stress)
	told := func(at string) bool {
		return slices.ContainsFunc(p.Untold, func(u fleet.Untold) bool {
			if u.Component != "" && u.Component != "node" && u.Component != at && u.Component != s.Part+"s" && u.Component != s.Part {
				return false
			}
			return u.Check == stress || u.Check == check || strings.HasPrefix(u.Check, s.Part+"-")
		})
	}
	any := slices.ContainsFunc(p.Measured, func(m fleet.Measured) bool { return m.Check == check })
	if s.Part != "gpu" { // cores, NUMA nodes and accepted disks: who is loaded is the agent's choice
		if !any && !told("") && !slices.ContainsFunc(p.Untold, func(u fleet.Untold) bool { return u.Check == stress || u.Check == check }) {
			return []string{"node"}
		}
		return nil
	}
	for _, at := range b.names.gpu {
		has := slices.ContainsFunc(p.Measured, func(m fleet.Measured) bool { return m.Check == check && m.Component == at })
		if !has && !told(at) {
			out = append(out, at)
		}
	}
	if len(b.names.gpu) == 0 && !any && len(p.Untold) == 0 || len(out) > 1 && len(out) == len(b.names.gpu) {
		return []string{"node"}
	}
	return out
}
