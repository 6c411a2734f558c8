package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// wiring is what is known of a node's wires besides its own record.
type wiring struct {
	shared   []fleet.SharedPort
	switches []fleet.Switch
	// waived: nobody keeps InfiniBand ports apart, so that a port which nobody named is no fault.
	waived bool
}

// wiringOf reads what else is known of the wires of the view's node.
func (l *Loop) wiringOf(ctx context.Context, v *view) (w wiring, err error) {
	w.waived = v.site.IsolationWaived()
	err = l.Store.View(ctx, func(s fleet.Snapshot) (err error) {
		if w.shared, err = fleet.SharedPorts(s, *v.node.v); err != nil {
			return err
		}
		w.switches, err = fleet.List[fleet.Switch](s, fleet.KindSwitch)
		return err
	})
	return w, err
}

// CompareWires lists where the node's record, its inventory and what others name do not agree about its wires. It is pure.
func CompareWires(n fleet.Node, inv fleet.Inventory, w wiring) []fleet.Fault {
	var out []fleet.Fault
	add := func(code, component, hint, format string, args ...any) {
		out = append(out, fleet.Fault{Code: code, Component: component, Severity: fleet.Critical, Blocks: fleet.BlocksAllocate, Hint: hint, Evidence: fmt.Sprintf(format, args...)})
	}
	for _, p := range w.shared {
		add("MC-NET-PORT", "port/"+p.Wire.Device+"/"+p.Wire.Port, "metalctl node show "+p.With.Name, "%v", p.Err(n.Name))
	}
	for _, p := range n.Ports {
		if i := slices.IndexFunc(inv.NICs, func(x fleet.NIC) bool { return x.MAC == p.MAC }); p.MAC != "" && i >= 0 {
			if end, other := elsewhere(p, inv.NICs[i].LLDP, w.switches); other {
				add("MC-NET-CABLE", "nic/"+inv.NICs[i].Name, "metalctl node inventory "+n.Name, "its cable ends at %s by LLDP, and the node's record says %s of %s", end, p.Port, p.Switch)
			}
		}
	}
	return append(out, compareGUIDs(n, inv, w.waived)...)
}

// elsewhere says where the switch says that it is, where that is a port of a declared switch and not the one that the record names. Names that no switch of ours
// has prove nothing: a switch may call itself otherwise than we do. For a LAG the switch names the port and the record the LAG.
func elsewhere(p fleet.Port, heard *fleet.Neighbor, switches []fleet.Switch) (end string, other bool) {
	if heard == nil || p.Switch == "" || p.Port == "" {
		return "", false
	}
	name, _, _ := strings.Cut(heard.SystemName, ".")
	i := slices.IndexFunc(switches, func(s fleet.Switch) bool {
		return strings.EqualFold(s.Name, heard.SystemName) || strings.EqualFold(s.Name, name)
	})
	if i < 0 {
		return "", false
	}
	at := switches[i]
	ports := at.Named()
	for _, port := range []string{heard.PortID, heard.PortDesc} {
		if slices.Contains(ports, port) {
			return port + " of " + at.Name, at.Name != p.Switch || port != p.Port && p.LAG == ""
		}
	}
	return "a port of " + at.Name, at.Name != p.Switch
}

// compareGUIDs holds the GUIDs of the node's record against those of its HCAs. What a simulated machine shows of HCAs is made up, and a BMC shows none.
func compareGUIDs(n fleet.Node, inv fleet.Inventory, waived bool) (out []fleet.Fault) {
	if inv.Simulated != "" || inv.OutOfBand {
		return nil
	}
	add := func(guid fleet.GUID, format string, args ...any) {
		out = append(out, fleet.Fault{Code: "MC-NET-GUID", Component: "guid/" + string(guid), Severity: fleet.Critical, Blocks: fleet.BlocksAllocate,
			Hint: "metalctl node inventory " + n.Name, Evidence: fmt.Sprintf(format, args...)})
	}
	named, there := map[fleet.GUID]bool{}, map[fleet.GUID]bool{}
	for _, p := range n.Ports {
		if p.Role == fleet.PortFabric {
			named[p.GUID] = true
		}
	}
	for _, h := range inv.HCAs {
		for i, p := range h.Ports {
			there[p.GUID] = true
			rail := h.Role == fleet.HCARail && strings.EqualFold(p.LinkLayer, "InfiniBand") && strings.EqualFold(p.State, "ACTIVE")
			if rail && p.GUID != "" && !named[p.GUID] && !waived {
				add(p.GUID, "port %d of %s is active in a fabric, and the node's record does not name it: nobody keeps it apart", h.Ports[i].Port, h.Name)
			}
		}
	}
	for _, p := range n.Ports {
		if p.Role == fleet.PortFabric && !there[p.GUID] {
			add(p.GUID, "the node's record names it in the fabric %s, and none of its HCAs has it", p.Fabric)
		}
	}
	return out
}
