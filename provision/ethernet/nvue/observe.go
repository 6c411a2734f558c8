package nvue

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Codes of findings; both stop hand-overs.
const (
	findPending = "MC-SWITCH-PENDING" // a change waits for its confirmation, or is being applied
	findUnsaved = "MC-SWITCH-UNSAVED" // a restart would forget what ports carry
)

// look is all that was read of the switch at one time.
type look struct {
	// set is what the configuration gives the managed ports, with the mark; view is that with what the hardware says of it.
	set, view fleet.WireView
	config    *config
	revisions map[string]Revision
	// flight is the revision that is being applied or waits for its confirmation, nil where none does.
	flight *Revision
}

// waits is the revision that goes back by itself unless it is confirmed, nil where none does.
func (l *look) waits() *Revision {
	if l.flight == nil || !slices.Contains(waiting, l.flight.State) {
		return nil
	}
	return l.flight
}

// Observe reads the configuration and the hardware of the managed ports. A port whose configuration says more than can be said here, or whose hardware does
// something else, is in doubt.
func (d *Driver) Observe(ctx context.Context) (fleet.WireView, error) {
	l, err := d.look(ctx)
	if err != nil {
		return fleet.WireView{}, err
	}
	if l.flight != nil {
		l.find(findPending, "revision %s is %s: what is configured now may go back by itself", clip(l.flight.ID), l.flight.State)
		return l.view, nil
	}
	unsaved, err := d.unsaved(ctx, l)
	if err != nil {
		return fleet.WireView{}, err
	}
	if len(unsaved) > 0 {
		l.find(findUnsaved, "a restart of the switch would bring back what %s carried before: the configuration is not saved", some(unsaved))
	}
	return l.view, nil
}

func (l *look) find(code, format string, args ...any) {
	l.view.Findings = append(l.view.Findings, fleet.WireFinding{Code: code, Text: fmt.Sprintf(format, args...), Stops: true})
}

func some(names []string) string {
	if len(names) > 3 {
		return strings.Join(names[:3], ", ") + " and others"
	}
	return strings.Join(names, ", ")
}

func (d *Driver) look(ctx context.Context) (*look, error) {
	l := &look{}
	var err error
	if l.revisions, err = d.client.revisions(ctx); err != nil {
		return nil, err
	}
	rev := "applied"
	for _, id := range slices.Sorted(maps.Keys(l.revisions)) {
		if r := l.revisions[id]; inFlight(r.State) {
			l.flight = &r
		}
	}
	if w := l.waits(); w != nil {
		rev = w.ID // it is what the hardware does, whatever the release calls applied
	}
	if l.config, err = d.read(ctx, rev); err != nil {
		return nil, err
	}
	if l.set, err = d.settings(l.config); err != nil {
		return nil, err
	}
	hw, err := d.hardware(ctx)
	if err != nil {
		return nil, err
	}
	l.view = l.set
	l.view.Ports = slices.Clone(l.set.Ports)
	for i := range l.view.Ports {
		hw.compare(&l.view.Ports[i])
	}
	return l, nil
}

// inFlight reports whether a revision in that state is about to change what the switch does.
func inFlight(state string) bool {
	return slices.Contains(working, state) || slices.Contains(waiting, state) || state == "ignore_fail"
}

// read is the configuration of a revision.
func (d *Driver) read(ctx context.Context, rev string) (*config, error) {
	o, err := d.client.config(ctx, rev)
	if err != nil {
		return nil, err
	}
	c, err := readConfig(o, d.bridge)
	if err != nil {
		return nil, fleet.Errorf(fleet.Broken, codeSilent, "the configuration %s of the switch %s: %w", clip(rev), d.sw.Name, err)
	}
	return c, nil
}

// settings are what a configuration gives the managed ports.
func (d *Driver) settings(c *config) (fleet.WireView, error) {
	v := fleet.WireView{Device: d.sw.Name, At: d.now()}
	for _, name := range slices.Sorted(slices.Values(d.sw.Managed)) {
		s := c.port(name)
		v.Ports = append(v.Ports, fleet.PortView{Port: name, Carries: s.carries, Doubt: s.doubt})
	}
	var err error
	v.Mark, err = d.sw.MarkOf(v.Ports)
	return v, err
}

// unsaved are the ports that carry something else in the configuration that the switch starts with.
func (d *Driver) unsaved(ctx context.Context, l *look) ([]string, error) {
	c, err := d.read(ctx, "startup")
	if err != nil {
		return nil, err
	}
	saved, err := d.settings(c)
	if err != nil {
		return nil, err
	}
	var out []string
	for i, p := range l.set.Ports {
		if q := saved.Ports[i]; !p.Carries.Equal(q.Carries) || p.Doubt != q.Doubt {
			out = append(out, p.Port)
		}
	}
	return out, nil
}

// hardware is what the switch does, as it tells it.
type hardware struct {
	links object // by port
	vlans object // by port, of the bridge
}

func (d *Driver) hardware(ctx context.Context) (hardware, error) {
	links, err := d.client.get(ctx, "/interface", nil)
	if err != nil {
		return hardware{}, err
	}
	o, err := d.client.get(ctx, "/bridge/port-vlan", nil)
	if fleet.KindOf(err) == fleet.NotFound {
		return hardware{}, fleet.Errorf(fleet.Refused, codeSilent, "the switch %s does not tell which VLANs its hardware has on which port", d.sw.Name).
			WithHint("Cumulus Linux does from release 5.6 on")
	}
	if err != nil {
		return hardware{}, err
	}
	vlans, err := sub(o, "domain", d.bridge, "port")
	if err != nil {
		return hardware{}, fleet.Errorf(fleet.Broken, codeSilent, "the VLANs of the switch %s: %w", d.sw.Name, err)
	}
	return hardware{links, vlans}, nil
}

// compare puts a port in doubt whose hardware does not do what its configuration says, and notes where its cable ends.
func (h hardware) compare(p *fleet.PortView) {
	link, err := sub(h.links, p.Port)
	switch {
	case p.Doubt != "":
		return
	case err != nil:
		p.Doubt = "its state: interface." + err.Error()
		return
	case link == nil:
		p.Doubt = "is not on the switch"
		return
	}
	p.Peer = peer(link)
	up, err := isUp(link)
	if err != nil {
		p.Doubt = "its state: " + err.Error()
		return
	}
	if p.Carries.Down && up {
		p.Doubt = "is configured down, and its link is up"
		return
	}
	untagged, tagged, err := h.carried(p.Port)
	switch {
	case err != nil:
		p.Doubt = "its VLANs: " + err.Error()
	case untagged != p.Carries.Untagged || !slices.Equal(tagged, p.Carries.Tagged):
		p.Doubt = fmt.Sprintf("is configured as %s, and its hardware has %s", fleet.Carries{Untagged: p.Carries.Untagged, Tagged: p.Carries.Tagged}, fleet.Carries{Untagged: untagged, Tagged: tagged})
	}
}

// isUp reports whether a port can pass a frame. Newer releases tell what was configured and what is, older ones what is.
func isUp(o object) (bool, error) {
	link, err := sub(o, "link")
	if err != nil {
		return false, err
	}
	up := false
	for _, k := range []string{"state", "oper-status", "admin-status"} {
		if link[k] == nil {
			continue
		}
		v, ok := choice(link[k])
		if !ok || v != "up" && v != "down" {
			return false, fmt.Errorf("link.%s is neither up nor down", k)
		}
		up = up || v == "up"
	}
	return up, nil
}

// carried are the VLANs that the hardware has on a port.
func (h hardware) carried(port string) (untagged fleet.VLAN, tagged []fleet.VLAN, err error) {
	list, err := sub(h.vlans, port, "vlan")
	if err != nil {
		return 0, nil, err
	}
	for _, k := range keys(list) {
		how, err := text(list, k, "tag-state")
		if err != nil {
			return 0, nil, err
		}
		in, err := vlans(object{k: nil})
		if err != nil {
			return 0, nil, err
		}
		switch {
		case how == "tagged":
			tagged = append(tagged, in...)
		case how != "untagged" && how != "access":
			return 0, nil, fmt.Errorf("VLAN %s is %q, which is neither tagged nor untagged", k, clip(how))
		case len(in) > 1 || untagged != 0:
			return 0, nil, fmt.Errorf("frames without a tag are in more than one VLAN")
		default:
			untagged = in[0]
		}
	}
	slices.Sort(tagged)
	return untagged, slices.Compact(tagged), nil
}

// peer is what a port's neighbour says of itself: one neighbour, or it is not said.
func peer(o object) string {
	all, err := sub(o, "lldp", "neighbor")
	if err != nil || len(all) != 1 {
		return ""
	}
	one, err := sub(all, keys(all)[0])
	if err != nil {
		return ""
	}
	host, hostErr := text(one, "chassis", "system-name")
	port, portErr := text(one, "port", "name")
	if hostErr != nil || portErr != nil || host == "" || port == "" {
		return ""
	}
	return clip(host) + "/" + clip(port)
}
