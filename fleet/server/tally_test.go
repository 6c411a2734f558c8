package server

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
)

// TestTally: what is counted follows each record that is written, changed or dropped, and only those are decoded again.
func TestTally(t *testing.T) {
	db := contract.OpenStore(t)
	ctx := t.Context()
	decoded := 0
	runs := &tally[fleet.Operation, string]{kind: fleet.KindOperation, label: func(o fleet.Operation) string {
		decoded++
		return o.Use
	}}
	put := func(id, use string) {
		t.Helper()
		w := fleet.Write{Key: fleet.KeyOf(fleet.KindOperation, fleet.OperationID(id))}
		if use != "" {
			w.Value = fleet.Operation{ID: fleet.OperationID(id), Use: use, State: fleet.OperationDone}
		}
		if _, err := db.Commit(ctx, fleet.Change{Writes: []fleet.Write{w}}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, counts map[string]float64, most int) {
		t.Helper()
		decoded = 0
		var got map[string]float64
		if err := db.View(ctx, func(sn fleet.Snapshot) (err error) {
			got, err = runs.count(sn)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, counts); diff != "" {
			t.Errorf("%s (-got +want):\n%s", what, diff)
		}
		if decoded > most {
			t.Errorf("%s: %d records were decoded, want at most %d", what, decoded, most)
		}
	}
	want("nothing", map[string]float64{}, 0)
	for i := range 50 {
		put(fmt.Sprint("o", i), "clean")
	}
	want("fifty", map[string]float64{"clean": 50}, 50)
	want("the same again", map[string]float64{"clean": 50}, 0)
	put("o7", "deploy")
	put("o8", "")
	want("one changed, one dropped", map[string]float64{"clean": 48, "deploy": 1}, 1)
	for i := range 21 {
		put("o9", fmt.Sprint("use", i%2))
	}
	want("one many times", map[string]float64{"clean": 47, "deploy": 1, "use0": 1}, 1)
}
