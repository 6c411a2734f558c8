package verdict

import (
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// LearnBoard is what the BMC of a machine like this one must show of its baseboard: how many parts, and a version for each firmware item. Items that only a
// number tells apart (HGX_FW_GPU_SXM_1 to 8) are one name, where they have one version. A reading that is not whole, or of a board without power, teaches nothing:
// what it lacks would be taken for what need not be there.
func LearnBoard(b fleet.Baseboard) (fleet.ExpectBaseboard, map[string]string) {
	if !b.Powered || len(b.Missing) > 0 {
		return fleet.ExpectBaseboard{}, nil
	}
	e := fleet.ExpectBaseboard{Required: true, Retimers: len(b.Retimers), RootsOfTrust: len(b.Roots), NVLinks: wholeLinks(b.Links)}
	kinds := map[string][]string{}
	for _, f := range b.Firmware {
		kind := kindOfItem(f.ID)
		kinds[kind] = append(kinds[kind], f.ID)
	}
	items := map[string]string{}
	for _, f := range b.Firmware {
		name := kindOfItem(f.ID)
		if len(kinds[name]) == 1 || !oneVersion(b.Firmware, name) {
			name = f.ID
		}
		if f.Version != "" && oneVersion(b.Firmware, name) {
			items[name] = f.Version
		}
	}
	return e, items
}

// kindOfItem is an item's name with * for the number that it ends in.
func kindOfItem(id string) string {
	if bare := strings.TrimRight(id, "0123456789"); bare != id && strings.HasSuffix(bare, "_") {
		return bare + "*"
	}
	return id
}

// oneVersion tells that the name means at least one item, and only items of one version.
func oneVersion(items []fleet.BoardFirmware, name string) bool {
	var versions []string
	for _, f := range items {
		if fleet.MatchesItem(name, f.ID) {
			versions = append(versions, f.Version)
		}
	}
	return same(versions) != ""
}

// wholeLinks is how many links were seen from both of their ends.
func wholeLinks(links []fleet.BoardLink) int {
	n := 0
	for _, l := range links {
		if l.B != nil {
			n++
		}
	}
	return n
}
