package store_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

const next = store.Schema + 1

// toNext makes Open believe in the schema after this program's, reached by run.
func toNext(o store.Options, run func(*bbolt.Tx) error) store.Options {
	steps := make([]func(*bbolt.Tx) error, 0, next)
	for range store.Schema - 1 {
		steps = append(steps, func(*bbolt.Tx) error { return errors.New("a store of this schema is not migrated from an older one") })
	}
	return o.WithSchema(next, append(steps, run)...)
}

// oldStore makes a store of this program's schema and closes it.
func oldStore(t *testing.T) (dir string, file []byte) {
	t.Helper()
	dir = t.TempDir()
	db := mustOpen(t, dir)
	if _, err := db.PutBlob(context.Background(), "inventory", strings.NewReader("{}")); err != nil {
		t.Fatal(err)
	}
	put(t, db, "x/a", "old")
	put(t, db, "secret/a", fleet.NewSecret("hunter2"))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, readFile(t, filepath.Join(dir, "store.db"))
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func migratedBackups(t *testing.T, dir string) []string {
	t.Helper()
	made, err := filepath.Glob(filepath.Join(dir, "backups", fmt.Sprintf("schema%d-r*", store.Schema)))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// TestBackupBeforeMigration: when the first migration runs, the file is byte for byte what it was, and a backup of it is there that restores.
func TestBackupBeforeMigration(t *testing.T) {
	dir, before := oldStore(t)
	var log bytes.Buffer
	var seen []string
	o := toNext(store.Options{Key: contract.TestKey(), Log: slog.New(slog.NewTextHandler(&log, nil))}, func(tx *bbolt.Tx) error {
		if !bytes.Equal(readFile(t, filepath.Join(dir, "store.db")), before) {
			t.Error("the file was written before the first migration")
		}
		seen = migratedBackups(t, dir)
		if len(seen) != 1 {
			t.Fatalf("backups when the migration begins: %q", seen)
		}
		if _, problems, err := store.VerifyBackup(context.Background(), seen[0], contract.TestKey()); err != nil || problems != nil {
			t.Errorf("the backup: %v, %v", problems, err)
		}
		if !strings.Contains(log.String(), "migrating the store") || !strings.Contains(log.String(), seen[0]) {
			t.Errorf("the log does not name %s: %s", seen[0], log.String())
		}
		return tx.Bucket([]byte("records")).Put([]byte("x/b"), store.EncodeRecord("x", 1, 1, `"new"`))
	})
	db, err := store.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if got := get[string](t, db, "x/b"); got != "new" {
		t.Errorf("after the migration: %q", got)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 1 || !strings.Contains(log.String(), "store migrated") {
		t.Errorf("backups %q, log %s", seen, log.String())
	}
}

// TestDamagedBackupIsNotReliedOn: a migration that is tried again does not take a backup for good that was changed since.
func TestDamagedBackupIsNotReliedOn(t *testing.T) {
	dir, _ := oldStore(t)
	broken := errors.New("half-way")
	o := store.Options{Key: contract.TestKey()}
	if _, err := store.Open(dir, toNext(o, func(*bbolt.Tx) error { return broken })); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	first := migratedBackups(t, dir)
	if len(first) != 1 {
		t.Fatalf("backups %q", first)
	}
	if err := os.Truncate(filepath.Join(first[0], "store.db"), 4096); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(dir, toNext(o, func(*bbolt.Tx) error { return nil }))
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	if both := migratedBackups(t, dir); len(both) != 2 || both[1] != first[0]+"-2" {
		t.Errorf("backups %q, want a second one beside the damaged", both)
	}
}

// TestUnsoundStoreIsNotMigrated: what does not hold is not carried into another schema, and the program before goes on.
func TestUnsoundStoreIsNotMigrated(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir)
	put(t, db, "node/n1", fleet.Node{ID: "n2", Name: "hgx-2"})
	db.Close()
	_, err := store.Open(dir, toNext(store.Options{Key: contract.TestKey()}, func(*bbolt.Tx) error {
		t.Error("an unsound store was migrated")
		return nil
	}))
	wantCode(t, err, fleet.Refused, "MC-STORE-UNSOUND")
	if !strings.Contains(err.Error(), `node/n1`) || len(migratedBackups(t, dir)) != 0 {
		t.Errorf("%v; backups %q", err, migratedBackups(t, dir))
	}
	mustOpen(t, dir)
}

// TestOlderProgram: it refuses in words, names the backup, and the command that it names leads back.
func TestOlderProgram(t *testing.T) {
	dir, _ := oldStore(t)
	db, err := store.Open(dir, toNext(store.Options{Key: contract.TestKey()}, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("records")).Delete([]byte("x/a")) }))
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	made := migratedBackups(t, dir)
	if len(made) != 1 {
		t.Fatalf("backups %q", made)
	}

	_, err = store.Open(dir, store.Options{Key: contract.TestKey()})
	wantCode(t, err, fleet.Refused, "MC-STORE-NEWER")
	if want := fmt.Sprintf("the store in %s has schema %d and this program reads up to %d", dir, next, store.Schema); !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	if want := fmt.Sprintf("metalctl server restore %s --data-dir %s --move-aside", made[0], dir); !strings.HasSuffix(fleet.HintOf(err), want) {
		t.Errorf("the hint is %q, want it to end with %q", fleet.HintOf(err), want)
	}
	o := restoreOptions()
	o.MoveAside = true
	if _, err := store.Restore(context.Background(), made[0], dir, o); err != nil {
		t.Fatal(err)
	}
	if got := get[string](t, mustOpen(t, dir), "x/a"); got != "old" {
		t.Errorf("after the way back: %q", got)
	}
}

func TestOlderProgramWithoutBackup(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(dir, store.Options{Key: contract.TestKey()}.WithSchema(next))
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	_, err = store.Open(dir, store.Options{Key: contract.TestKey()})
	wantCode(t, err, fleet.Refused, "MC-STORE-NEWER")
	if !strings.Contains(fleet.HintOf(err), "start the newer metalctl again") || strings.Contains(fleet.HintOf(err), "server restore") {
		t.Errorf("the hint is %q", fleet.HintOf(err))
	}
}

// haltAt is where the child of TestKilledMigration waits for its end.
const haltAt = "METALCTL_STORE_HALT"

// TestChildMigrates is the program that TestKilledMigration kills.
func TestChildMigrates(t *testing.T) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		t.Skip("child: runs as the child of TestKilledMigration")
	}
	halt := func(at string) {
		if os.Getenv(haltAt) == at {
			fmt.Println("halted")
			io.Copy(io.Discard, os.Stdin) //nolint:errcheck // until the parent kills this process
		}
	}
	o := store.Options{
		Key: contract.TestKey(),
		Now: func() time.Time { halt("while backing up"); return time.Now() },
		Log: slog.New(haltingLog{slog.DiscardHandler, halt}),
	}
	db, err := store.Open(dir, toNext(o, func(tx *bbolt.Tx) error {
		err := tx.Bucket([]byte("records")).Put([]byte("x/a"), store.EncodeRecord("x", 1, 1, `"new"`))
		halt("within the migration")
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	fmt.Println("migrated")
}

// haltingLog halts at a message.
type haltingLog struct {
	slog.Handler
	halt func(string)
}

func (haltingLog) Enabled(context.Context, slog.Level) bool { return true }

func (h haltingLog) Handle(_ context.Context, r slog.Record) error {
	h.halt("at " + r.Message)
	return nil
}

// TestKilledMigration kills an upgrade at each of its stages: the store is the old one or the new one, whole, and the next start goes on.
func TestKilledMigration(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: starts and kills processes")
	}
	for at, want := range map[string]string{"while backing up": "old", "at migrating the store": "old", "within the migration": "old", "at store migrated": "new"} {
		t.Run(at, func(t *testing.T) {
			dir, before := oldStore(t)
			child(t, dir, at, "halted")
			if want == "old" {
				if !bytes.Equal(readFile(t, filepath.Join(dir, "store.db")), before) {
					t.Error("the old store was written to")
				}
				db := contract.OpenStoreIn(t, dir, store.Options{}) // the older program goes on
				if got := get[string](t, db, "x/a"); got != "old" {
					t.Errorf("the old program reads %q", got)
				}
				db.Close()
			} else {
				_, err := store.Open(dir, store.Options{Key: contract.TestKey()})
				wantCode(t, err, fleet.Refused, "MC-STORE-NEWER")
			}
			child(t, dir, "never", "migrated")
			if made := migratedBackups(t, dir); len(made) != 1 {
				t.Errorf("backups %q", made)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "backups", ".*")); err != nil || len(left) != 0 {
				t.Errorf("left behind: %q, %v", left, err)
			}
		})
	}
}

// child migrates dir in a process of its own until it prints want, and kills it then.
func child(t *testing.T, dir, at, want string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChildMigrates$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"="+dir, haltAt+"="+at)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found := false
	for lines := bufio.NewScanner(out); !found && lines.Scan(); {
		found = lines.Text() == want
		if !found && strings.Contains(lines.Text(), "FAIL") {
			t.Error(lines.Text())
		}
	}
	cmd.Process.Kill() //nolint:errcheck // it may have ended
	cmd.Wait()         //nolint:errcheck // it was killed
	if !found {
		t.Fatalf("the child that should halt %q never said %q", at, want)
	}
}
