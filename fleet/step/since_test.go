package step

import (
	"slices"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

// cameWith lets a step of the catalogue have come with a version of the agent's protocol.
func cameWith(t *testing.T, name string, version int) {
	t.Helper()
	i := slices.IndexFunc(Catalogue, func(s Step) bool { return s.Name == name })
	old := Catalogue[i].Agent
	Catalogue[i].Agent = version
	t.Cleanup(func() { Catalogue[i].Agent = old })
}

// TestPlanForAnOlderAgent: where the agent that is up does not know a step, the plan boots the node anew; a newer agent is kept.
func TestPlanForAnOlderAgent(t *testing.T) {
	now := newest()
	cameWith(t, CleanBoot, now+1)
	for name, c := range map[string]struct {
		use    Use
		speaks int
		boots  int
	}{
		"a clean with a new step, an older agent": {Clean, now, 1},
		"a clean with a new step, its agent":      {Clean, now + 1, 0},
		"an inspection that needs nothing new":    {Inspect, now, 0},
	} {
		f := plain()
		f.AgentUp, f.Power, f.Node.Boot = true, "on", fleet.BootRecord{Protocol: c.speaks}
		p, err := Compose(c.use, f, Request{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p.Reboots != c.boots || (p.Steps[0].Name == BMCIdentify) != (c.boots > 0) {
			t.Errorf("%s: %d reboots in %s", name, p.Reboots, names(p))
		}
	}
	cameWith(t, Inventory, now+2)
	f := plain()
	f.AgentUp, f.Power, f.Node.Boot.Protocol = true, "on", now // our own agent, so that nobody's work is restarted
	if p, err := Compose(Inspect, f, Request{}); err != nil || p.Reboots != 1 {
		t.Errorf("an inspection with an older agent up: %s, %v", names(p), err)
	}
}

func TestAgentNeeds(t *testing.T) {
	type part struct {
		Kept string `json:"kept,omitempty" since:"4"`
	}
	type params struct {
		Old   string           `json:"old"`
		New   string           `json:"new,omitempty" since:"2"`
		Parts []part           `json:"parts,omitempty" since:"3"`
		More  map[string]*part `json:"more,omitempty"`
	}
	for name, c := range map[string]struct {
		p    params
		want int
	}{
		"nothing new":        {params{Old: "x"}, 1},
		"a new field":        {params{New: "x"}, 2},
		"a new list":         {params{New: "x", Parts: []part{{}}}, 3},
		"a new field within": {params{Parts: []part{{}, {Kept: "x"}}}, 4},
		"within a map":       {params{More: map[string]*part{"a": nil, "b": {Kept: "x"}}}, 4},
	} {
		if got := Since(&c.p); got != c.want {
			t.Errorf("%s: needs version %d, want %d", name, got, c.want)
		}
	}
	cameWith(t, EraseDisks, 3)
	op := fleet.Operation{Steps: []fleet.StepRun{{Name: EraseDisks, Side: InBand, State: fleet.StepFinished}, {Name: VerifyErase, Side: InBand}}}
	if !AgentGoesOn(op, 1) {
		t.Error("what is left of a plan needs no newer agent, and it does not go on")
	}
	if op.Steps[0].State = fleet.StepFailed; AgentGoesOn(op, 2) || !AgentGoesOn(op, 3) {
		t.Error("a plan goes on with an agent that does not know the next step")
	}
	if _, err := AgentNeeds(EraseDisks, []byte(`{`)); err == nil {
		t.Error("parameters that cannot be read are known to every agent")
	}
}
