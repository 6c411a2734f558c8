package nvue

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// allowed says what a change may touch: the link and the VLANs of some ports, and the bridge's list of VLANs, to which some are added.
type allowed struct {
	bridge string
	ports  []string
	vlans  []fleet.VLAN
}

func allow(sw fleet.Switch, bridge string, changes []fleet.WireChange) allowed {
	a := allowed{bridge: bridge}
	for _, c := range changes {
		a.ports = append(a.ports, c.Port)
		for _, v := range append([]fleet.VLAN{c.To.Untagged}, c.To.Tagged...) {
			if sw.Owns(v) || v == sw.Quarantine {
				a.vlans = append(a.vlans, v)
			}
		}
	}
	return a
}

// leaf reports whether the value at a path may be set.
func (a allowed) leaf(path []string) bool {
	switch {
	case len(path) == 5 && slices.Equal(path[:4], []string{"bridge", "domain", a.bridge, "vlan"}):
		v, err := strconv.ParseUint(path[4], 10, 16)
		return err == nil && slices.Contains(a.vlans, fleet.VLAN(v))
	case len(path) < 3 || path[0] != "interface" || !slices.Contains(a.ports, path[1]):
		return false
	case slices.Equal(path[2:], []string{"type"}):
		return true // NVUE notes it by itself for a port that it hears of for the first time
	case len(path) <= 5 && slices.Equal(path[2:min(4, len(path))], []string{"link", "state"}):
		return true
	}
	return a.vlanOf(path)
}

// vlanOf reports whether a path is one of those that say which VLANs a port is in.
func (a allowed) vlanOf(path []string) bool {
	if len(path) < 6 || !slices.Equal(path[2:5], []string{"bridge", "domain", a.bridge}) {
		return false
	}
	return len(path) == 6 && slices.Contains([]string{"access", "untagged", "vlan"}, path[5]) || len(path) == 7 && path[5] == "vlan"
}

// check is an error that names what of a difference is not allowed. In the difference back, what was not there before is unset, with all above it that was
// not there either.
func (a allowed) check(diff object, back bool) error {
	var bad []string
	a.walk(nil, diff, back, &bad)
	if len(bad) == 0 {
		return nil
	}
	slices.Sort(bad)
	more := ""
	if len(bad) > 3 {
		bad, more = bad[:3], " and others"
	}
	return errors.New(strings.Join(bad, ", ") + more)
}

func (a allowed) walk(path []string, v any, back bool, bad *[]string) {
	o, nested := v.(object)
	if nested && (len(o) > 0 || len(path) == 0) {
		for k, x := range o {
			a.walk(append(slices.Clone(path), k), x, back, bad)
		}
		return
	}
	ok := a.leaf(path)
	if v == nil {
		ok = a.vlanOf(path) || back && (ok || a.above(path)) || ok && len(path) == 5 && path[2] == "link"
	}
	if !ok && !(nested && len(o) == 0 && a.above(path)) {
		*bad = append(*bad, fmt.Sprintf("%q", clip(strings.Join(path, "."))))
	}
}

// above reports whether something allowed stands below a path.
func (a allowed) above(path []string) bool {
	under := func(whole []string) bool { return len(path) <= len(whole) && slices.Equal(path, whole[:len(path)]) }
	return under([]string{"bridge", "domain", a.bridge, "vlan"}) || slices.ContainsFunc(a.ports, func(p string) bool {
		return under([]string{"interface", p, "bridge", "domain", a.bridge}) || under([]string{"interface", p, "link"})
	})
}
