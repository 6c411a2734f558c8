package fleet

import (
	"slices"
	"strconv"
	"time"
)

// FrameTag is the 802.1Q tag that a frame has: FrameTag(vlan), PriorityTag, or Untagged.
type FrameTag int

const (
	// Untagged is a frame without a tag.
	Untagged FrameTag = -1
	// PriorityTag is the tag 0, which names no VLAN: switches treat such a frame as one without a tag (IEEE 802.1Q-2018 6.9.1).
	PriorityTag FrameTag = 0
)

func (t FrameTag) String() string {
	switch t {
	case Untagged:
		return "untagged"
	case PriorityTag:
		return "priority-tagged"
	}
	return "tagged " + strconv.Itoa(int(t))
}

// ProbeTask is what an agent does in one round of packets: at each port it sends frames with every tag, and listens. Frames are signed with the round's key, so
// that nobody else can make one and none of another round counts.
type ProbeTask struct {
	Round string      `json:"round"`
	Key   []byte      `json:"key"`
	Ports []ProbePort `json:"ports"`
	// Canaries is how many interfaces speak in each VLAN, numbered from CanaryPorts.
	Canaries int `json:"canaries"`
	// Seconds bounds the round where the canary is not heard, or not satisfied.
	Seconds int `json:"seconds"`
}

// ProbePort is one cable of a node.
type ProbePort struct {
	// MACs are its network cards, one, or those of a LAG.
	MACs []MAC `json:"macs"`
	// VLAN is that of its network, where the canary can be heard; 0 for a port in quarantine.
	VLAN VLAN `json:"vlan,omitempty"`
	// Tags are those of the frames that it sends, in this order.
	Tags []FrameTag `json:"tags"`
}

// ProbePlan is what a round is to show: which ports are where, and for each domain all VLANs that they are looked for in.
type ProbePlan struct {
	Ports []PlannedPort
	VLANs map[string][]VLAN
}

// PlannedPort is a port of a node in a round.
type PlannedPort struct {
	Domain, Switch, Port string
	MACs                 []MAC
	// Network and VLAN are where it shall be; "" and 0 in quarantine.
	Network string
	VLAN    VLAN
}

// ProbeReport is what an agent sent and heard, for each port of its task.
type ProbeReport struct {
	Round string      `json:"round"`
	Ports []ProbeEars `json:"ports"`
}

// ProbeEars is what was sent and heard at one port.
type ProbeEars struct {
	Link    string `json:"link,omitempty"`
	Carrier bool   `json:"carrier,omitempty"`
	// Bursts is how often it sent a frame with each tag.
	Bursts int          `json:"bursts"`
	Heard  []ProbeHeard `json:"heard,omitempty"`
	// Problem says why it could not send or listen.
	Problem string `json:"problem,omitempty"`
}

// ProbeHeard are the frames of one sender that were sent with one tag and arrived with one.
type ProbeHeard struct {
	// From is the number of a port of the task, or that of a canary's interface, counted from CanaryPorts.
	From  int      `json:"from"`
	Sent  FrameTag `json:"sent"`
	Heard FrameTag `json:"heard"`
	Count int      `json:"count"`
	// First and Last are the bursts that were heard, by their sender's count.
	First int `json:"first"`
	Last  int `json:"last"`
}

// CanaryPorts is the number of a canary's first interface as a sender.
const CanaryPorts = 1 << 15

// Outcomes of what packets were to show.
const (
	// ProbePass: what shall be heard was heard, and what shall not was not, while its twin was.
	ProbePass = "pass"
	// ProbeLeak: a frame arrived where none may.
	ProbeLeak = "leak"
	// ProbeDead: the port does not reach its own network, or its network not the port.
	ProbeDead = "dead"
	// ProbeUntold: what would have shown it did not work itself.
	ProbeUntold = "could not tell"
	// ProbeSilent: a port in quarantine, from and at which nothing was heard. That it could have been heard has no twin: the port is off.
	ProbeSilent = "silent"
)

// Probe is what packets showed of a node's Ethernet ports in one round.
type Probe struct {
	Round string    `json:"round"`
	At    time.Time `json:"at"`
	// Outcome is the worst of the ports'.
	Outcome string       `json:"outcome" enum:"pass,leak,dead,could not tell,silent"`
	Ports   []ProbedPort `json:"ports"`
}

// ProbedPort is what packets showed of one port.
type ProbedPort struct {
	Switch string `json:"switch"`
	Port   string `json:"port"`
	// Network is where it shall be and VLAN its tag there; both are left out for a port in quarantine.
	Network string `json:"network,omitempty"`
	VLAN    VLAN   `json:"vlan,omitempty"`
	Outcome string `json:"outcome"`
	// Checks are one for the port's own network, and one for each other VLAN, both ways.
	Checks []ProbeCheck `json:"checks"`
}

// ProbeCheck is one VLAN, as it was looked at from one port and from the canary.
type ProbeCheck struct {
	VLAN VLAN `json:"vlan"`
	// Own: it is the port's own, so that both must hear each other.
	Own     bool   `json:"own,omitempty"`
	Outcome string `json:"outcome"`
	// Why says what was heard, or what was not.
	Why string `json:"why,omitempty"`
}

// worst has outcomes from the best to the worst.
var worst = []string{ProbeSilent, ProbePass, ProbeUntold, ProbeDead, ProbeLeak}

// WorseOutcome is the worse of two.
func WorseOutcome(a, b string) string {
	if slices.Index(worst, a) >= slices.Index(worst, b) {
		return a
	}
	return b
}

// Bad returns the first check that found something wrong, or could not tell, of the port that the outcome is of; nil where all is well.
func (p Probe) Bad() (*ProbedPort, *ProbeCheck) {
	for i := range p.Ports {
		if p.Ports[i].Outcome != p.Outcome {
			continue
		}
		for k, c := range p.Ports[i].Checks {
			if c.Outcome == p.Outcome && c.Outcome != ProbePass && c.Outcome != ProbeSilent {
				return &p.Ports[i], &p.Ports[i].Checks[k]
			}
		}
	}
	return nil, nil
}

// WirePackets is what packets showed of a wire since it carries what it does.
type WirePackets struct {
	At time.Time `json:"at"`
	// Outcome is pass or silent.
	Outcome string `json:"outcome" enum:"pass,silent"`
	// Apart are the VLANs that it does not reach and that do not reach it, its own network's frames being heard both ways.
	Apart int `json:"apart"`
}
