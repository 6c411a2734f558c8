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
			if u.Cause == "aborted" && (p.Stopped != "" || toldBeside(p, u)) { // that is said once
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
			case u.Skipped && !b.lacks(u) || b.spared(u):
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

// toldBeside reports that a part says of another component why the check ended: what loads several at once ends for all of them.
func toldBeside(p *fleet.BurnPart, u fleet.Untold) bool {
	return slices.ContainsFunc(p.Untold, func(o fleet.Untold) bool {
		return o.Check == u.Check && o.Component != u.Component && o.Cause != "aborted" && !o.Skipped
	})
}

// lacks reports that an agent has nothing to load the parts with: older ones called that skipped, and a machine that nobody loaded has proven nothing.
func (b *burner) lacks(u fleet.Untold) bool {
	_, stress := fleet.FindStressor(u.Check)
	return stress && u.Cause == "no-tool"
}

// spared reports that nobody asked for what an agent has no tool for: the network is loaded where profile or class say how fast it is to be.
func (b *burner) spared(u fleet.Untold) bool {
	return b.lacks(u) && u.Check == fleet.StressNetwork && !slices.ContainsFunc([]string{"hca-bandwidth", "hca-mismatches", "nic-bandwidth"}, func(check string) bool {
		l, _ := b.limit(check)
		return l != nil
	})
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
