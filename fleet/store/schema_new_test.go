package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/store"
)

var blobNames = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

// newSchemaFile writes testdata/schemaN.tar for this program's schema where it is asked to and there is none: a backup of a store with one of everything.
func newSchemaFile(t *testing.T) {
	t.Helper()
	path := fmt.Sprintf("testdata/schema%d.tar", store.Schema)
	if _, err := os.Lstat(path); err == nil || !errors.Is(err, fs.ErrNotExist) || os.Getenv(newSchemaEnv) == "" {
		return
	}
	ctx := context.Background()
	db, err := store.Open(t.TempDir(), store.Options{Key: contract.TestKey(), Now: func() time.Time { return schemaTime }})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	oneOfEverything(t, db)
	folder := filepath.Join(t.TempDir(), "backup")
	if _, err := db.Backup(ctx, folder, "metalctl"); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(store.WriteArchive(ctx, folder, f), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// oneOfEverything commits a record of each kind, with every field that it has, in relations that hold.
func oneOfEverything(t *testing.T, db *store.DB) {
	t.Helper()
	ctx := context.Background()
	inventory := filled[fleet.Inventory]()
	text, err := json.Marshal(inventory)
	if err != nil {
		t.Fatal(err)
	}
	seen, err := db.PutBlob(ctx, "inventory", strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	userData, err := db.PutBlob(ctx, store.BlobUserData, strings.NewReader("#cloud-config\n"))
	if err != nil {
		t.Fatal(err)
	}
	node := filled[fleet.Node]()
	node.ID, node.Name, node.Class, node.State, node.Lease, node.Dirty = "n1", "hgx-1", "hgx", fleet.Deploying, "l1", "l1"
	node.Operation, node.LastOperation, node.Inventory, node.Boot.MediaID, node.Wish.Operation = "o1", "o0", seen, "m1", "o2"
	free, fresh := node, fleet.Node{ID: "n3", Name: "hgx-3", State: fleet.Enrolled, Dirty: fleet.DirtyUnknown, CreatedAt: schemaTime}
	free.ID, free.Name, free.State, free.Lease, free.Dirty, free.Operation, free.LastOperation, free.Wish = "n2", "hgx-2", fleet.Available, "", "", "", "", nil
	running, over := filled[fleet.Operation](), filled[fleet.Operation]()
	running.ID, running.Node, running.State, running.Lease = "o1", "n1", fleet.OperationRunning, "l1"
	over.ID, over.Node, over.State = "o0", "n1", fleet.OperationDone
	lease := filled[fleet.Lease]()
	lease.ID, lease.Name, lease.State, lease.UserData = "l1", "training", fleet.LeaseDeploying, userData
	lease.Members[0].Node, lease.Members[0].State = "n1", fleet.MemberDeploying
	class, image, pack, token := filled[fleet.Class](), filled[fleet.Image](), filled[fleet.Pack](), filled[fleet.Token]()
	class.Name, image.Name, pack.Name, pack.Version, token.Name = "hgx", "debian-12", "tools", "1", "night-shift"
	freeze, approval, claim := filled[fleet.Freeze](), filled[fleet.Approval](), filled[reconcile.Claim]()
	freeze.ID, approval.ID, claim.Node, claim.Operation = "f1", "a1", "n1", "o1"
	for key, v := range map[string]any{
		"node/n1": node, "node/n2": free, "node/n3": fresh, "operation/o1": running, "operation/o0": over, "lease/l1": lease,
		"class/hgx": class, "image/debian-12": image, "pack/tools@1": pack, "site/site": filled[fleet.Site](), "claim/n1": claim,
		"unique/node-name/hgx-1": "n1", "unique/medium/m1": "n1", "unique/lease-name/training": "l1", "ca/c1": "-----BEGIN CERTIFICATE-----\n",
		"freeze/f1": freeze, "harm/release": filled[fleet.HarmRecord](), "approval/a1": approval, "token/t1": token,
		"meta/allocation-epoch": 7, "meta/admin-token": strings.Repeat("0", 64), "meta/witness": "epoch/7",
		"meta/clock": map[string]any{"seen": schemaTime, "wall": schemaTime, "ran": time.Hour},
		"meta/answer/k1": map[string]any{"at": schemaTime, "request": "r", "process": "p", "status": 201, "header": map[string]string{"Etag": `"7"`},
			"body": []byte("{}"), "too_large": true},
		"secret/node/n1/bmc": fleet.NewSecret("correct-horse"), "secret/node/n1/session": fleet.NewSecret(`{"token":"x"}`),
		"secret/boot/n1": fleet.NewSecret(fmt.Sprintf(`{"media_id":"m","generation":7,"credential":"c","issued_at":%q}`, schemaTime.Format(time.RFC3339))),
	} {
		put(t, db, key, v)
	}
	event := filled[fleet.Event]()
	if _, err := db.Commit(ctx, fleet.Change{Events: []fleet.Event{event, event}}); err != nil {
		t.Fatal(err)
	}
	if problems := db.Check(ctx); problems != nil {
		t.Fatalf("the store that would be kept for schema %d: %v", store.Schema, problems)
	}
}
