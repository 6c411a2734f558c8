// Package opensm moves ports between InfiniBand partitions by the partition file of OpenSM, and keeps that daemon from failing open.
package opensm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/fabric"
)

// head begins each of our files. OpenSM drops what stands behind a #.
const head = "# The fabric %s. This file is written by a program: changes made by hand are found and undone.\n"

// render writes the partition file for those partitions. No name reaches it: partitions are called by their keys, ports by their GUIDs, and each port has a
// line of its own, as OpenSM reads lines of at most 4,094 bytes. What every fabric has comes first: all ports are limited members of the default partition,
// and those where a subnet manager may run are full ones.
func render(f fleet.Fabric, parts []fleet.Partition) string {
	var b strings.Builder
	fmt.Fprintf(&b, head, f.Name)
	fmt.Fprintf(&b, "Default=%s: ALL=limited, SELF=full;\n", fleet.DefaultPKey)
	sms := slices.Sorted(slices.Values(f.SMs))
	for _, g := range sms {
		fmt.Fprintf(&b, "Default=%s: %s=full;\n", fleet.DefaultPKey, g)
	}
	parts = slices.SortedFunc(slices.Values(parts), func(a, b fleet.Partition) int { return cmp.Compare(a.PKey, b.PKey) })
	for _, p := range parts {
		flags := ""
		if p.IPoIB {
			flags = fmt.Sprintf(", ipoib, mtu=%d", mtuCode(p.MTU))
		}
		members := slices.SortedFunc(slices.Values(p.Members), func(a, b fleet.PartitionMember) int { return cmp.Compare(a.GUID, b.GUID) })
		for _, m := range members {
			index, kind := "", "limited"
			if m.Index0 {
				index = ", indx0"
			}
			if m.Full {
				kind = "full"
			}
			fmt.Fprintf(&b, "p%04x=%s%s%s: %s=%s;\n", uint16(p.PKey), p.PKey, flags, index, m.GUID, kind)
		}
	}
	return b.String()
}

// mtuCode is how datagrams and OpenSM write a size.
func mtuCode(bytes int) int {
	if bytes == 0 {
		bytes = 2048
	}
	return slices.Index(fleet.MTUs, bytes) + 1
}

// partitions makes the members of each tenant's partition out of what each port shall carry, beside the fixed ones.
func partitions(f fleet.Fabric, want map[fleet.GUID]fleet.Carries) []fleet.Partition {
	byKey := map[fleet.PKey]*fleet.Partition{}
	for g, c := range want {
		for _, m := range c.Partitions {
			if m.PKey == fleet.DefaultPKey {
				continue
			}
			p := byKey[m.PKey]
			if p == nil {
				p = &fleet.Partition{PKey: m.PKey, IPoIB: f.IPoIB, MTU: f.MTU}
				byKey[m.PKey] = p
			}
			p.Members = append(p.Members, fleet.PartitionMember{GUID: g, Full: m.Full, Index0: c.Index0 == m.PKey})
		}
	}
	out := slices.Clone(f.Fixed)
	for _, p := range byKey {
		out = append(out, *p)
	}
	return out
}

// generate renders the file and reads it back with the model of OpenSM's parser: each managed port must come out as it was meant, and no other port in any
// of the tenants' partitions. A file that does not is never written.
func generate(f fleet.Fabric, want map[fleet.GUID]fleet.Carries) (string, error) {
	text := render(f, partitions(f, want))
	file, err := Parse(text)
	if err != nil {
		return "", fleet.Errorf(fleet.Broken, "MC-FABRIC-FILE", "the partition file that was made is not what OpenSM reads: %w", err)
	}
	ports := make([]Port, 0, len(want)+1)
	for g := range want {
		ports = append(ports, Port{GUID: g, Type: fabric.CA})
	}
	stranger := fleet.GUIDOf(^uint64(0)) // stands for every port that is not named
	ports = append(ports, Port{GUID: stranger, Type: fabric.CA})
	got := file.Tables(ports, f.SMs[0])
	want[stranger] = fleet.InPartitions()
	defer delete(want, stranger)
	for g, c := range want {
		if !got[g].Equal(c) {
			return "", fleet.Errorf(fleet.Broken, "MC-FABRIC-FILE", "the partition file that was made gives %s %s, and %s was meant", g, got[g], c)
		}
	}
	return text, nil
}
