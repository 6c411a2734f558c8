package fleet

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fieldsOf are the places of what is wrong, in order.
func fieldsOf(f []FieldError) []string {
	var out []string
	for _, x := range f {
		out = append(out, x.Field)
	}
	slices.Sort(out)
	return out
}

func TestPKeyText(t *testing.T) {
	for text, want := range map[string]PKey{"0x1": 1, "0x0101": 0x101, "0x7fff": 0x7fff} {
		var k PKey
		if err := json.Unmarshal([]byte(`"`+text+`"`), &k); err != nil || k != want {
			t.Errorf("%s: %s, %v", text, k, err)
		}
	}
	for _, text := range []string{"", "101", "0x", "0x0", "0x8101", "0xffff", "0x10101", "A", "0x1,0x2", "-0x1"} {
		var k PKey
		if err := k.UnmarshalText([]byte(text)); err == nil || k != 0 {
			t.Errorf("%q was taken for %s", text, k)
		}
	}
	if b, err := json.Marshal(Membership{PKey: 0x101, Full: true}); err != nil || string(b) != `{"pkey":"0x0101","full":true}` {
		t.Errorf("%s, %v", b, err)
	}
	for _, raw := range []uint16{0x0101, 0x8101, 0x7fff, 0xffff} {
		if got := MembershipOf(raw).Raw(); got != raw {
			t.Errorf("0x%04x came back as 0x%04x", raw, got)
		}
	}
}

func TestParseGUID(t *testing.T) {
	if g, err := ParseGUID("0x5000000000000101"); err != nil || g != "0x5000000000000101" || !g.Valid() {
		t.Errorf("%s, %v", g, err)
	}
	if g, err := ParseGUID("0xAB"); err != nil || g != "0x00000000000000ab" {
		t.Errorf("%s, %v", g, err)
	}
	for _, s := range []string{"", "A", "0x", "0x0", "5000000000000101", "0x15000000000000101", "0x5000:0101", "node-1"} {
		if g, err := ParseGUID(s); err == nil {
			t.Errorf("%q was taken for %s", s, g)
		}
	}
	if GUID("0xAB").Valid() {
		t.Error("a GUID in another form is valid")
	}
}

func testFabric() Fabric {
	return Fabric{Name: "ib0", SMs: []GUID{GUIDOf(1)}, First: 0x100, Last: 0x1ff, Managed: []GUID{GUIDOf(2), GUIDOf(3)},
		Fixed: []Partition{{Name: "storage", PKey: 0x20, Members: []PartitionMember{{GUID: GUIDOf(9), Full: true}}}}}
}

func TestFabricValidate(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*Fabric)
		want []string
	}{
		{"good", func(*Fabric) {}, nil},
		{"a colon in the name", func(f *Fabric) { f.Name = "ib:0" }, []string{"name"}},
		{"no subnet manager", func(f *Fabric) { f.SMs = nil }, []string{"sms"}},
		{"the default key in the pool", func(f *Fabric) { f.Last = DefaultPKey }, []string{"first"}},
		{"the pool upside down", func(f *Fabric) { f.First, f.Last = f.Last, f.First }, []string{"first"}},
		{"a managed port that runs the subnet manager", func(f *Fabric) { f.Managed[1] = f.SMs[0] }, []string{"managed[1]"}},
		{"a GUID twice", func(f *Fabric) { f.Managed[1] = f.Managed[0] }, []string{"managed[1]"}},
		{"a word for a GUID", func(f *Fabric) { f.Managed[1] = "ALL" }, []string{"managed[1]"}},
		{"a fixed key in the pool", func(f *Fabric) { f.Fixed[0].PKey = 0x100 }, []string{"fixed[0].pkey"}},
		{"a fixed key with the top bit", func(f *Fabric) { f.Fixed[0].PKey = 0x8020 }, []string{"fixed[0].pkey"}},
		{"a managed port in a fixed partition", func(f *Fabric) { f.Fixed[0].Members[0].GUID = GUIDOf(2) }, []string{"fixed[0].members[0].guid"}},
		{"a member twice", func(f *Fabric) { f.Fixed[0].Members = append(f.Fixed[0].Members, f.Fixed[0].Members[0]) }, []string{"fixed[0].members[1].guid"}},
		{"a fixed partition twice", func(f *Fabric) { f.Fixed = append(f.Fixed, f.Fixed[0]) }, []string{"fixed[1].name", "fixed[1].pkey"}},
		{"a size without IP", func(f *Fabric) { f.MTU = 2048 }, []string{"mtu"}},
		{"a size that there is not", func(f *Fabric) { f.IPoIB, f.MTU = true, 1500 }, []string{"mtu"}},
	} {
		f := testFabric()
		c.do(&f)
		if d := cmp.Diff(c.want, fieldsOf(f.Validate())); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

func TestCarriesValidate(t *testing.T) {
	key := func(k PKey) Membership { return Membership{PKey: k} }
	for _, c := range []struct {
		name string
		c    Carries
		want []string
	}{
		{"quarantine", InPartitions(), nil},
		{"a tenant's", InPartitions(Membership{PKey: 0x101, Full: true}), nil},
		{"an access port", Carries{Untagged: 20}, nil},
		{"a trunk", Carries{Untagged: 20, Tagged: []VLAN{21, 22}}, nil},
		{"VLAN 1", Carries{Untagged: 1}, []string{"p.untagged"}},
		{"VLAN 1 in a trunk", Carries{Tagged: []VLAN{1}}, []string{"p.tagged[0]"}},
		{"a VLAN with and without a tag", Carries{Untagged: 20, Tagged: []VLAN{20}}, []string{"p.tagged[0]"}},
		{"a VLAN twice", Carries{Tagged: []VLAN{20, 20}}, []string{"p.tagged[1]"}},
		{"a key with the top bit", Carries{Partitions: []Membership{key(0x8101)}}, []string{"p.partitions[0]"}},
		{"a key twice", Carries{Partitions: []Membership{key(0x101), {PKey: 0x101, Full: true}}}, []string{"p.partitions[1]"}},
		{"the first place for a key that it has not", Carries{Partitions: []Membership{key(0x101)}, Index0: 0x102}, []string{"p.index0"}},
		{"two kinds of wire", Carries{Partitions: []Membership{key(0x101)}, Untagged: 20}, []string{"p"}},
	} {
		if d := cmp.Diff(c.want, fieldsOf(c.c.Validate("p"))); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

func TestTagPool(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC) }
	p := &TagPool{First: 0x100, Last: 0x101, Rest: 10 * time.Minute}
	take := func(minute int, want uint16) {
		t.Helper()
		got, err := p.Take("l", at(minute))
		if want == 0 {
			if KindOf(err) != Unavailable || got != 0 || !strings.Contains(err.Error(), "rest") {
				t.Errorf("minute %d: took 0x%x, %v; want none", minute, got, err)
			}
		} else if err != nil || got != want {
			t.Errorf("minute %d: took 0x%x, %v; want 0x%x", minute, got, err, want)
		}
		if f := p.Check(); len(f) > 0 {
			t.Errorf("minute %d: %v", minute, f)
		}
	}
	take(0, 0x100)
	take(0, 0x101)
	take(0, 0)
	p.Free(0x100, []string{"ib0", "ib1"}, at(1))
	p.Free(0x100, nil, at(1)) // again: it rests already
	p.Free(0x1ff, nil, at(1)) // nobody's
	take(60, 0)
	p.Read("ib0", nil, at(0)) // began before it was freed
	p.Read("ib1", nil, at(2))
	take(60, 0)
	p.Read("ib0", []uint16{0x100}, at(3)) // still there
	take(60, 0)
	p.Read("ib0", nil, at(4))
	take(13, 0) // clean everywhere since minute 4
	p.Read("ib1", []uint16{0x100}, at(5))
	take(60, 0) // a late write came through
	p.Read("ib1", nil, at(6))
	take(15, 0)
	take(16, 0x100)
	if len(p.Resting) != 0 {
		t.Errorf("in use and resting: %v", p.Resting)
	}
	bad := &TagPool{First: 1, Last: 2, Used: map[uint16]string{2: "l", 9: "l"}, Resting: []RestingTag{{Tag: 2, Unread: []string{"d"}}, {Tag: 1}}}
	if d := cmp.Diff([]string{"resting[0]", "resting[1]", "used"}, fieldsOf(bad.Check())); d != "" {
		t.Errorf("wrong books (-want +got):\n%s", d)
	}
	if f := (&TagPool{First: 1, Last: 20}).Validate(2, 4094); len(f) != 1 {
		t.Errorf("a pool with VLAN 1: %v", f)
	}
}
