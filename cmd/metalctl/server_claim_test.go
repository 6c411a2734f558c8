//go:build !ramdisk

package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/standby"
	"github.com/metalctl/metalctl/fleet/term"
)

// TestGrantIsVoidAfterPromise: the server that is followed is heard again while the arbiter grants the claim, and gets a promise. It may act by that, so the grant must not count.
func TestGrantIsVoidAfterPromise(t *testing.T) {
	for name, promises := range map[string]bool{"a promise meanwhile": true, "none": false} {
		t.Run(name, func(t *testing.T) {
			mine := &tenure{self: "https://mc2:8443", log: slog.New(slog.DiscardHandler), cand: term.NewCandidate("https://mc2:8443", 0)}
			mine.cand.Released()
			arbiter := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if promises && !mine.Promise() {
					t.Error("it makes no promise while it only asks")
				}
				json.NewEncoder(w).Encode(term.Reply{Granted: true, State: term.State{ID: "x", Number: 2, Holder: mine.self}}) //nolint:errcheck // the caller is gone
			}))
			defer arbiter.Close()
			var err error
			if mine.cl, err = api.NewClient(api.Config{Server: arbiter.URL, Pin: fleet.PinOf(arbiter.Certificate())}); err != nil {
				t.Fatal(err)
			}
			defer mine.cl.Close()
			err = mine.Claim(t.Context(), standby.Alone)
			if promises != errors.Is(err, errTooEarly) || !promises && err != nil || promises != (mine.held() != nil) || promises != mine.Promise() {
				t.Errorf("claimed: %v; it may act: %v", err, mine.held() == nil)
			}
		})
	}
}
