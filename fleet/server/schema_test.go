package server

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

// TestRecordsOfEverySchema: what only the server knows of a store is read as it was written, by whatever program.
func TestRecordsOfEverySchema(t *testing.T) {
	for schema := range uint64(store.Schema) {
		t.Run(fmt.Sprint(schema+1), func(t *testing.T) {
			db := contract.OpenStoreIn(t, contract.SchemaDir(t, "../store/testdata", schema+1), store.Options{})
			err := db.View(context.Background(), func(s fleet.Snapshot) error {
				for key, v := range map[fleet.Key]any{answersPrefix + "k1": &keptAnswer{}, adminKey: new(string), mediumClaim("m1"): new(fleet.NodeID)} {
					r, err := s.Get(key)
					if err != nil {
						return err
					}
					contract.SameShape(t, string(key), r.Data, v)
				}
				r, err := s.Get(bootSecretKey("n1"))
				if err != nil {
					return err
				}
				var text string
				if err := json.Unmarshal(r.Data, &text); err != nil {
					return err
				}
				contract.SameShape(t, string(r.Key), []byte(text), &bootSecret{})
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
