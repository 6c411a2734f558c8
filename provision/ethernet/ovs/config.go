package ovs

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// config is what of a Port's row says where its frames go. It is what is written, and what is put back.
type config struct {
	Mode      set[string] `json:"vlan_mode"`
	Tag       set[int]    `json:"tag"`
	Trunks    set[int]    `json:"trunks"`
	CVLANs    set[int]    `json:"cvlans"`
	Protected bool        `json:"protected"`
}

// Modes of a port (ovs-vswitchd.conf.db(5), vlan_mode). In native-untagged mode the tag's VLAN is always among those of the trunk.
const (
	modeAccess = "access"
	modeTrunk  = "trunk"
	modeNative = "native-untagged"
)

// configOf is the one way in which ports that carry c are written: always with a mode and with VLANs, as a port without either is in all of them.
func configOf(c fleet.Carries) config {
	out := config{Protected: c.Protected, Mode: set[string]{modeNative}}
	if c.Untagged != 0 {
		out.Tag = set[int]{int(c.Untagged)}
	}
	for _, v := range c.Tagged {
		out.Trunks = append(out.Trunks, int(v))
	}
	switch {
	case len(c.Tagged) == 0:
		out.Mode = set[string]{modeAccess}
	case c.Untagged == 0:
		out.Mode = set[string]{modeTrunk}
	}
	return out
}

// carries is what a port with this configuration carries, or why that cannot be said.
func (c config) carries() (out fleet.Carries, doubt string) {
	out.Protected = c.Protected
	mode := strings.Join(c.Mode, " ")
	if mode == "" && len(c.Tag) > 0 {
		mode = modeAccess // as the schema has it
	} else if mode == "" {
		mode = modeTrunk
	}
	switch {
	case mode != modeAccess && mode != modeTrunk && mode != modeNative:
		return out, "is in mode " + mode
	case len(c.CVLANs) > 0:
		return out, fmt.Sprintf("has customers' VLANs %v", []int(c.CVLANs))
	case mode == modeAccess && len(c.Trunks) > 0:
		return out, fmt.Sprintf("is an access port with the trunk's VLANs %v", []int(c.Trunks))
	case mode == modeTrunk && len(c.Tag) > 0:
		return out, fmt.Sprintf("is a trunk with the tag %v", []int(c.Tag))
	case mode != modeTrunk && len(c.Tag) == 0:
		return out, "is in mode " + mode + " without a tag"
	case mode != modeAccess && len(c.Trunks) == 0:
		return out, "passes every VLAN"
	}
	for _, v := range append(slices.Clone(c.Tag), c.Trunks...) {
		if v < 1 || v > 4094 {
			return out, fmt.Sprintf("is in VLAN %d, which is that of frames without one", v)
		}
	}
	if mode != modeTrunk {
		out.Untagged = fleet.VLAN(c.Tag[0])
	}
	for _, v := range c.Trunks {
		if fleet.VLAN(v) != out.Untagged {
			out.Tagged = append(out.Tagged, fleet.VLAN(v))
		}
	}
	return out, ""
}

// portRow is a row of the table Port, interfaceRow one of Interface.
type (
	portRow struct {
		config
		UUID       uuid      `json:"_uuid"`
		Name       string    `json:"name"`
		Interfaces set[uuid] `json:"interfaces"`
		FakeBridge bool      `json:"fake_bridge"`
		Other      dict      `json:"other_config"`
	}
	interfaceRow struct {
		UUID   uuid        `json:"_uuid"`
		Name   string      `json:"name"`
		Type   string      `json:"type"`
		Number set[int]    `json:"ofport"`
		Error  set[string] `json:"error"`
	}
)

// links are the kinds of interfaces that lead to a cable; all others lead to other bridges and into tunnels.
var links = []string{"", "system", "internal", "tap", "dpdk", "dpdkvhostuser", "dpdkvhostuserclient", "afxdp", "afxdp-nonpmd"}

// about are keys of a port's other_config that say how its links are kept, and nothing of where frames go.
var about = []string{"lacp-", "bond-", "stp-", "rstp-"}

// odd says what of the row our model cannot say, besides its VLANs.
func (r portRow) odd() string {
	if r.FakeBridge {
		return "is a bridge of its own"
	}
	for _, k := range slices.Sorted(maps.Keys(r.Other)) {
		if !slices.ContainsFunc(about, func(p string) bool { return strings.HasPrefix(k, p) }) {
			return fmt.Sprintf("has other_config:%s", k)
		}
	}
	return ""
}
