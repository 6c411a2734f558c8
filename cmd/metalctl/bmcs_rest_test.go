//go:build !ramdisk

package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/bmc"
	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/store"
)

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// TestBMCAtRest counts at the BMC: while nothing is done it is asked at most twice a minute, in one session, also where sessions end after half a minute.
func TestBMCAtRest(t *testing.T) {
	for _, personality := range []string{"generic", "ami-dgx-h100", "idrac9"} {
		t.Run(personality, func(t *testing.T) {
			at := &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
			b, err := bmc.New(bmc.Config{Personality: personality, Pace: -1, Now: at.Now, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			served := make(chan struct{})
			go func() {
				defer close(served)
				b.Serve(ctx, ln) //nolint:errcheck // it ends with its context
			}()
			t.Cleanup(func() { cancel(); <-served; b.Close() }) //nolint:errcheck // the test is over
			db := contract.OpenStoreIn(t, t.TempDir(), store.Options{})
			controllers := newBMCs(db, db, slog.New(slog.DiscardHandler))
			controllers.now = at.Now
			const id fleet.NodeID = "01900000-0000-7000-8000-000000000001"
			n := fleet.Node{ID: id, Name: "n1", State: fleet.Available, BMC: fleet.BMC{Address: "https://" + ln.Addr().String(), User: "admin", Auth: "session", TLS: fleet.BMCTLS{Pin: pinOf(t, ln.Addr().String())}}}
			if _, err := db.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindNode, id), Value: n}, {Key: passwordKey(id), Value: fleet.NewSecret("password")}}}); err != nil {
				t.Fatal(err)
			}
			start := at.Now()
			l := reconcile.New(&reconcile.Loop{Store: db, Blobs: db, Machine: controllers, Now: at.Now, Mono: func() time.Duration { return at.Now().Sub(start) }})
			const warm, minutes = 3, 20
			looks := 0
			for second := range (warm + minutes) * 60 {
				if second == warm*60 {
					looks = len(b.RequestLog())
				}
				if len(l.DueToObserve([]fleet.NodeID{id})) > 0 {
					if err := l.Observe(ctx, id); err != nil {
						t.Fatal(err)
					}
				}
				at.add(time.Second)
			}
			rest := b.RequestLog()[looks:]
			if len(rest) < minutes-2 || len(rest) > 2*minutes {
				t.Errorf("%d requests in %d minutes at rest, want between one and two a minute: %+v", len(rest), minutes, rest[:min(len(rest), 8)])
			}
			logins, logouts := 0, 0
			for _, r := range b.RequestLog() {
				if strings.Contains(r.Path, "/Sessions") && r.Method == "POST" {
					logins++
				}
				if strings.Contains(r.Path, "/Sessions/") && r.Method == "DELETE" {
					logouts++
				}
			}
			t.Logf("%d requests in %d minutes, %d logins, %d logouts", len(rest), minutes, logins, logouts)
			if personality == "generic" && logins != 1 {
				t.Errorf("%d logins, want one", logins)
			}
			if power, _ := l.Observed(id); power == "" {
				t.Error("the power was not seen")
			}
			closing, done := context.WithTimeout(context.Background(), time.Minute)
			defer done()
			controllers.close(closing)
		})
	}
}

// pinOf is the key that a BMC shows.
func pinOf(t *testing.T, address string) string {
	t.Helper()
	c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) // the key is what is asked for
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sum := sha256.Sum256(c.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	return "sha256/" + base64.StdEncoding.EncodeToString(sum[:])
}
