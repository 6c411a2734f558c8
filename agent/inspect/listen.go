package inspect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/packet"

	"github.com/metalctl/metalctl/fleet"
)

// lldpGroups are the addresses that bridges do not forward and neighbours send to (IEEE 802.1AB-2016 table 7-1).
var lldpGroups = []net.HardwareAddr{
	{0x01, 0x80, 0xc2, 0, 0, 0x0e}, // nearest bridge
	{0x01, 0x80, 0xc2, 0, 0, 0x03}, // nearest non-TPMR bridge
	{0x01, 0x80, 0xc2, 0, 0, 0x00}, // nearest customer bridge
}

// Listen waits on all the named interfaces at once, each until its neighbour has spoken, at most wait. It needs CAP_NET_RAW. Interfaces where nothing was
// heard are in neither map; those that could not be listened on are in the second, as are those where only malformed frames came.
func Listen(ctx context.Context, names []string, wait time.Duration) (map[string]fleet.Neighbor, map[string]error) {
	return listen(ctx, names, wait, listenOn)
}

func listen(ctx context.Context, names []string, wait time.Duration, on func(context.Context, string) (*fleet.Neighbor, error)) (map[string]fleet.Neighbor, map[string]error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	heard, failed := map[string]fleet.Neighbor{}, map[string]error{}
	var mu sync.Mutex
	var group sync.WaitGroup
	for _, name := range names {
		group.Go(func() {
			n, err := caught(ctx, name, on)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				failed[name] = err
			case n != nil:
				heard[name] = *n
			}
		})
	}
	group.Wait()
	return heard, failed
}

// caught calls on; a panic over a neighbour's frame is an error of that interface.
func caught(ctx context.Context, name string, on func(context.Context, string) (*fleet.Neighbor, error)) (n *fleet.Neighbor, err error) {
	err = fleet.Catch(func() (err error) { n, err = on(ctx, name); return err })
	if p := new(fleet.Panic); errors.As(err, &p) {
		err = fmt.Errorf("a defect in the agent: listening on %s: %w", name, err)
	}
	return n, err
}

// listenOn returns nil, nil when nothing was heard until ctx ended.
func listenOn(ctx context.Context, name string) (*fleet.Neighbor, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	conn, err := packet.Listen(ifi, packet.Datagram, lldpEtherType, nil)
	if err != nil {
		return nil, fmt.Errorf("listen for neighbours: %w", err)
	}
	defer conn.Close()
	for _, g := range lldpGroups {
		if err := conn.JoinGroup(g); err != nil {
			return nil, fmt.Errorf("listen for neighbours at %s: %w", g, err)
		}
	}
	stop := context.AfterFunc(ctx, func() {
		// Wakes ReadFrom; an error means that the socket is closed, which wakes it as well.
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	var malformed error
	buf := make([]byte, 9216)
	for {
		size, from, err := conn.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
				return nil, malformed
			}
			return nil, fmt.Errorf("listen for neighbours: %w", err)
		}
		if from, ok := from.(*packet.Addr); ok && from.HardwareAddr.String() == ifi.HardwareAddr.String() {
			continue // a frame of ours, such as one that firmware in the card sends
		}
		n, err := ParseLLDP(buf[:size])
		if err == nil {
			return &n, nil
		}
		if !errors.Is(err, errShutdown) {
			malformed = fmt.Errorf("%s speaks LLDP that is malformed: %w", from, err)
		}
	}
}
