package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// KindSwitch is the kind of a Switch's record, under its name.
const KindSwitch = "switch"

// Switch is an Ethernet switch with what metalctl may write on it. Every port and VLAN that it does not name is read only.
type Switch struct {
	Name string `json:"name"`
	// Domain names the switches that pass each other's VLANs on; "" is this one alone.
	Domain string `json:"domain,omitempty"`
	// Managed are the ports to nodes, by the switch's own names for them. They are moved between networks.
	Managed []string `json:"managed"`
	// Uplinks are the ports to other switches and to routers, by which everything of a VLAN passes on. They are read only.
	Uplinks []string `json:"uplinks,omitempty"`
	// First and Last bound the VLANs of our networks.
	First VLAN `json:"first"`
	Last  VLAN `json:"last"`
	// Quarantine is the VLAN of ports that nobody has, none of First to Last.
	Quarantine VLAN `json:"quarantine"`
}

// Segment is where the switch's VLANs count: its domain, or the switch alone.
func (s Switch) Segment() string { return cmp.Or(s.Domain, s.Name) }

// Owns reports whether networks of ours get the VLAN.
func (s Switch) Owns(v VLAN) bool { return v >= s.First && v <= s.Last }

// InQuarantine is what a port carries that nobody has: it is off, and were it on, it would be alone in a VLAN that leads nowhere.
func (s Switch) InQuarantine() Carries { return Carries{Down: true, Untagged: s.Quarantine} }

// May lists what is wrong with c as a wish for a managed port: only VLANs of ours, and a port in quarantine in nothing else.
func (s Switch) May(c Carries, at string) []FieldError {
	f := faults(c.Validate(at))
	f.check(len(c.Partitions) == 0, at+".partitions", "are InfiniBand's")
	f.check(c.Untagged == 0 || s.Owns(c.Untagged) || c.Untagged == s.Quarantine, at+".untagged", fmt.Sprintf("%d is none of the VLANs %d to %d", c.Untagged, s.First, s.Last))
	f.check(c.Untagged != s.Quarantine || c.Equal(s.InQuarantine()), at+".untagged", "is the quarantine, which goes with no other VLAN and with a port that is off")
	for i, v := range c.Tagged {
		f.check(s.Owns(v), fmt.Sprintf("%s.tagged[%d]", at, i), fmt.Sprintf("%d is none of the VLANs %d to %d", v, s.First, s.Last))
	}
	// Where no VLAN is named switches fall back to one of their own, or to all.
	f.check(c.Untagged != 0 || len(c.Tagged) > 0, at+".untagged", "is missing: a port that is in nothing belongs in quarantine")
	return f
}

// Validate lists all that is wrong with the switch.
func (s Switch) Validate() []FieldError {
	var f faults
	f.check(ValidName(s.Name), "name", "must be 1 to 63 of a-z, 0-9, . _ -")
	f.check(s.Domain == "" || ValidName(s.Domain), "domain", "must be 1 to 63 of a-z, 0-9, . _ -")
	f.check(s.First.Valid() && s.Last.Valid() && s.First <= s.Last, "first", "to last is no range within 2 and 4094")
	f.check(s.Quarantine.Valid(), "quarantine", "is not between 2 and 4094; VLAN 1 is what switches fall back to")
	f.check(!s.Owns(s.Quarantine), "quarantine", "is one of the VLANs that networks get")
	seen := map[string]string{}
	list := func(field string, ports []string) {
		for i, p := range ports {
			at := field + "[" + strconv.Itoa(i) + "]"
			f.check(ValidPortName(p), at, strconv.Quote(p)+" is no name of a port: 1 to 63 letters, digits and . _ - / :")
			f.check(seen[p] == "", at, p+" stands in "+seen[p]+", too")
			seen[p] = field
		}
	}
	list("managed", s.Managed)
	list("uplinks", s.Uplinks)
	return f
}

// Named are the ports that the record names, managed ones first.
func (s Switch) Named() []string { return slices.Concat(s.Managed, s.Uplinks) }

// ValidPortName reports whether s can be a switch's name for a port, such as swp1s0, Ethernet1/1 or et-0/0/1:2. Names go into commands, so that they are
// letters, digits and a few marks, and begin with a letter or a digit.
func ValidPortName(s string) bool {
	if s == "" || len(s) > 63 || strings.ContainsRune("._-/:", rune(s[0])) {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/:", r))
	}) < 0
}
