package server

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// A token that nobody spent dies with its medium, and by itself when the medium's life is over.
func TestUnspentTokenEnds(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	w := newWorld(t, func(_ *Config, d *Deps) {
		d.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	n := w.enrol("n1")
	a := w.boot(n.ID)
	must(t, w.Expire(context.Background(), n.ID))
	if got := w.nodeNow(n.ID).Boot.TokenHash; got != "" {
		t.Errorf("the token of an expired medium is kept: %s", got)
	}
	_, err := a.register()
	wantCode(t, err, fleet.Denied, "MC-AGENT-TOKEN")

	a = w.boot(n.ID)
	mu.Lock()
	now = now.Add(25 * time.Hour)
	mu.Unlock()
	_, err = a.register()
	wantCode(t, err, fleet.Denied, "MC-AGENT-EXPIRED")

	// One that was spent in time goes on: its medium is drawn in when the agent is there.
	a = w.boot(n.ID)
	_, err = a.register()
	must(t, err)
	must(t, w.Expire(context.Background(), n.ID))
	_, err = a.register()
	must(t, err)
}

// A machine that shows nothing of what was enrolled is not taken for the enrolled one.
func TestMachineThatShowsNothingIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	n := w.enrol("n1")
	a := w.boot(n.ID)
	try := func(change func(*api.Register)) error {
		reg := a.request()
		reg.UUID, reg.Serial, reg.MACs = "", "", nil
		change(&reg)
		_, err := a.call(http.MethodPost, api.AgentRegisterPath, reg, nil)
		return err
	}
	wantCode(t, try(func(*api.Register) {}), fleet.Denied, "MC-AGENT-IDENTITY")
	wantCode(t, try(func(r *api.Register) { r.MACs = []fleet.MAC{"02:00:00:00:00:01"} }), fleet.Denied, "MC-AGENT-IDENTITY")
	must(t, w.updateNode(context.Background(), n.ID, func(n *fleet.Node, _ *fleet.Change) error {
		n.Ports = []fleet.Port{{MAC: "02:00:00:00:00:01", Role: "provisioning"}}
		return nil
	}))
	must(t, try(func(r *api.Register) { r.MACs = []fleet.MAC{"02:00:00:00:00:09", "02:00:00:00:00:01"} }))

	// Zeros, which vendors leave in many machines, prove nothing.
	zeros := "00000000-0000-0000-0000-000000000000"
	m := w.enrol("n2")
	must(t, w.updateNode(context.Background(), m.ID, func(n *fleet.Node, _ *fleet.Change) error { n.BMC.UUID = zeros; return nil }))
	a = w.boot(m.ID)
	wantCode(t, try(func(r *api.Register) { r.UUID = zeros }), fleet.Denied, "MC-AGENT-IDENTITY")
	must(t, try(func(r *api.Register) { r.Serial = m.BMC.Serial }))
	// Where enrolment knows nothing, nothing can be asked for.
	x := w.enrol("n3")
	must(t, w.updateNode(context.Background(), x.ID, func(n *fleet.Node, _ *fleet.Change) error { n.BMC.UUID, n.BMC.Serial = zeros, ""; return nil }))
	a = w.boot(x.ID)
	must(t, try(func(*api.Register) {}))
}
