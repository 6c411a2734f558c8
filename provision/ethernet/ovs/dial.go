package ovs

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Access is how the switch's two services are reached and known.
type Access struct {
	// Database is where the OVSDB server listens: unix:PATH, ssl:HOST:PORT, or tcp:HOST:PORT on this machine's loopback.
	Database string
	// OpenFlow is where the bridge listens, in the same form; "" is its management socket beside the database's.
	OpenFlow string
	// Pin is the hash of the switch's key (fleet.PinOf), CAPEM the authorities that may have signed its certificate: one of the two.
	Pin   string
	CAPEM []byte
	// CertPEM and KeyPEM are what this server shows the switch, where that asks for it.
	CertPEM, KeyPEM []byte
}

// Check says what is wrong with the addresses; whom to trust is read when the switch is dialled.
func (a Access) Check(bridge string) error {
	_, _, err := a.endpoints(bridge)
	return err
}

// endpoint is a kind of network and an address there.
type endpoint struct{ network, address string }

func (a Access) endpoints(bridge string) (database, openflow endpoint, err error) {
	if database, err = endpointOf(a.Database); err != nil {
		return database, openflow, err
	}
	switch {
	case a.OpenFlow != "":
		openflow, err = endpointOf(a.OpenFlow)
	case database.network == "unix":
		openflow = endpoint{"unix", filepath.Join(filepath.Dir(database.address), bridge+".mgmt")}
	default:
		err = badAddress(a.Database, "needs the address of the bridge's OpenFlow beside it")
	}
	return database, openflow, err
}

func badAddress(address, why string) error {
	return fleet.Errorf(fleet.Invalid, "MC-NET-INVALID", "the switch's address %q %s", address, why).WithHint("unix:/run/openvswitch/db.sock, or ssl:HOST:PORT")
}

func endpointOf(address string) (endpoint, error) {
	kind, at, _ := strings.Cut(address, ":")
	_, _, split := net.SplitHostPort(at)
	to, numbers := netip.ParseAddrPort(at)
	switch {
	case kind == "unix" && !filepath.IsAbs(at):
		return endpoint{}, badAddress(address, "has no absolute path")
	case kind == "ssl" && split != nil:
		return endpoint{}, badAddress(address, "has no host and port")
	case kind == "tcp" && (numbers != nil || !to.Addr().IsLoopback()):
		return endpoint{}, badAddress(address, "is not on this machine's loopback, so that it needs ssl")
	case kind != "unix" && kind != "ssl" && kind != "tcp":
		return endpoint{}, badAddress(address, "begins with none of unix:, ssl: and tcp:")
	}
	return endpoint{kind, at}, nil
}

// Dialers returns how the bridge's two services are dialled; it dials nothing.
func (a Access) Dialers(bridge string) (database, openflow Dial, err error) {
	first, second, err := a.endpoints(bridge)
	if err != nil {
		return nil, nil, err
	}
	if database, err = a.dialer(first); err != nil {
		return nil, nil, err
	}
	openflow, err = a.dialer(second)
	return database, openflow, err
}

func (a Access) dialer(e endpoint) (Dial, error) {
	if e.network != "ssl" {
		return func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, e.network, e.address)
		}, nil
	}
	host, _, err := net.SplitHostPort(e.address)
	if err != nil {
		return nil, badAddress(e.address, "has no host and port")
	}
	config, err := a.tls(host)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (net.Conn, error) {
		return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", e.address)
	}, nil
}

// tls trusts by the pin, or by the authorities: there is no way without.
func (a Access) tls(host string) (*tls.Config, error) {
	invalid := func(what string, err error) error {
		return fleet.Errorf(fleet.Invalid, "MC-NET-INVALID", "%s %s: %w", what, host, err).WithHint("the server's configuration, under switches.NAME.tls")
	}
	c, err := fleet.TrustBy(a.Pin, a.CAPEM)
	if err != nil {
		return nil, invalid("trust the switch", err)
	}
	c.ServerName = host
	if len(a.CertPEM) > 0 || len(a.KeyPEM) > 0 {
		cert, err := tls.X509KeyPair(a.CertPEM, a.KeyPEM)
		if err != nil {
			return nil, invalid("use this server's certificate for the switch", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}
