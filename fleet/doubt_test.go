package fleet

import (
	"strings"
	"testing"
	"time"
)

// TestVouch: after a restore a node is believed where a witness says so and nothing speaks against it, and in no other case.
func TestVouch(t *testing.T) {
	id := StoreIdentity{Lives: []StoreLife{{Epoch: "aaaazzzz"}, {Epoch: "bbbbzzzz", From: 10}}, Revision: 20}
	same := WitnessTag{"aaaa", 5, 1}
	for name, c := range map[string]struct {
		known string
		power string
		sight Sight
		want  Testimony
		why   string
	}{
		"the mark is the one that was written":       {same.String(), "on", Sight{Tag: same, Power: "on"}, Agrees, "which the store knows"},
		"the log agrees, and the BMC takes no mark":  {"", "on", Sight{Power: "on", Logged: true}, Agrees, "a log outside"},
		"the log agrees, and the mark was lost":      {same.String(), "on", Sight{Power: "on", Logged: true}, Agrees, "a log outside"},
		"neither mark nor log":                       {"", "on", Sight{Power: "on"}, Silent, "no witness tells"},
		"the mark was lost, and there is no log":     {same.String(), "on", Sight{Power: "on"}, Silent, "does not show the mark"},
		"the boot generation is ahead of the store":  {same.String(), "on", Sight{Tag: WitnessTag{"aaaa", 6, 1}, Power: "on", Logged: true}, Stale, "boot generation 6 and the store 5"},
		"a lease was handed out after the backup":    {same.String(), "on", Sight{Tag: WitnessTag{"aaaa", 5, 2}, Power: "on"}, Stale, "2 handovers"},
		"switched on since":                          {same.String(), "off", Sight{Tag: same, Power: "on"}, Silent, "the store says that the machine is off, and it is on"},
		"switched off since, and the log is silent":  {"", "on", Sight{Power: "off", Logged: true}, Silent, "the store says that the machine is on, and it is off"},
		"nobody can say whether it is on":            {same.String(), "on", Sight{Tag: same}, Silent, "and it is unknown"},
		"the store never knew its power":             {same.String(), "", Sight{Tag: same, Power: "on"}, Agrees, ""},
		"a boot medium is in":                        {same.String(), "on", Sight{Tag: same, Power: "on", Medium: true, Logged: true}, Silent, "a boot medium is in the machine"},
		"an older mark than was written":             {same.String(), "on", Sight{Tag: WitnessTag{"aaaa", 4, 1}, Power: "on"}, Silent, "was written to it later"},
		"another store's mark from before enrolment": {"mccccc.9.9", "on", Sight{Tag: WitnessTag{"cccc", 9, 9}, Power: "on"}, Silent, "another store's"},
		"another store wrote since":                  {same.String(), "on", Sight{Tag: WitnessTag{"cccc", 1, 0}, Power: "on", Logged: true}, Stale, "does not descend"},
	} {
		n := &Node{Name: "n1", Power: c.power, BMC: BMC{Witness: c.known}, Boot: BootRecord{Generation: 5}, Handovers: 1}
		n.DoubtStore("restored", time.Unix(0, 0))
		n.Power = c.sight.Power // what is observed later changes no verdict
		got, why := c.sight.Vouch(id, n)
		if got != c.want || !strings.Contains(why, c.why) {
			t.Errorf("%s: got %s, %q; want %s, %q", name, got, why, c.want, c.why)
		}
	}
}

// TestDoubtHolds: a doubted node is frozen by itself, is not believed more for being doubted twice, and stays stale where that is known.
func TestDoubtHolds(t *testing.T) {
	n := &Node{Name: "n1", State: Available, Power: "off"}
	n.DoubtStore("restored", time.Unix(0, 0))
	n.Power = "on"
	n.DoubtStore("no mark", time.Unix(60, 0))
	f := FrozenBy(*n, nil)
	if f == nil || f.Source != FrozenByRestore || f.Reason != "no mark" || n.Doubt.Power != "off" || len(n.Blocked(BlocksAllocate)) != 1 || len(n.Faults) != 1 {
		t.Fatalf("frozen by %+v, doubt %+v, faults %+v", f, n.Doubt, n.Faults)
	}
	if err := f.Refuse(*n, "release"); !strings.Contains(err.Hint, "clear-fault n1 --code MC-FAULT-UNWITNESSED --component store --reason TEXT") {
		t.Errorf("the hint is %q", err.Hint)
	}
	n.MarkStale(WitnessTag{"aaaa", 1, 1}, "the BMC names 1 handovers", time.Unix(60, 0))
	n.DoubtStore("no mark", time.Unix(120, 0))
	if n.Doubted() || len(n.Faults) != 1 || n.Faults[0].Code != FaultStaleStore {
		t.Errorf("faults %+v", n.Faults)
	}
}

// TestVouchedByPerson: what nobody has by the store, and nobody vouched for but a person, is cleaned before anybody gets it.
func TestVouchedByPerson(t *testing.T) {
	for name, c := range map[string]struct {
		lease LeaseID
		dirty Dirty
		want  Dirty
	}{
		"nobody has it":                        {"", "", DirtyUnknown},
		"a lease has it":                       {"l1", "l1", "l1"},
		"it waits to be cleaned after a lease": {"", "l1", "l1"},
	} {
		for _, code := range []string{FaultStaleStore, FaultUnwitnessed} {
			n := &Node{State: Available, Lease: c.lease, Dirty: c.dirty, Erased: "clear"}
			if code == FaultStaleStore {
				n.TakeOverWitness()
			} else {
				n.VouchedByPerson()
			}
			if n.Dirty != c.want {
				t.Errorf("%s, %s: dirty is %q, want %q", name, code, n.Dirty, c.want)
			}
		}
	}
}
