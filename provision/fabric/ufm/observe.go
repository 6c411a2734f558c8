package ufm

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Observe asks UFM for every partition and every host's port.
func (d *Driver) Observe(ctx context.Context) (fleet.WireView, error) {
	v := fleet.WireView{Device: d.o.Fabric.Name, At: d.o.Now().UTC()}
	parts, err := ask(ctx, d.o.API, "resources/pkeys?guids_data=true", decodePartitions)
	if err != nil {
		return fleet.WireView{}, err
	}
	var twice []fleet.GUID
	hosts, err := ask(ctx, d.o.API, "resources/ports?sys_type=Computer", func(b []byte) (seen map[fleet.GUID]host, err error) {
		seen, twice, err = decodePorts(b)
		return seen, err
	})
	if err != nil {
		return fleet.WireView{}, err
	}
	d.ports(&v, parts, hosts, twice)
	if v.Mark, err = d.o.Fabric.MarkOf(v.Ports); err != nil {
		return fleet.WireView{}, err
	}
	d.judge(&v, parts, twice)
	return v, nil
}

func ask[T any](ctx context.Context, a API, path string, decode func([]byte) (T, error)) (v T, err error) {
	b, err := a.get(ctx, path)
	if err != nil {
		return v, err
	}
	if v, err = decode(b); err != nil {
		return v, a.odd(path, err)
	}
	return v, nil
}

// ports are those that UFM sees, those that a partition lists, and the managed ones.
func (d *Driver) ports(v *fleet.WireView, parts *partitions, hosts map[fleet.GUID]host, twice []fleet.GUID) {
	all := map[fleet.GUID]bool{}
	for g := range hosts {
		all[g] = true
	}
	for _, members := range parts.by {
		for g := range members {
			all[g] = true
		}
	}
	for _, g := range d.o.Fabric.Managed {
		all[g] = true
	}
	for g := range all {
		h, there := hosts[g]
		p := fleet.PortView{Port: string(g), Carries: parts.carries(g), Absent: !there}
		if there {
			p.Peer = cmp.Or(h.System, h.Name)
		}
		if slices.Contains(twice, g) {
			p.Doubt = "two ports have this GUID"
		}
		v.Ports = append(v.Ports, p)
	}
	slices.SortFunc(v.Ports, func(a, b fleet.PortView) int { return strings.Compare(a.Port, b.Port) })
}

// carries is what UFM gives a port. Where it does not say what the default partition gives those that it does not list, that is full: so UFM is installed.
func (p *partitions) carries(g fleet.GUID) fleet.Carries {
	var c fleet.Carries
	for k, members := range p.by {
		m, in := members[g]
		if !in {
			continue
		}
		c.Partitions = append(c.Partitions, m.Membership)
		if m.index0 {
			c.Index0 = k
		}
	}
	if _, listed := p.by[fleet.DefaultPKey][g]; !listed {
		c.Partitions = append(c.Partitions, fleet.Membership{PKey: fleet.DefaultPKey, Full: p.others != limited})
	}
	slices.SortFunc(c.Partitions, func(a, b fleet.Membership) int { return int(a.PKey) - int(b.PKey) })
	return c
}

// judge notes what a person should know.
func (d *Driver) judge(v *fleet.WireView, parts *partitions, twice []fleet.GUID) {
	find := func(code, format string, args ...any) {
		v.Findings = append(v.Findings, fleet.WireFinding{Code: code, Text: fmt.Sprintf(format, args...), Stops: true})
	}
	switch parts.others {
	case limited:
		var open []string
		for g, m := range parts.by[fleet.DefaultPKey] {
			if m.Full && !slices.Contains(d.o.Fabric.SMs, g) {
				open = append(open, string(g))
			}
		}
		slices.Sort(open)
		if len(open) > 0 {
			find("MC-FABRIC-OPEN", "%d ports are full members of the default partition and can speak to all: %s", len(open), strings.Join(open[:min(3, len(open))], ", "))
		}
	case full:
		find("MC-FABRIC-OPEN", "UFM makes every port a full member of the default partition, so that all can speak to all: set default_membership = limited in gv.cfg")
	default:
		find("MC-FABRIC-OPEN", "UFM does not say what the default partition gives a port: version 6.19 and later do")
	}
	for _, g := range twice {
		find("MC-FABRIC-TWICE", "two ports have the GUID %s", g)
	}
}
