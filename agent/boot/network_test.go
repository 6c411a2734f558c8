package boot

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/dhcpv6/server6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/vishvananda/netlink"

	"github.com/metalctl/metalctl/fleet"
)

// inNamespace runs the calling test again in a process with a network namespace of its own and reports true there. In the first
// process it reports false once the other is done.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("METALCTL_TEST_NAMESPACE") == t.Name() {
		if err := linkUp("lo"); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), "METALCTL_TEST_NAMESPACE="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL) {
		t.Skipf("this kernel refuses network namespaces: %v", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	} else if strings.Contains(string(out), "--- SKIP") {
		t.Skipf("%s", out)
	}
	return false
}

// wire makes a pair of cards: the node's, and one plugged into a switch on which servers can listen. The switch has the addresses given.
func wire(t *testing.T, node, sw string, addrs ...string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: sw}}))
	check(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: node}, PeerName: sw + "p"}))
	bridge, err := netlink.LinkByName(sw)
	check(err)
	port, err := netlink.LinkByName(sw + "p")
	check(err)
	check(netlink.LinkSetMaster(port, bridge))
	check(netlink.LinkSetUp(bridge))
	check(netlink.LinkSetUp(port))
	for _, a := range addrs {
		check(setAddress(bridge, netip.MustParsePrefix(a), 0))
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// serve4 is a DHCP server on link that grants 10.9.0.50 for lifetime, and counts grants.
func serve4(t *testing.T, link string, lifetime time.Duration) *atomic.Int64 {
	t.Helper()
	var grants atomic.Int64
	server := net.IPv4(10, 9, 0, 1)
	s, err := server4.NewServer(link, &net.UDPAddr{Port: 67}, func(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
		kind := dhcpv4.MessageTypeOffer
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
			grants.Add(1)
		}
		_, far, _ := net.ParseCIDR("10.77.0.0/16")
		_, all, _ := net.ParseCIDR("0.0.0.0/0")
		reply, err := dhcpv4.NewReplyFromRequest(m,
			dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(net.IPv4(10, 9, 0, 50)), dhcpv4.WithServerIP(server),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
			dhcpv4.WithRouter(net.IPv4(10, 9, 0, 254)), dhcpv4.WithDNS(net.IPv4(10, 9, 0, 2), net.IPv4(10, 9, 0, 3)),
			dhcpv4.WithOption(dhcpv4.Option{Code: dhcpv4.OptionInterfaceMTU, Value: dhcpv4.Uint16(1400)}),
			dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(&dhcpv4.Route{Dest: far, Router: net.IPv4(10, 9, 0, 7)},
				&dhcpv4.Route{Dest: all, Router: net.IPv4(10, 9, 0, 253)})),
			dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(lifetime)),
			dhcpv4.WithOption(dhcpv4.Option{Code: dhcpv4.OptionRenewTimeValue, Value: dhcpv4.Duration(time.Second)}))
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 68}); err != nil && !errors.Is(err, net.ErrClosed) { // the test may be over
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve() }()
	t.Cleanup(func() { s.Close() })
	return &grants
}

func TestNetworkDHCP4(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	wire(t, "dead0", "sw0") // a card whose switch says nothing
	wire(t, "eth0", "sw1", "10.9.0.1/24")
	grants := serve4(t, "sw1", time.Hour)
	s, err := Network(deadline(t), nil, quiet())
	if err != nil {
		t.Fatal(err)
	}
	type view struct {
		Link, Addresses, Gateways, DNS string
		MTU                            int
		Others                         []string
	}
	four := slices.DeleteFunc(slices.Clone(s.Addresses), func(p netip.Prefix) bool { return p.Addr().Is6() })
	got := view{s.Link, text(four), text(s.Gateways), text(s.DNS), s.MTU, s.Others}
	want := view{"eth0", "10.9.0.50/24", "10.9.0.253", "10.9.0.2 10.9.0.3", 1400, []string{"dead0"}}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("state (-got +want):\n%s", diff)
	}
	if via := routeTo(t, "10.77.3.4"); via != "10.9.0.7" {
		t.Errorf("10.77.3.4 goes via %s, want 10.9.0.7", via)
	}
	// The lease is renewed at the time that the server names.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	if err := poll(deadline(t), linkPoll, func() bool { return grants.Load() >= 3 }); err != nil {
		t.Errorf("the lease was granted %d times, want at least 3: %v", grants.Load(), err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := s.WriteResolvConf(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || string(b) != "nameserver 10.9.0.2\nnameserver 10.9.0.3\n" {
		t.Errorf("resolv.conf is %q, %v", b, err)
	}
}

func text[T interface{ String() string }](list []T) string {
	var out []string
	for _, e := range list {
		out = append(out, e.String())
	}
	return strings.Join(out, " ")
}

// routeTo asks the kernel for the next hop.
func routeTo(t *testing.T, ip string) string {
	t.Helper()
	routes, err := netlink.RouteGet(net.ParseIP(ip))
	if err != nil || len(routes) != 1 {
		t.Fatalf("route to %s: %v, %v", ip, routes, err)
	}
	return routes[0].Gw.String()
}

func TestNetworkDHCP6(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	wire(t, "eth0", "sw1", "fd00:9::1/64")
	s6, err := server6.NewServer("sw1", &net.UDPAddr{IP: net.IPv6unspecified, Port: 547}, func(conn net.PacketConn, peer net.Addr, m dhcpv6.DHCPv6) {
		msg, err := m.GetInnerMessage()
		if err != nil {
			t.Error(err)
			return
		}
		modifiers := []dhcpv6.Modifier{
			dhcpv6.WithServerID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}),
			dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("fd00:9::50"), PreferredLifetime: time.Hour, ValidLifetime: time.Hour}),
			dhcpv6.WithDNS(net.ParseIP("fd00:9::2")),
		}
		var reply *dhcpv6.Message
		if msg.MessageType == dhcpv6.MessageTypeSolicit {
			reply, err = dhcpv6.NewAdvertiseFromSolicit(msg, modifiers...)
		} else {
			reply, err = dhcpv6.NewReplyFromMessage(msg, modifiers...)
		}
		if err != nil {
			t.Error(err)
			return
		}
		// The test may be over, or the switch's own address not usable yet (RFC 4862 section 5.4): then the client asks again.
		if _, err := conn.WriteTo(reply.ToBytes(), peer); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s6.Close()
	go func() { _ = s6.Serve() }()
	s, err := Network(deadline(t), &fleet.BootNetwork{Interface: "eth0"}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text(s.Addresses), "fd00:9::50/128") || text(s.DNS) != "fd00:9::2" {
		t.Errorf("addresses %v, DNS %v", s.Addresses, s.DNS)
	}
}

func TestNetworkStatic(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	wire(t, "eth0", "sw0", "10.8.0.1/24")
	wire(t, "eth1", "sw1", "10.9.0.1/24", "fd00:9::1/64")
	link, err := netlink.LinkByName("eth1")
	if err != nil {
		t.Fatal(err)
	}
	cfg := &fleet.BootNetwork{
		Interface: strings.ToUpper(link.Attrs().HardwareAddr.String()), MTU: 1480,
		Addresses: []string{"10.9.0.11/24", "fd00:9::11/64"}, Gateway: "10.9.0.254", Gateway6: "fd00:9::fe",
		Routes: []fleet.Route{{To: "10.78.0.0/16", Via: "10.9.0.9"}}, DNS: []string{"10.9.0.2"}, Proxy: "http://10.9.0.3:3128",
	}
	for _, call := range []string{"first", "repeated"} {
		s, err := Network(deadline(t), cfg, quiet())
		if err != nil {
			t.Fatalf("%s: %v", call, err)
		}
		slices.SortFunc(s.Addresses, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
		got := []string{s.Link, text(s.Addresses), text(s.Gateways), text(s.DNS), s.Proxy}
		want := []string{"eth1", "10.9.0.11/24 fd00:9::11/64", "10.9.0.254 fd00:9::fe", "10.9.0.2", "http://10.9.0.3:3128"}
		if diff := cmp.Diff(got, want); diff != "" || s.MTU != 1480 {
			t.Errorf("%s: MTU %d, state (-got +want):\n%s", call, s.MTU, diff)
		}
	}
	if via := routeTo(t, "10.78.3.4"); via != "10.9.0.9" {
		t.Errorf("10.78.3.4 goes via %s, want 10.9.0.9", via)
	}
	if via := routeTo(t, "192.0.2.1"); via != "10.9.0.254" {
		t.Errorf("192.0.2.1 goes via %s, want 10.9.0.254", via)
	}
}

func TestNetworkSaysWhatIsMissing(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	wire(t, "eth0", "sw0")
	port, err := netlink.LinkByName("sw0p")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		cfg  *fleet.BootNetwork
		kind fleet.Kind
		want string
	}{
		{"a card that is not there", &fleet.BootNetwork{Interface: "52:54:00:00:00:99"}, fleet.Unavailable, "no such network card; this machine has eth0"},
		{"nobody answers", nil, fleet.Unavailable, "eth0: "},
		{"a wrong address", &fleet.BootNetwork{Addresses: []string{"10.0.0.300/24"}}, fleet.Invalid, "network.addresses[0]"},
		{"the cable is out", nil, fleet.Unavailable, "eth0: no carrier"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "the cable is out" {
				if err := netlink.LinkSetDown(port); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err := Network(ctx, c.cfg, quiet())
			if err == nil || !strings.Contains(err.Error(), c.want) || fleet.KindOf(err) != c.kind || fleet.CodeOf(err) != "MC-BOOT-NETWORK" {
				t.Errorf("got %v (%v), want %q", err, fleet.KindOf(err), c.want)
			}
		})
	}
}

func TestPlanLinks(t *testing.T) {
	nics := []nic{{"eth0", "52:54:00:00:00:01", true, true, false}, {"eth1", "52:54:00:00:00:02", false, false, false},
		{"enp129s0f0np0", "52:54:00:00:00:03", false, true, false}, {"eth9", "52:54:00:00:00:09", true, true, true}}
	for _, c := range []struct {
		name string
		cfg  fleet.BootNetwork
		ops  []string
		tops []string
		err  error
	}{
		{"nothing named", fleet.BootNetwork{}, []string{"eth0 up", "eth1 up", "enp129s0f0np0 up"}, []string{"eth0", "eth1", "enp129s0f0np0"}, nil},
		{"a card by MAC address, in capitals and with dashes", fleet.BootNetwork{Interface: "52-54-00-00-00-02"}, []string{"eth1 up"}, []string{"eth1"}, nil},
		{"a tag and jumbo frames", fleet.BootNetwork{Interface: "eth0", VLAN: 120, MTU: 9000},
			[]string{"eth0 mtu 9000", "eth0 up", "add eth0.120 vlan 120 on eth0", "eth0.120 mtu 9000", "eth0.120 up"}, []string{"eth0.120"}, nil},
		{"a bond with a tag", fleet.BootNetwork{Bond: &fleet.BondConfig{Members: []string{"52:54:00:00:00:01", "eth1"}}, VLAN: 5, MTU: 9000},
			[]string{"add bond0 bond mode 802.3ad", "eth0 down", "eth0 master bond0", "eth1 master bond0", "bond0 mtu 9000", "bond0 up",
				"add bond0.5 vlan 5 on bond0", "bond0.5 mtu 9000", "bond0.5 up"}, []string{"bond0.5"}, nil},
		{"a bond again, one member is in it already", fleet.BootNetwork{Bond: &fleet.BondConfig{Members: []string{"eth9", "eth1"}, Mode: "active-backup"}},
			[]string{"add bond0 bond mode active-backup", "eth1 master bond0", "bond0 up"}, []string{"bond0"}, nil},
		{"a name that is too long with its tag", fleet.BootNetwork{Interface: "enp129s0f0np0", VLAN: 4000},
			[]string{"enp129s0f0np0 up", "add vlan0.4000 vlan 4000 on enp129s0f0np0", "vlan0.4000 up"}, []string{"vlan0.4000"}, nil},
		{"a member that is not there", fleet.BootNetwork{Bond: &fleet.BondConfig{Members: []string{"eth7"}}}, nil, nil, errAbsent},
		{"a card that is not there", fleet.BootNetwork{Interface: "eth7"}, nil, nil, errAbsent},
	} {
		t.Run(c.name, func(t *testing.T) {
			ops, tops, err := planLinks(&c.cfg, nics)
			var got []string
			for _, o := range ops {
				got = append(got, o.String())
			}
			if !errors.Is(err, c.err) {
				t.Fatalf("got %v, want %v", err, c.err)
			}
			if diff := cmp.Diff([][]string{got, tops}, [][]string{c.ops, c.tops}); diff != "" {
				t.Errorf("plan (-got +want):\n%s", diff)
			}
		})
	}
}
