package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// parseVLANs reads a list such as 5,7-9. 1 is read as what it is.
func parseVLANs(s string) ([]fleet.VLAN, error) {
	var out []fleet.VLAN
	for _, part := range strings.Split(s, ",") {
		lo, hi, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			hi = lo
		}
		a, errA := parseVLAN(lo)
		b, errB := parseVLAN(hi)
		if errA != nil || errB != nil || a > b {
			return nil, fmt.Errorf("%q is no list of VLANs", s)
		}
		for v := a; v <= b; v++ {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func parseVLAN(s string) (fleet.VLAN, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n < 1 || n > 4094 || s[0] == '+' {
		return 0, fmt.Errorf("%q is no VLAN", s)
	}
	return fleet.VLAN(n), nil
}

// list writes VLANs with commas between them.
func list(vlans []fleet.VLAN) string {
	words := make([]string, 0, len(vlans))
	for _, v := range vlans {
		words = append(words, strconv.Itoa(int(v)))
	}
	return strings.Join(words, ",")
}
