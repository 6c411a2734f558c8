package boot

import (
	"errors"
	"fmt"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// nic is a network card as the plan sees it.
type nic struct {
	name, mac string
	up        bool
	carrier   bool
	member    bool // of our own bond, from an earlier call
}

// op is one change to the machine's links.
type op interface{ String() string }

type (
	// linkUp, linkDown switch a link on and off.
	opUp   struct{ link string }
	opDown struct{ link string }
	// opMTU sets a link's MTU in bytes.
	opMTU struct {
		link string
		mtu  int
	}
	// opBond makes a bond, opMember puts a link into it.
	opBond   struct{ name, mode string }
	opMember struct{ link, bond string }
	// opVLAN makes a tagged link on parent.
	opVLAN struct {
		parent, name string
		id           int
	}
)

func (o opUp) String() string     { return o.link + " up" }
func (o opDown) String() string   { return o.link + " down" }
func (o opMTU) String() string    { return fmt.Sprintf("%s mtu %d", o.link, o.mtu) }
func (o opBond) String() string   { return fmt.Sprintf("add %s bond mode %s", o.name, o.mode) }
func (o opMember) String() string { return fmt.Sprintf("%s master %s", o.link, o.bond) }
func (o opVLAN) String() string   { return fmt.Sprintf("add %s vlan %d on %s", o.name, o.id, o.parent) }

// errAbsent: a link that the configuration names is not there, or not there yet.
var errAbsent = errors.New("no such network card")

// bondName is the name of the agent's own bond.
const bondName = "bond0"

// planLinks says what has to be done to get the link that cfg describes, and its name. Without interface and bond it plans every
// card, so that all can be tried, and the names are all of theirs.
func planLinks(cfg *fleet.BootNetwork, nics []nic) (ops []op, tops []string, err error) {
	var bases []string
	switch {
	case cfg.Bond != nil:
		mode := cfg.Bond.Mode
		if mode == "" {
			mode = "802.3ad"
		}
		ops = append(ops, opBond{bondName, mode})
		for _, member := range cfg.Bond.Members {
			n, ok := findNIC(nics, member)
			if !ok {
				return nil, nil, fmt.Errorf("bond member %s: %w", member, errAbsent)
			}
			if n.member {
				continue
			}
			// The kernel refuses members that are up, and puts them up itself.
			if n.up {
				ops = append(ops, opDown{n.name})
			}
			ops = append(ops, opMember{n.name, bondName})
		}
		bases = []string{bondName}
	case cfg.Interface != "":
		n, ok := findNIC(nics, cfg.Interface)
		if !ok {
			return nil, nil, fmt.Errorf("interface %s: %w", cfg.Interface, errAbsent)
		}
		bases = []string{n.name}
	default:
		for _, n := range nics {
			if !n.member {
				bases = append(bases, n.name)
			}
		}
		if len(bases) == 0 {
			return nil, nil, errAbsent
		}
	}
	for i, base := range bases {
		if cfg.MTU != 0 {
			ops = append(ops, opMTU{base, cfg.MTU})
		}
		ops = append(ops, opUp{base})
		top := base
		if cfg.VLAN != 0 {
			top = vlanName(base, cfg.VLAN, i)
			ops = append(ops, opVLAN{base, top, cfg.VLAN})
			if cfg.MTU != 0 {
				ops = append(ops, opMTU{top, cfg.MTU})
			}
			ops = append(ops, opUp{top})
		}
		tops = append(tops, top)
	}
	return ops, tops, nil
}

// vlanName is base.id where the kernel's limit of 15 bytes allows it.
func vlanName(base string, id, i int) string {
	if name := fmt.Sprintf("%s.%d", base, id); len(name) <= 15 {
		return name
	}
	return fmt.Sprintf("vlan%d.%d", i, id)
}

// findNIC finds a card by MAC address or by name.
func findNIC(nics []nic, spec string) (nic, bool) {
	for _, n := range nics {
		if n.name == spec || strings.EqualFold(n.mac, strings.ReplaceAll(spec, "-", ":")) {
			return n, true
		}
	}
	return nic{}, false
}
