package fleet

import (
	"strings"
	"testing"
)

func TestWitnessTagText(t *testing.T) {
	tag := TagOf("q7rabcdefg", &Node{Boot: BootRecord{Generation: 17}, Handovers: 3})
	for asset, want := range map[string]struct {
		tag  WitnessTag
		rest string
	}{
		"mcq7ra.17.3":               {tag, ""},
		"  RACK 7 / 42 mcq7ra.17.3": {tag, "RACK 7 / 42"},
		"mcq7ra.17.3 RACK 7":        {WitnessTag{}, "mcq7ra.17.3 RACK 7"},
		"":                          {WitnessTag{}, ""},
		"Amcq7ra.17.3":              {WitnessTag{}, "Amcq7ra.17.3"},
		"mcq7ra.17":                 {WitnessTag{}, "mcq7ra.17"},
	} {
		got, rest := ParseWitnessTag(asset)
		if got != want.tag || rest != want.rest {
			t.Errorf("%q: got %v and %q, want %v and %q", asset, got, rest, want.tag, want.rest)
		}
	}
	if got := WithWitnessTag("RACK 7", tag); got != "RACK 7 mcq7ra.17.3" {
		t.Errorf("got %q", got)
	}
	if got := len(WitnessTag{"aaaa", 999, 9}.String()); got > 12 {
		t.Errorf("a tag has %d characters", got)
	}
}

func TestJudge(t *testing.T) {
	id := StoreIdentity{Lives: []StoreLife{{Epoch: "aaaazzzz"}, {Epoch: "bbbbzzzz", From: 10}}, Revision: 20}
	node := func(witness string, boots, witnessed, handovers int64) *Node {
		return &Node{BMC: BMC{Witness: witness}, Boot: BootRecord{Generation: boots, Witnessed: witnessed}, Handovers: handovers}
	}
	for name, c := range map[string]struct {
		asset string
		node  *Node
		want  Testimony
		why   string
	}{
		"nothing was ever written":                {"", node("", 5, 0, 1), Agrees, ""},
		"what was written":                        {"mcbbbb.5.1", node("mcbbbb.5.1", 5, 0, 1), Agrees, ""},
		"the record is ahead":                     {"mcaaaa.4.1", node("mcaaaa.4.1", 5, 0, 1), Agrees, ""},
		"a later boot":                            {"mcbbbb.6.1", node("mcbbbb.5.1", 5, 0, 1), Stale, "boot generation 6 and the store 5"},
		"a later boot that was taken over":        {"mcbbbb.6.1", node("mcbbbb.5.1", 5, 6, 1), Agrees, ""},
		"a handover with the same boot":           {"mcbbbb.5.2", node("mcbbbb.5.1", 5, 0, 1), Stale, "2 handovers to tenants and the store 1"},
		"the mark is gone":                        {"RACK 7", node("mcbbbb.5.1", 5, 0, 1), Silent, "does not show the mark"},
		"another store's":                         {"mccccc.1.0", node("mcbbbb.5.1", 5, 0, 1), Stale, "does not descend from"},
		"another store's, from before enrolment":  {"mccccc.9.9", node("mccccc.9.9", 0, 0, 0), Agrees, ""},
		"another store's since enrolment went on": {"mccccc.9.10", node("mccccc.9.9", 0, 0, 0), Stale, "does not descend from"},
	} {
		tag, _ := ParseWitnessTag(c.asset)
		got, why := tag.Judge(id, c.node)
		if got != c.want || !strings.Contains(why, c.why) {
			t.Errorf("%s: got %s, %q; want %s, %q", name, got, why, c.want, c.why)
		}
	}
}

// A person who clears the fault accepts what was seen, so that it does not come back, and the next boot is later than any that was seen.
func TestTakeOverWitness(t *testing.T) {
	id := StoreIdentity{Lives: []StoreLife{{Epoch: "aaaazzzz"}}, Revision: 20}
	n := &Node{Name: "n1", Boot: BootRecord{Generation: 5}}
	seen := WitnessTag{"aaaa", 7, 2}
	n.MarkStale(seen, "why", n.StateSince)
	if f := FrozenBy(*n, nil); f == nil || f.Source != FrozenByWitness || len(n.Blocked(BlocksEverything)) != 1 {
		t.Errorf("frozen by %+v, faults %+v", f, n.Faults)
	}
	n.ClearFault(FaultStaleStore, StaleComponent)
	n.TakeOverWitness()
	if got, why := seen.Judge(id, n); got != Agrees || FrozenBy(*n, nil) != nil {
		t.Errorf("got %s, %s", got, why)
	}
	if n.Boot.Witnessed != 7 || n.Handovers != 2 {
		t.Errorf("took over %+v", n)
	}
}

func FuzzParseWitnessTag(f *testing.F) {
	f.Add("RACK 7 mcq7ra.17.3")
	f.Add("mcq7ra.999999999999999.3")
	f.Fuzz(func(t *testing.T, asset string) {
		tag, rest := ParseWitnessTag(asset)
		if tag.IsZero() {
			return
		}
		if again, kept := ParseWitnessTag(WithWitnessTag(rest, tag)); again != tag || kept != rest {
			t.Errorf("%q: %v and %q became %v and %q", asset, tag, rest, again, kept)
		}
	})
}
