package boot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
)

// linkPoll is how often links are looked at while something is waited for.
const linkPoll = 200 * time.Millisecond

// realKinds are the link types that stand for a card: hardware, and what a namespace has in its place.
var realKinds = []string{"device", "veth", "macvlan", "tuntap", "ipvlan"}

// listNICs returns the Ethernet cards, sorted by index; members of a bridge or of another bond are somebody else's.
func listNICs() (nics []nic, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	bond := 0
	for _, l := range links {
		if l.Type() == "bond" && l.Attrs().Name == bondName {
			bond = l.Attrs().Index
		}
	}
	for _, l := range links {
		a := l.Attrs()
		member := bond != 0 && a.MasterIndex == bond
		if a.EncapType == "ether" && slices.Contains(realKinds, l.Type()) && (a.MasterIndex == 0 || member) {
			nics = append(nics, nic{a.Name, permanentMAC(a), a.Flags&net.FlagUp != 0, a.RawFlags&unix.IFF_LOWER_UP != 0, member})
		}
	}
	return nics, nil
}

// permanentMAC is the address that a card was made with: a bond gives its members the first one's.
func permanentMAC(a *netlink.LinkAttrs) string {
	if len(a.PermHWAddr) == 6 && a.PermHWAddr.String() != "00:00:00:00:00:00" {
		return a.PermHWAddr.String()
	}
	return a.HardwareAddr.String()
}

// do carries an op out. Making what is there already is fine, so that a plan can be carried out again.
func do(o op) error {
	switch o := o.(type) {
	case opUp:
		return linkUp(o.link)
	case opDown:
		return onLink(o.link, netlink.LinkSetDown)
	case opMTU:
		return onLink(o.link, func(l netlink.Link) error { return netlink.LinkSetMTU(l, o.mtu) })
	case opBond:
		b := netlink.NewLinkBond(netlink.LinkAttrs{Name: o.name})
		b.Mode = netlink.StringToBondMode(o.mode)
		b.Miimon = 100
		if o.mode == "802.3ad" {
			b.LacpRate = netlink.BOND_LACP_RATE_FAST
		}
		return addLink(b, "bonding", "max_bonds=0") // without the parameter the module makes a bond0 of its own
	case opMember:
		bond, err := netlink.LinkByName(o.bond)
		if err != nil {
			return err
		}
		return onLink(o.link, func(l netlink.Link) error { return netlink.LinkSetMaster(l, bond) })
	case opVLAN:
		parent, err := netlink.LinkByName(o.parent)
		if err != nil {
			return err
		}
		return addLink(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: o.name, ParentIndex: parent.Attrs().Index}, VlanId: o.id}, "8021q", "")
	}
	panic(fmt.Sprintf("unknown link operation %T", o))
}

// addLink makes a link, for which the kernel may need a module first.
func addLink(l netlink.Link, module, params string) error {
	err := netlink.LinkAdd(l)
	if errors.Is(err, unix.EOPNOTSUPP) {
		modules, merr := OpenModules("/")
		if merr == nil {
			merr = modules.LoadWith(module, params)
		}
		if merr != nil {
			return fmt.Errorf("this kernel has no module %s: %w", module, errors.Join(err, merr))
		}
		err = netlink.LinkAdd(l)
	}
	if errors.Is(err, unix.EEXIST) {
		return sameLink(l)
	}
	return err
}

// sameLink reports whether the link that is there already is the one that was to be made.
func sameLink(want netlink.Link) error {
	name := want.Attrs().Name
	have, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	switch w := want.(type) {
	case *netlink.Bond:
		if h, ok := have.(*netlink.Bond); ok && h.Mode == w.Mode {
			return nil
		}
	case *netlink.Vlan:
		if h, ok := have.(*netlink.Vlan); ok && h.VlanId == w.VlanId && have.Attrs().ParentIndex == w.ParentIndex {
			return nil
		}
	}
	return fmt.Errorf("there is another link named %s", name)
}

func onLink(name string, f func(netlink.Link) error) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return f(l)
}

func linkUp(name string) error { return onLink(name, netlink.LinkSetUp) }

func hasCarrier(name string) bool {
	l, err := netlink.LinkByName(name)
	return err == nil && l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
}

// awaitCarrier waits until the link sees the other end. Optics and bonds take up to half a minute.
func awaitCarrier(ctx context.Context, name string) error {
	return poll(ctx, linkPoll, func() bool { return hasCarrier(name) })
}

// poll calls ready until it says true or ctx ends.
func poll(ctx context.Context, every time.Duration, ready func() bool) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !ready() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// setAddress adds an address or renews it; a lifetime of 0 is for ever.
func setAddress(link netlink.Link, p netip.Prefix, lifetime time.Duration) error {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if lifetime > 0 {
		a.ValidLft, a.PreferedLft = int(lifetime.Seconds()), int(lifetime.Seconds())
	}
	if err := netlink.AddrReplace(link, a); err != nil {
		return fmt.Errorf("add address %s to %s: %w", p, link.Attrs().Name, err)
	}
	return nil
}

// setRoute adds or replaces a route; an invalid to is the default route, an invalid via is a route on the link itself.
func setRoute(link netlink.Link, to netip.Prefix, via netip.Addr) error {
	r := &netlink.Route{LinkIndex: link.Attrs().Index}
	if to.IsValid() && to.Bits() > 0 {
		r.Dst = &net.IPNet{IP: to.Masked().Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())}
	} else {
		r.Dst = &net.IPNet{IP: zeroOf(via), Mask: net.CIDRMask(0, via.BitLen())}
	}
	if via.IsValid() {
		r.Gw = via.AsSlice()
		r.Flags = int(netlink.FLAG_ONLINK) // a gateway outside the address's prefix is common with /32 leases
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("add route to %s via %s on %s: %w", r.Dst, via, link.Attrs().Name, err)
	}
	return nil
}

func zeroOf(a netip.Addr) net.IP {
	if a.Is4() {
		return net.IPv4zero.To4()
	}
	return net.IPv6zero
}

// setStatic gives the link what cfg says; routers must not add addresses to those that were asked for.
func setStatic(ctx context.Context, name string, cfg *fleet.BootNetwork) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	var six bool
	for _, s := range cfg.Addresses {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return fmt.Errorf("parse address: %w", err)
		}
		if six = six || p.Addr().Is6(); p.Addr().Is6() {
			for _, knob := range []string{"accept_ra", "autoconf"} {
				// Where the file cannot be written (a namespace's read-only /proc) the kernel may add addresses beside ours.
				_ = os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", name, knob), []byte("0"), 0o644)
			}
		}
		if err := setAddress(link, p, 0); err != nil {
			return err
		}
	}
	if six {
		if err := awaitUsable(ctx, link); err != nil {
			return err
		}
	}
	for _, gateway := range []string{cfg.Gateway, cfg.Gateway6} {
		if gateway == "" {
			continue
		}
		via, err := netip.ParseAddr(gateway)
		if err != nil {
			return fmt.Errorf("parse gateway: %w", err)
		}
		if err := setRoute(link, netip.Prefix{}, via); err != nil {
			return err
		}
	}
	return setRoutes(link, cfg.Routes)
}

func setRoutes(link netlink.Link, routes []fleet.Route) error {
	for _, r := range routes {
		to, err := netip.ParsePrefix(r.To)
		if err != nil {
			return fmt.Errorf("parse route: %w", err)
		}
		via, err := netip.ParseAddr(r.Via)
		if err != nil {
			return fmt.Errorf("parse route: %w", err)
		}
		if err := setRoute(link, to, via); err != nil {
			return err
		}
	}
	return nil
}

// awaitUsable waits for duplicate address detection (RFC 4862 section 5.4): until then an IPv6 address cannot be used.
func awaitUsable(ctx context.Context, link netlink.Link) error {
	var duplicate error
	err := poll(ctx, linkPoll, func() bool {
		list, err := netlink.AddrList(link, netlink.FAMILY_V6)
		if err != nil {
			return false
		}
		for _, a := range list {
			if a.Flags&unix.IFA_F_DADFAILED != 0 {
				duplicate = fmt.Errorf("address %s on %s: another machine has it", a.IPNet, link.Attrs().Name)
				return true
			}
			if a.Flags&unix.IFA_F_TENTATIVE != 0 {
				return false
			}
		}
		return true
	})
	return errors.Join(err, duplicate)
}

// addresses returns the global addresses of a link that can be used now.
func addresses(name string) (out []netip.Prefix, err error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, err)
	}
	list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", name, err)
	}
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		ones, _ := a.Mask.Size()
		if ip = ip.Unmap(); ok && ip.IsGlobalUnicast() && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
			out = append(out, netip.PrefixFrom(ip, ones))
		}
	}
	return out, nil
}

// gateways returns the default routes' next hops on a link.
func gateways(name string) (out []netip.Addr, err error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, err)
	}
	routes, err := netlink.RouteList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list routes of %s: %w", name, err)
	}
	for _, r := range routes {
		if ip, ok := netip.AddrFromSlice(r.Gw); ok && (r.Dst == nil || strings.HasSuffix(r.Dst.String(), "/0")) {
			out = append(out, ip.Unmap())
		}
	}
	return out, nil
}
