package ovs

import (
	"bytes"
	"encoding/json"

	"github.com/metalctl/metalctl/fleet"
)

// goal is how one port shall be configured. A plan's Write is a line of JSON for each, and so is what it replaces.
type goal struct {
	Port string `json:"port"`
	Off  bool   `json:"off"`
	config
}

func render(goals []goal) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for _, g := range goals {
		if err := e.Encode(g); err != nil {
			return "", fleet.Errorf(fleet.Invalid, "MC-NET-INVALID", "write the plan: %w", err)
		}
	}
	return b.String(), nil
}

// parse reads what render wrote.
func parse(text string) ([]goal, error) {
	var out []goal
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	for d.More() {
		var g goal
		if err := d.Decode(&g); err != nil {
			return nil, fleet.Errorf(fleet.Invalid, "MC-NET-INVALID", "read the plan: %w", err)
		}
		out = append(out, g)
	}
	return out, nil
}

// Plan says what has to be written so that each port of want carries exactly that. Ports that want does not name stay as they are. It reads nothing: what it
// replaces is the configuration by which a port carries what the view shows. Of a port in doubt there is none, and it is not given back. A plan that only
// takes away is made whatever else the view finds.
func (d *Driver) Plan(view fleet.WireView, want map[string]fleet.Carries) (fleet.WirePlan, error) {
	plan, err := d.o.Switch.Plan(view, want)
	if err != nil {
		return plan, err
	}
	if s := view.Stops(); s != nil && !plan.Takes {
		return fleet.WirePlan{}, s.Stopped()
	}
	var before []goal
	for _, c := range plan.Changes {
		if view.Port(c.Port).Doubt == "" {
			before = append(before, goal{c.Port, c.From.Down, configOf(c.From)})
		}
	}
	if plan.Write, err = render(goalsOf(plan)); err == nil {
		plan.Replaces, err = render(before)
	}
	return plan, err
}

func goalsOf(p fleet.WirePlan) (out []goal) {
	for _, c := range p.Changes {
		out = append(out, goal{c.Port, c.To.Down, configOf(c.To)})
	}
	return out
}
