package ovs

import (
	"bytes"
	"encoding/json"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

func TestCarries(t *testing.T) {
	for _, c := range []fleet.Carries{
		{Untagged: 101},
		{Untagged: 101, Protected: true},
		{Tagged: []fleet.VLAN{101, 102}},
		{Untagged: 103, Tagged: []fleet.VLAN{101, 102}},
	} {
		got, doubt := configOf(c).carries()
		if doubt != "" || !got.Equal(c) {
			t.Errorf("%s is read back as %s, doubt %q", c, got, doubt)
		}
	}
	for _, c := range []struct {
		row, doubt string
		want       fleet.Carries
	}{
		{`{"vlan_mode":["set",[]],"tag":7,"trunks":["set",[]],"cvlans":["set",[]],"protected":false}`, "", fleet.Carries{Untagged: 7}},
		{`{"vlan_mode":["set",[]],"tag":["set",[]],"trunks":["set",[9,8]],"cvlans":["set",[]],"protected":true}`, "", fleet.Carries{Tagged: []fleet.VLAN{8, 9}, Protected: true}},
		{`{"vlan_mode":"native-untagged","tag":8,"trunks":["set",[8,9]],"cvlans":["set",[]],"protected":false}`, "", fleet.Carries{Untagged: 8, Tagged: []fleet.VLAN{9}}},
		{`{"vlan_mode":["set",[]],"tag":["set",[]],"trunks":["set",[]],"cvlans":["set",[]],"protected":false}`, "passes every VLAN", fleet.Carries{}},
		{`{"vlan_mode":"native-untagged","tag":8,"trunks":["set",[]],"cvlans":["set",[]],"protected":false}`, "passes every VLAN", fleet.Carries{}},
		{`{"vlan_mode":"trunk","tag":["set",[]],"trunks":["set",[0,9]],"cvlans":["set",[]],"protected":false}`, "is in VLAN 0, which is that of frames without one", fleet.Carries{}},
		{`{"vlan_mode":"access","tag":4095,"trunks":["set",[]],"cvlans":["set",[]],"protected":false}`, "is in VLAN 4095, which is that of frames without one", fleet.Carries{}},
	} {
		var row config
		if err := json.Unmarshal([]byte(c.row), &row); err != nil {
			t.Fatal(err)
		}
		got, doubt := row.carries()
		if doubt != c.doubt {
			t.Errorf("%s: doubt %q, want %q", c.row, doubt, c.doubt)
		} else if d := cmp.Diff(c.want, got); doubt == "" && d != "" {
			t.Errorf("%s (-want +got):\n%s", c.row, d)
		}
	}
}

// FuzzDatabase gives the client of OVSDB whatever a server might answer: it ends, with rows or with an error.
func FuzzDatabase(f *testing.F) {
	f.Add([]byte(`{"id":1,"result":[{"rows":[{"_uuid":["uuid","a"],"name":"p1","interfaces":["uuid","b"],"vlan_mode":"access","tag":7,"trunks":["set",[]],"cvlans":["set",[]],"protected":false,"fake_bridge":false,"other_config":["map",[["a","b"]]]}]}],"error":null}`))
	f.Add([]byte(`{"id":"echo","method":"echo","params":[]}{"id":1,"result":[null,{"error":"timed out"}],"error":null}`))
	f.Add([]byte(`{"id":1,"result":null,"error":"unknown database"}`))
	f.Add([]byte(`{"id":1,"result":[{"rows":[{"tag":["set",[1,["set",[]]]]}]}]}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		client, server := net.Pipe()
		defer client.Close()
		go func() {
			defer server.Close()
			server.Read(make([]byte, 4096)) //nolint:errcheck // what is asked does not matter
			go drain(server)
			server.Write(answer) //nolint:errcheck // nobody may be left to hear it
		}()
		d := newDatabase(client, 10*time.Second)
		rows, err := d.transact(t.Context(), operation{"op": "select"})
		if err != nil {
			return
		}
		ports, err := decode[portRow](rows[0])
		for _, p := range ports {
			if c, doubt := p.carries(); err == nil && doubt == "" && c.Untagged == 0 && len(c.Tagged) == 0 {
				t.Errorf("%+v is in no VLAN, and nobody doubts it", p)
			}
		}
	})
}

// FuzzOpenFlow gives the client of OpenFlow whatever a bridge might answer.
func FuzzOpenFlow(f *testing.F) {
	hello := []byte{4, 0, 0, 8, 0, 0, 0, 1}
	ports := append([]byte{4, ofParts, 0, 80, 0, 0, 0, 2, 0, ofPortDescribed, 0, 0, 0, 0, 0, 0}, make([]byte, ofPortSize)...)
	f.Add(append(bytes.Clone(hello), ports...))
	f.Add(append(bytes.Clone(hello), 4, ofError, 0, 12, 0, 0, 0, 2, 0, 1, 0, 2))
	f.Add([]byte{4, 0, 0, 4, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, answer []byte) {
		client, server := net.Pipe()
		defer client.Close()
		go drain(server)
		go func() {
			server.Write(answer) //nolint:errcheck // nobody may be left to hear it
			server.Close()
		}()
		o, err := newOpenflow(t.Context(), client, 10*time.Second)
		if err != nil {
			return
		}
		if _, err := o.ports(t.Context()); err != nil && fleet.CodeOf(err) == "" {
			t.Errorf("an error without a code: %v", err)
		}
	})
}

// drain reads what the client says until one side closes.
func drain(c net.Conn) {
	for b := make([]byte, 4096); ; {
		if _, err := c.Read(b); err != nil {
			return
		}
	}
}
