package server

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

const oldest fleet.NodeID = "01940000-0000-7000-8000-000000000001"

// busyStore commits an event each of the first few times that many events are asked for, just before it answers.
type busyStore struct {
	Store
	t     *testing.T
	times int
}

func (b *busyStore) commit() {
	b.t.Helper()
	_, err := b.Store.Commit(b.t.Context(), fleet.Change{Events: []fleet.Event{{Type: "test", Node: oldest, At: time.Now()}}})
	must(b.t, err)
}

func (b *busyStore) Events(ctx context.Context, after int64, limit int) ([]fleet.Event, error) {
	if b.times > 0 && limit > 1 { // one event is asked for to find the oldest
		b.times--
		b.commit()
	}
	return b.Store.Events(ctx, after, limit)
}

// TestOldestEventIsDropped: where each commit drops the oldest event, whoever asks for all that are kept is not told that they are gone.
func TestOldestEventIsDropped(t *testing.T) {
	db := contract.OpenStoreIn(t, t.TempDir(), store.Options{Limits: store.Limits{Events: 10}})
	b := &busyStore{Store: db, t: t}
	s := &Server{Deps: Deps{Store: b, Log: slog.New(slog.DiscardHandler), Now: time.Now}, progress: newProgressHub(), ctx: t.Context()}
	_, err := db.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindNode, oldest), Value: fleet.Node{ID: oldest, Name: "n1"}}}})
	must(t, err)
	for range 30 {
		b.commit()
	}
	for times := range 4 {
		b.times = times
		r := httptest.NewRequest(http.MethodGet, "/api/v1/events?follow=false&after=0", nil)
		w := httptest.NewRecorder()
		s.streamEvents(w, r)
		if lines := strings.Count(w.Body.String(), "\n"); w.Code != http.StatusOK || lines < 10 {
			t.Errorf("%d commits meanwhile: status %d, %d events:\n%s", times, w.Code, lines, w.Body)
		}
		b.times = times
		h, err := s.getHistory(t.Context(), &historyIn{Item: Item{ID: string(oldest)}})
		if err != nil || len(h.Body.Events) < 10 || h.Body.Complete {
			t.Errorf("%d commits meanwhile: %+v, %v", times, h, err)
		}
	}
}

// TestMeasuresFromItsCursor: what ended before the observer's first look is measured, too, where it came after the cursor.
func TestMeasuresFromItsCursor(t *testing.T) {
	w := newWorld(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	id := fleet.LeaseID("01940000-0000-7000-8000-00000000001e")
	after, err := w.Store.LastEvent(ctx)
	must(t, err)
	w.stop()
	began := time.Now()
	_, err = w.Store.Commit(ctx, fleet.Change{
		Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindLease, id), Value: fleet.Lease{ID: id, State: fleet.LeaseActive, CreatedAt: began, Since: began.Add(90 * time.Second)}}},
		Events: []fleet.Event{{Type: "lease.state", Lease: id, At: began}}})
	must(t, err)
	ended := make(chan error, 1)
	go func() { ended <- w.observe(ctx, after, nil) }()
	defer func() { cancel(); must(t, <-ended) }()
	waits := prometheus.NewRegistry()
	must(t, waits.Register(w.leaseWait))
	for over := time.Now().Add(patience); ; {
		m, err := waits.Gather()
		must(t, err)
		if m[0].GetMetric()[0].GetHistogram().GetSampleSum() == 90 {
			return
		}
		if time.Now().After(over) {
			t.Fatalf("it was not measured: %v", m)
		}
	}
}
