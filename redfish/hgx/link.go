package hgx

import (
	"context"
	"fmt"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// portsOf reads a part's ports, and keeps those of NVLink.
func (w *walk) portsOf(ctx context.Context, name, at string) error {
	ps, err := w.members(ctx, at)
	for _, p := range ps {
		uri := p.link()
		if proto := p.str("PortProtocol"); uri == "" || proto != "" && proto != "NVLink" || proto == "" && !strings.HasPrefix(part(uri), "NVLink") {
			continue
		}
		if _, twice := w.ports[uri]; twice {
			continue
		}
		port, peer := portOf(name, p)
		w.ports[uri], w.peers[uri] = port, peer
		w.order = append(w.order, uri)
	}
	return err
}

// portOf decodes one port, and the address of the other end.
func portOf(name string, p object) (fleet.BoardPort, string) {
	port := fleet.BoardPort{Part: name, Port: lastNumber(part(p.link())), State: portState(p.str("LinkStatus"), p.str("LinkState"), p.str("Status", "State"))}
	port.Gbps, _ = p.number("CurrentSpeedGbps")
	port.MaxGbps, _ = p.number("MaxSpeedGbps")
	peer := ""
	for _, key := range []string{"ConnectedPorts", "ConnectedSwitchPorts"} {
		for _, l := range p.list("Links", key) {
			if peer == "" {
				peer = strings.TrimRight(l.link(), "/")
			}
		}
	}
	if peer != "" {
		port.Peer = partOfPort(peer) + "/" + fmt.Sprint(lastNumber(part(peer)))
	}
	return port, peer
}

// partOfPort is the part whose port an address names: …/PART/Ports/PORT.
func partOfPort(uri string) string {
	segments := strings.Split(uri, "/")
	if n := len(segments); n >= 3 && segments[n-2] == "Ports" {
		return segments[n-3]
	}
	return part(uri)
}

// portState knows Port.LinkStatus (LinkUp, LinkDown, Training, NoLink, Starting) and LinkState (Enabled, Disabled); a part without power says nothing.
func portState(status, state, of string) string {
	switch {
	case of == "UnavailableOffline" || of == "StandbyOffline":
		return fleet.LinkUnknown
	case status == "LinkUp" || status == "Up":
		return fleet.LinkUp
	case state == "Disabled" && status == "":
		return fleet.LinkDisabled
	case status == "LinkDown" || status == "NoLink" || status == "Down":
		return fleet.LinkDown
	}
	return fleet.LinkUnknown
}

// links reads the switches' ends and joins both into one graph.
func (w *walk) links(ctx context.Context, root object) {
	w.switches = true
	if at := root.link("Fabrics"); at != "" {
		if err := w.fabrics(ctx, at); err != nil {
			w.switches = false
			w.missing("switch ports", err)
		}
	}
	w.board.Links = join(w.ports, w.peers, w.order, w.switches)
}

// fabrics reads the ports of the switches of NVLink fabrics, and what is to know of PCIe retimers. Where a fabric's name tells its kind only those are read.
func (w *walk) fabrics(ctx context.Context, at string) error {
	links, fabrics, err := w.collection(ctx, at, w.expand)
	if err != nil {
		return err
	}
	named := false
	for _, l := range links {
		named = named || strings.Contains(l, "NVLink")
	}
	for _, l := range links {
		if named && !strings.Contains(l, "NVLink") && !strings.Contains(l, "PCIeRetimer") {
			continue
		}
		f, err := w.get(ctx, l)
		if err != nil {
			return err
		}
		fabrics = append(fabrics, f)
	}
	for _, f := range fabrics {
		if strings.Contains(part(f.link()), "PCIeRetimer") && f.link("Switches") != "" {
			w.missing(part(f.link()), w.retimerFabric(ctx, f))
			continue
		}
		if kind := f.str("FabricType"); kind != "" && kind != "NVLink" || f.link("Switches") == "" {
			continue
		}
		ss, err := w.members(ctx, f.link("Switches"))
		if err != nil {
			return err
		}
		for _, s := range ss {
			if h := s.str("Status", "Health"); h != "" && h != "OK" {
				w.board.Health[part(s.link())] = h
			}
			if s.link("Ports") == "" {
				continue
			}
			if err := w.portsOf(ctx, part(s.link()), s.link("Ports")); err != nil {
				return err
			}
		}
	}
	return nil
}

// join pairs ends by what each says of the other. An end whose peer is not there, or says that it leads elsewhere, is a doubt; where switches were not all
// read, an absent peer is none. An end that names no peer is a doubt, too, where others name theirs.
func join(ports map[string]fleet.BoardPort, peers map[string]string, order []string, complete bool) []fleet.BoardLink {
	var out []fleet.BoardLink
	done, named, claimed := map[string]bool{}, false, map[string]bool{}
	for _, uri := range order {
		_, there := ports[peers[uri]]
		named, claimed[peers[uri]] = named || there, true
	}
	for _, uri := range order {
		if done[uri] {
			continue
		}
		done[uri] = true
		l := fleet.BoardLink{A: ports[uri]}
		far := peers[uri]
		b, there := ports[far]
		switch {
		case far == "" && complete && named && !claimed[uri]:
			l.Doubt = fleet.LinkOneSided
		case far == "" || !there && !complete:
		case !there:
			l.Doubt = fleet.LinkOneSided
		case peers[far] != uri:
			l.Doubt = fleet.LinkDisagree
		case far != uri:
			l.B, done[far] = &b, true
		}
		out = append(out, l)
	}
	return out
}
