package redfish_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/bmc"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/redfish"
)

const password = "Correct-Horse-7-Battery"

// emulate runs a BMC with a personality until the test ends, its lags a tenth of the hardware's.
func emulate(t *testing.T, cfg bmc.Config) *bmc.BMC {
	t.Helper()
	cfg.User, cfg.Password = "admin", password
	if cfg.Pace == 0 {
		cfg.Pace = 0.1
	}
	b, err := bmc.New(cfg)
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
		select {
		case <-done:
		case <-time.After(5 * time.Minute):
			t.Error("the emulator does not stop")
		}
		b.Close()
	})
	for deadline := time.Now().Add(5 * time.Minute); b.URL() == ""; {
		if time.Now().After(deadline) {
			t.Fatal("the emulator does not start")
		}
		time.Sleep(time.Millisecond)
	}
	return b
}

func options(b *bmc.BMC) redfish.Options {
	return redfish.Options{
		Trust:       redfish.Trust{CAPEM: b.CA().PEM()},
		Credentials: redfish.Credentials{User: "admin", Password: fleet.NewSecret(password)},
		// a tenth of each wait, as the emulator is ten times faster than hardware
		Sleep: func(ctx context.Context, d time.Duration) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(d / 10):
				return nil
			}
		},
	}
}

// images serves one ISO by https, with the certificate that caPEM proves.
func images(t *testing.T) (url string, caPEM []byte, asked func() int) {
	t.Helper()
	ca, err := bmc.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	iso := bytes.Repeat([]byte("metalctl"), 64<<10)
	var count counter
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count.add()
		http.ServeContent(w, r, "boot.iso", time.Unix(1700000000, 0), bytes.NewReader(iso))
	}))
	srv.TLS = tlsConfig(cert)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.URL + "/boot/3f1c9a7e5b2d4860/boot.iso", ca.PEM(), count.get
}

// TestEveryPersonality takes each kind of BMC from first contact to a booted medium and back.
func TestEveryPersonality(t *testing.T) {
	want := map[string]string{"generic": "generic", "ami-dgx-h100": "ami-dgx", "openbmc-gb200": "openbmc", "idrac9": "idrac9", "idrac10": "idrac10", "ilo5": "ilo5", "xcc": "xcc", "smc-x12": "smc"}
	for _, name := range bmc.Personalities() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := emulate(t, bmc.Config{Personality: name})
			url, caPEM, asked := images(t)
			var trace strings.Builder
			o := options(e)
			o.Bodies = true
			o.Trace = func(c redfish.Call) { json.NewEncoder(&trace).Encode(c) }
			t.Cleanup(func() {
				if t.Failed() {
					t.Log(trace.String())
				}
			})
			lifecycle(t, e, o, url, caPEM, asked, want[name])
			for _, secret := range []string{password, "3f1c9a7e5b2d4860"} {
				if strings.Contains(trace.String(), secret) {
					t.Errorf("the trace holds %q", secret)
				}
			}
		})
	}
}

func lifecycle(t *testing.T, e *bmc.BMC, o redfish.Options, url string, caPEM []byte, asked func() int, quirk string) {
	ctx := t.Context()
	b, err := redfish.Dial(ctx, e.URL(), o)
	if err != nil {
		t.Fatal(err)
	}
	id, err := b.Identity(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if id.Serial == "" || id.UUID == "" || id.BMCFirmware == "" || id.Auth != "session" || id.Pin == "" {
		t.Errorf("identity is %+v", id)
	}
	if quirk != "" && id.Quirk != quirk {
		t.Errorf("recognised as %s, want %s (%s, %s, %s, %s)", id.Quirk, quirk, id.ServiceVendor, id.ServiceProduct, id.BMCModel, id.Model)
	}
	c, err := b.Capabilities(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if c.Method == "" {
		t.Fatalf("there is no way to boot it: %+v", c)
	}
	if w := writes(e); len(w) > 0 {
		t.Errorf("first contact wrote %v", w)
	}
	m, err := b.InsertMedia(ctx, redfish.MediaRequest{URL: url, CAPEM: caPEM})
	if err != nil {
		t.Fatal(err)
	}
	if m.Method != redfish.VirtualMedia || asked() == 0 {
		t.Errorf("inserted %+v; the image server was asked %d times", m, asked())
	}
	if err := b.SetBootOnce(ctx, m.Target, redfish.UEFI); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		action redfish.Action
		state  redfish.PowerState
	}{{redfish.On, redfish.PowerOn}, {redfish.On, redfish.PowerOn}, {redfish.ForceRestart, redfish.PowerOn}, {redfish.ForceOff, redfish.PowerOff}, {redfish.On, redfish.PowerOn}, {redfish.ForceOff, redfish.PowerOff}} {
		if err := b.SetPower(ctx, step.action); err != nil {
			t.Fatalf("%s: %v", step.action, err)
		}
		if s, err := b.Power(ctx); err != nil || s != step.state {
			t.Errorf("after %s the host is %s, %v", step.action, s, err)
		}
	}
	if err := b.EjectMedia(ctx); err != nil {
		t.Fatal(err)
	}
	slots, err := b.Media(ctx)
	if err != nil || slices.ContainsFunc(slots, func(m redfish.MediaState) bool { return m.Inserted }) {
		t.Errorf("after eject: %+v, %v", slots, err)
	}
	if err := b.SetBootOnce(ctx, redfish.None, redfish.KeepMode); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// writes are the requests that changed something, without logins.
func writes(e *bmc.BMC) []string {
	var all []string
	for _, r := range e.RequestLog() {
		if r.Method != "GET" && r.Method != "HEAD" && !strings.Contains(r.Path, "/Sessions") {
			all = append(all, r.Method+" "+r.Path)
		}
	}
	return all
}
