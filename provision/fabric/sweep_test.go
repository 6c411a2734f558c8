package fabric_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/fabric"
)

// where is each port with the leaf and its port that its cable ends at, and switches with none.
func where(s *fabric.Sweep) map[fleet.GUID]string {
	out := map[fleet.GUID]string{}
	for _, e := range s.Ends {
		out[e.GUID] = ""
		if e.Type == fabric.CA {
			out[e.GUID] = fmt.Sprintf("%s/%d", e.Leaf, e.LeafPort)
		}
	}
	return out
}

// cabled is what where must be for wires.Small.
func cabled() map[fleet.GUID]string {
	out := map[fleet.GUID]string{"0x6000000000000010": "", "0x6000000000000020": "", "0x6000000000000030": ""}
	for i := range 8 {
		out[wires.Small().GUID(i/2, i%2)] = fmt.Sprintf("0x60000000000000%d0/%d", 1+i/4, 1+i%4)
	}
	return out
}

func check(t *testing.T, s *fabric.Sweep, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(cabled(), where(s)); d != "" {
		t.Errorf("cables (-want +got):\n%s", d)
	}
	if s.Switches != 3 || len(s.Silent) > 0 || len(s.Twice()) > 0 {
		t.Errorf("%d switches, silent %v, twice %v", s.Switches, s.Silent, s.Twice())
	}
	for _, e := range s.Ends {
		if e.Err != nil {
			t.Errorf("%s: %v", e.GUID, e.Err)
		}
	}
}

func TestSweepSim(t *testing.T) {
	if testing.Short() {
		t.Skip("long: starts the fabric simulator")
	}
	if err := wires.Have(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	sim, err := wires.StartSim(ctx, wires.Small(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer sim.Close()
	for _, host := range []int{0, 3} {
		port, err := sim.Dial(host, 1)
		if err != nil {
			t.Fatal(err)
		}
		s, err := fabric.NewStation(port, fabric.Options{Patience: 10 * time.Second}).Sweep(ctx)
		check(t, s, err)
		port.Close()
	}
}

func TestSweepEmulated(t *testing.T) {
	e := wires.NewEmulated(wires.Small(), t.TempDir()+"/none")
	s, err := fabric.NewStation(e, fabric.Options{}).Sweep(t.Context())
	check(t, s, err)
	for _, x := range s.Ends {
		if master := x.SM != nil && x.SM.State == fabric.SMMaster; master != (x.GUID == wires.Small().SM()) {
			t.Errorf("%s is master %t", x.GUID, master)
		}
		if d := cmp.Diff([]uint16{0xffff}, x.Keys); d != "" || x.First != 0xffff {
			t.Errorf("%s without a file: first 0x%04x, keys\n%s", x.GUID, x.First, d)
		}
	}
}

func TestSweepTwice(t *testing.T) {
	net := wires.Small()
	e := wires.NewEmulated(net, t.TempDir()+"/none")
	e.SetGUID(net.GUID(3, 0), net.GUID(1, 1))
	s, err := fabric.NewStation(e, fabric.Options{}).Sweep(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]fleet.GUID{net.GUID(1, 1)}, s.Twice()); d != "" {
		t.Errorf("twice (-want +got):\n%s", d)
	}
}

func TestSweepEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := wires.NewEmulated(wires.Small(), t.TempDir()+"/none")
	if _, err := fabric.NewStation(e, fabric.Options{}).Sweep(ctx); err == nil {
		t.Error("a sweep that was ended has no error")
	}
}
