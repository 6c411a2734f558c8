package cli

import (
	"regexp"
	"slices"
	"strconv"

	"github.com/metalctl/metalctl/fleet"
)

// promptOf matches the whole line in which a switch of that name waits for a command; "" is any. Its first group is the name.
func promptOf(name string) *regexp.Regexp {
	pattern := `[A-Za-z0-9][\w.\-]{0,62}`
	if name != "" {
		pattern = regexp.QuoteMeta(name)
	}
	return regexp.MustCompile(`^(` + pattern + `)(?:\([\w.\-/:+]*\))*[>#]$`)
}

// Commands for ports, in configuration mode, as all platforms have them. In commands stand {port}, {untagged}, {tagged}, {allowed}, {quarantine}, {vlan}, {name}
// and {until}.
var (
	newVLAN    = []string{"vlan {vlan}", "exit"}
	portBegin  = []string{"interface {port}"}
	portAccess = []string{"switchport mode access", "switchport access vlan {untagged}", "switchport trunk native vlan {quarantine}", "switchport trunk allowed vlan none"}
	portTrunk  = []string{"switchport access vlan {quarantine}", "switchport trunk native vlan {untagged}", "switchport trunk allowed vlan {allowed}", "switchport mode trunk"}
	// portTagged is a trunk without a network for frames without a tag: a native VLAN that is not allowed drops those.
	portTagged = []string{"switchport access vlan {quarantine}", "switchport trunk native vlan {quarantine}", "switchport trunk allowed vlan {tagged}", "switchport mode trunk"}
	portOff    = []string{"shutdown"}
	portOn     = []string{"no shutdown"}
	portEnd    = []string{"exit"}
)

// Platform is the command line of one operating system, as data.
type Platform struct {
	// Name is the one in the server's configuration, Title the one that people use.
	Name, Title string

	// More matches the line of a pager.
	More *regexp.Regexp
	// Error matches the line that a refusal begins with, where answers are read.
	Error *regexp.Regexp
	// Expected match the lines that are said when a command that changes something was done. Any other line is a refusal.
	Expected []*regexp.Regexp
	// Enable gets the rights to configure where the prompt does not end in #, "" where there is no such step.
	Enable string
	// Quiet are the first commands.
	Quiet []string

	// Running shows the configuration that is in force, Switching what the switch makes of it, as JSON.
	Running, Switching string
	// Harmless begin the lines of a port that have nothing to do with who can reach it.
	Harmless []string
	// DownByDefault and RoutedByDefault are the lines of the configuration with which a port is off, or routed, where nothing else is said.
	DownByDefault, RoutedByDefault string
	// switching reads the answer to Switching.
	switching func(answer string) (map[string]operation, error)

	// Save keeps the running configuration over a restart.
	Save []string
	// way is how changes are made to be one.
	way way
}

// operation is what a port does, as far as it says.
type operation struct {
	mode           string // access, trunk, or "" where the port is off and has none
	access, native fleet.VLAN
	allowed        []fleet.VLAN
	// doubt says why it does not switch.
	doubt string
}

// Platforms are all that there are, in order of their names: which of them have met a real device is said in docs/operate/switches.md.
func Platforms() []*Platform { return []*Platform{eos(), nxos()} }

// PlatformOf returns the platform of that name, or nil.
func PlatformOf(name string) *Platform {
	all := Platforms()
	if i := slices.IndexFunc(all, func(p *Platform) bool { return p.Name == name }); i >= 0 {
		return all[i]
	}
	return nil
}

// commands bring the ports of changes to what they shall carry, in configuration mode. A port is off before it is given anything, and on after all else, so
// that where commands count one by one it is never in two networks.
func commands(st *state, changes []fleet.WireChange, quarantine fleet.VLAN) ([]string, error) {
	var out []string
	add := func(templates []string, values map[string]string) error {
		for _, t := range templates {
			c, err := fill(t, values)
			if err != nil {
				return err
			}
			out = append(out, c)
		}
		return nil
	}
	for _, v := range needed(changes, quarantine) {
		if _, there := st.vlans[v]; !there {
			if err := add(newVLAN, map[string]string{"vlan": strconv.Itoa(int(v))}); err != nil {
				return nil, err
			}
		}
	}
	for _, c := range changes {
		to := c.To
		values := map[string]string{"port": c.Port, "untagged": list([]fleet.VLAN{to.Untagged}), "tagged": list(to.Tagged), "quarantine": list([]fleet.VLAN{quarantine})}
		form := portAccess
		switch {
		case len(to.Tagged) > 0 && to.Untagged != 0:
			form = portTrunk
			values["allowed"] = list(slices.Sorted(slices.Values(append(slices.Clone(to.Tagged), to.Untagged))))
		case len(to.Tagged) > 0:
			form = portTagged
		}
		state := portOn
		if to.Down {
			state = nil
		}
		for _, part := range [][]string{portBegin, portOff, form, state, portEnd} {
			if err := add(part, values); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// needed are the VLANs that must be there.
func needed(changes []fleet.WireChange, quarantine fleet.VLAN) []fleet.VLAN {
	out := []fleet.VLAN{quarantine}
	for _, c := range changes {
		if c.To.Untagged > 1 { // what is taken back may have been VLAN 1, which every switch has
			out = append(out, c.To.Untagged)
		}
		out = append(out, c.To.Tagged...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
