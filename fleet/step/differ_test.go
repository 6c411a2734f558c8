package step

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// What has changed in a plan is named with both values, and a secret of an address is not.
func TestDifferences(t *testing.T) {
	plan := func(digest string, use Use, steps ...Planned) Plan {
		return Plan{Use: use, Catalogue: 1, Digest: digest, Steps: steps}
	}
	s := func(name, params string) Planned {
		return Planned{Name: name, Why: "of the why of " + name, Params: json.RawMessage(params)}
	}
	many := map[string]int{}
	for i := range 20 {
		many[string(rune('a'+i))] = i
	}
	manyJSON, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		was, now Plan
		want     []fleet.FieldError
	}{
		"the same": {plan("a", Clean, s("x", `{"a":1}`)), plan("a", Clean, s("x", `{"a":1}`)), nil},
		"a step came and one went": {plan("a", Clean, s(PowerOff, ""), s(PowerOn, "")), plan("b", Clean, s(PowerOn, ""), s(AwaitAgent, "")), []fleet.FieldError{
			{Field: "power-off", Message: "does not run any more; it was there because of the why of power-off"},
			{Field: "await-agent", Message: "runs now: of the why of await-agent"}}},
		"a parameter, a new one, one less": {plan("a", Clean, s("x", `{"d":[{"s":"A","n":1}],"gone":true}`)), plan("b", Clean, s("x", `{"d":[{"s":"B","n":1}],"new":12345678901234567890}`)), []fleet.FieldError{
			{Field: "x.d[0].s", Message: `was "A", is "B"`},
			{Field: "x.gone", Message: "was true, is not there now"},
			{Field: "x.new", Message: "is now 12345678901234567890"}}},
		"the second of a name": {plan("a", Clean, s("x", `{"a":1}`), s("x", `{"a":1}`)), plan("b", Clean, s("x", `{"a":1}`), s("x", `{"a":2}`)), []fleet.FieldError{{Field: "x#2.a", Message: "was 1, is 2"}}},
		"another order":        {plan("a", Clean, s("x", ""), s("y", "")), plan("b", Clean, s("y", ""), s("x", "")), []fleet.FieldError{{Field: "steps", Message: "ran in the order x, y, and run now in the order y, x"}}},
		"another use":          {plan("a", Clean), plan("b", Deploy), []fleet.FieldError{{Field: "use", Message: "was clean, is deploy"}}},
		"another signature": {plan("a", Deploy, s(WriteImage, `{"image":{"name":"i","url":"https://o/i?sig=c4n4ry"}}`)), plan("b", Deploy, s(WriteImage, `{"image":{"name":"i","url":"https://o/i?sig=other"}}`)), []fleet.FieldError{
			{Field: "write-image", Message: "differs in what is not shown, such as the query of an address"}}},
		"another disk": {Plan{Digest: "a", Erases: []fleet.AcceptedDevice{{Serial: "A", SizeBytes: 5}}}, Plan{Digest: "b", Erases: []fleet.AcceptedDevice{{Serial: "B", Model: "M", SizeBytes: 6}}}, []fleet.FieldError{
			{Field: "erases", Message: "A (no model, 5 bytes) is not among the devices any more"}, {Field: "erases", Message: "B (M, 6 bytes) is among the devices now"}}},
		"nothing that is shown": {plan("a", Clean), plan("b", Clean), []fleet.FieldError{{Field: "plan", Message: "differs in what is not shown"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(Differences(c.was, c.now), c.want); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got := Differences(plan("a", Clean, s("x", `{}`)), plan("b", Clean, s("x", string(manyJSON)))); len(got) != mostDifferences+1 || got[mostDifferences].Message != "differs in 8 more places" {
		t.Errorf("many differences: %v", got)
	}
}
