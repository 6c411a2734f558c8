package server

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func TestVerbs(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	n := w.enrol("n1")
	status, h, body := w.raw(http.MethodPost, "/api/v1/nodes/n1/inspect", "", nil)
	var got api.VerbAccepted
	must(t, json.Unmarshal(body, &got))
	if status != 202 || got.Operation == "" || h.Get("Location") != "/api/v1/operations/"+string(got.Operation) {
		t.Fatalf("inspect: %d %v %s", status, h, body)
	}
	status, h, body = w.raw(http.MethodPost, "/api/v1/nodes/n1/hold", `{"reason":"looking"}`, nil)
	if status != 200 || h.Get("Location") != "" || w.nodeNow(n.ID).Hold == nil {
		t.Errorf("hold: %d %s", status, body)
	}
	_, err := w.client.NodeVerb(ctx, "n1", "clean", api.NodeVerb{})
	wantCode(t, err, fleet.Conflict, "MC-NODE-VERB")
	if !strings.Contains(fleet.HintOf(err), "inspect") {
		t.Errorf("the hint names no verb: %q", fleet.HintOf(err))
	}
	for _, verb := range []string{"done", "deploy", "allocate", "fly"} {
		_, err := w.client.NodeVerb(ctx, "n1", verb, api.NodeVerb{})
		wantCode(t, err, fleet.NotFound, "MC-API-VERB")
	}
	_, err = w.client.SetPower(ctx, "n1", "off")
	wantCode(t, err, fleet.Conflict, "MC-NODE-BUSY") // the hold stops steps, and one has begun
	e, err := w.client.Explain(ctx, "n1")
	must(t, err)
	if e.Node != "n1" || e.Agent != "none" || e.Hold == nil || !e.Stuck() || e.Reasons[0].Command != "metalctl node unhold n1" {
		t.Errorf("got %s", asJSON(t, e))
	}
	p, err := w.client.NodePlan(ctx, "n1", api.PlanQuery{Use: "clean"})
	must(t, err)
	if p.Use != "clean" || p.Reboots != 1 {
		t.Errorf("got %s", asJSON(t, p))
	}
	q := api.PlanQuery{Use: "inspect", Devices: []string{"A,1", "B"}, OutOfBand: true, AllowReboot: true, Image: "other"}
	_, err = w.client.NodePlan(ctx, "n1", q)
	must(t, err)
	if diff := cmp.Diff(q, w.engine.planned); diff != "" {
		t.Error(diff)
	}
	if _, err := w.client.NodePlan(ctx, "n1", api.PlanQuery{Use: "cook"}); fleet.KindOf(err) != fleet.Invalid {
		t.Errorf("got %v", err)
	}
	_, err = w.client.Inventory(ctx, "n1")
	wantCode(t, err, fleet.NotFound, "MC-NODE-INVENTORY")
}

func TestPower(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	w.enrol("n1")
	p, err := w.client.SetPower(ctx, "n1", "on")
	must(t, err)
	if p.State != "on" {
		t.Errorf("got %+v", p)
	}
	if p, err = w.client.Power(ctx, "n1"); err != nil || p.State != "on" {
		t.Errorf("got %+v, %v", p, err)
	}
	_, err = w.client.SetPower(ctx, "n1", "explode")
	wantCode(t, err, fleet.Invalid, "MC-API-INVALID")
	_, err = w.client.NodeVerb(ctx, "n1", "inspect", api.NodeVerb{})
	must(t, err)
	_, err = w.client.SetPower(ctx, "n1", "off")
	wantCode(t, err, fleet.Conflict, "MC-NODE-BUSY")
	if !cmp.Equal(w.bmcs.acts, []string{"on"}) {
		t.Errorf("the BMC was asked %v", w.bmcs.acts)
	}
}

func TestInventoryAndWouldErase(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	n := w.enrol("n1")
	inv := fleet.Inventory{System: fleet.System{Serial: "S1"}, Disks: []fleet.Disk{
		{Serial: "A", Model: "NVMe", SizeBytes: 1 << 40}, {Serial: "B", BootMedium: true}, {Serial: "", SizeBytes: 5}, {Serial: "D", Removable: true}, {Serial: "E", ReadOnly: true}}}
	digest, err := w.db.PutBlob(ctx, "inventory", strings.NewReader(asJSON(t, inv)))
	must(t, err)
	must(t, w.updateNode(ctx, n.ID, func(n *fleet.Node, _ *fleet.Change) error { n.Inventory = digest; return nil }))
	got, err := w.client.Inventory(ctx, "n1")
	must(t, err)
	if diff := cmp.Diff(inv, got); diff != "" {
		t.Error(diff)
	}
	v, err := w.client.Node(ctx, "n1")
	must(t, err)
	if diff := cmp.Diff([]fleet.AcceptedDevice{{Serial: "A", Model: "NVMe", SizeBytes: 1 << 40}}, v.WouldErase); diff != "" {
		t.Error(diff)
	}
}

func TestOperations(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	n := w.enrol("n1")
	id, err := w.client.NodeVerb(ctx, "n1", "inspect", api.NodeVerb{})
	must(t, err)
	op, err := w.client.Operation(ctx, id, time.Millisecond)
	must(t, err)
	if op.State != fleet.OperationRunning || op.Percent != 41.4 {
		t.Errorf("got %s", asJSON(t, op))
	}
	over := make(chan api.Operation, 1)
	go func() {
		op, err := w.client.Operation(ctx, id, time.Minute)
		if err != nil {
			t.Error(err)
		}
		over <- op
	}()
	must(t, w.engine.finish(ctx, n.ID, fleet.OperationDone))
	if op := <-over; op.State != fleet.OperationDone || op.Percent != 100 {
		t.Errorf("got %s", asJSON(t, op))
	}
	second, err := w.client.NodeVerb(ctx, "n1", "inspect", api.NodeVerb{})
	must(t, err)
	l, err := w.client.Operations(ctx, api.ListOptions{Node: "n1"})
	must(t, err)
	if len(l.Items) != 2 || l.Items[0].ID != second {
		t.Errorf("got %s", asJSON(t, l))
	}
	cancelled, err := w.client.CancelOperation(ctx, second, "enough")
	must(t, err)
	if cancelled.State != fleet.OperationAborted {
		t.Errorf("got %s", asJSON(t, cancelled))
	}
	if _, err = w.client.CancelOperation(ctx, second, "again"); err != nil {
		t.Errorf("cancelling what is over: %v", err)
	}
	_, err = w.client.Operation(ctx, "none", 0)
	wantCode(t, err, fleet.NotFound, "MC-OPERATION-UNKNOWN")
}

func TestLeases(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	_, err := w.client.CreateLease(ctx, api.LeaseCreate{}, "")
	wantCode(t, err, fleet.Invalid, "MC-API-INVALID")
	req := api.LeaseCreate{Name: "train", LeaseRequest: fleet.LeaseRequest{Nodes: []string{"n1"}, Image: "debian"}, UserData: []byte(userData)}
	l, err := w.client.CreateLease(ctx, req, "key-1")
	must(t, err)
	again, err := w.client.CreateLease(ctx, req, "key-1")
	must(t, err)
	if l.ID != again.ID || w.engine.leases != 1 {
		t.Errorf("one key made two leases: %s %s", l.ID, again.ID)
	}
	if l.Isolation != "required" {
		t.Errorf("got isolation %q", l.Isolation)
	}
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	if l, err = w.client.ExtendLease(ctx, "train", until); err != nil || !l.Request.Until.Equal(until) {
		t.Errorf("got %s, %v", asJSON(t, l), err)
	}
	_, err = w.client.ExtendLease(ctx, "train", time.Now().Add(-time.Hour))
	wantCode(t, err, fleet.Invalid, "MC-API-INVALID")
	shown, err := w.client.ReleasePlan(ctx, "train")
	must(t, err)
	_, err = w.client.ReleaseLeaseAs(ctx, "train", "sha256:other")
	wantCode(t, err, fleet.Conflict, "MC-PLAN-DIGEST")
	if l, err = w.client.Lease(ctx, "train"); err != nil || l.State == fleet.LeaseReleased {
		t.Errorf("a release as another plan: %+v, %v", l, err)
	}
	if l, err = w.client.ReleaseLeaseAs(ctx, "train", shown.Digest); err != nil || l.State != fleet.LeaseReleased {
		t.Errorf("release as shown: %+v, %v", l, err)
	}
	if l, err = w.client.ReleaseLease(ctx, "train"); err != nil || l.State != fleet.LeaseReleased {
		t.Errorf("got %s, %v", asJSON(t, l), err)
	}
	all, err := w.client.Leases(ctx, api.ListOptions{State: "released"})
	must(t, err)
	if len(all.Items) != 1 {
		t.Errorf("got %s", asJSON(t, all))
	}
	_, err = w.client.Lease(ctx, "none")
	wantCode(t, err, fleet.NotFound, "MC-LEASE-UNKNOWN")
}

func TestClassesSiteCapabilities(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	_, err := w.client.PutClass(ctx, fleet.Class{Name: "hgx", EraseLevel: "burn", AcceptFormat: true, Expect: fleet.ClassExpect{GPUs: fleet.ExpectGPUs{Count: -1}}})
	wantCode(t, err, fleet.Invalid, "MC-API-INVALID")
	if n := strings.Count(err.Error(), "\n"); n != 4 {
		t.Errorf("%d faults are listed, want 4: %v", n, err)
	}
	want := fleet.Class{Name: "hgx", BurnIn: "none", EraseLevel: "purge", AcceptFormat: true, Expect: fleet.ClassExpect{GPUs: fleet.ExpectGPUs{Count: 8}}}
	_, err = w.client.PutClass(ctx, want)
	must(t, err)
	got, err := w.client.Class(ctx, "hgx")
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	whole := want
	whole.Expect.GPUs = fleet.ExpectGPUs{Count: 8, Model: "NVIDIA H200", MemoryBytes: 143771 << 20, NVLinksUp: 18, NVLinkGBps: 26.562, PCIe: fleet.ExpectPCIe{Generation: 5, Width: 16}}
	whole.Expect.InfiniBand = fleet.ExpectInfiniBand{Count: 8, RateGbps: 400}
	whole.Expect.Limits = []fleet.Limit{{Check: "nvme-used", Value: 80, Unit: "percent", Source: "the vendor's data sheet"}}
	got, err = w.client.PutClass(ctx, whole)
	must(t, err)
	if diff := cmp.Diff(whole, got); diff != "" {
		t.Error(diff)
	}
	slipped := whole
	slipped.Name, slipped.Expect.Limits = "hgx-2", []fleet.Limit{{Check: "nvme-used", Value: 80000, Unit: "percent", Source: "a slip"}}
	_, err = w.client.PutClass(ctx, slipped)
	wantCode(t, err, fleet.Invalid, "MC-API-INVALID")
	slipped.Expect.Limits[0].Value = 90
	_, err = w.client.PutClass(ctx, slipped)
	must(t, err)
	whole.Expect.Limits[0].Source = ""
	_, err = w.client.PutClass(ctx, whole)
	wantCode(t, err, fleet.Invalid, "MC-API-INVALID")
	req := createRequest("n1")
	req.Class = "hgx"
	_, err = w.client.CreateNode(ctx, req, "")
	must(t, err)
	wantCode(t, w.client.RemoveClass(ctx, "hgx"), fleet.Conflict, "MC-CLASS-USED")
	wantCode(t, w.client.RemoveClass(ctx, "none"), fleet.NotFound, "MC-CLASS-UNKNOWN")

	site, err := w.client.Site(ctx)
	must(t, err)
	if site.Isolation != "required" {
		t.Errorf("a fresh site is %q", site.Isolation)
	}
	_, err = w.client.PutSite(ctx, fleet.Site{Isolation: "maybe", Denied: []string{"x"}, Origins: []string{"images.example.org"}})
	if fleet.KindOf(err) != fleet.Invalid || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("got %v", err)
	}
	_, err = w.client.PutSite(ctx, fleet.Site{Isolation: "none"})
	must(t, err)
	n, err := w.client.Node(ctx, "n1")
	must(t, err)
	c, err := w.client.Capabilities(ctx)
	must(t, err)
	if n.Isolation != "none" || c.Isolation != "none" || len(c.Lifecycle) != len(fleet.Lifecycle) || len(c.Steps) == 0 || c.Version != "1.2.3" {
		t.Errorf("got %q, %s", n.Isolation, asJSON(t, c))
	}
}
