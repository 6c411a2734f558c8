package server

import (
	"bytes"
	"net/http"
	"slices"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// TestNamedTokens: a token acts under its name until it is revoked, cannot make others, and stands in the store as a hash only.
func TestNamedTokens(t *testing.T) {
	w := newWorld(t, nil)
	bob, err := w.client.CreateToken(t.Context(), api.TokenCreate{Name: "bob"})
	must(t, err)
	_, err = w.client.CreateToken(t.Context(), api.TokenCreate{Name: "bob"})
	wantCode(t, err, fleet.Conflict, "MC-TOKEN-NAME")
	for _, name := range []string{"", "admin", "the loop", "Bob"} {
		_, err = w.client.CreateToken(t.Context(), api.TokenCreate{Name: name})
		wantCode(t, err, fleet.Invalid, "MC-TOKEN-NAME")
	}
	his := w.newClient(bob.Secret)
	defer his.Close()
	a, err := his.Decide(t.Context(), "01900000-0000-7000-8000-000000000001", "grant", "looked")
	if err != nil || a.DecidedBy != "bob" || !a.DecidedAt.Equal(bob.CreatedAt) || a.Reason != "grant looked" {
		t.Errorf("decided by %q (token of %s, made %s): %v", a.DecidedBy, a.DecidedAt, bob.CreatedAt, err)
	}
	_, err = his.CreateToken(t.Context(), api.TokenCreate{Name: "eve"})
	wantCode(t, err, fleet.Denied, "MC-TOKEN-RIGHTS")
	wantCode(t, his.RevokeToken(t.Context(), "bob"), fleet.Denied, "MC-TOKEN-RIGHTS")
	w.enrol("n1")
	if _, err := his.SetPower(t.Context(), "n1", "off"); err != nil || !slices.Contains(w.engine.asked, "power: power off") {
		t.Errorf("power off was not counted as harm: %q, %v", w.engine.asked, err)
	}
	all, err := his.Tokens(t.Context())
	if err != nil || len(all) != 1 || all[0].Name != "bob" || all[0].Secret != "" {
		t.Errorf("list: %+v, %v", all, err)
	}
	must(t, w.Store.View(t.Context(), func(s fleet.Snapshot) error {
		return s.List(fleet.KindToken, func(r fleet.Record) bool {
			if bytes.Contains(r.Data, []byte(bob.Secret)) || bytes.Contains([]byte(r.Key), []byte(bob.Secret)) {
				t.Errorf("the token stands in the store: %s", r.Key)
			}
			return true
		})
	}))
	must(t, w.client.RevokeToken(t.Context(), "bob"))
	_, err = his.Tokens(t.Context())
	if wantCode(t, err, fleet.Denied, "MC-API-TOKEN"); api.StatusOf(err) != http.StatusUnauthorized {
		t.Errorf("a revoked token: %v", err)
	}
	wantCode(t, w.client.RevokeToken(t.Context(), "bob"), fleet.NotFound, "MC-TOKEN-UNKNOWN")
	if got, err := w.client.Approvals(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("approvals: %v, %v", got, err)
	}
}
