package inspect

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/metalctl/metalctl/fleet"
)

// wires makes a network namespace of its own for the test's thread with n veth pairs, node0 to switch0 and so on, all of them up.
func wires(t *testing.T, n int) (nodes, switches []string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		t.Skipf("network namespaces: %v", err)
	}
	fresh, err := netns.New()
	if err != nil {
		t.Skipf("network namespaces: %v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(netns.Set(old), old.Close(), fresh.Close()); err != nil {
			t.Error(err)
			return // the thread stays locked and ends with the goroutine
		}
		runtime.UnlockOSThread()
	})
	for i := range n {
		a, b := "node"+string(rune('0'+i)), "switch"+string(rune('0'+i))
		attrs := netlink.NewLinkAttrs()
		attrs.Name = a
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: b}); err != nil {
			t.Skipf("veth: %v", err)
		}
		for _, name := range []string{a, b} {
			link, err := netlink.LinkByName(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := netlink.LinkSetUp(link); err != nil {
				t.Fatal(err)
			}
		}
		nodes, switches = append(nodes, a), append(switches, b)
	}
	return nodes, switches
}

// speaker opens a socket on an interface of this thread's namespace; say sends one unit to a group.
func speaker(t *testing.T, name string) (say func(payload []byte, group net.HardwareAddr) error) {
	t.Helper()
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := packet.Listen(ifi, packet.Datagram, lldpEtherType, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return func(payload []byte, group net.HardwareAddr) error {
		_, err := conn.WriteTo(payload, &packet.Addr{HardwareAddr: group})
		return err
	}
}

// announce repeats what say sends until the returned function is called: the listener may not be there yet.
func announce(t *testing.T, say func() error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if err := say(); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// listenHere opens the sockets in this thread's namespace. Listen's goroutines run on other threads, so each of them joins it first.
func listenHere(ctx context.Context, t *testing.T, names []string, wait time.Duration) (map[string]fleet.Neighbor, map[string]error) {
	t.Helper()
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	return listen(ctx, names, wait, func(ctx context.Context, name string) (*fleet.Neighbor, error) {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := netns.Set(here); err != nil {
			return nil, err
		}
		return listenOn(ctx, name)
	})
}

func TestNeighboursAreHeardOnAllWiresAtOnce(t *testing.T) {
	nodes, switches := wires(t, 4)
	unitOf := func(port string) []byte {
		return unit(chassis, element(tlvPortID, text(5, port)...), ttl, element(tlvSystemName, []byte("leaf-1")...))
	}
	speak := []struct {
		payload []byte
		group   net.HardwareAddr
	}{
		{unitOf("Ethernet1"), lldpGroups[0]},
		{unitOf("Ethernet2"), lldpGroups[2]},
		{[]byte{0x02, 0xff, 0x01}, lldpGroups[0]},                   // malformed
		{unit(chassis, port, element(tlvTTL, 0, 0)), lldpGroups[0]}, // goodbye
	}
	for i, s := range speak {
		say := speaker(t, switches[i])
		stop := announce(t, func() error { return say(s.payload, s.group) })
		defer stop()
	}
	// Those that are heard end the wait themselves.
	heard, failed := listenHere(t.Context(), t, append(nodes[:2:2], "nonesuch"), patience)
	want := map[string]fleet.Neighbor{
		"node0": {ChassisID: "00:1c:73:aa:bb:cc", PortID: "Ethernet1", SystemName: "leaf-1"},
		"node1": {ChassisID: "00:1c:73:aa:bb:cc", PortID: "Ethernet2", SystemName: "leaf-1"},
	}
	if diff := cmp.Diff(want, heard); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
	if len(failed) != 1 || failed["nonesuch"] == nil {
		t.Errorf("failed = %v", failed)
	}
	// The others are listened to for the whole time; a slow machine gets as much as it needs to hear one frame.
	for wait := time.Second; failed["node2"] == nil && wait < patience; wait *= 2 {
		heard, failed = listenHere(t.Context(), t, nodes[2:], wait)
	}
	if len(heard) != 0 || len(failed) != 1 || failed["node2"] == nil || !strings.Contains(failed["node2"].Error(), "malformed") {
		t.Errorf("heard %v, failed %v", heard, failed)
	}
}

// patience bounds the waits of these tests: two slow cores.
const patience = 90 * time.Second

func TestLldpdIsUnderstood(t *testing.T) {
	if testing.Short() {
		t.Skip("lldpd takes seconds to begin")
	}
	daemon, err := exec.LookPath("lldpd")
	if err != nil {
		t.Skip("peer: lldpd is not installed (Debian package lldpd); it would start with every machine that has it, so that make test does not install it")
	}
	control, err := exec.LookPath("lldpcli")
	if err != nil {
		t.Skip("peer: lldpcli is not installed (Debian package lldpd)")
	}
	nodes, switches := wires(t, 1)
	// The daemon starts in this thread's namespace. -d keeps it in front, -C names where its chassis comes from.
	cmd := exec.CommandContext(t.Context(), daemon, "-d", "-I", switches[0], "-C", switches[0], "-S", "a referee", "-u", filepath.Join(t.TempDir(), "socket"), "-L", control)
	var says strings.Builder
	cmd.Stderr = &says
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed below, or says why it ended
		cancel()
		close(ended)
	}()
	heard, failed := listenHere(ctx, t, nodes, patience)
	if ctx.Err() == nil {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
	}
	<-ended
	n, ok := heard[nodes[0]]
	if !ok || n.ChassisID == "" || n.PortID == "" || n.PortDesc != switches[0] {
		t.Errorf("heard %+v, failed %v; lldpd says:\n%s", heard, failed, says.String())
	}
}

func TestAPanicOverAFrameIsAnErrorOfThatInterface(t *testing.T) {
	heard, failed := listen(t.Context(), []string{"a", "b"}, time.Minute, func(_ context.Context, name string) (*fleet.Neighbor, error) {
		if name == "a" {
			panic("slice bounds out of range")
		}
		return &fleet.Neighbor{}, nil
	})
	if _, ok := heard["b"]; !ok || len(heard) != 1 || failed["a"] == nil || !strings.Contains(failed["a"].Error(), "slice bounds") {
		t.Errorf("heard %v, failed %v", heard, failed)
	}
}
