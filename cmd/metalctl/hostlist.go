//go:build !ramdisk

package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// maxHosts bounds what one hostlist may expand to.
const maxHosts = 100_000

// expandHosts expands hostlists such as hgx[001-064,080],login1 into names, in order. The zeros in front of a range's start set its width.
func expandHosts(lists []string) ([]string, error) {
	var out []string
	for _, l := range lists {
		for _, part := range splitHosts(l) {
			names, err := expandHost(part)
			if err != nil {
				return nil, fleet.Errorf(fleet.Invalid, "MC-CLI-HOSTLIST", "hostlist %q: %w", l, err).WithHint("write it like hgx[001-064,080]")
			}
			out = append(out, names...)
			if len(out) > maxHosts {
				return nil, fleet.Errorf(fleet.Invalid, "MC-CLI-HOSTLIST", "hostlist %q names more than %d nodes", l, maxHosts)
			}
		}
	}
	return out, nil
}

// splitHosts splits at commas outside brackets.
func splitHosts(s string) []string {
	var out []string
	depth, start := 0, 0
	for i, r := range s {
		switch {
		case r == '[':
			depth++
		case r == ']':
			depth--
		case r == ',' && depth == 0:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}

func expandHost(s string) ([]string, error) {
	open := strings.IndexByte(s, '[')
	if open < 0 {
		if s == "" || strings.ContainsRune(s, ']') {
			return nil, fmt.Errorf("%q is no name", s)
		}
		return []string{s}, nil
	}
	end := strings.IndexByte(s[open:], ']')
	if end < 0 {
		return nil, fmt.Errorf("a [ without ]")
	}
	end += open
	tails := []string{""}
	if rest := s[end+1:]; rest != "" {
		var err error
		if tails, err = expandHost(rest); err != nil {
			return nil, err
		}
	}
	var out []string
	for _, r := range strings.Split(s[open+1:end], ",") {
		nums, err := expandRange(r)
		if err != nil {
			return nil, err
		}
		if len(nums)*len(tails)+len(out) > maxHosts {
			return nil, fmt.Errorf("more than %d names", maxHosts)
		}
		for _, n := range nums {
			for _, t := range tails {
				out = append(out, s[:open]+n+t)
			}
		}
	}
	return out, nil
}

func expandRange(r string) ([]string, error) {
	lo, hi, ranged := strings.Cut(r, "-")
	if !ranged {
		hi = lo
	}
	a, err := strconv.ParseUint(lo, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("%q is no number", lo)
	}
	b, err := strconv.ParseUint(hi, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("%q is no number", hi)
	}
	if b < a {
		return nil, fmt.Errorf("range %s runs backwards", r)
	}
	if b-a >= maxHosts {
		return nil, fmt.Errorf("more than %d names", maxHosts)
	}
	var out []string
	for n := a; n <= b; n++ {
		out = append(out, fmt.Sprintf("%0*d", len(lo), n))
	}
	return out, nil
}
