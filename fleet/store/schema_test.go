package store_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

// newSchemaEnv lets the test write the file of a schema that has none yet; what is there is never written again.
const newSchemaEnv = "METALCTL_NEW_SCHEMA"

// TestSchemaFiles opens a store of every schema that there ever was with this program: it is backed up, migrated, sound, and what it was.
// The file of a schema is made once, by the program that introduces it: METALCTL_NEW_SCHEMA=1 go test -run TestSchemaFiles ./fleet/store
func TestSchemaFiles(t *testing.T) {
	for schema := range uint64(store.Schema) {
		schema++
		t.Run(fmt.Sprint(schema), func(t *testing.T) {
			if schema == store.Schema {
				newSchemaFile(t)
			}
			dir := contract.SchemaDir(t, "testdata", schema)
			var log bytes.Buffer
			db := contract.OpenStoreIn(t, dir, store.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
			if problems := db.Check(context.Background()); problems != nil {
				t.Errorf("the check of the store of schema %d: %v", schema, problems)
			}
			decodeAll(t, db)
			golden := fmt.Sprintf("testdata/schema%d.golden.json", schema)
			got := dump(t, db)
			if _, err := os.Lstat(golden); errors.Is(err, fs.ErrNotExist) && os.Getenv(newSchemaEnv) != "" {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("a store of schema %d is read as something else than it was:\n%s", schema, diff)
			}
			made, err := filepath.Glob(filepath.Join(dir, "backups", fmt.Sprintf("schema%d-r*", schema)))
			if err != nil {
				t.Fatal(err)
			}
			if schema == store.Schema {
				if len(made) != 0 {
					t.Errorf("a store of the present schema was backed up to %q", made)
				}
				return
			}
			if len(made) != 1 || !strings.Contains(log.String(), made[0]) {
				t.Fatalf("backups %q, and the log says: %s", made, log.String())
			}
			if m, problems, err := store.VerifyBackup(context.Background(), made[0], contract.TestKey()); err != nil || problems != nil || m.Schema != schema {
				t.Errorf("the backup before the migration: schema %d, %v, %v", m.Schema, problems, err)
			}
		})
	}
}

// decodeAll decodes every record into the type that this program has for it, without fields that it does not know, and back into the same.
func decodeAll(t *testing.T, db *store.DB) {
	t.Helper()
	seen := map[string]bool{}
	for _, r := range records(t, db) {
		kind := r.Key.Kind()
		seen[kind] = true
		if kind == fleet.KindMeta || kind == fleet.KindSecret {
			continue
		}
		make, ok := kinds[kind]
		if !ok {
			t.Errorf("%s: nobody knows records of kind %s any more", r.Key, kind)
			continue
		}
		contract.SameShape(t, string(r.Key), r.Data, make())
	}
	for kind := range kinds {
		if !seen[kind] {
			t.Errorf("the store of testdata has no record of kind %s", kind)
		}
	}
}

func records(t *testing.T, db *store.DB) []fleet.Record {
	t.Helper()
	var all []fleet.Record
	err := db.View(context.Background(), func(s fleet.Snapshot) error {
		for _, kind := range store.Kinds() {
			if err := s.List(kind, func(r fleet.Record) bool { all = append(all, r); return true }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// dump is all that a store says to those who ask it.
func dump(t *testing.T, db *store.DB) []byte {
	t.Helper()
	ctx := context.Background()
	id, err := db.Identity(ctx)
	if err != nil {
		t.Fatal(err)
	}
	type line struct {
		Key     fleet.Key       `json:"key"`
		Version int             `json:"version"`
		Rev     fleet.Revision  `json:"revision"`
		Data    json.RawMessage `json:"data"`
	}
	out := struct {
		Identity fleet.StoreIdentity `json:"identity"`
		Records  []line              `json:"records"`
		Events   []fleet.Event       `json:"events"`
		Blobs    map[string]string   `json:"blobs"`
	}{Identity: id, Blobs: map[string]string{}}
	for _, r := range records(t, db) {
		out.Records = append(out.Records, line{r.Key, r.Version, r.Revision, r.Data})
		for _, digest := range blobNames.FindAllString(string(r.Data), -1) {
			if f, err := db.OpenBlob(ctx, digest); err == nil {
				b, err := io.ReadAll(f)
				if err := errors.Join(err, f.Close()); err != nil {
					t.Fatal(err)
				}
				out.Blobs[digest] = string(b)
			}
		}
	}
	if out.Events, err = db.Events(ctx, 0, 1000); err != nil {
		t.Fatal(err)
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}
