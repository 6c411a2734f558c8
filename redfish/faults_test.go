package redfish_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/bmc"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/redfish"
)

// boot takes a BMC to a running host with our medium; it stops at the first error.
func boot(ctx context.Context, b *redfish.BMC, url string, caPEM []byte) error {
	if _, err := b.Identity(ctx); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	m, err := b.InsertMedia(ctx, redfish.MediaRequest{URL: url, CAPEM: caPEM})
	if err != nil {
		return fmt.Errorf("insert: %w", err)
	}
	if err := b.SetBootOnce(ctx, m.Target, redfish.UEFI); err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	if err := b.SetPower(ctx, redfish.On); err != nil {
		return fmt.Errorf("on: %w", err)
	}
	return nil
}

// clear takes it back to off and empty.
func clear(ctx context.Context, b *redfish.BMC) error {
	if err := b.SetPower(ctx, redfish.ForceOff); err != nil {
		return fmt.Errorf("off: %w", err)
	}
	if err := b.EjectMedia(ctx); err != nil {
		return fmt.Errorf("eject: %w", err)
	}
	return b.SetBootOnce(ctx, redfish.None, redfish.KeepMode)
}

// TestFaults has one fault at a time; all of these a client must live through.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute")
	}
	const system = "/redfish/v1/Systems/1"
	for _, tc := range []struct {
		name   string
		faults []bmc.Fault
	}{
		{"reads fail now and then", []bmc.Fault{{Method: "GET", Path: "/redfish/v1/**", Status: 500, After: 5, Times: 3}}},
		{"503 with Retry-After at each kind of write", []bmc.Fault{
			{Method: "POST", Path: "/redfish/v1/**", Status: 503, RetryAfter: 2, Times: 2}, {Method: "PATCH", Path: "/redfish/v1/**", Status: 503, RetryAfter: 2, Times: 2}}},
		{"answers are cut in the middle", []bmc.Fault{{Method: "GET", Path: "/redfish/v1/Systems/**", Cut: "body", After: 1, Times: 3}}},
		{"connections are cut before anything", []bmc.Fault{{Method: "GET", Path: "/redfish/v1/**", Cut: "request", After: 2, Times: 3}}},
		{"the answer to power-on is lost", []bmc.Fault{{Method: "POST", Path: system + "/Actions/ComputerSystem.Reset", Cut: "reply", Times: 1}}},
		{"the BMC restarts after the insertion", []bmc.Fault{{Method: "POST", Path: "/redfish/v1/**", Reboot: true, Times: 1}}},
		{"the BMC restarts after the boot target", []bmc.Fault{{Method: "PATCH", Path: "/redfish/v1/Systems/**", Reboot: true, Times: 1}}},
		{"the BMC restarts after power-on", []bmc.Fault{{Method: "POST", Path: system + "/Actions/ComputerSystem.Reset", Reboot: true, Times: 1}}},
		{"412 once", []bmc.Fault{{Method: "PATCH", Path: "/redfish/v1/Systems/**", Status: 412, Times: 1}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			faults := bmc.NewFaults()
			e := emulate(t, bmc.Config{Faults: faults, Pace: 0.02})
			url, caPEM, _ := images(t)
			b, err := redfish.Dial(t.Context(), e.URL(), options(e))
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, f := range tc.faults {
				name, err := faults.Add(f)
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, name)
			}
			if err := boot(t.Context(), b, url, caPEM); err != nil {
				t.Fatal(err)
			}
			struck := 0
			for _, n := range names {
				struck += faults.Struck(n)
			}
			if struck == 0 {
				t.Error("the fault never struck: the test shows nothing")
			}
			if n := presses(e); n != 1 {
				t.Errorf("power was pressed %d times", n)
			}
			faults.Clear()
			if err := clear(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			settled(t, e, b)
		})
	}
}

// presses counts resets that the BMC did.
func presses(e *bmc.BMC) int {
	n := 0
	for _, r := range e.RequestLog() {
		if r.Method == "POST" && strings.HasSuffix(r.Path, "ComputerSystem.Reset") && (r.Status < 300) {
			n++
		}
	}
	return n
}

// settled closes b and looks that it leaves no medium and no session.
func settled(t *testing.T, e *bmc.BMC, b *redfish.BMC) {
	t.Helper()
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	other, err := redfish.Dial(t.Context(), e.URL(), options(e))
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := other.Members(t.Context(), "/redfish/v1/SessionService/Sessions")
	if err != nil || len(sessions) != 1 {
		t.Errorf("sessions %v, %v: want the observer's own", sessions, err)
	}
	media, err := other.Media(t.Context())
	if err != nil {
		t.Error(err)
	}
	for _, m := range media {
		if m.Inserted {
			t.Errorf("%s still holds an image", m.URI)
		}
	}
	if err := other.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestLies holds what no client can overcome, but must notice.
func TestLies(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute")
	}
	for _, tc := range []struct {
		name  string
		fault bmc.Fault
		code  string
	}{
		{"the host is said to be off for ever", bmc.Fault{PowerState: "Off"}, "MC-BMC-POWER"},
		{"slots are said to be full for ever: HTTP boot", bmc.Fault{StaleInserted: true}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			faults := bmc.NewFaults()
			e := emulate(t, bmc.Config{Personality: "openbmc-gb200", Faults: faults, Pace: 0.02})
			url, caPEM, _ := images(t)
			o := options(e)
			start := time.Now() // waits of minutes pass in seconds
			o.Now = func() time.Time { return start.Add(20 * time.Since(start)) }
			b, err := redfish.Dial(t.Context(), e.URL(), o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := faults.Add(tc.fault); err != nil {
				t.Fatal(err)
			}
			if err := boot(t.Context(), b, url, caPEM); fleet.CodeOf(err) != tc.code {
				t.Errorf("got %v", err)
			}
			if s, err := b.Boot(t.Context()); err != nil || tc.fault.StaleInserted != (s.HTTPURI == url) {
				t.Errorf("the HTTP boot address is %q, %v", s.HTTPURI, err)
			}
			faults.Clear()
			if err := clear(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			settled(t, e, b)
		})
	}
}

// TestFaultSchedules draws faults by seed. A run may fail, but with a code; once the faults are over the same client must get the
// BMC to work and leave nothing behind: no session, no medium, no locked account.
func TestFaultSchedules(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute")
	}
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			personality := bmc.Personalities()[int(seed)%len(bmc.Personalities())]
			faults := bmc.NewFaults()
			e := emulate(t, bmc.Config{Personality: personality, Faults: faults, Pace: 0.02})
			url, caPEM, _ := images(t)
			o := options(e)
			var saved redfish.SavedSession
			o.OnSession = func(s redfish.SavedSession) { saved = s }
			b, err := redfish.Dial(t.Context(), e.URL(), o)
			if err != nil {
				t.Fatal(err)
			}
			drawn := faults.Schedule(seed, 8)
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("%s with %+v", personality, drawn)
				}
			})
			if err := boot(t.Context(), b, url, caPEM); err != nil {
				t.Logf("%s: %v", personality, err)
				if fleet.CodeOf(err) == "" || strings.Contains(err.Error(), "3f1c9a7e") || strings.Contains(err.Error(), password) {
					t.Errorf("an error without code, or with a secret: %v", err)
				}
			}
			faults.Clear()
			if err := boot(t.Context(), b, url, caPEM); err != nil {
				t.Fatalf("after the faults: %v", err)
			}
			if err := clear(t.Context(), b); err != nil {
				t.Fatalf("after the faults: %v", err)
			}
			if saved != b.Session() {
				t.Error("the session that was told is not the one in use")
			}
			settled(t, e, b)
		})
	}
}

// TestRecordingReplays records a BMC, replays it and looks at the copy with the same client.
func TestRecordingReplays(t *testing.T) {
	for _, personality := range []string{"generic", "ami-dgx-h100"} {
		t.Run(personality, func(t *testing.T) {
			t.Parallel()
			e := emulate(t, bmc.Config{Personality: personality})
			b, err := redfish.Dial(t.Context(), e.URL(), options(e))
			if err != nil {
				t.Fatal(err)
			}
			var doc bytes.Buffer
			if err := redfish.Record(t.Context(), b, &doc); err != nil {
				t.Fatal(err)
			}
			want, err := b.Identity(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if w := writes(e); len(w) > 0 {
				t.Errorf("recording wrote %v", w)
			}
			settled(t, e, b)
			if bytes.Contains(doc.Bytes(), []byte(password)) {
				t.Error("the recording holds the password")
			}
			rec, err := bmc.LoadRecording(&doc)
			if err != nil {
				t.Fatal(err)
			}
			twin := emulate(t, bmc.Config{Recording: rec})
			rep, err := redfish.Probe(t.Context(), twin.URL(), options(twin))
			if err != nil {
				t.Fatal(err)
			}
			got := rep.Identity
			got.Pin, got.Auth, got.SessionTimeoutSeconds = want.Pin, want.Auth, want.SessionTimeoutSeconds // the twin's own
			if got != want {
				t.Errorf("the twin is\n%+v\nwant\n%+v", got, want)
			}
		})
	}
}
