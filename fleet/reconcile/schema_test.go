package reconcile_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/store"
)

// TestRecordsOfEverySchema: what only the engine knows of a store is read as it was written, by whatever program.
func TestRecordsOfEverySchema(t *testing.T) {
	for schema := range uint64(store.Schema) {
		t.Run(fmt.Sprint(schema+1), func(t *testing.T) {
			db := contract.OpenStoreIn(t, contract.SchemaDir(t, "../store/testdata", schema+1), store.Options{})
			err := db.View(context.Background(), func(s fleet.Snapshot) error {
				for key, v := range map[fleet.Key]any{reconcile.ClockKey: &reconcile.ClockRecord{}, fleet.AllocationEpoch: new(int64), fleet.KeyOf(fleet.KindClaim, "n1"): &reconcile.Claim{}} {
					r, err := s.Get(key)
					if err != nil {
						return err
					}
					contract.SameShape(t, string(key), r.Data, v)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
