package boot

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
)

// wild is a socket whose packets do what they say.
type wild struct {
	net.PacketConn
	packets [][]byte
}

func (w *wild) ReadFrom(b []byte) (int, net.Addr, error) {
	if len(w.packets) == 0 {
		return 0, nil, net.ErrClosed
	}
	p := w.packets[0]
	w.packets = w.packets[1:]
	if string(p) == "header" {
		panic("the header lies")
	}
	return copy(b, p), &net.UDPAddr{}, nil
}

func (w *wild) Close() error { return nil }

// TestPanicsOverPacketsReachNoReceiver: what panics in the library's code is dropped with a reason, and the answer behind it is received.
func TestPanicsOverPacketsReachNoReceiver(t *testing.T) {
	conn := &tested{PacketConn: &wild{packets: [][]byte{[]byte("header"), []byte("body"), []byte("no answer"), []byte("an answer")}}, parse: func(b []byte) error {
		switch string(b) {
		case "body":
			panic("the body lies")
		case "no answer":
			return errors.New("it is no answer")
		}
		return nil
	}}
	b := make([]byte, 100)
	n, _, err := conn.ReadFrom(b)
	if err != nil || string(b[:n]) != "an answer" {
		t.Errorf("got %q, %v", b[:n], err)
	}
	if err := conn.panicked(); err == nil || !strings.Contains(err.Error(), "the header lies") || !strings.Contains(err.Error(), "dhcpconn_test.go") {
		t.Errorf("the panic is told as %v", err)
	}
	if _, _, err := conn.ReadFrom(b); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a socket that was closed: %v", err)
	}
	endless := &tested{PacketConn: &wild{packets: bytes.Split(bytes.Repeat([]byte("header "), 2*maxPanics), []byte(" "))}, parse: func([]byte) error { return nil }}
	if _, _, err := endless.ReadFrom(b); err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("a socket that only panics: %v", err)
	}
}

// TestReceiverOfTheLibrarySurvives runs the library's receiver on such a socket: in a test, too, a panic there would end the process.
func TestReceiverOfTheLibrarySurvives(t *testing.T) {
	conn := &tested{PacketConn: &wild{packets: [][]byte{[]byte("header"), {}, {1}, bytes.Repeat([]byte{0xff}, 300)}}, parse: func(b []byte) error { _, err := dhcpv4.FromBytes(b); return err }}
	c, err := nclient4.NewWithConn(conn, net.HardwareAddr{2, 0, 0, 0, 0, 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil { // it waits for the receiver
		t.Fatal(err)
	}
	if conn.panicked() == nil {
		t.Error("the receiver did not meet the packet that panics")
	}
}
