package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/store"
)

var errEnough = errors.New("seen enough")

func TestEventsFollowAndResume(t *testing.T) {
	w := newWorld(t, nil)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i := range 5 {
		w.enrol(fmt.Sprintf("n%d", i))
	}
	var first []fleet.Event
	err := w.client.Events(ctx, 0, func(e fleet.Event) error {
		if first = append(first, e); len(first) == 3 {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	rest, err := w.client.EventsSince(ctx, first[2].ID, 100)
	must(t, err)
	if len(rest) != 2 || rest[0].ID != first[2].ID+1 || rest[0].Type != "node.enrolled" || rest[0].Node == "" {
		t.Errorf("got %s", asJSON(t, rest))
	}
	// What is committed while one follows comes, and only what is about the node that was named.
	followed := make(chan fleet.Event, 10)
	following, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- w.client.Watch(following, api.WatchOptions{After: rest[1].ID, Node: "n1", Event: func(e fleet.Event) error { followed <- e; return nil }})
	}()
	labels := map[string]string{"a": "b"}
	for _, name := range []string{"n0", "n1"} {
		_, err := w.client.PatchNode(ctx, name, api.NodePatch{Labels: &labels}, 0)
		must(t, err)
	}
	if e := <-followed; e.Type != "node.changed" || e.Node != w.idOf("n1") {
		t.Errorf("got %s", asJSON(t, e))
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	h, err := w.client.History(ctx, "n1", 0)
	must(t, err)
	if e := h.Events; !h.Complete || len(e) != 2 || e[0].Type != "node.enrolled" || e[1].Type != "node.changed" || len(h.Stays) != 1 || h.Totals[0].State != fleet.Enrolled {
		t.Errorf("got %s", asJSON(t, h))
	}
}

// A client that follows goes on after the server was restarted, and misses nothing. The address changes with the port, so that the stream is
// read by hand here.
func TestEventStreamsOnTheWire(t *testing.T) {
	w := newWorld(t, nil)
	w.enrol("n1")
	_, h, body := w.raw(http.MethodGet, "/api/v1/events", "", nil)
	var e fleet.Event
	if h.Get("Content-Type") != "application/x-ndjson" || json.Unmarshal(body, &e) != nil || e.Type != "node.enrolled" {
		t.Errorf("JSON: %s %s", h.Get("Content-Type"), body)
	}
	_, h, body = w.raw(http.MethodGet, "/api/v1/events?follow=false", "", map[string]string{"Accept": "text/event-stream"})
	if h.Get("Content-Type") != "text/event-stream" || !strings.Contains(string(body), "event: node.enrolled\nid: 1\ndata: {") {
		t.Errorf("SSE: %s %q", h.Get("Content-Type"), body)
	}
	_, _, body = w.raw(http.MethodGet, "/api/v1/events?follow=false&format=sse", "", map[string]string{"Last-Event-ID": "1"})
	if strings.Contains(string(body), "node.enrolled") {
		t.Errorf("resumed: %q", body)
	}
	for _, q := range []string{"?after=x", "?after=-7", "?follow=maybe", "?colour=red", "?format=xml", "?node=none-such"} {
		status, _, body := w.raw(http.MethodGet, "/api/v1/events"+q, "", nil)
		if problemOf(t, body); status != 422 && status != 404 {
			t.Errorf("%s: %d %s", q, status, body)
		}
	}
	status, _, body := w.raw(http.MethodGet, "/api/v1/events?after=999999", "", nil)
	if p := problemOf(t, body); status != 410 || p.Code != "MC-EVENTS-GONE" {
		t.Errorf("events of another life: %d %s", status, body)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	wantCode(t, w.client.Events(ctx, 999999, func(fleet.Event) error { return nil }), fleet.NotFound, "MC-EVENTS-GONE")
}

// Of progress a reader gets what is newest, also one that comes late.
func TestProgressLatestWins(t *testing.T) {
	w := newWorld(t, nil)
	n := w.enrol("n1")
	for i := range 100 {
		w.PutProgress(fleet.Progress{Node: n.ID, Operation: "op", Step: "write-image", Percent: float64(i)})
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got := make(chan fleet.Progress, 1000)
	ended := make(chan error, 1)
	go func() {
		ended <- w.client.Progress(ctx, func(p fleet.Progress) error {
			got <- p
			if p.Percent == 100 {
				return errEnough
			}
			return nil
		})
	}()
	if p := <-got; p.Percent != 99 {
		t.Errorf("the first that a late reader gets is %v %%", p.Percent)
	}
	for i := range 1000 {
		w.PutProgress(fleet.Progress{Node: n.ID, Operation: "op", Step: "write-image", Percent: float64(i) / 10})
	}
	w.PutProgress(fleet.Progress{Node: n.ID, Operation: "op", Step: "write-image", Percent: 100})
	if err := <-ended; !errors.Is(err, errEnough) {
		t.Errorf("got %v", err)
	}
}

// A server that stops ends streams and long polls at once.
func TestStreamsEndWithTheServer(t *testing.T) {
	w := newWorld(t, nil)
	w.enrol("n1")
	id, err := w.client.NodeVerb(context.Background(), "n1", "inspect", api.NodeVerb{})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	client := w.newClient(w.token)
	seen := make(chan struct{}, 100)
	ended := make(chan struct{}, 2)
	go func() {
		client.Events(ctx, 0, func(fleet.Event) error { seen <- struct{}{}; return nil }) //nolint:errcheck // it ends with ctx
		ended <- struct{}{}
	}()
	go func() {
		client.Operation(context.Background(), id, maxWait) //nolint:errcheck // it is answered or cut, but does not wait on
		ended <- struct{}{}
	}()
	<-seen
	begin := time.Now()
	w.stop()
	if d := time.Since(begin); d > patience {
		t.Errorf("it took %s", d)
	}
	cancel()
	for range 2 {
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatal("a caller waits on")
		}
	}
}

// After old events were dropped, history and streams begin with the oldest that is kept.
func TestOldestEvent(t *testing.T) {
	db := contract.OpenStoreIn(t, t.TempDir(), store.Options{Limits: store.Limits{Events: 10}})
	s := &Server{Deps: Deps{Store: db}}
	ctx := context.Background()
	for i := range 60 {
		before, err := s.oldestEvent(ctx)
		must(t, err)
		kept, err := db.Events(ctx, before, 1000)
		must(t, err)
		last, err := db.LastEvent(ctx)
		must(t, err)
		if last != int64(i) || len(kept) > 0 && (kept[0].ID != before+1 || kept[len(kept)-1].ID != last) || i > 0 && len(kept) == 0 {
			t.Fatalf("after %d events: the oldest follows %d, %d are kept, the newest is %d", i, before, len(kept), last)
		}
		_, err = db.Commit(ctx, fleet.Change{Events: []fleet.Event{{Type: "test", At: time.Now(), Text: "x"}}})
		must(t, err)
	}
	if before, err := s.oldestEvent(ctx); err != nil || before == 0 {
		t.Errorf("nothing was dropped: %d, %v", before, err)
	}
}
