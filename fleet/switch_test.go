package fleet

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testSwitch() Switch {
	return Switch{Name: "leaf-1", Managed: []string{"swp1", "Ethernet1/2"}, Uplinks: []string{"swp32"}, First: 100, Last: 199, Quarantine: 99}
}

func TestSwitchValidate(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*Switch)
		want []string
	}{
		{"good", func(*Switch) {}, nil},
		{"a space in the domain", func(s *Switch) { s.Domain = "row 1" }, []string{"domain"}},
		{"VLAN 1 among ours", func(s *Switch) { s.First, s.Quarantine = 1, 300 }, []string{"first"}},
		{"the range upside down", func(s *Switch) { s.First, s.Last = s.Last, s.First }, []string{"first"}},
		{"no quarantine", func(s *Switch) { s.Quarantine = 0 }, []string{"quarantine"}},
		{"the quarantine among ours", func(s *Switch) { s.Quarantine = 100 }, []string{"quarantine"}},
		{"an uplink that is managed", func(s *Switch) { s.Uplinks[0] = s.Managed[0] }, []string{"uplinks[0]"}},
		{"a command for a name", func(s *Switch) { s.Managed[1] = "swp1; reload" }, []string{"managed[1]"}},
		{"an option for a name", func(s *Switch) { s.Managed[1] = "-x" }, []string{"managed[1]"}},
	} {
		s := testSwitch()
		c.do(&s)
		if d := cmp.Diff(c.want, fieldsOf(s.Validate())); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

func TestSwitchMay(t *testing.T) {
	s := testSwitch()
	for _, c := range []struct {
		name string
		c    Carries
		want []string
	}{
		{"quarantine", s.InQuarantine(), nil},
		{"an access port", Carries{Untagged: 120}, nil},
		{"a trunk with a native VLAN", Carries{Untagged: 120, Tagged: []VLAN{121, 122}}, nil},
		{"a trunk without", Carries{Tagged: []VLAN{121}}, nil},
		{"nothing, which is everything on some switches", Carries{}, []string{"p.untagged"}},
		{"only off", Carries{Down: true}, []string{"p.untagged"}},
		{"VLAN 1", Carries{Untagged: 1}, []string{"p.untagged", "p.untagged"}},
		{"somebody else's VLAN", Carries{Untagged: 200}, []string{"p.untagged"}},
		{"somebody else's VLAN in a trunk", Carries{Untagged: 120, Tagged: []VLAN{200}}, []string{"p.tagged[0]"}},
		{"the quarantine with its port on", Carries{Untagged: 99}, []string{"p.untagged"}},
		{"the quarantine beside another", Carries{Down: true, Untagged: 99, Tagged: []VLAN{120}}, []string{"p.untagged"}},
		{"the quarantine in a trunk", Carries{Untagged: 120, Tagged: []VLAN{99}}, []string{"p.tagged[0]"}},
	} {
		if d := cmp.Diff(c.want, fieldsOf(s.May(c.c, "p"))); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

func TestSwitchPlan(t *testing.T) {
	s := testSwitch()
	s.Managed = []string{"swp1", "swp2", "swp3"}
	tenant, quarantine := Carries{Untagged: 120}, s.InQuarantine()
	ports := []PortView{{Port: "swp1", Carries: quarantine}, {Port: "swp2", Carries: tenant}, {Port: "swp3", Carries: tenant, Doubt: "is a member of bond0"}, {Port: "swp9", Carries: Carries{Untagged: 1}}}
	mark, err := s.MarkOf(ports)
	if err != nil {
		t.Fatal(err)
	}
	v := WireView{Device: "leaf-1", Mark: mark, Ports: ports}
	for _, c := range []struct {
		name    string
		want    map[string]Carries
		changes []WireChange
		takes   bool
		faults  []string
	}{
		{"nothing", nil, nil, false, nil},
		{"what is there already", map[string]Carries{"swp2": tenant}, nil, true, nil},
		{"into a network", map[string]Carries{"swp1": tenant, "swp2": tenant}, []WireChange{{"swp1", quarantine, tenant}}, false, nil},
		{"into quarantine, one in doubt", map[string]Carries{"swp3": quarantine, "swp2": quarantine}, []WireChange{{"swp2", tenant, quarantine}, {"swp3", tenant, quarantine}}, true, nil},
		{"one in doubt", map[string]Carries{"swp3": tenant}, nil, false, []string{"swp3"}},
		{"one that is not managed", map[string]Carries{"swp9": quarantine}, nil, false, []string{"swp9"}},
		{"a VLAN that is not ours, and a good one", map[string]Carries{"swp1": {Untagged: 300}, "swp2": quarantine}, nil, false, []string{"swp1.untagged"}},
	} {
		p, err := s.Plan(v, c.want)
		var known *Error
		if errors.As(err, &known) != (len(c.faults) > 0) || known != nil && known.Kind != Refused {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if known != nil {
			if d := cmp.Diff(c.faults, fieldsOf(known.Fields)); d != "" {
				t.Errorf("%s (-want +got):\n%s", c.name, d)
			}
			continue
		}
		if d := cmp.Diff(WirePlan{Device: "leaf-1", Expect: mark, Changes: c.changes, Takes: c.takes}, p); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

func TestSwitchBack(t *testing.T) {
	s := testSwitch()
	s.Managed = []string{"swp1", "swp2"}
	view := func(one, two Carries) WireView {
		v := WireView{Device: "leaf-1", Ports: []PortView{{Port: "swp1", Carries: one}, {Port: "swp2", Carries: two}}}
		var err error
		if v.Mark, err = s.MarkOf(v.Ports); err != nil {
			t.Fatal(err)
		}
		return v
	}
	q, a, b := s.InQuarantine(), Carries{Untagged: 120}, Carries{Untagged: 130}
	fresh, err := s.Plan(view(Carries{Untagged: 1}, q), map[string]Carries{"swp1": a})
	if err != nil {
		t.Fatal(err)
	}
	for _, seen := range []Carries{a, {Untagged: 1}, q} {
		var want []WireChange
		if seen.Equal(a) {
			want = []WireChange{{"swp1", a, q}}
		}
		got, err := s.Back(view(seen, q), fresh)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("back from VLAN 1, where there is %s: %v (-want +got):\n%s", seen, err, d)
		}
	}
	p, err := s.Plan(view(q, q), map[string]Carries{"swp1": a})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		one, two Carries
		want     []WireChange
		conflict bool
	}{
		{"it was never written", q, q, nil, false},
		{"it was", a, q, []WireChange{{"swp1", a, q}}, false},
		{"something else came of it", b, q, []WireChange{{"swp1", b, q}}, false},
		{"others came after it", a, b, nil, true},
		{"others came, and it was never written", q, b, nil, true},
	} {
		got, err := s.Back(view(c.one, c.two), p)
		if d := cmp.Diff(c.want, got); d != "" || (err != nil) != c.conflict || c.conflict && KindOf(err) != Conflict {
			t.Errorf("%s: %v (-want +got):\n%s", c.name, err, d)
		}
	}
}

func TestSwitchKeepable(t *testing.T) {
	s := testSwitch()
	s.Managed = []string{"swp1", "swp2", "swp3"}
	err := s.Keepable(WireView{Ports: []PortView{{Port: "swp1", Carries: Carries{Untagged: 1}}, {Port: "swp2", Doubt: "is a VXLAN's"}}})
	var known *Error
	if !errors.As(err, &known) || known.Kind != Refused {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"swp2", "swp3"}, fieldsOf(known.Fields)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if err := s.Keepable(WireView{Ports: []PortView{{Port: "swp1", Carries: Carries{Untagged: 1}}, {Port: "swp2"}, {Port: "swp3", Carries: s.InQuarantine()}}}); err != nil {
		t.Errorf("all of it can be said: %v", err)
	}
}
