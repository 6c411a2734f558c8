package server

import (
	"context"
	"net/http"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// followed is a server that another one follows, or one that refuses for a reason.
type followed struct {
	http.Handler
	why error
}

func (f *followed) PartnerNodes() string          { return "https://nodes.mc2:8443" }
func (f *followed) Refuses() error                { return f.why }
func (f *followed) Settled(context.Context) error { return nil }
func (f *followed) State(s *api.Standby) {
	s.Peer, s.Connected, s.LagSeconds, s.LagRevisions = "https://mc2:8443", true, 2, 7
	s.Arbiter = &api.Tenure{Reached: true, Needed: true, TermSeconds: 8}
}

func TestCredentialsNameTheServerThatFollows(t *testing.T) {
	w := newWorld(t, func(_ *Config, d *Deps) { d.Standby = &followed{http.NotFoundHandler(), nil} })
	refs := w.serverRefs()
	if len(refs) != 2 || refs[1] != (fleet.ServerRef{URL: "https://nodes.mc2:8443", KeyPin: w.KeyPin()}) {
		t.Errorf("credentials name %+v", refs)
	}
}

func TestTokensOfTwoServers(t *testing.T) {
	for _, c := range []struct {
		name, role, path string
		ok               bool
	}{
		{adminName, "", api.StandbyPath + "/stream", true},
		{"bob", "", api.StandbyPath, true},
		{"bob", "", api.StandbyPath + "/promote", true},
		{"bob", "", api.StandbyPath + "/stream", false},
		{"bob", "", api.StandbyPath + "/file", false},
		{"bob", "", api.Base + "/nodes", true},
		{"mc2", fleet.RoleStandby, api.StandbyPath + "/stream", true},
		{"mc2", fleet.RoleStandby, api.StandbyPath + "/step-down", true},
		{"mc2", fleet.RoleStandby, api.StandbyPath + "/promote", false},
		{"mc2", fleet.RoleStandby, api.Base + "/nodes", false},
		{"mc2", fleet.RoleStandby, api.StandbyPath + "x", false},
		{"mc2", fleet.RoleStandby, "/metrics", false},
	} {
		if err := allowed(fleet.Token{Name: c.name, Role: c.role}, c.path); (err == nil) != c.ok {
			t.Errorf("%s %q at %s: %v", c.name, c.role, c.path, err)
		}
	}
}
