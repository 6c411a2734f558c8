package fleet

import (
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
