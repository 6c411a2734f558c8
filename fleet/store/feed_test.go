package store_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

// TestFeed: a snapshot names what was written since a revision, nothing that was refused, and says so where it does not know any more.
func TestFeed(t *testing.T) {
	dir := t.TempDir()
	db := openAt(t, dir)
	write := func(key fleet.Key, v any, conditions ...fleet.Precondition) fleet.Revision {
		rev, err := db.Commit(t.Context(), fleet.Change{If: conditions, Writes: []fleet.Write{{Key: key, Value: v}}})
		if err != nil && fleet.CodeOf(err) != "MC-STORE-STALE" {
			t.Fatal(err)
		}
		return rev
	}
	since := func(rev fleet.Revision) (keys []fleet.Key, known bool) {
		if err := db.View(t.Context(), func(s fleet.Snapshot) error {
			keys, known = s.(fleet.Feed).Since("lease", rev)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return keys, known
	}
	first := write("lease/a", 1)
	write("node/n", 1)
	write("lease/b", 1)
	write("lease/c", 1, fleet.Precondition{Key: "lease/a"}) // refused: a is there
	last := write("lease/a", nil)

	for _, c := range []struct {
		name  string
		since fleet.Revision
		want  []fleet.Key
	}{
		{"since the beginning", 0, []fleet.Key{"lease/a", "lease/b", "lease/a"}},
		{"since the first", first, []fleet.Key{"lease/a", "lease/b"}},
		{"since the last", last, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			keys, known := since(c.since)
			if diff := cmp.Diff(keys, c.want); diff != "" || !known {
				t.Errorf("known %v (-got +want):\n%s", known, diff)
			}
		})
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = openAt(t, dir)
	if keys, known := since(first); known {
		t.Errorf("a store that was opened anew knows what was written before: %v", keys)
	}
	if keys, known := since(last); !known || len(keys) > 0 {
		t.Errorf("since it was opened: %v, known %v", keys, known)
	}
	for i := 0; i < 20000; i += 50 {
		var c fleet.Change
		for j := range 50 {
			c.Writes = append(c.Writes, fleet.Write{Key: fleet.Key(fmt.Sprintf("lease/%d", i+j)), Value: 1})
		}
		if _, err := db.Commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if keys, known := since(last); known {
		t.Errorf("20,000 changes are remembered: %d", len(keys))
	}
	if keys, known := since(last + 300); !known || len(keys) != 100*50 {
		t.Errorf("of the newest 100 commits %d keys are named, known %v", len(keys), known)
	}
}

func openAt(t *testing.T, dir string) *store.DB {
	t.Helper()
	db, err := store.Open(dir, store.Options{Key: make([]byte, store.KeySize)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// TestShelf: what is kept is what was committed, by whoever, and what somebody does with a copy changes nothing.
func TestShelf(t *testing.T) {
	dir := t.TempDir()
	db := openAt(t, dir)
	key := fleet.KeyOf(fleet.KindNode, "n")
	get := func() (n fleet.Node, rev fleet.Revision) {
		if err := db.View(t.Context(), func(s fleet.Snapshot) (err error) {
			n, rev, err = fleet.Get[fleet.Node](s, key)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return n, rev
	}
	mine := fleet.Node{ID: "n", Name: "one", Labels: map[string]string{"rack": "r1"}}
	put := func(n fleet.Node, rev fleet.Revision) error {
		_, err := db.Commit(t.Context(), fleet.Change{If: []fleet.Precondition{{Key: key, Revision: rev}}, Writes: []fleet.Write{{Key: key, Value: n}}})
		return err
	}
	if err := put(mine, 0); err != nil {
		t.Fatal(err)
	}
	mine.Labels["rack"] = "changed after the commit"
	got, rev := get()
	if got.Labels["rack"] != "r1" {
		t.Errorf("the writer still has its hands in what is kept: %v", got.Labels)
	}
	got.Labels["rack"] = "changed by a reader"
	if again, _ := get(); again.Labels["rack"] != "r1" {
		t.Errorf("a reader changed what others see: %v", again.Labels)
	}
	got.Labels["rack"], got.Name = "r2", "two"
	if err := put(got, rev+1); fleet.CodeOf(err) != "MC-STORE-STALE" {
		t.Fatalf("a stale write: %v", err)
	}
	if again, _ := get(); again.Name != "one" {
		t.Errorf("what was refused is read: %q", again.Name)
	}
	if err := put(got, rev); err != nil {
		t.Fatal(err)
	}
	if again, now := get(); again.Name != "two" || now != rev+1 {
		t.Errorf("after a commit at %d: %q at %d", rev, again.Name, now)
	}
	old := fleet.Revision(0)
	if err := db.View(t.Context(), func(s fleet.Snapshot) error {
		if err := put(fleet.Node{ID: "n", Name: "three"}, rev+1); err != nil {
			return err
		}
		n, at, err := fleet.Get[fleet.Node](s, key)
		if n.Name != "two" {
			t.Errorf("a snapshot shows what was committed after it began: %q", n.Name)
		}
		old = at
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if again, now := get(); again.Name != "three" || now <= old {
		t.Errorf("after an old snapshot was read: %q at %d", again.Name, now)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = openAt(t, dir)
	if again, _ := get(); again.Name != "three" {
		t.Errorf("opened anew: %q", again.Name)
	}
}
