package probe

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// fallback is the VLAN that switches put ports into that are in nothing: what a canary's port carries without a tag counts as it, too.
const fallback fleet.VLAN = 1

// twin reports whether the canary's interfaces hear each other in a VLAN, so that silence there means something.
func (r *round) twin(domain string, v fleet.VLAN) bool {
	all := r.heard[domain]
	for i, e := range all {
		for k := range all {
			from := uint16(fleet.CanaryPorts + k)
			if k == i || e.often(kind{from, fleet.FrameTag(v), fleet.FrameTag(v)}) || v == fallback && e.often(kind{from, fleet.Untagged, fleet.Untagged}) {
				continue
			}
			return false
		}
	}
	return len(all) > 1
}

// heardOut reports whether every interface of the canary hears the port in its own VLAN, without a tag and with one that says nothing.
func (r *round) heardOut(number int) bool {
	p := r.plan.Ports[number]
	for _, e := range r.heard[p.Domain] {
		if !e.often(kind{uint16(number), fleet.Untagged, fleet.FrameTag(p.VLAN)}) || !e.often(kind{uint16(number), fleet.PriorityTag, fleet.FrameTag(p.VLAN)}) {
			return false
		}
	}
	return len(r.heard[p.Domain]) > 0
}

// heardIn reports whether a port hears every interface of the canary in its own VLAN.
func (r *round) heardIn(p fleet.PlannedPort, at ears) bool {
	for k := range r.heard[p.Domain] {
		if !at.often(kind{uint16(fleet.CanaryPorts + k), fleet.FrameTag(p.VLAN), fleet.Untagged}) {
			return false
		}
	}
	return true
}

// acks has a bit for each port that the canary has heard enough of, and knows how to read the silence of.
func (r *round) acks() (bits uint64) {
	sure := map[string]bool{}
	for d := range r.heard {
		sure[d] = true
		for _, v := range r.plan.VLANs[d] {
			sure[d] = sure[d] && r.twin(d, v)
		}
	}
	for i, p := range r.plan.Ports {
		if p.VLAN != 0 && sure[p.Domain] && r.heardOut(i) {
			bits |= 1 << i
		}
	}
	return bits
}

// judge says what a round showed.
func (r *round) judge(report fleet.ProbeReport, at time.Time) fleet.Probe {
	out := fleet.Probe{Round: report.Round, At: at, Outcome: fleet.ProbeSilent}
	if len(report.Ports) != len(r.plan.Ports) {
		out.Outcome = fleet.ProbeUntold
		return out
	}
	for i := range r.plan.Ports {
		p := r.judgePort(i, report.Ports[i])
		out.Outcome = fleet.WorseOutcome(out.Outcome, p.Outcome)
		out.Ports = append(out.Ports, p)
	}
	return out
}

func (r *round) judgePort(number int, said fleet.ProbeEars) fleet.ProbedPort {
	p := r.plan.Ports[number]
	out := fleet.ProbedPort{Switch: p.Switch, Port: p.Port, Network: p.Network, VLAN: p.VLAN, Outcome: fleet.ProbeSilent}
	at, leaks := heardBy(said.Heard), leaks{}
	r.leaksOut(number, leaks)
	r.leaksIn(number, at, leaks)
	own := fleet.ProbeCheck{VLAN: p.VLAN, Own: true, Outcome: fleet.ProbeSilent}
	if p.VLAN != 0 {
		own.Outcome, own.Why = r.own(number, said, at)
		out.Checks = append(out.Checks, own)
	}
	for _, v := range r.plan.VLANs[p.Domain] {
		if v == p.VLAN {
			continue
		}
		c := fleet.ProbeCheck{VLAN: v, Outcome: own.Outcome}
		switch why := leaks[v]; {
		case why != nil:
			c.Outcome, c.Why = fleet.ProbeLeak, leaks.words(v)
			delete(leaks, v)
		case r.problem[p.Domain] != nil:
			c.Outcome, c.Why = fleet.ProbeUntold, fmt.Sprintf("the canary: %v", r.problem[p.Domain])
		case !r.twin(p.Domain, v):
			c.Outcome, c.Why = fleet.ProbeUntold, fmt.Sprintf("the canary's interfaces do not hear each other in VLAN %d of %s", v, p.Domain)
		case p.VLAN != 0 && own.Outcome != fleet.ProbePass:
			c.Outcome, c.Why = fleet.ProbeUntold, "the port and the canary do not hear each other in the port's own network either"
		}
		out.Checks = append(out.Checks, c)
	}
	for _, v := range slices.Sorted(maps.Keys(leaks)) { // in VLANs that nobody asked about
		out.Checks = append(out.Checks, fleet.ProbeCheck{VLAN: v, Outcome: fleet.ProbeLeak, Why: leaks.words(v)})
	}
	for _, c := range out.Checks {
		out.Outcome = fleet.WorseOutcome(out.Outcome, c.Outcome)
	}
	return out
}

// own judges whether a port and the canary hear each other in the port's own network.
func (r *round) own(number int, said fleet.ProbeEars, at ears) (outcome, why string) {
	p := r.plan.Ports[number]
	out, in := r.heardOut(number), r.heardIn(p, at)
	tagged := false
	for k := range at {
		tagged = tagged || k.from >= fleet.CanaryPorts && k.sent == fleet.FrameTag(p.VLAN) && k.heard == k.sent
	}
	switch {
	case out && in:
		return fleet.ProbePass, ""
	case r.problem[p.Domain] != nil:
		return fleet.ProbeUntold, fmt.Sprintf("the canary: %v", r.problem[p.Domain])
	case !r.twin(p.Domain, p.VLAN):
		return fleet.ProbeUntold, fmt.Sprintf("the canary's interfaces do not hear each other in VLAN %d of %s", p.VLAN, p.Domain)
	case said.Problem != "":
		return fleet.ProbeDead, said.Problem
	case !said.Carrier:
		return fleet.ProbeDead, "the agent's link " + said.Link + " has no carrier"
	case tagged:
		return fleet.ProbeDead, fmt.Sprintf("frames of VLAN %d arrive with their tag: the port is a trunk", p.VLAN)
	case !in && !out:
		return fleet.ProbeDead, fmt.Sprintf("the port and the canary do not hear each other in VLAN %d", p.VLAN)
	case !in:
		return fleet.ProbeDead, fmt.Sprintf("the port does not hear the canary in VLAN %d", p.VLAN)
	}
	return fleet.ProbeDead, fmt.Sprintf("the canary does not hear the port in VLAN %d, or not its frames with the tag 0, which every switch takes as untagged", p.VLAN)
}

// leaks are what was heard and must not have been, by the VLAN that it was in.
type leaks map[fleet.VLAN][]string

// wordsOfLeak is how much is said of one VLAN.
const wordsOfLeak = 3

func (l leaks) words(v fleet.VLAN) string {
	slices.Sort(l[v])
	all := slices.Compact(l[v])
	return strings.Join(all[:min(wordsOfLeak, len(all))], "; ")
}

// leaksOut notes where the canary heard a port outside of its own network.
func (r *round) leaksOut(number int, leaks leaks) {
	p := r.plan.Ports[number]
	for d, all := range r.heard {
		for _, e := range all {
			for k := range e {
				if int(k.from) != number || d == p.Domain && p.VLAN != 0 && k.heard == fleet.FrameTag(p.VLAN) {
					continue
				}
				where, v := "VLAN "+fmt.Sprint(int(k.heard)), fleet.VLAN(k.heard)
				if k.heard == fleet.Untagged {
					where, v = "what its port has without a tag", fallback
				}
				leaks[v] = append(leaks[v], fmt.Sprintf("the canary in %s hears in %s what the port sends %s", d, where, k.sent))
			}
		}
	}
}

// leaksIn notes what a port heard that was not said in its own network.
func (r *round) leaksIn(number int, at ears, leaks leaks) {
	p := r.plan.Ports[number]
	for k := range at {
		v := fleet.VLAN(k.sent)
		if k.sent == fleet.Untagged {
			v = fallback
		}
		if k.from >= fleet.CanaryPorts {
			if p.VLAN == 0 || k.sent != fleet.FrameTag(p.VLAN) {
				leaks[v] = append(leaks[v], fmt.Sprintf("the port hears, %s, what the canary says in VLAN %d", k.heard, v))
			}
			continue
		}
		other := r.other(int(k.from))
		if other == nil || p.VLAN != 0 && other.Domain == p.Domain && other.VLAN == p.VLAN {
			continue
		}
		if v = other.VLAN; v == 0 {
			v = fallback
		}
		leaks[v] = append(leaks[v], fmt.Sprintf("the port hears what the node's port %s of %s sends %s", other.Port, other.Switch, k.sent))
	}
}

// other is a port of the round by its number, nil where there is none.
func (r *round) other(number int) *fleet.PlannedPort {
	if number < 0 || number >= len(r.plan.Ports) {
		return nil
	}
	return &r.plan.Ports[number]
}
