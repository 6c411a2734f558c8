package server

import (
	"slices"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

func TestConcernedByACommit(t *testing.T) {
	db, err := store.Open(t.TempDir(), store.Options{Key: make([]byte, store.KeySize)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	put := func(key fleet.Key, v any) (before fleet.Revision) {
		t.Helper()
		rev, err := db.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: key, Value: v}}})
		if err != nil {
			t.Fatal(err)
		}
		return rev - 1
	}
	put(fleet.KeyOf(fleet.KindNode, fleet.NodeID("n1")), fleet.Node{ID: "n1"})
	put(fleet.KeyOf(fleet.KindNode, fleet.NodeID("n2")), fleet.Node{ID: "n2"})
	for name, c := range map[string]struct {
		key   fleet.Key
		value any
		ids   []fleet.NodeID
		known bool
	}{
		"its node":               {fleet.KeyOf(fleet.KindNode, fleet.NodeID("n1")), fleet.Node{ID: "n1", Name: "x"}, []fleet.NodeID{"n1"}, true},
		"its operation":          {fleet.KeyOf(fleet.KindOperation, fleet.OperationID("o")), fleet.Operation{ID: "o", Node: "n2"}, []fleet.NodeID{"n2"}, true},
		"an operation that goes": {fleet.KeyOf(fleet.KindOperation, fleet.OperationID("o")), nil, nil, true},
		"a lease":                {fleet.KeyOf(fleet.KindLease, fleet.LeaseID("l")), fleet.Lease{ID: "l"}, nil, true},
		"a freeze":               {fleet.KeyOf(fleet.KindFreeze, fleet.FreezeID("f")), fleet.Freeze{ID: "f"}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			since := put(c.key, c.value)
			err := db.View(t.Context(), func(s fleet.Snapshot) error {
				ids, known, err := concerned(s, since)
				if known != c.known || !slices.Equal(ids, c.ids) {
					t.Errorf("got %v, %v, want %v, %v", ids, known, c.ids, c.known)
				}
				if _, known, _ := concerned(s, 0); known {
					t.Error("who knows nothing yet is told that only some are concerned")
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
