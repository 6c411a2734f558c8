package redfish

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// TestLifecycle takes one BMC through everything that a deployment does, and then looks for secrets in all that was said.
func TestLifecycle(t *testing.T) {
	f := newFake(t)
	var said strings.Builder
	b := f.dial(func(o *Options) {
		o.Bodies = true
		o.Trace = func(c Call) { fmt.Fprintf(&said, "%+v\n", c) }
		o.Log = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	ctx := t.Context()
	id, err := b.Identity(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := Identity{
		Vendor: "Acme", Model: "HGX", Serial: "S123", UUID: "abcdef00-0000-0000-0000-000000000001",
		BMCModel: "Acme BMC", BMCFirmware: "1.2.3", RedfishVersion: "1.15.0", ServiceVendor: "Acme", ServiceProduct: "Board",
		System: "/redfish/v1/Systems/1", Manager: "/redfish/v1/Managers/BMC", Quirk: "generic", Auth: "session", Pin: fleet.PinOf(f.cert()),
		LockoutThreshold: 3, SessionTimeoutSeconds: 30, PowerState: PowerOff,
	}
	if d := cmp.Diff(id, want); d != "" {
		t.Errorf("identity (-got +want):\n%s", d)
	}
	if w := f.writes(); len(w) > 0 {
		t.Errorf("dialling and reading wrote %q", w)
	}
	const image = "https://10.0.0.1/boot/unguessable-7f3a9c/node.iso"
	m, err := b.InsertMedia(ctx, MediaRequest{URL: image})
	if err != nil {
		t.Fatal(err)
	}
	if !m.Inserted || m.Image != image || m.Target != Cd || m.Method != VirtualMedia {
		t.Errorf("media is %+v", m)
	}
	if err := b.SetBootOnce(ctx, m.Target, UEFI); err != nil {
		t.Fatal(err)
	}
	boot, err := b.Boot(ctx)
	if err != nil || boot.Enabled != "Once" || boot.Target != Cd || boot.Mode != UEFI {
		t.Errorf("boot is %+v, %v", boot, err)
	}
	for _, step := range []struct {
		action Action
		state  PowerState
	}{{On, PowerOn}, {On, PowerOn}, {ForceRestart, PowerOn}, {PowerCycle, PowerOn}, {GracefulShutdown, PowerOff}, {ForceOff, PowerOff}} {
		if err := b.SetPower(ctx, step.action); err != nil {
			t.Fatal(err)
		}
		if s, err := b.Power(ctx); err != nil || s != step.state {
			t.Errorf("after %s the power is %s, %v", step.action, s, err)
		}
	}
	if err := b.EjectMedia(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.EjectMedia(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.SetBootOnce(ctx, None, KeepMode); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(ctx); err != nil {
		t.Fatal(err)
	}
	wantWrites := []string{
		"POST /redfish/v1/Systems/1/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia {\"Image\":\"" + image + "\"}",
		`PATCH /redfish/v1/Systems/1 {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Cd"}}`,
		`POST /redfish/v1/Systems/1/Actions/ComputerSystem.Reset {"ResetType":"On"}`,
		`POST /redfish/v1/Systems/1/Actions/ComputerSystem.Reset {"ResetType":"ForceRestart"}`,
		`POST /redfish/v1/Systems/1/Actions/ComputerSystem.Reset {"ResetType":"ForceOff"}`,
		`POST /redfish/v1/Systems/1/Actions/ComputerSystem.Reset {"ResetType":"On"}`,
		`POST /redfish/v1/Systems/1/Actions/ComputerSystem.Reset {"ResetType":"GracefulShutdown"}`,
		"POST /redfish/v1/Systems/1/VirtualMedia/Cd/Actions/VirtualMedia.EjectMedia {}",
		`PATCH /redfish/v1/Systems/1 {"Boot":{"BootSourceOverrideEnabled":"Disabled","BootSourceOverrideTarget":"None"}}`,
	}
	if d := cmp.Diff(f.writes(), wantWrites); d != "" {
		t.Errorf("writes (-got +want):\n%s", d)
	}
	if len(f.tokens) != 0 {
		t.Errorf("sessions left: %v", f.tokens)
	}
	if said.Len() == 0 {
		t.Fatal("nothing was traced")
	}
	for _, secret := range []string{testPassword, "söcret", "quoted", "token-1", "unguessable", "node.iso", "admin"} {
		if at := strings.Index(said.String(), secret); at >= 0 {
			t.Errorf("%q stands in the trace: …%s…", secret, said.String()[max(0, at-200):at+50])
		}
	}
}
