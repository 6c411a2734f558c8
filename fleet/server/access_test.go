package server

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

const (
	otherPin = "sha256/BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="
	moved    = "https://127.0.0.1:9443"
)

// claimant is the node that the address belongs to, or "".
func (w *world) claimant(address string) (id fleet.NodeID) {
	w.t.Helper()
	must(w.t, w.db.View(context.Background(), func(sn fleet.Snapshot) (err error) {
		id, _, err = fleet.Get[fleet.NodeID](sn, claimAddress(address))
		if fleet.KindOf(err) == fleet.NotFound {
			return nil
		}
		return err
	}))
	return id
}

// behind puts the machine of n behind an address.
func (w *world) behind(address string, n fleet.Node) {
	w.bmcs.machines[address] = Learned{System: fleet.Expect{Serial: n.BMC.Serial, UUID: strings.ToUpper(n.BMC.UUID)}}
}

// A BMC with a new certificate, key or address stays the node's when the machine that was enrolled is behind it.
func TestAccessChanges(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	n := w.enrol("n1")
	old, ca := n.BMC.Address, "-----BEGIN CERTIFICATE-----\nnew\n-----END CERTIFICATE-----\n"
	for _, tt := range []struct {
		name    string
		patch   api.NodePatch
		address string
		tls     fleet.BMCTLS // recorded
		asked   fleet.BMCTLS // looked with
	}{
		{"another pin", api.NodePatch{TLS: &fleet.BMCTLS{Pin: otherPin}}, old, fleet.BMCTLS{Pin: otherPin}, fleet.BMCTLS{Pin: otherPin}},
		{"an authority", api.NodePatch{TLS: &fleet.BMCTLS{CAPEM: ca}}, old, fleet.BMCTLS{CA: hashToken(ca)}, fleet.BMCTLS{CAPEM: ca}},
		{"an address without https", api.NodePatch{Address: new(strings.ToUpper(moved[8:]))}, "", fleet.BMCTLS{}, fleet.BMCTLS{}},
		{"another address", api.NodePatch{Address: new(moved + "/")}, moved, fleet.BMCTLS{CA: hashToken(ca)}, fleet.BMCTLS{CA: hashToken(ca), CAPEM: ca}},
		{"first use, and back to the old address", api.NodePatch{TLS: &fleet.BMCTLS{FirstUse: true}, Address: &old}, old,
			fleet.BMCTLS{FirstUse: true, Pin: n.BMC.TLS.Pin}, fleet.BMCTLS{FirstUse: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.behind(moved, n)
			looked, told := len(w.bmcs.looked), len(w.bmcs.changed)
			got, err := w.client.PatchNode(ctx, "n1", tt.patch, 0)
			if tt.address == "" {
				wantCode(t, err, fleet.Invalid, "MC-BMC-SCHEME")
				return
			}
			must(t, err)
			if got.BMC.Address != tt.address || got.BMC.Serial != n.BMC.Serial || got.BMC.User != n.BMC.User {
				t.Errorf("got %s", asJSON(t, got.BMC))
			}
			if diff := cmp.Diff(w.nodeNow(n.ID).BMC.TLS, tt.tls); diff != "" {
				t.Errorf("recorded: %s", diff)
			}
			if len(w.bmcs.looked) != looked+1 || len(w.bmcs.changed) != told+1 {
				t.Fatalf("opened %d times, the open connection was dropped %d times", len(w.bmcs.looked)-looked, len(w.bmcs.changed)-told)
			}
			if diff := cmp.Diff(w.bmcs.looked[looked].TLS, tt.asked); diff != "" {
				t.Errorf("looked with: %s", diff)
			}
			for _, address := range []string{old, moved} {
				if owner := w.claimant(address); (owner == n.ID) != (address == tt.address) {
					t.Errorf("the address %s belongs to %q", address, owner)
				}
			}
		})
	}
	must(t, w.db.View(ctx, func(sn fleet.Snapshot) error {
		got, _, err := fleet.Get[string](sn, fleet.KeyOf(fleet.KindCA, hashToken(ca)))
		if got != ca {
			t.Errorf("the authority's record holds %q", got)
		}
		return err
	}))
	// What is claimed goes with the node.
	must(t, w.client.ForgetNode(ctx, "n1"))
	if w.claimant(old) != "" || w.claimant(moved) != "" {
		t.Error("an address is still claimed")
	}
}

// An operation that waits at the BMC's door gets its new key, and is told to go on; one whose step runs does not lose its BMC.
func TestAccessForAWaitingOperation(t *testing.T) {
	waiting := func(code string) []fleet.StepRun {
		return []fleet.StepRun{{Name: "isolate", Side: "out-of-band", State: fleet.StepFinished},
			{Name: "power-off", Side: "out-of-band", State: fleet.StepPending, Try: 1, Error: &fleet.Problem{Code: code}}}
	}
	for _, tt := range []struct {
		name   string
		steps  []fleet.StepRun
		change func(w *world, n fleet.Node) // while the BMC is looked at
		busy   bool
	}{
		{"waits for a trusted key", waiting("MC-BMC-TLS"), nil, false},
		{"waits for an address that answers", waiting("MC-BMC-UNREACHABLE"), nil, false},
		{"waits for something else", waiting("MC-BMC-POWER"), nil, true},
		{"has begun its next try", func() []fleet.StepRun { s := waiting("MC-BMC-TLS"); s[1].State = fleet.StepStarted; return s }(), nil, true},
		{"begins its next try meanwhile", waiting("MC-BMC-TLS"), func(w *world, n fleet.Node) {
			op, _, err := w.operation(context.Background(), string(w.nodeNow(n.ID).Operation))
			must(w.t, err)
			op.Steps[1].State = fleet.StepStarted
			_, err = w.db.Commit(context.Background(), fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindOperation, op.ID), Value: op}}})
			must(w.t, err)
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			n := w.enrol("n1")
			_, err := w.engine.operation(context.Background(), n.ID, "release", tt.steps)
			must(t, err)
			if tt.change != nil {
				w.bmcs.looking = func() { tt.change(w, n) }
			}
			asked := len(w.engine.asked)
			_, err = w.client.PatchNode(context.Background(), "n1", api.NodePatch{TLS: &fleet.BMCTLS{Pin: otherPin}}, 0)
			if tt.busy {
				wantCode(t, err, fleet.Conflict, "MC-NODE-BUSY")
			} else {
				must(t, err)
			}
			if got := w.nodeNow(n.ID).BMC.TLS.Pin == otherPin; got == tt.busy {
				t.Errorf("the key was recorded: %v", got)
			}
			if got := len(w.engine.asked) > asked; got == tt.busy {
				t.Errorf("asked to go on: %v", got)
			}
		})
	}
}

// Nothing is changed and no connection is dropped where the change is refused.
func TestAccessRefusals(t *testing.T) {
	first := &fleet.BMCTLS{FirstUse: true}
	for _, tt := range []struct {
		name   string
		patch  api.NodePatch
		before func(*world, fleet.Node)
		kind   fleet.Kind
		code   string
		looks  int // how often a BMC is opened
	}{
		{"another machine at the new address", api.NodePatch{Address: new(moved)}, nil, fleet.Refused, "MC-NODE-IDENTITY", 1},
		{"another machine at the old address", api.NodePatch{TLS: first}, func(w *world, n fleet.Node) {
			w.bmcs.machines[n.BMC.Address] = Learned{System: fleet.Expect{Serial: n.BMC.Serial, UUID: "6ba7b810-9dad-11d1-80b4-00c04fd430c8"}}
		}, fleet.Refused, "MC-NODE-IDENTITY", 1},
		{"a machine that does not tell who it is", api.NodePatch{TLS: first}, func(w *world, n fleet.Node) {
			w.bmcs.machines[n.BMC.Address] = Learned{System: fleet.Expect{Serial: n.BMC.Serial}}
		}, fleet.Refused, "MC-NODE-IDENTITY", 1},
		{"a node of which nothing was recorded", api.NodePatch{TLS: first}, func(w *world, n fleet.Node) {
			must(w.t, w.updateNode(context.Background(), n.ID, func(n *fleet.Node, _ *fleet.Change) error {
				n.BMC.Serial, n.BMC.UUID = "", "00000000-0000-0000-0000-000000000000"
				return nil
			}))
		}, fleet.Refused, "MC-NODE-IDENTITY", 1},
		{"an address of another node", api.NodePatch{Address: new(moved)}, func(w *world, n fleet.Node) {
			w.behind(moved, fleet.Node{BMC: fleet.BMC{Serial: "other"}})
			req := createRequest("n2")
			req.Address = moved
			_, err := w.client.CreateNode(context.Background(), req, "")
			must(w.t, err)
		}, fleet.Conflict, "MC-NODE-TWICE", 0},
		{"an address that another node takes meanwhile", api.NodePatch{Address: new(moved)}, func(w *world, n fleet.Node) {
			w.behind(moved, n)
			w.bmcs.looking = func() {
				_, err := w.db.Commit(context.Background(), fleet.Change{Writes: []fleet.Write{{Key: claimAddress(moved), Value: w.idOf("n0")}}})
				must(w.t, err)
			}
		}, fleet.Conflict, "MC-NODE-TWICE", 1},
		{"an operation that runs", api.NodePatch{TLS: first}, func(w *world, n fleet.Node) {
			_, err := w.engine.operation(context.Background(), n.ID, "inspect", nil)
			must(w.t, err)
		}, fleet.Conflict, "MC-NODE-BUSY", 0},
		{"an operation that begins meanwhile", api.NodePatch{TLS: first}, func(w *world, n fleet.Node) {
			w.bmcs.looking = func() {
				_, err := w.engine.operation(context.Background(), n.ID, "inspect", nil)
				must(w.t, err)
			}
		}, fleet.Conflict, "MC-NODE-BUSY", 1},
		{"a trust that somebody else sets meanwhile", api.NodePatch{TLS: first}, func(w *world, n fleet.Node) {
			w.bmcs.looking = func() {
				must(w.t, w.updateNode(context.Background(), n.ID, func(n *fleet.Node, _ *fleet.Change) error {
					n.BMC.TLS = fleet.BMCTLS{Pin: otherPin}
					return nil
				}))
			}
		}, fleet.Conflict, "MC-API-STALE", 1},
		{"a new password that is wrong", api.NodePatch{TLS: first, Password: new("wrong")}, nil, fleet.Denied, "MC-BMC-AUTH", 1},
		{"two ways of trust", api.NodePatch{TLS: &fleet.BMCTLS{Pin: otherPin, FirstUse: true}}, nil, fleet.Invalid, "MC-API-INVALID", 0},
		{"a pin that is none", api.NodePatch{TLS: &fleet.BMCTLS{Pin: "md5/x"}}, nil, fleet.Invalid, "MC-API-INVALID", 0},
		{"an address that could not reach us", api.NodePatch{Address: new("https://10.0.0.11")}, nil, fleet.Refused, "MC-SERVER-ADVERTISE", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.enrol("n0")
			n := w.enrol("n1")
			if tt.before != nil {
				tt.before(w, n)
			}
			looked, was := len(w.bmcs.looked), w.nodeNow(n.ID).BMC
			_, err := w.client.PatchNode(context.Background(), "n1", tt.patch, 0)
			wantCode(t, err, tt.kind, tt.code)
			if got := len(w.bmcs.looked) - looked; got != tt.looks {
				t.Errorf("a BMC was opened %d times, want %d", got, tt.looks)
			}
			now := w.nodeNow(n.ID).BMC
			if tt.code == "MC-API-STALE" {
				was.TLS = fleet.BMCTLS{Pin: otherPin}
			}
			if diff := cmp.Diff(now, was); diff != "" {
				t.Errorf("a refused change was made: %s", diff)
			}
			if w.claimant(n.BMC.Address) != n.ID || w.claimant(moved) == n.ID || slices.Contains(w.bmcs.changed, n.ID) {
				t.Error("a claim moved, or the connection was dropped")
			}
			must(t, w.db.View(context.Background(), func(sn fleet.Snapshot) error {
				got, _, err := fleet.Get[string](sn, bmcSecretKey(n.ID))
				if got != bmcPassword {
					t.Errorf("the stored password is %q", got)
				}
				return err
			}))
		})
	}
}

// A stale If-Match opens no BMC.
func TestAccessUnderIfMatch(t *testing.T) {
	w := newWorld(t, nil)
	w.enrol("n1")
	looked := len(w.bmcs.looked)
	status, _, body := w.raw(http.MethodPatch, "/api/v1/nodes/n1", `{"bmc_tls":{"first_use":true}}`, map[string]string{"If-Match": `"1"`})
	if status != 412 || len(w.bmcs.looked) != looked {
		t.Errorf("got %d %s, opened %d times", status, body, len(w.bmcs.looked)-looked)
	}
}
