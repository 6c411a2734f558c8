package ovs_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/wires/vswitch"
	"github.com/metalctl/metalctl/fleet"
)

// hosts plugs network namespaces in: h1 to h4 at managed ports that are in quarantine, and one at the uplink, which is a trunk of VLANs 101, 102 and 103.
func hosts(t *testing.T) (*rig, map[string]*vswitch.Host) {
	t.Helper()
	r := start(t)
	out := map[string]*vswitch.Host{}
	plug := func(port, settings string) {
		h, err := r.NewHost(t.Context(), port, strings.Fields(settings)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		})
		out[port] = h
	}
	managed := []string{"h1", "h2", "h3", "h4"}
	for _, p := range managed {
		plug(p, "tag=900")
	}
	plug("up1", "vlan_mode=trunk trunks=101,102,103")
	r.manage(t, managed...)
	r.free(t, managed...)
	return r, out
}

// packets sends frames and says who hears them.
type packets struct {
	t     *testing.T
	hosts map[string]*vswitch.Host
	count int
}

func (p *packets) text(what string) string {
	p.count++
	return fmt.Sprintf("%s %d", what, p.count)
}

// hears waits until a frame with a tag (0 for none) that one host sends arrives at another, and returns the tag that it has there.
func (p *packets) hears(from string, tag uint16, to string) uint16 {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 90*time.Second)
	defer cancel()
	// Until a link that was switched on carries frames they are lost: it is sent until it arrives.
	for {
		text := p.text("passes")
		if err := p.hosts[from].Send(tag, text); err != nil {
			p.t.Fatalf("%s cannot send: %v", from, err)
		}
		wait, done := context.WithTimeout(ctx, time.Second)
		heard, err := p.hosts[to].Hear(wait, text)
		done()
		if err == nil {
			return heard[len(heard)-1].VLAN
		}
		if ctx.Err() != nil {
			p.t.Fatalf("%s does not hear what %s sends with tag %d: %v", to, from, tag, err)
		}
	}
}

// deaf fails where one host hears what another sends with one of the tags. Its twin comes first: what other sends to hearer does arrive. Frames of that
// twin that follow the forbidden ones by three rounds of the switch say when the forbidden ones would have come.
func (p *packets) deaf(from string, tags []uint16, to, other string, tag uint16, hearer string) {
	p.t.Helper()
	p.hears(other, tag, hearer)
	text := p.text("must not pass")
	for _, g := range tags {
		if err := p.hosts[from].Send(g, text); err != nil && !strings.Contains(err.Error(), "network is down") {
			p.t.Fatalf("%s cannot send: %v", from, err)
		}
	}
	heard := []vswitch.Frame{}
	for range 3 {
		ctx, cancel := context.WithTimeout(p.t.Context(), 90*time.Second)
		end := p.text("passes")
		if err := p.hosts[other].Send(tag, end); err != nil {
			p.t.Fatal(err)
		}
		f, err := p.hosts[hearer].Hear(ctx, end)
		cancel()
		if err != nil {
			p.t.Fatalf("%s does not hear %s any more: %v", hearer, other, err)
		}
		if hearer == to {
			heard = append(heard, f...)
		}
	}
	if hearer != to {
		f, err := p.hosts[to].Heard()
		if err != nil {
			p.t.Fatal(err)
		}
		heard = append(heard, f...)
	}
	if i := slices.IndexFunc(heard, func(f vswitch.Frame) bool { return f.Text == text }); i >= 0 {
		p.t.Errorf("%s hears what %s sends with one of the tags %v: %+v", to, from, tags, heard[i])
	}
}

// found reports whether the switch would send frames of a VLAN to that host.
func (r *rig) found(t *testing.T, vlan int, h *vswitch.Host) bool {
	t.Helper()
	out, err := r.Appctl(t.Context(), "fdb/show", vswitch.Bridge)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(strings.Split(out, "\n"), func(line string) bool {
		f := strings.Fields(line)
		return len(f) == 4 && f[1] == fmt.Sprint(vlan) && f[2] == h.MAC.String()
	})
}

func TestPackets(t *testing.T) {
	if testing.Short() {
		t.Skip("long: a real Open vSwitch with hosts in network namespaces")
	}
	r, h := hosts(t)
	p := &packets{t: t, hosts: h}
	every := []uint16{0, 101, 102, 103, quarantine, 1, 4094}

	r.move(t, map[string]fleet.Carries{"h1": tenant(1), "h2": tenant(1), "h3": tenant(2), "h4": tenant(2)})
	p.hears("h1", 0, "h2")
	p.hears("h4", 0, "h3")
	if tag := p.hears("h1", 0, "up1"); tag != 101 {
		t.Errorf("the uplink hears h1 with tag %d, want 101", tag)
	}
	// Tenants do not hear each other, whatever tag they send with, and a tag does not pass into a port's own VLAN either.
	p.deaf("h1", every, "h3", "h4", 0, "h3")
	p.deaf("h3", every, "h1", "h2", 0, "h1")
	p.deaf("h1", every[1:], "h2", "up1", 101, "h2")

	// A port that moved hears its new neighbours, not the old ones, and nobody finds it at the old place.
	if !r.found(t, 101, h["h1"]) {
		t.Error("the switch has no forwarding entry for a port before it moves")
	}
	r.move(t, map[string]fleet.Carries{"h1": tenant(2)})
	if r.found(t, 101, h["h1"]) {
		t.Error("a moved port keeps its forwarding entry")
	}
	p.hears("h1", 0, "h3")
	p.deaf("h1", every, "h2", "up1", 101, "h2")

	// A freed node's port passes nothing, either way.
	r.free(t, "h1")
	p.deaf("h1", every, "h3", "h4", 0, "h3")
	p.deaf("h1", every, "up1", "h4", 0, "up1")
	p.deaf("h4", []uint16{0}, "h1", "h4", 0, "h3")

	// A trunk with a native VLAN: frames without a tag are in 101, those with 102 in 102, and others nowhere.
	r.move(t, map[string]fleet.Carries{"h1": {Untagged: 101, Tagged: []fleet.VLAN{102}}})
	if tag := p.hears("h2", 0, "h1"); tag != 0 {
		t.Errorf("the native VLAN comes with tag %d", tag)
	}
	if tag := p.hears("h3", 0, "h1"); tag != 102 {
		t.Errorf("VLAN 102 comes with tag %d", tag)
	}
	p.hears("h1", 0, "h2")
	p.hears("h1", 102, "h3")
	p.deaf("h1", []uint16{103, quarantine, 1}, "up1", "h4", 0, "up1")
	p.deaf("h1", []uint16{0, 103}, "h3", "h4", 0, "h3")

	// Protected ports reach the uplink, which is not, and not each other.
	guarded := fleet.Carries{Untagged: 103, Protected: true}
	r.move(t, map[string]fleet.Carries{"h1": guarded, "h2": guarded})
	p.hears("h1", 0, "up1")
	p.hears("up1", 103, "h2")
	p.deaf("h1", every, "h2", "up1", 103, "h2")
	p.deaf("h2", every, "h1", "up1", 103, "h1")

	// Nothing of that is lost when the switch itself dies and starts again: a freed port stays off.
	r.free(t, "h1")
	if err := r.KillSwitchd(); err != nil {
		t.Fatal(err)
	}
	if err := r.StartSwitchd(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.shows(t, map[string]fleet.Carries{"h1": leaf().InQuarantine(), "h2": guarded, "h3": tenant(2), "h4": tenant(2)})
	p.deaf("h1", every, "up1", "h4", 0, "up1")
}
