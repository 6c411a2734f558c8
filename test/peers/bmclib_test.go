package peers

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bmc-toolbox/bmclib/v2"
	"github.com/metalctl/metalctl/fixtures/bmc"
)

const (
	user     = "root"
	password = "emulated-Pass1"
)

// start serves an emulated BMC on loopback; boots receives what each boot of its machine was given.
func start(t *testing.T, personality string) (b *bmc.BMC, port string, boots chan bmc.Boot) {
	t.Helper()
	boots = make(chan bmc.Boot, 8)
	machine := bmc.NewProcessMachine(func(ctx context.Context, boot bmc.Boot) error {
		boots <- boot
		select {
		case <-ctx.Done():
		case <-boot.Shutdown:
		}
		return nil
	}, nil)
	b, err := bmc.New(bmc.Config{Personality: personality, User: user, Password: password, Machine: machine, Pace: -1})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if err := machine.Close(); err != nil {
			t.Error(err)
		}
	})
	_, port, err = net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return b, port, boots
}

// TestBmclib is the Go library of bmc-toolbox against the emulator: sessions, power, virtual media, boot device, inventory.
func TestBmclib(t *testing.T) {
	for _, personality := range []string{"generic", "ilo5"} {
		t.Run(personality, func(t *testing.T) {
			b, port, boots := start(t, personality)
			image := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.ServeContent(w, r, "boot.iso", time.Unix(1, 0), bytes.NewReader(make([]byte, 1<<20)))
			}))
			defer image.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			client := bmclib.NewClient("127.0.0.1", user, password, bmclib.WithRedfishPort(port), bmclib.WithSecureTLS(b.CA().Pool()), bmclib.WithPerProviderTimeout(4*time.Minute))
			client.Registry.Drivers = client.Registry.Using("redfish")
			if err := client.Open(ctx); err != nil {
				t.Fatal(err)
			}
			state, err := client.GetPowerState(ctx)
			if err != nil || !strings.EqualFold(state, "off") {
				t.Fatalf("power %q, %v", state, err)
			}
			if ok, err := client.SetVirtualMedia(ctx, "CD", image.URL+"/boot.iso"); err != nil || !ok {
				t.Fatalf("insert: %v %v", ok, err)
			}
			if ok, err := client.SetBootDevice(ctx, "cdrom", false, true); err != nil || !ok {
				t.Fatalf("boot device: %v %v", ok, err)
			}
			if ok, err := client.SetPowerState(ctx, "on"); err != nil || !ok {
				t.Fatalf("power on: %v %v", ok, err)
			}
			select {
			case boot := <-boots:
				if boot.Target != "Cd" || boot.Media == nil {
					t.Errorf("the machine booted %+v", boot)
				}
			case <-ctx.Done():
				t.Fatal("the machine never booted")
			}
			if ok, err := client.SetVirtualMedia(ctx, "CD", ""); err != nil || !ok {
				t.Errorf("eject: %v %v", ok, err)
			}
			device, err := client.Inventory(ctx)
			if err != nil || device.Serial == "" || len(device.CPUs) == 0 || len(device.Drives) == 0 {
				t.Errorf("inventory: %+v, %v", device, err)
			}
			if ok, err := client.SetPowerState(ctx, "off"); err != nil || !ok {
				t.Errorf("power off: %v %v", ok, err)
			}
			if err := client.Close(ctx); err != nil {
				t.Error(err)
			}
			login, logout := 0, 0
			for _, r := range b.RequestLog() {
				switch {
				case r.Method == "POST" && strings.HasSuffix(r.Path, "/Sessions"):
					login++
				case r.Method == "DELETE" && strings.Contains(r.Path, "/Sessions/"):
					logout++
				}
			}
			if login == 0 || login != logout {
				t.Errorf("%d logins, %d logouts", login, logout)
			}
		})
	}
}
