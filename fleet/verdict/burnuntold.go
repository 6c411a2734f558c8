package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// platformCauses lie in the software of the node: they say nothing of any part.
var platformCauses = map[string]string{
	"no-driver": "update", "driver-mismatch": "update", "fabric-not-ready": "reboot", "no-library": "update", "denied": "configure", "no-tool": "update",
}

// untold enters what could not be measured: what was foreseen is skipped, what lies in the platform is one error, anything else an error of its own.
func (b *burner) untold() {
	type key struct{ check, component, cause string }
	seen := map[key]bool{}
	causes := map[string][]fleet.Untold{}
	for i := range b.parts {
		p := &b.parts[i]
		for _, u := range p.Untold {
			if u.Cause == "aborted" { // that it did not finish is said once
				continue
			}
			k := key{u.Check, u.Component, u.Cause}
			if seen[k] {
				continue
			}
			seen[k] = true
			at := u.Component
			if at == "" {
				at = "node"
			}
			c := fleet.Check{ID: u.Check, Component: at, Outcome: fleet.CouldNotTell, Code: "MC-BURN-UNTOLD", Words: fmt.Sprintf("%s: %s could not be told: %s", b.name(at), u.Check, u.Words), Stage: p.Stage, Round: p.Round, Do: "retest",
				Evidence: []string{"cause " + u.Cause}}
			switch {
			case u.Skipped:
				c.Outcome, c.Code, c.Do, c.Words = fleet.Skip, "", "", u.Words
			case platformCauses[u.Cause] != "" || strings.Contains(u.Words, "802"): // CUDA_ERROR_SYSTEM_NOT_READY: the fabric is not up
				causes[u.Cause] = append(causes[u.Cause], u)
				c.Outcome, c.Code, c.Do, c.Words = fleet.Skip, "", "", "the platform: "+u.Words
			}
			b.add(ofUntold, c)
		}
	}
	b.together()
	for _, cause := range sortedKeys(causes) {
		us := causes[cause]
		do := platformCauses[cause]
		if do == "" {
			do = "reboot"
		}
		c := fleet.Check{ID: "platform-" + cause, Component: "platform", Outcome: fleet.CouldNotTell, Code: "MC-BURN-PLATFORM", Do: do,
			Words: fmt.Sprintf("the platform: %s; no part is condemned by that", us[0].Words)}
		for _, u := range us {
			if len(c.Evidence) < 12 {
				c.Evidence = append(c.Evidence, strings.TrimSpace(u.Check+" "+u.Component)+" could not be told")
			}
		}
		b.add(ofPlatform, c)
	}
}

// together: where one cause kept all GPUs of several from telling, it lies in what they share.
func (b *burner) together() {
	gpus := b.gpus()
	if len(gpus) < 2 {
		return
	}
	at := map[string]map[string]bool{} // components by cause
	cause := func(f found) string {
		if f.family != ofUntold || f.Outcome != fleet.CouldNotTell || !slices.Contains(b.names.gpu, f.Component) || len(f.Evidence) == 0 {
			return ""
		}
		return strings.TrimPrefix(f.Evidence[0], "cause ")
	}
	for _, f := range b.checks {
		if c := cause(f); c != "" {
			if at[c] == nil {
				at[c] = map[string]bool{}
			}
			at[c][root(f.Component)] = true
		}
	}
	for _, why := range sortedKeys(at) {
		if len(at[why]) < len(gpus) {
			continue
		}
		words := ""
		for i := range b.checks {
			f := &b.checks[i]
			if cause(*f) == why {
				words = f.Words
				f.Outcome, f.Code, f.Do = fleet.Skip, "", ""
			}
		}
		b.add(ofPlatform, fleet.Check{ID: "platform-" + why, Component: "platform", Outcome: fleet.CouldNotTell, Code: "MC-BURN-PLATFORM", Do: "reboot",
			Words: fmt.Sprintf("the platform: none of the %d GPUs could be measured; %s", len(gpus), words)})
	}
}

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
		stages := len(in.Profile.Stages) * max(1, in.Profile.Rounds)
		c.Words = fmt.Sprintf("the burn-in is not over: %d of %s were run", len(b.parts), count(stages, "stage"))
		if in.Stopped != "" {
			c.Words = fmt.Sprintf("the burn-in was stopped after %d of %s: %s", len(b.parts), count(stages, "stage"), in.Stopped)
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
		if k < 0 || p.Stopped != "" {
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
