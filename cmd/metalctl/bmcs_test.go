//go:build !ramdisk

package main

import (
	"log/slog"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
	"github.com/metalctl/metalctl/redfish"
)

// What a BMC's session says last reaches the store only while there is a node for it, and a forgotten node leaves no timeline.
func TestForgottenNodeLeavesNothing(t *testing.T) {
	db := contract.OpenStoreIn(t, t.TempDir(), store.Options{})
	b := newBMCs(db, db, slog.New(slog.DiscardHandler))
	const id fleet.NodeID = "01900000-0000-7000-8000-000000000001"
	secrets := func() (n int) {
		if err := db.View(t.Context(), func(s fleet.Snapshot) error {
			return s.List(fleet.KindSecret, func(fleet.Record) bool { n++; return true })
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	session := redfish.SavedSession{URI: "/redfish/v1/SessionService/Sessions/1", Token: fleet.NewSecret("t")}
	b.saveSession(id, session)
	if secrets() != 0 {
		t.Error("a session of a node that is gone is kept")
	}
	if _, err := db.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindNode, id), Value: fleet.Node{ID: id}}}}); err != nil {
		t.Fatal(err)
	}
	b.saveSession(id, session)
	if secrets() != 1 {
		t.Error("the session of a node is not kept")
	}
	db.AppendTimeline(id, fleet.TimelineEntry{At: time.Now(), Source: "redfish", Text: "GET /redfish/v1/"})
	b.Forgotten(id)
	if left, err := db.ReadTimeline(t.Context(), id, time.Time{}, 10); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
