package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// sections are a configuration that is written by indentation: each line at the margin with those under it.
type sections struct {
	// under has the lines under each head, nil where there are none; heads are in their order.
	under map[string][]string
	heads []string
}

// parseSections reads such a text. A head that comes twice is an error, as it is not clear which one holds.
func parseSections(text string) (sections, error) {
	s := sections{under: map[string][]string{}}
	head, banner := "", ""
	for _, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case banner != "":
			if strings.HasSuffix(trimmed, banner) {
				banner = "" // what people wrote to be read is no configuration
			}
		case trimmed == "" || strings.HasPrefix(trimmed, "!"):
		case line[0] == ' ' || line[0] == '\t':
			if head == "" {
				return s, fmt.Errorf("the line %q stands under nothing", shown(trimmed))
			}
			s.under[head] = append(s.under[head], trimmed)
		default:
			if _, twice := s.under[trimmed]; twice && !strings.HasPrefix(trimmed, "banner ") {
				if strings.HasPrefix(trimmed, "interface ") || strings.HasPrefix(trimmed, "vlan ") {
					return s, fmt.Errorf("%q stands there twice", shown(trimmed))
				}
				continue
			}
			head, banner = trimmed, bannerEnd(trimmed)
			s.under[head] = nil
			s.heads = append(s.heads, head)
		}
	}
	if banner != "" {
		return s, fmt.Errorf("a banner does not end")
	}
	return s, nil
}

// bannerEnd is what ends the banner that a line begins, "" where it begins none or ends it itself.
func bannerEnd(line string) string {
	words := strings.Fields(line)
	if words[0] != "banner" {
		return ""
	}
	if len(words) < 3 {
		return "EOF"
	}
	mark := words[2][:1]
	if words[2][0] == '^' && len(words[2]) > 1 {
		mark = words[2][:2]
	}
	rest := strings.SplitN(line, mark, 2)[1]
	if strings.HasSuffix(rest, mark) {
		return ""
	}
	return mark
}

func shown(s string) string {
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	return s
}

// state is what a switch's configuration gives its ports.
type state struct {
	ports map[string]*port
	// vlans are those that there are, each with what is said of it beside its name.
	vlans map[fleet.VLAN][]string
	// rest is all that is of no port and no VLAN, by its heads.
	rest map[string][]string
}

type port struct {
	carries fleet.Carries
	// doubt says what of its configuration cannot be said in Carries.
	doubt string
	// other are its lines that have nothing to do with who can reach it.
	other []string
	// access, native and allowed are what is set, in the present mode or not.
	mode           string
	access, native fleet.VLAN
	allowed        []fleet.VLAN
}

// readIndented reads the configuration of a platform whose ports are interface sections with switchport lines.
func (p *Platform) readIndented(text string) (*state, error) {
	s, err := parseSections(text)
	if err != nil {
		return nil, err
	}
	st := &state{ports: map[string]*port{}, vlans: map[fleet.VLAN][]string{}, rest: map[string][]string{}}
	_, down := s.under[p.DownByDefault]
	_, routed := s.under[p.RoutedByDefault]
	for _, head := range s.heads {
		lines := s.under[head]
		word, name, _ := strings.Cut(head, " ")
		switch {
		case word == "interface":
			st.ports[p.portName(name)] = p.readPort(lines, down, routed)
		case word == "vlan":
			vlans, err := parseVLANs(name)
			if err != nil {
				st.rest[head] = lines
				continue
			}
			for _, v := range vlans {
				st.vlans[v] = append(st.vlans[v], lines...)
			}
		default:
			st.rest[head] = lines
		}
	}
	for _, x := range st.ports {
		st.judge(x)
	}
	return st, nil
}

// portName is the name of a port in its section's head, which some platforms write in two words.
func (p *Platform) portName(words string) string { return strings.ReplaceAll(words, " ", "") }

// readPort reads the lines of one port. What is not known is a doubt, never skipped.
func (p *Platform) readPort(lines []string, down, routed bool) *port {
	x := &port{mode: "access", access: 1, native: 1}
	x.carries.Down = down
	if routed {
		x.doubt = "is routed"
	}
	every := true // in trunk mode, as long as no list is given
	seen := map[string]bool{}
	for _, line := range lines {
		var err error
		words := strings.Fields(line)
		value := words[len(words)-1]
		key := strings.Join(words[:len(words)-1], " ")
		if seen[key] && strings.HasPrefix(key, "switchport") && !strings.HasSuffix(key, "vlan add") {
			err = fmt.Errorf("%q stands there twice", key)
		}
		seen[key] = true
		switch {
		case err != nil:
		case line == "shutdown":
			x.carries.Down = true
		case line == "no shutdown":
			x.carries.Down = false
		case line == "switchport":
			x.doubt = strings.TrimPrefix(x.doubt, "is routed")
		case line == "switchport mode access" || line == "switchport mode trunk":
			x.mode = value
		case key == "switchport access vlan":
			x.access, err = parseVLAN(value)
		case key == "switchport trunk native vlan":
			x.native, err = parseVLAN(value)
		case line == "switchport trunk allowed vlan none":
			x.allowed, every = nil, false
		case key == "switchport trunk allowed vlan":
			x.allowed, err = parseVLANs(value)
			every = false
		case key == "switchport trunk allowed vlan add":
			var more []fleet.VLAN
			more, err = parseVLANs(value)
			x.allowed = slices.Compact(slices.Sorted(slices.Values(append(x.allowed, more...))))
		case slices.ContainsFunc(p.Harmless, func(h string) bool { return line == h || strings.HasPrefix(line, h+" ") }):
			x.other = append(x.other, line)
		default:
			x.doubt = "has " + fmt.Sprintf("%q", shown(line)) + ", of which is not known what it does to the port"
		}
		if err != nil {
			x.doubt = "has " + fmt.Sprintf("%q", shown(line)) + ", which is not understood"
		}
	}
	if x.mode == "trunk" && every && x.doubt == "" {
		x.doubt = "is a trunk of every VLAN"
	}
	return x
}

// judge says what a port carries by its mode and by the VLANs that there are.
func (st *state) judge(x *port) {
	if x.mode == "access" {
		x.carries.Untagged = x.access
	} else {
		for _, v := range x.allowed {
			if v == x.native {
				x.carries.Untagged = v
			} else {
				x.carries.Tagged = append(x.carries.Tagged, v)
			}
		}
	}
	for _, v := range append(slices.Clone(x.carries.Tagged), x.carries.Untagged) {
		for _, line := range st.vlans[v] {
			if strings.HasPrefix(line, "private-vlan") && x.doubt == "" {
				x.doubt = fmt.Sprintf("is in VLAN %d, which has %q", v, shown(line))
			}
		}
	}
}

// foreign is the first thing in which after differs from before and that is not one of: a port of the plan that carries what it shall and is the same
// otherwise; a VLAN of need, new and with nothing said of it. "" where there is none.
func (st *state) foreign(after *state, changes []fleet.WireChange, need []fleet.VLAN) string {
	for _, head := range union(st.rest, after.rest) {
		_, was := st.rest[head]
		_, is := after.rest[head]
		if was != is || !slices.Equal(st.rest[head], after.rest[head]) {
			return shown(head)
		}
	}
	for _, v := range union(st.vlans, after.vlans) {
		_, was := st.vlans[v]
		lines, is := after.vlans[v]
		fresh := !was && slices.Contains(need, v) && len(lines) == 0
		if was != is && !fresh || was && !slices.Equal(st.vlans[v], lines) {
			return fmt.Sprintf("VLAN %d", v)
		}
	}
	for _, name := range union(st.ports, after.ports) {
		was, is := st.ports[name], after.ports[name]
		if was == nil || is == nil {
			return name
		}
		i := slices.IndexFunc(changes, func(c fleet.WireChange) bool { return c.Port == name })
		switch {
		case i < 0 && !was.equal(is):
			return name
		case i >= 0 && is.carries.Down && changes[i].To.Down && was.doubt != "" && slices.Equal(was.other, is.other):
			// It is off, which is what can be done about a port that has what is not known.
		case i >= 0 && (is.doubt != "" || !is.carries.Equal(changes[i].To) || !slices.Equal(was.other, is.other)):
			return fmt.Sprintf("%s, which would carry %s and %s was meant", name, is.carries, changes[i].To)
		}
	}
	return ""
}

func (x *port) equal(y *port) bool {
	return x.carries.Equal(y.carries) && x.doubt == y.doubt && slices.Equal(x.other, y.other) && x.mode == y.mode && x.access == y.access && x.native == y.native &&
		slices.Equal(x.allowed, y.allowed)
}

func union[K interface{ ~string | ~uint16 }, V any](a, b map[K]V) []K {
	all := map[K]bool{}
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return slices.Sorted(maps.Keys(all))
}
