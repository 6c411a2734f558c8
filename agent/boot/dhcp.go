package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/dhcpv6/nclient6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/vishvananda/netlink"

	"github.com/metalctl/metalctl/fleet"
)

// How long a server may take for an answer the first time, and how often it is asked; the wait doubles each time.
const (
	dhcpWait    = 2 * time.Second
	dhcpRetries = 4
)

// lease is what a DHCP server granted, of either version.
type lease struct {
	prefixes []netip.Prefix
	gateways []netip.Addr
	routes   []fleet.Route
	dns      []netip.Addr
	search   []string
	mtu      int
	lifetime time.Duration // 0: for ever
	renew    time.Duration
	four     *nclient4.Lease
	six      *dhcpv6.Message
}

// request4 asks for a lease, or for the renewal of old when that is not nil (RFC 2131 section 4.4).
func request4(ctx context.Context, link string, old *lease) (*lease, error) {
	c, conn, err := open4(link)
	if err != nil {
		return nil, fmt.Errorf("open a DHCP socket on %s: %w", link, err)
	}
	defer c.Close()
	want := dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer,
		dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionClasslessStaticRoute)
	class := dhcpv4.WithOption(dhcpv4.OptClassIdentifier("metalctl"))
	var l *nclient4.Lease
	if old != nil {
		l, err = c.Renew(ctx, old.four, want, class)
	} else {
		l, err = c.Request(ctx, want, class)
	}
	if err != nil {
		return nil, fmt.Errorf("ask for an IPv4 lease on %s: %w", link, errors.Join(err, conn.panicked()))
	}
	return readLease4(l)
}

// readLease4 takes what matters out of an answer.
func readLease4(l *nclient4.Lease) (*lease, error) {
	ack := l.ACK
	ip, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || ip.IsUnspecified() {
		return nil, errors.New("the DHCP server granted no address")
	}
	bits := 32
	if mask := ack.SubnetMask(); mask != nil {
		if ones, size := mask.Size(); size == 32 && ones > 0 {
			bits = ones
		}
	}
	out := &lease{prefixes: []netip.Prefix{netip.PrefixFrom(ip, bits)}, four: l, dns: toAddrs(ack.DNS())}
	// RFC 3442: a server that sends classless routes means them instead of the router option.
	if routes := ack.ClasslessStaticRoute(); len(routes) > 0 {
		for _, r := range routes {
			via, ok := netip.AddrFromSlice(r.Router.To4())
			if ones, _ := r.Dest.Mask.Size(); ok && ones == 0 {
				out.gateways = append(out.gateways, via)
			} else if ok && !via.IsUnspecified() {
				out.routes = append(out.routes, fleet.Route{To: r.Dest.String(), Via: via.String()})
			}
		}
	} else if routers := toAddrs(ack.Router()); len(routers) > 0 {
		out.gateways = routers[:1]
	}
	if labels := ack.DomainSearch(); labels != nil {
		out.search = labels.Labels
	}
	if b := ack.Options.Get(dhcpv4.OptionInterfaceMTU); len(b) == 2 {
		if mtu := int(b[0])<<8 | int(b[1]); mtu >= 576 && mtu <= 9216 {
			out.mtu = mtu
		}
	}
	const forever = 0xffffffff * time.Second
	if t := ack.IPAddressLeaseTime(time.Hour); t < forever {
		out.lifetime = max(t, time.Minute)
		out.renew = min(ack.IPAddressRenewalTime(t/2), out.lifetime/2)
	}
	return out, nil
}

// request6 asks for an address by DHCPv6, or for the renewal of old (RFC 8415 section 18.2).
func request6(ctx context.Context, link string, old *lease) (*lease, error) {
	c, conn, err := open6(link)
	if err != nil {
		return nil, fmt.Errorf("open a DHCPv6 socket on %s: %w", link, err)
	}
	defer c.Close()
	want := dhcpv6.WithRequestedOptions(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList)
	var reply *dhcpv6.Message
	if old != nil {
		renew, rerr := renew6(old.six)
		if rerr != nil {
			return nil, rerr
		}
		reply, err = c.SendAndRead(ctx, c.RemoteAddr(), renew, nclient6.IsMessageType(dhcpv6.MessageTypeReply))
	} else {
		reply, err = c.RapidSolicit(ctx, want)
	}
	if err != nil {
		return nil, fmt.Errorf("ask for an IPv6 lease on %s: %w", link, errors.Join(err, conn.panicked()))
	}
	return readLease6(reply)
}

// renew6 makes a Renew of what a server's Reply granted.
func renew6(reply *dhcpv6.Message) (*dhcpv6.Message, error) {
	m, err := dhcpv6.NewMessage()
	if err != nil {
		return nil, fmt.Errorf("make a DHCPv6 renewal: %w", err)
	}
	m.MessageType = dhcpv6.MessageTypeRenew
	for _, code := range []dhcpv6.OptionCode{dhcpv6.OptionClientID, dhcpv6.OptionServerID, dhcpv6.OptionIANA} {
		if o := reply.GetOneOption(code); o != nil {
			m.AddOption(o)
		}
	}
	m.AddOption(dhcpv6.OptElapsedTime(0))
	return m, nil
}

func readLease6(reply *dhcpv6.Message) (*lease, error) {
	out := &lease{six: reply, dns: toAddrs(reply.Options.DNS())}
	if labels := reply.Options.DomainSearchList(); labels != nil {
		out.search = labels.Labels
	}
	ia := reply.Options.OneIANA()
	if ia == nil {
		return nil, errors.New("the DHCPv6 server granted no address")
	}
	if s := ia.Options.Status(); s != nil && s.StatusCode != iana.StatusSuccess {
		return nil, fmt.Errorf("the DHCPv6 server granted no address: %s %s", s.StatusCode, s.StatusMessage)
	}
	for _, a := range ia.Options.Addresses() {
		if ip, ok := netip.AddrFromSlice(a.IPv6Addr.To16()); ok && a.ValidLifetime > 0 {
			// DHCPv6 says nothing about the prefix: routers do (RFC 8415 section 6.2).
			out.prefixes = append(out.prefixes, netip.PrefixFrom(ip, 128))
			if out.lifetime = a.ValidLifetime; a.ValidLifetime >= 0xffffffff*time.Second {
				out.lifetime = 0
			}
		}
	}
	if len(out.prefixes) == 0 {
		return nil, errors.New("the DHCPv6 server granted no address")
	}
	if out.lifetime > 0 {
		out.lifetime = max(out.lifetime, time.Minute)
		if out.renew = ia.T1; out.renew <= 0 || out.renew > out.lifetime/2 {
			out.renew = out.lifetime / 2
		}
	}
	return out, nil
}

func toAddrs(ips []net.IP) (out []netip.Addr) {
	for _, ip := range ips {
		if a, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// apply gives a link what the lease grants. What cfg says itself comes first: its MTU and routes.
func (l *lease) apply(name string, cfg *fleet.BootNetwork) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if cfg.MTU == 0 && l.mtu != 0 && l.mtu < link.Attrs().MTU {
		if err := netlink.LinkSetMTU(link, l.mtu); err != nil {
			return fmt.Errorf("set MTU of %s: %w", name, err)
		}
	}
	for _, p := range l.prefixes {
		if err := setAddress(link, p, l.lifetime); err != nil {
			return err
		}
	}
	for _, g := range l.gateways {
		if err := setRoute(link, netip.Prefix{}, g); err != nil {
			return err
		}
	}
	if err := setRoutes(link, l.routes); err != nil {
		return err
	}
	return setRoutes(link, cfg.Routes)
}

// keep renews a lease until ctx ends. A server that does not answer is asked again until the lease is over; then the kernel
// takes the address away, and a new lease is asked for.
func (l *lease) keep(ctx context.Context, link string, cfg *fleet.BootNetwork, log *slog.Logger,
	request func(context.Context, string, *lease) (*lease, error)) {
	for old := l; old.lifetime > 0; {
		since := time.Now()
		wait := old.renew
		var next *lease
		for next == nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			from := old
			if time.Since(since) >= old.lifetime {
				from = nil
			}
			got, err := request(ctx, link, from)
			if err == nil {
				if err = got.apply(link, cfg); err == nil {
					next = got
					continue
				}
			}
			if ctx.Err() != nil {
				return
			}
			var nak *nclient4.ErrNak
			if errors.As(err, &nak) {
				since = time.Time{} // this lease is over: ask for a new one
			}
			log.Warn("network lease not renewed", "link", link, "err", err)
			wait = min(max(old.renew/4, 10*time.Second), 10*time.Minute)
		}
		if next.prefixes[0] != old.prefixes[0] {
			log.Info("network address changed", "link", link, "address", next.prefixes[0])
		}
		old = next
	}
}
