package fleet

import "time"

// Undo is what a plan that was given up left behind on a machine, part by part, until it is put right. It is written in the commit that gives the plan
// up, and each part goes in the commit of the step that did it, of whatever plan.
type Undo struct {
	// Wires: ports may be in the tenant's networks.
	Wires bool `json:"wires,omitempty"`
	// Provisioning: ports may be in the provisioning network.
	Provisioning bool `json:"provisioning,omitempty"`
	// Power: the machine runs what the plan booted, and goes off.
	Power bool `json:"power,omitempty"`
	// Override: the firmware may still be told to boot the medium.
	Override bool `json:"override,omitempty"`
	// Medium: the boot medium may still be in the drive, and its address is served.
	Medium bool `json:"medium,omitempty"`

	Since time.Time `json:"since"`
	// Why names the plan and what became of it, at most 160 bytes.
	Why string `json:"why"`
	// AgentUntil is how long the machine stays on while its agent answers, so that a retry goes on where the plan stopped; zero: it goes off at once.
	AgentUntil time.Time `json:"agent_until,omitzero"`
	// Tries counts the clean-ups that failed, NotBefore is when the next may begin.
	Tries     int       `json:"tries,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`
}

// Left reports whether anything is still to be put right.
func (u *Undo) Left() bool {
	return u != nil && (u.Wires || u.Provisioning || u.Power || u.Override || u.Medium)
}

// String lists what is still to be put right.
func (u *Undo) String() string {
	if u == nil {
		return "nothing"
	}
	var s string
	for _, p := range []struct {
		left bool
		text string
	}{{u.Wires, "wires to quarantine"}, {u.Power, "power off"}, {u.Provisioning, "provisioning port"}, {u.Override, "boot override"}, {u.Medium, "boot medium"}} {
		if p.left && s != "" {
			s += ", "
		}
		if p.left {
			s += p.text
		}
	}
	if s == "" {
		return "nothing"
	}
	return s
}
