package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

const otherServer = "https://primary:8443"

// pair is a store and a replica of it that has its first copy.
type pair struct {
	db   *store.DB
	r    *store.Replica
	dir  string // the replica's
	last int64
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{db: mustOpen(t, t.TempDir()), dir: t.TempDir()}
	put(t, p.db, "secret/a", fleet.NewSecret("one"))
	p.r = mustReplica(t, p.dir)
	p.copy(t)
	return p
}

func mustReplica(t *testing.T, dir string) *store.Replica {
	t.Helper()
	r, err := store.OpenReplica(dir, store.Options{Key: contract.TestKey()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// copy brings a whole copy and every file.
func (p *pair) copy(t *testing.T) (aside string) {
	t.Helper()
	ctx := context.Background()
	path, err := p.r.CopyPath()
	if err != nil {
		t.Fatal(err)
	}
	pos, err := p.db.CopyFile(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	if p.last, err = p.db.Follow(pos); err != nil {
		t.Fatal(err)
	}
	if aside, err = p.r.Install(ctx, path, otherServer); err != nil {
		t.Fatal(err)
	}
	files, err := p.db.Files(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		p.file(t, f)
	}
	return aside
}

func (p *pair) file(t *testing.T, path string) {
	t.Helper()
	f, err := p.db.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := p.r.PutFile(context.Background(), path, f); err != nil {
		t.Fatal(err)
	}
}

// log is what the replica has not seen yet.
func (p *pair) log(t *testing.T) []fleet.LogEntry {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	entries, err := p.db.LogAfter(ctx, p.last)
	if err != nil {
		t.Fatal(err)
	}
	p.last = entries[len(entries)-1].Seq
	return entries
}

// contents is everything that a store shows.
func contents(t *testing.T, v interface {
	View(context.Context, func(fleet.Snapshot) error) error
}) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := v.View(context.Background(), func(s fleet.Snapshot) error {
		out["revision"] = fmt.Sprint(s.Revision())
		for _, kind := range []string{fleet.KindNode, fleet.KindLease, fleet.KindSecret, fleet.KindMeta, "thing"} {
			err := s.List(kind, func(r fleet.Record) bool {
				out[string(r.Key)] = fmt.Sprintf("%d %s", r.Revision, r.Data)
				return true
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestReplicaRepeatsEverything(t *testing.T) {
	p, ctx := newPair(t), context.Background()
	var digests []string
	for i := range 30 {
		put(t, p.db, fmt.Sprintf("thing/%d", i%7), map[string]int{"i": i})
		put(t, p.db, fmt.Sprintf("secret/%d", i%3), fleet.NewSecret(fmt.Sprint("secret ", i)))
		kind := "inventory"
		if i%2 == 0 {
			kind = store.BlobUserData
		}
		d, err := p.db.PutBlob(ctx, kind, strings.NewReader(fmt.Sprint("blob ", i)))
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d)
		c := fleet.Change{Writes: []fleet.Write{{Key: fleet.Key(fmt.Sprintf("thing/%d", (i+3)%7))}}, Events: []fleet.Event{{Type: "test", Text: fmt.Sprint(i)}}}
		if _, err := p.db.Commit(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	for p.last == 0 || p.db.Position() != where(t, p.r) {
		var batches []fleet.LogEntry
		for _, e := range p.log(t) {
			if e.File != "" {
				p.file(t, e.File)
				continue
			}
			batches = append(batches, e)
		}
		if _, err := p.r.Apply(ctx, batches); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(contents(t, p.db), contents(t, p.r)); d != "" {
		t.Errorf("the replica holds something else (-primary +replica):\n%s", d)
	}
	want, err := p.db.Events(ctx, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	id, err := p.r.Promote(ctx, "test", true)
	if err != nil {
		t.Fatal(err)
	}
	if id.Generation() != 2 {
		t.Errorf("generation %d, want 2", id.Generation())
	}
	db := mustOpen(t, p.dir)
	got, err := db.Events(ctx, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("other events (-primary +replica):\n%s", d)
	}
	for _, d := range digests {
		if b, err := db.OpenBlob(ctx, d); err != nil {
			t.Error(err)
		} else if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	role, err := db.Role(ctx)
	if err != nil || role.Kind != fleet.RoleActs || !role.HandsOff || role.Peer != otherServer {
		t.Errorf("role %+v, %v", role, err)
	}
	if err := db.HandsOn(ctx); err != nil {
		t.Fatal(err)
	}
	if role, err = db.Role(ctx); err != nil || role != (fleet.StoreRole{}) {
		t.Errorf("role %+v, %v", role, err)
	}
	put(t, db, "thing/new", 1)
}

func where(t *testing.T, r *store.Replica) fleet.Position {
	t.Helper()
	pos, _, _, ok, err := r.State(context.Background())
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	return pos
}

// TestReplicaTakesNothingThatDoesNotFit cuts, changes, repeats, reorders and leaves out batches: each is refused, nothing of it is applied, and what
// fits is taken afterwards.
func TestReplicaTakesNothingThatDoesNotFit(t *testing.T) {
	p, ctx := newPair(t), context.Background()
	for i := range 3 {
		put(t, p.db, fmt.Sprint("thing/", i), i)
	}
	var good []fleet.LogEntry
	for len(good) < 3 {
		good = append(good, p.log(t)...)
	}
	bent := func(f func(e *fleet.LogEntry)) fleet.LogEntry {
		e := good[0]
		e.Batch = bytes.Clone(e.Batch)
		f(&e)
		return e
	}
	cases := map[string][]fleet.LogEntry{
		"one left out":       {good[1]},
		"in another order":   {good[1], good[0]},
		"one twice":          {good[0], good[0]},
		"a later one cut":    {good[0], {Batch: good[1].Batch[:len(good[1].Batch)-1], Chain: good[1].Chain}},
		"another's digest":   {bent(func(e *fleet.LogEntry) { e.Chain = good[1].Chain })},
		"no digest":          {bent(func(e *fleet.LogEntry) { e.Chain = "" })},
		"something appended": {bent(func(e *fleet.LogEntry) { e.Batch = append(e.Batch, 0) })},
	}
	for i := range good[0].Batch {
		cases[fmt.Sprint("cut at ", i)] = []fleet.LogEntry{{Batch: good[0].Batch[:i], Chain: good[0].Chain}}
		cases[fmt.Sprint("a bit changed in byte ", i)] = []fleet.LogEntry{bent(func(e *fleet.LogEntry) { e.Batch[i] ^= 1 })}
	}
	before, pos := contents(t, p.r), where(t, p.r)
	for name, entries := range cases {
		if _, err := p.r.Apply(ctx, entries); fleet.CodeOf(err) != "MC-STANDBY-DIVERGED" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if d := cmp.Diff(before, contents(t, p.r)); d != "" || where(t, p.r) != pos {
		t.Fatalf("what was refused has changed the replica:\n%s", d)
	}
	if got, err := p.r.Apply(ctx, good); err != nil || got != p.db.Position() {
		t.Errorf("%+v, %v; want %+v", got, err, p.db.Position())
	}
}

func TestReplicaResumesOrIsTooFarBehind(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir)
	first := db.Position()
	if _, err := db.Follow(first); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", 300<<10)
	var positions []fleet.Position
	for i := range 5 {
		put(t, db, fmt.Sprint("thing/", i), i)
		positions = append(positions, db.Position())
	}
	for i, pos := range append([]fleet.Position{first}, positions...) {
		seq, err := db.Follow(pos)
		if err != nil || seq != int64(i) {
			t.Errorf("position %d: entry %d, %v", i, seq, err)
		}
	}
	for name, pos := range map[string]fleet.Position{
		"another life":     {Epoch: "other", Revision: positions[2].Revision, Chain: positions[2].Chain},
		"another branch":   {Epoch: first.Epoch, Revision: positions[2].Revision, Chain: positions[1].Chain},
		"from the future":  {Epoch: first.Epoch, Revision: positions[4].Revision + 1, Chain: positions[4].Chain},
		"an empty replica": {},
	} {
		if _, err := db.Follow(pos); fleet.CodeOf(err) != "MC-STANDBY-BEHIND" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range 300 { // 90 MiB are more than is kept
		put(t, db, fmt.Sprint("thing/", i%3), big)
	}
	if _, err := db.Follow(first); fleet.CodeOf(err) != "MC-STANDBY-BEHIND" {
		t.Errorf("the oldest entries are still kept: %v", err)
	}
	if _, err := db.LogAfter(context.Background(), 2); fleet.CodeOf(err) != "MC-STANDBY-BEHIND" {
		t.Errorf("a reader that fell behind goes on: %v", err)
	}
	if _, err := db.Follow(db.Position()); err != nil {
		t.Error(err)
	}
}

func TestStoreOfAFollowerDoesNotAct(t *testing.T) {
	p, ctx := newPair(t), context.Background()
	if _, err := p.r.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: "thing/x", Value: 1}}}); fleet.CodeOf(err) != "MC-STANDBY-FOLLOWS" {
		t.Errorf("a follower took a change: %v", err)
	}
	if err := p.r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(p.dir, store.Options{Key: contract.TestKey()}); fleet.CodeOf(err) != "MC-STANDBY-FOLLOWS" {
		t.Errorf("a follower's store was opened to act: %v", err)
	}
	db, err := store.Open(p.dir, store.Options{Key: contract.TestKey(), AnyRole: true})
	if err != nil {
		t.Fatal(err)
	}
	if problems := db.Check(ctx); len(problems) > 0 {
		t.Error(problems)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	p.r = mustReplica(t, p.dir) // a restart goes on where it was
	put(t, p.db, "thing/y", 1)
	if pos, err := p.r.Apply(ctx, p.log(t)); err != nil || pos != p.db.Position() {
		t.Errorf("%+v, %v", pos, err)
	}
}

func TestRetiredStoreNeverActsAgain(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	db, err := store.Open(dir, store.Options{Key: contract.TestKey()})
	if err != nil {
		t.Fatal(err)
	}
	put(t, db, "thing/a", 1)
	last, err := db.Retire(ctx, otherServer, "asked to")
	if err != nil || last != db.Position() {
		t.Fatal(last, err)
	}
	_, err = db.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: "thing/b", Value: 1}}})
	if fleet.CodeOf(err) != "MC-STANDBY-RETIRED" || !strings.Contains(fmt.Sprint(err), otherServer) {
		t.Errorf("a change was taken: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(dir, store.Options{Key: contract.TestKey()}); fleet.CodeOf(err) != "MC-STANDBY-RETIRED" {
		t.Errorf("it was opened again: %v", err)
	}
	if role, there, err := store.RoleOf(dir); err != nil || !there || role.Kind != fleet.RoleRetired || role.Peer != otherServer {
		t.Errorf("%+v %v %v", role, there, err)
	}
}

// TestOldServerFollowsItsSuccessor is the way back: what the old one committed and the new one never saw is kept aside.
func TestOldServerFollowsItsSuccessor(t *testing.T) {
	p, ctx := newPair(t), context.Background()
	oldDir := t.TempDir()
	old, err := store.Open(oldDir, store.Options{Key: contract.TestKey()})
	if err != nil {
		t.Fatal(err)
	}
	successor := mustReplica(t, t.TempDir())
	chain := &pair{db: old, r: successor}
	chain.copy(t)
	put(t, old, "thing/lost", "never seen by the other one")
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}

	// A store of another fleet, and one that is no earlier state of the other's, are left alone.
	for name, dir := range map[string]string{"another fleet": p.dir} {
		if err := p.r.Close(); err != nil {
			t.Fatal(err)
		}
		r := mustReplica(t, dir)
		path := copyOf(t, oldDir, r)
		if _, err := r.Install(ctx, path, otherServer); fleet.CodeOf(err) != "MC-STANDBY-STRANGER" {
			t.Errorf("%s: %v", name, err)
		}
		if pos := where(t, r); pos != p.db.Position() {
			t.Errorf("%s: the replica has changed", name)
		}
	}
	r := mustReplica(t, oldDir)
	if _, err := r.Install(ctx, copyOf(t, oldDir, r), otherServer); fleet.CodeOf(err) != "MC-STANDBY-STRANGER" {
		t.Errorf("a store that acts was replaced by a copy in the same life: %v", err)
	}

	if _, err := successor.Promote(ctx, "test", true); err != nil {
		t.Fatal(err)
	}
	acting := &pair{db: mustOpen(t, dirOf(t, successor)), r: r}
	put(t, acting.db, "thing/new", 1)
	aside := acting.copy(t)
	if aside == "" {
		t.Fatal("the old server's store was not kept")
	}
	if where(t, r) != acting.db.Position() {
		t.Error("the old server does not follow")
	}
	kept, err := store.Open(aside, store.Options{Key: contract.TestKey()})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := contents(t, kept)["thing/lost"]; !ok {
		t.Error("what was kept aside is something else")
	}
	if err := kept.Close(); err != nil {
		t.Fatal(err)
	}
}

// copyOf is a copy of the store in a folder, ready for Install.
func copyOf(t *testing.T, dir string, r *store.Replica) string {
	t.Helper()
	path, err := r.CopyPath()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "store.db"))
	if err = errors.Join(err, os.WriteFile(path, b, 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

func dirOf(t *testing.T, r *store.Replica) string {
	t.Helper()
	path, err := r.CopyPath()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(path)
}
