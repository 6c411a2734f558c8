package boot

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/dhcpv6/nclient6"

	"github.com/metalctl/metalctl/fleet"
)

// maxPanics is how many packets in a row may panic before a socket counts as broken.
const maxPanics = 1000

// tested is the socket of a DHCP client, whose receiver is the library's own goroutine: a panic there would end PID 1. Each packet is read and parsed here
// first, by the library's own code but under recover, and one that this does not survive or understand never reaches the receiver.
type tested struct {
	net.PacketConn
	parse func([]byte) error

	mu  sync.Mutex // guards bad
	bad error      // the first panic
}

// ReadFrom returns the next packet that the library can parse.
func (c *tested) ReadFrom(b []byte) (n int, from net.Addr, err error) {
	for panics := 0; panics < maxPanics; {
		caught := fleet.Catch(func() error {
			if n, from, err = c.PacketConn.ReadFrom(b); err != nil {
				return nil
			}
			return c.parse(b[:n])
		})
		if err != nil {
			return 0, nil, err
		}
		if caught == nil {
			return n, from, nil
		}
		if panics++; !c.note(caught) {
			panics = 0
		}
	}
	return 0, nil, c.panicked()
}

// note keeps the first panic and reports whether caught is one.
func (c *tested) note(caught error) bool {
	var p *fleet.Panic
	if !errors.As(caught, &p) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bad == nil {
		c.bad = fmt.Errorf("a packet was dropped: %w\n%s", p, p.Stack)
	}
	return true
}

// panicked says what the first panic was, or nil.
func (c *tested) panicked() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bad
}

func open4(link string) (*nclient4.Client, *tested, error) {
	card, err := net.InterfaceByName(link)
	if err != nil {
		return nil, nil, err
	}
	raw, err := nclient4.NewRawUDPConn(link, nclient4.ClientPort)
	if err != nil {
		return nil, nil, err
	}
	conn := &tested{PacketConn: raw, parse: func(b []byte) error { _, err := dhcpv4.FromBytes(b); return err }}
	c, err := nclient4.NewWithConn(conn, card.HardwareAddr, nclient4.WithTimeout(dhcpWait), nclient4.WithRetry(dhcpRetries))
	if err != nil {
		return nil, nil, errors.Join(err, raw.Close())
	}
	return c, conn, nil
}

func open6(link string) (*nclient6.Client, *tested, error) {
	card, err := net.InterfaceByName(link)
	if err != nil {
		return nil, nil, err
	}
	udp, err := nclient6.NewIPv6UDPConn(link, dhcpv6.DefaultClientPort)
	if err != nil {
		return nil, nil, err
	}
	conn := &tested{PacketConn: udp, parse: func(b []byte) error { _, err := dhcpv6.MessageFromBytes(b); return err }}
	c, err := nclient6.NewWithConn(conn, card.HardwareAddr, nclient6.WithTimeout(dhcpWait), nclient6.WithRetry(dhcpRetries))
	if err != nil {
		return nil, nil, errors.Join(err, udp.Close())
	}
	return c, conn, nil
}
