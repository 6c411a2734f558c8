package switchboard

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// filtered is a view with what matters to who reaches whom: of a switch's ports that are not ours, only what they carry of our VLANs.
func filtered(x *fleet.Switch, v fleet.WireView) fleet.WireView {
	if x == nil {
		return v
	}
	v.Ports = slices.Clone(v.Ports)
	ours := func(n fleet.VLAN) bool { return x.Owns(n) || n == x.Quarantine }
	for i, p := range v.Ports {
		if slices.Contains(x.Managed, p.Port) {
			continue
		}
		c := &v.Ports[i].Carries
		if !ours(c.Untagged) {
			c.Untagged = 0
		}
		c.Tagged = slices.DeleteFunc(slices.Clone(c.Tagged), func(n fleet.VLAN) bool { return !ours(n) })
	}
	return v
}

// few reports whether n of a device's ports can have gone astray by themselves. More is a reader that is broken, or somebody at work.
func few(n, ports int) bool { return n <= max(8, ports/100) }

// mend says which ports of a switch do not carry what they shall. Where one of them lets somebody into a network of a tenant who is not in it, it is put where it
// belongs, if they are few; all else is a person's to decide. Fabrics are kept by their drivers.
func (b *Board) mend(ctx context.Context, d *device, view *fleet.WireView, frozen bool) (drift string, err error) {
	sw := d.asSwitch()
	if sw == nil {
		return "", nil
	}
	var in *intent
	tenants := map[fleet.VLAN]string{}
	wants, wires, err := b.intents(ctx)
	if err != nil {
		return "", err
	}
	if in = wants[d.name]; in == nil {
		in = newIntent()
	}
	err = b.Store.View(ctx, func(s fleet.Snapshot) error {
		all, err := fleet.List[fleet.Network](s, fleet.KindNetwork)
		for _, n := range all {
			if n.Role == fleet.RoleTenant && n.Domain == sw.Segment() {
				tenants[n.VLAN] = n.Name
			}
		}
		return err
	})
	if err != nil {
		return "", err
	}
	// What was not proven yet is on its way, or its node says why not.
	proven := map[string]bool{}
	for _, w := range wires {
		for _, p := range w.Ports {
			proven[p.Port] = proven[p.Port] || p.Switch == d.name && !p.Since.IsZero()
		}
	}
	var astray []string
	intruders := map[string]fleet.Carries{}
	for _, p := range view.Ports {
		want, known := in.want[p.Port]
		if !slices.Contains(sw.Managed, p.Port) || p.Doubt != "" || known && p.Carries.Equal(want) {
			continue
		}
		if !known && in.node[p.Port] != "" {
			continue // a node that is not ours to move yet
		}
		if !known {
			want = sw.InQuarantine()
		}
		foreign := !p.Carries.Down && slices.ContainsFunc(tags(p.Carries), func(t uint16) bool {
			return tenants[fleet.VLAN(t)] != "" && !slices.Contains(tags(want), t)
		})
		if foreign {
			intruders[p.Port] = want
		}
		if known && proven[p.Port] || foreign {
			astray = append(astray, fmt.Sprintf("%s carries %s instead of %s", p.Port, p.Carries, want))
		}
	}
	if len(astray) == 0 {
		return "", nil
	}
	drift = strings.Join(astray[:min(3, len(astray))], "; ")
	if len(astray) > 3 {
		drift += fmt.Sprintf("; and %d more", len(astray)-3)
	}
	if len(intruders) == 0 || frozen || !few(len(astray), len(view.Ports)) {
		return drift, nil
	}
	after, err := b.change(ctx, d, intruders)
	if err != nil {
		return drift, fmt.Errorf("put ports of %s back: %w", d.name, err)
	}
	*view = after
	ports := slices.Sorted(maps.Keys(intruders))
	_, err = b.Store.Commit(ctx, fleet.Change{Events: b.event("switch.mended", switchKey(d.name), "switch %s: %s had let somebody into a tenant's network and were put back", d.name, strings.Join(ports, ", "))})
	return drift, err
}
