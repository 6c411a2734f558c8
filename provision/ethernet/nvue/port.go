package nvue

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// setting is what a revision gives one port.
type setting struct {
	carries fleet.Carries
	// doubt is what of it cannot be said as what a port carries.
	doubt string
}

// config is a revision's configuration, as far as it says who reaches whom.
type config struct {
	bridge     string
	vlans      []fleet.VLAN // that the bridge has
	stretched  []fleet.VLAN // that go on by VXLAN
	untagged   fleet.VLAN   // of ports that name none
	interfaces object
	members    map[string]string // ports of a bond, with its name
	children   map[string]string // ports with an interface on top of them, such as a VLAN's, with its name
}

// read takes a configuration apart; bridge is the one whose ports are ours.
func readConfig(o object, bridge string) (*config, error) {
	c := &config{bridge: bridge, untagged: 1, members: map[string]string{}, children: map[string]string{}}
	b, err := sub(o, "bridge", "domain", bridge)
	if err != nil {
		return nil, err
	}
	if kind, err := text(b, "type"); err != nil {
		return nil, fmt.Errorf("bridge.domain.%s.%w", bridge, err)
	} else if kind != "" && kind != "vlan-aware" {
		return nil, fmt.Errorf("bridge.domain.%s.type: %q is no vlan-aware bridge", bridge, kind)
	}
	if v, ok := b["untagged"]; ok && v != nil {
		if c.untagged, err = vlan(v); err != nil {
			return nil, fmt.Errorf("bridge.domain.%s.untagged: %w", bridge, err)
		}
	}
	list, err := sub(b, "vlan")
	if err != nil {
		return nil, fmt.Errorf("bridge.domain.%s.%w", bridge, err)
	}
	if c.vlans, err = vlans(list); err != nil {
		return nil, fmt.Errorf("bridge.domain.%s.vlan: %w", bridge, err)
	}
	for _, k := range keys(list) {
		one, err := sub(list, k)
		if err != nil {
			return nil, fmt.Errorf("bridge.domain.%s.vlan.%w", bridge, err)
		}
		if one["vni"] != nil {
			v, err := vlans(object{k: nil})
			if err != nil {
				return nil, err
			}
			c.stretched = append(c.stretched, v...)
		}
	}
	if c.interfaces, err = sub(o, "interface"); err != nil {
		return nil, err
	}
	for _, name := range keys(c.interfaces) {
		i, err := sub(c.interfaces, name)
		if err != nil {
			return nil, fmt.Errorf("interface.%w", err)
		}
		bond, err := sub(i, "bond", "member")
		if err != nil {
			return nil, fmt.Errorf("interface.%s.%w", name, err)
		}
		for _, m := range keys(bond) {
			c.members[m] = name
		}
		base, err := text(i, "base-interface")
		if err != nil {
			return nil, fmt.Errorf("interface.%s.%w", name, err)
		}
		if base != "" && base != bridge {
			c.children[base] = name
		}
	}
	return c, nil
}

// harmless are keys of an interface that change nothing about who reaches whom.
var harmless = []string{"description", "link", "bridge", "type", "bond", "lldp", "qos", "storm-control", "telemetry", "ptp", "synce", "port-security"}

// port is what the configuration gives a port.
func (c *config) port(name string) setting {
	o, err := sub(c.interfaces, name)
	if err != nil {
		return setting{doubt: "its configuration: interface." + err.Error()}
	}
	s, err := c.carries(o)
	switch {
	case err != nil:
		return setting{carries: s, doubt: "its configuration: " + err.Error()}
	case c.members[name] != "":
		return setting{s, "it is a member of " + c.members[name] + ", which is what carries"}
	case c.children[name] != "":
		return setting{s, "it carries " + c.children[name] + ", too"}
	}
	for _, v := range c.stretched {
		if s.Untagged == v || slices.Contains(s.Tagged, v) {
			return setting{s, fmt.Sprintf("VLAN %d goes on to other switches by VXLAN", v)}
		}
	}
	return setting{carries: s}
}

// carries reads an interface. With an error it is what could be understood.
func (c *config) carries(o object) (s fleet.Carries, err error) {
	for _, k := range keys(o) {
		if !slices.Contains(harmless, k) {
			err = fmt.Errorf("it has %s, which is no part of what a port of ours carries", k)
		}
	}
	link, linkErr := sub(o, "link")
	if linkErr != nil {
		return s, linkErr
	}
	if state, ok := link["state"]; ok && state != nil {
		which, ok := choice(state)
		if !ok || which != "up" && which != "down" {
			return s, fmt.Errorf("link.state is neither up nor down")
		}
		s.Down = which == "down"
	}
	domains, domainErr := sub(o, "bridge", "domain")
	switch {
	case domainErr != nil:
		return s, domainErr
	case len(domains) == 0:
		return s, err // in no bridge
	case len(domains) > 1 || domains[c.bridge] == nil:
		return s, fmt.Errorf("it is a port of %s", strings.Join(keys(domains), ", "))
	}
	d, domainErr := sub(domains, c.bridge)
	if domainErr != nil {
		return s, domainErr
	}
	for _, k := range keys(d) {
		if !slices.Contains([]string{"access", "untagged", "vlan", "stp", "learning"}, k) {
			return s, fmt.Errorf("it has bridge.domain.%s.%s, which is no part of what a port of ours carries", c.bridge, k)
		}
	}
	return c.tags(s, d, err)
}

// tags reads which VLANs a port of the bridge is in.
func (c *config) tags(s fleet.Carries, d object, soFar error) (fleet.Carries, error) {
	if d["access"] != nil {
		v, err := vlan(d["access"])
		if err != nil {
			return s, fmt.Errorf("access: %w", err)
		}
		s.Untagged = v
		if d["untagged"] != nil || d["vlan"] != nil {
			return s, fmt.Errorf("it is an access port and a trunk")
		}
		return s, also(soFar, s)
	}
	list, err := sub(d, "vlan")
	if err != nil {
		return s, err
	}
	if list == nil {
		s.Tagged, err = slices.Clone(c.vlans), fmt.Errorf("it names no VLAN, and so is a trunk of all that the bridge has")
	} else {
		s.Tagged, err = vlans(list)
	}
	s.Untagged = c.untagged
	if d["untagged"] != nil {
		if none, ok := d["untagged"].(string); ok && none == "none" {
			s.Untagged = 0
		} else if v, vErr := vlan(d["untagged"]); vErr != nil {
			return s, fmt.Errorf("untagged: %w", vErr)
		} else {
			s.Untagged = v
		}
	}
	s.Tagged = slices.DeleteFunc(s.Tagged, func(v fleet.VLAN) bool { return v == s.Untagged })
	if len(s.Tagged) == 0 {
		s.Tagged = nil
	}
	if err != nil {
		return s, err
	}
	return s, also(soFar, s)
}

// also finds VLAN 1, which switches fall back to.
func also(soFar error, s fleet.Carries) error {
	if soFar == nil && (s.Untagged == 1 || slices.Contains(s.Tagged, 1)) {
		return fmt.Errorf("it is in VLAN 1, where every port is that nobody configured")
	}
	return soFar
}

// vlan reads one VLAN, written as a number or as a text.
func vlan(v any) (fleet.VLAN, error) {
	s, ok := v.(string)
	if n, number := v.(json.Number); number {
		s, ok = n.String(), true
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if !ok || err != nil || n < 1 || n > 4094 {
		return 0, fmt.Errorf("%s is no VLAN", clip(fmt.Sprint(v)))
	}
	return fleet.VLAN(n), nil
}

// vlans reads the keys of a list, which are VLANs, or ranges and lists of them such as 10-12,20.
func vlans(o object) ([]fleet.VLAN, error) {
	in := map[fleet.VLAN]bool{}
	for k := range o {
		for part := range strings.SplitSeq(k, ",") {
			from, to, ranged := strings.Cut(part, "-")
			if !ranged {
				to = from
			}
			a, err := vlan(from)
			if err != nil {
				return nil, err
			}
			b, err := vlan(to)
			if err != nil {
				return nil, err
			}
			if b < a {
				return nil, fmt.Errorf("%s is no range of VLANs", clip(part))
			}
			for v := a; v <= b; v++ {
				in[v] = true
			}
		}
	}
	var out []fleet.VLAN
	for v := range in {
		out = append(out, v)
	}
	slices.Sort(out)
	return out, nil
}

// change is what has to be patched so that the ports carry that. VLANs that the bridge lacks are added to it, and none is ever taken away.
func (c *config) change(want []fleet.WireChange) object {
	ports, add := object{}, object{}
	for _, w := range want {
		before, _ := sub(c.interfaces, w.Port, "bridge", "domain", c.bridge)
		ports[w.Port] = object{"link": object{"state": object{state(w.To): object{}}}, "bridge": object{"domain": object{c.bridge: c.trunk(before, w.To)}}}
		for _, v := range append([]fleet.VLAN{w.To.Untagged}, w.To.Tagged...) {
			if v != 0 && !slices.Contains(c.vlans, v) {
				add[strconv.Itoa(int(v))] = object{}
			}
		}
	}
	out := object{"interface": ports}
	if len(add) > 0 {
		out["bridge"] = object{"domain": object{c.bridge: object{"vlan": add}}}
	}
	return out
}

func state(c fleet.Carries) string {
	if c.Down {
		return "down"
	}
	return "up"
}

// trunk is the change of a port of the bridge. A key that is there and must not be is null; one that is not there is left out, as the order in which NVUE sets
// and unsets the same thing is not laid down.
func (c *config) trunk(before object, to fleet.Carries) object {
	out := object{}
	drop := func(k string) {
		if before[k] != nil {
			out[k] = nil
		}
	}
	if len(to.Tagged) == 0 {
		out["access"] = int(to.Untagged)
		drop("untagged")
		drop("vlan")
		return out
	}
	drop("access")
	out["untagged"] = "none"
	if to.Untagged != 0 {
		out["untagged"] = int(to.Untagged)
	}
	list := object{}
	old, _ := sub(before, "vlan")
	for k := range old {
		list[k] = nil
	}
	for _, v := range to.Tagged {
		list[strconv.Itoa(int(v))] = object{}
	}
	out["vlan"] = list
	return out
}
