package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// wireRules are what may be done to a device's ports: which are managed, what each may carry, and what one carries that nobody has.
type wireRules struct {
	device     string
	managed    []string
	owns       map[string]bool
	may        func(c Carries, at string) []FieldError
	quarantine Carries
}

func (s Switch) rules() wireRules {
	return wireRulesOf(s.Name, s.Managed, s.May, s.InQuarantine())
}

func wireRulesOf(device string, managed []string, may func(Carries, string) []FieldError, quarantine Carries) wireRules {
	r := wireRules{device, managed, make(map[string]bool, len(managed)), may, quarantine}
	for _, p := range managed {
		r.owns[p] = true
	}
	return r
}

func (f Fabric) rules() wireRules {
	managed := make([]string, 0, len(f.Managed))
	for _, g := range f.Managed {
		managed = append(managed, string(g))
	}
	return wireRulesOf(f.Name, managed, f.May, InPartitions())
}

// Plan is what has to be written so that each port of want carries exactly that; ports that want does not name stay as they are. Write and Replaces are the
// driver's to fill in. It is Refused, with all that is wrong, where a port is not managed, was not seen or is in doubt, or may not carry what is wanted.
// A port in doubt may go into quarantine all the same, if only a driver can tell that it does.
func (s Switch) Plan(v WireView, want map[string]Carries) (WirePlan, error) {
	return s.rules().plan(v, want)
}

// Plan is what has to be written so that each port of want carries exactly that, as Switch.Plan is.
func (f Fabric) Plan(v WireView, want map[string]Carries) (WirePlan, error) {
	return f.rules().plan(v, want)
}

func (r wireRules) plan(v WireView, want map[string]Carries) (WirePlan, error) {
	p := WirePlan{Device: r.device, Expect: v.Mark, Takes: len(want) > 0}
	var f faults
	for _, port := range slices.Sorted(maps.Keys(want)) {
		c := want[port]
		if !r.owns[port] {
			f.addf(port, "is not among the managed ports of %s", r.device)
			continue
		}
		f = append(f, r.may(c, port)...)
		seen := v.Port(port)
		quarantine := c.Equal(r.quarantine)
		switch {
		case seen == nil:
			f.addf(port, "cannot be moved: it was not seen")
			continue
		case seen.Doubt != "" && !quarantine:
			f.addf(port, "cannot be moved: %s", seen.Doubt)
		}
		p.Takes = p.Takes && (quarantine || c.Within(seen.Carries))
		if seen.Doubt != "" || !seen.Carries.Equal(c) {
			p.Changes = append(p.Changes, WireChange{Port: port, From: seen.Carries, To: c})
		}
	}
	if len(f) > 0 {
		return WirePlan{}, &Error{Kind: Refused, Code: "MC-NET-INVALID", Msg: "the change of " + r.device + " is refused", Fields: f}
	}
	return p, nil
}

// MarkOf is the mark of a switch's view: a digest of what its managed ports carry and what is in doubt of them.
func (s Switch) MarkOf(ports []PortView) (string, error) { return s.rules().mark(ports) }

// MarkOf is the mark of a fabric's view, where no file of the subnet manager's stands for it.
func (f Fabric) MarkOf(ports []PortView) (string, error) { return f.rules().mark(ports) }

func (r wireRules) mark(ports []PortView) (string, error) {
	type seen struct {
		Port    string
		Carries Carries
		Doubt   string
	}
	all := []seen{}
	for _, p := range ports {
		if r.owns[p.Port] {
			all = append(all, seen{p.Port, p.Carries, p.Doubt})
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		return "", fmt.Errorf("encode ports: %w", err)
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// Back are the changes that bring back what the plan replaced, or quarantine where that was nothing of ours: none where the plan was never written. It is a
// Conflict where other ports are not as they were when the plan was made: then others came after it.
func (s Switch) Back(v WireView, p WirePlan) ([]WireChange, error) { return s.rules().back(v, p) }

// Back are the changes that bring back what the plan replaced, as Switch.Back's are.
func (f Fabric) Back(v WireView, p WirePlan) ([]WireChange, error) { return f.rules().back(v, p) }

func (r wireRules) back(v WireView, p WirePlan) ([]WireChange, error) {
	before := WireView{Ports: slices.Clone(v.Ports)}
	var out []WireChange
	for _, c := range p.Changes {
		was := before.Port(c.Port)
		if was == nil {
			return nil, WireConflict("port %s of %s was not seen", c.Port, r.device)
		}
		to := c.From
		if len(r.may(to, c.Port)) > 0 {
			to = r.quarantine
		}
		if !was.Carries.Equal(to) && !was.Carries.Equal(c.From) {
			out = append(out, WireChange{Port: c.Port, From: was.Carries, To: to})
		}
		was.Carries = c.From
	}
	mark, err := r.mark(before.Ports)
	if err == nil && mark != p.Expect {
		err = WireConflict("ports of %s have gone on since the plan was made", r.device)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Unshown says which port does not show what the plan gave it, "" where all do.
func (p WirePlan) Unshown(v WireView) string {
	return p.differs(v, func(c WireChange) Carries { return c.To })
}

// Unmet says which port is not as it was when the plan was made, "" where all are. What only takes away is done whatever was there.
func (p WirePlan) Unmet(v WireView) string {
	if p.Takes {
		return ""
	}
	return p.differs(v, func(c WireChange) Carries { return c.From })
}

func (p WirePlan) differs(v WireView, want func(WireChange) Carries) string {
	for _, c := range p.Changes {
		switch seen := v.Port(c.Port); {
		case seen == nil:
			return "port " + c.Port + " was not seen"
		case seen.Doubt != "":
			return "port " + c.Port + " " + seen.Doubt
		case !seen.Carries.Equal(want(c)):
			return "port " + c.Port + " carries " + seen.Carries.String() + " instead of " + want(c).String()
		}
	}
	return ""
}

// Keepable is an error where a managed port was not seen, or carries what cannot be said: such a switch is not taken over. It lists all. What can be said and is
// none of ours is put right by a plan.
func (s Switch) Keepable(v WireView) error { return s.rules().keepable(v) }

// Keepable is an error where a managed port is in doubt, as Switch.Keepable is.
func (f Fabric) Keepable(v WireView) error { return f.rules().keepable(v) }

func (r wireRules) keepable(v WireView) error {
	var f faults
	for _, name := range r.managed {
		switch p := v.Port(name); {
		case p == nil:
			f.addf(name, "was not seen")
		case p.Doubt != "":
			f.addf(name, "%s", p.Doubt)
		}
	}
	if len(f) == 0 {
		return nil
	}
	return &Error{Kind: Refused, Code: "MC-NET-INVALID", Msg: "ports of " + r.device + " cannot be taken over", Fields: f}
}
