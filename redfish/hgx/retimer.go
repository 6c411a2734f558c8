package hgx

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// retimerStem is what the name of every PCIe retimer has before its number, in chassis, switches and firmware items alike.
const retimerStem = "PCIeRetimer_"

func isRetimer(name string) bool {
	i := strings.Index(name, retimerStem)
	return i >= 0 && lastNumber(name) >= 0 && strings.Trim(name[i+len(retimerStem):], "0123456789") == ""
}

// retimer is the one of that name, made where it was not seen yet.
func (w *walk) retimer(name string) *fleet.BoardRetimer {
	rs := &w.board.Retimers
	i := slices.IndexFunc(*rs, func(r fleet.BoardRetimer) bool { return r.Name == name })
	if i < 0 {
		*rs, i = append(*rs, fleet.BoardRetimer{Name: name}), len(*rs)
	}
	return &(*rs)[i]
}

// status takes over how a resource of a retimer is, the worse where two tell.
func status(r *fleet.BoardRetimer, o object) {
	r.State = cmp.Or(r.State, o.str("Status", "State"))
	if h := o.str("Status", "Health"); r.Health == "" || h != "" && h != "OK" {
		r.Health = h
	}
}

// retimers gathers the PCIe retimers by their chassis and firmware items; their fabrics were read with the switches. They have no PCI function of their
// own, so that nobody sees them but the BMC.
func (w *walk) retimers(ctx context.Context, root object) {
	if at := root.link("Chassis"); at != "" {
		links, chassis, err := w.collection(ctx, at, w.expand)
		w.missing("chassis of PCIe retimers", err)
		for _, l := range links {
			if !isRetimer(part(l)) {
				continue
			}
			c, err := w.get(ctx, l)
			w.missing(part(l), err)
			if err == nil {
				chassis = append(chassis, c)
			}
		}
		for _, c := range chassis {
			if name := part(c.link()); isRetimer(name) {
				status(w.retimer(name), c)
			}
		}
	}
	for _, f := range w.board.Firmware {
		if name := strings.Replace(f.ID, "FW_", "", 1); isRetimer(name) {
			w.retimer(name)
		}
	}
	slices.SortFunc(w.board.Retimers, func(a, b fleet.BoardRetimer) int {
		x, y := strings.TrimRight(a.Name, "0123456789"), strings.TrimRight(b.Name, "0123456789")
		return cmp.Or(cmp.Compare(x, y), cmp.Compare(lastNumber(a.Name), lastNumber(b.Name)))
	})
}

// retimerFabric reads a PCIe fabric that is one retimer: its links, and the GPU at its end.
func (w *walk) retimerFabric(ctx context.Context, f object) error {
	prefix, _, _ := strings.Cut(part(f.link()), "PCIeRetimer")
	ss, err := w.members(ctx, f.link("Switches"))
	if err != nil {
		return err
	}
	for _, s := range ss {
		if !isRetimer(part(s.link())) {
			continue
		}
		name := prefix + part(s.link())
		status(w.retimer(name), s)
		if s.link("Ports") != "" {
			ps, err := w.members(ctx, s.link("Ports"))
			if err != nil {
				return err
			}
			for _, p := range ps {
				r := w.retimer(name)
				r.Links = append(r.Links, pcieOf(p))
			}
		}
		if f.link("Endpoints") == "" {
			continue
		}
		es, err := w.members(ctx, f.link("Endpoints"))
		if err != nil {
			return err
		}
		for _, e := range es {
			for _, c := range e.list("ConnectedEntities") {
				if at := c.link("EntityLink"); w.isGPU(part(at)) {
					w.retimer(name).GPU = part(at)
				}
			}
		}
	}
	return nil
}

func (w *walk) isGPU(name string) bool {
	return slices.ContainsFunc(w.board.GPUs, func(g fleet.BoardGPU) bool { return g.Name == name })
}

// pcieOf decodes a PCIe port.
func pcieOf(p object) fleet.BoardPCIeLink {
	l := fleet.BoardPCIeLink{Port: part(p.link()), State: portState(p.str("LinkStatus"), p.str("LinkState"), p.str("Status", "State"))}
	width := func(keys ...string) int {
		if n := p.count(keys...); n != nil && *n <= 32 {
			return int(*n)
		}
		return 0
	}
	l.Width, l.MaxWidth = width("ActiveWidth"), width("Width")
	return l
}
