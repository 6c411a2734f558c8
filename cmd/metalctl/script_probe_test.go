//go:build !ramdisk

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/metalctl/metalctl/fixtures/rack"
	"github.com/metalctl/metalctl/fixtures/wires/vswitch"
)

// scriptCanary cables two interfaces, in a network namespace of their own, to trunks of everything, and adds them to the server's configuration.
func scriptCanary(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: canary SWITCH DOMAIN CONFIG")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	space, err := vswitch.NewSpace()
	ts.Check(err)
	ts.Defer(func() { ts.Check(space.Close()) })
	for _, name := range []string{"canary1", "canary2"} {
		ts.Check(switchOf(ts, args[0]).AddPort(ctx, name, space, name, nil, "vlan_mode=trunk"))
	}
	file := ts.MkAbs(args[2])
	b, err := os.ReadFile(file)
	ts.Check(err)
	ts.Check(os.WriteFile(file, fmt.Appendf(b, "\ncanary:\n  %s: {interfaces: [canary1, canary2], namespace: %s}\n", args[1], space.Path()), 0o600))
}

// scriptPatch cables two access ports of a switch together that nobody manages: what is in the VLAN of one is in that of the other.
func scriptPatch(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: patch SWITCH VLAN VLAN")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sw := switchOf(ts, args[0])
	ts.Check(sw.Space.Cable("patch1", sw.Space, "patch2", nil))
	for i, vlan := range args[1:] {
		_, err := sw.Vsctl(ctx, "add-port", vswitch.Bridge, fmt.Sprintf("patch%d", i+1), "tag="+vlan)
		ts.Check(err)
	}
}

func switchOf(ts *testscript.TestScript, name string) *vswitch.Switch {
	sw := (*ts.Value(rackKey{}).(**rack.Rack)).Switch(name)
	if sw == nil {
		ts.Fatalf("the rack has no Open vSwitch %s", name)
	}
	return sw
}
