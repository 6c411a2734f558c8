package store_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

// model is what a store should hold: a map, a counter and a list.
type model struct {
	values map[fleet.Key]string
	revs   map[fleet.Key]fleet.Revision
	rev    fleet.Revision
	events []string
}

// TestModel drives a store and a map with the same random changes, with restarts in between, and compares all that can be read.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		o := store.Options{Key: contract.TestKey(), Limits: store.Limits{Events: 10}}
		db, err := store.Open(dir, o)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { db.Close() }()
		m := &model{values: map[fleet.Key]string{}, revs: map[fleet.Key]fleet.Revision{}}
		key := rapid.Custom(func(t *rapid.T) fleet.Key {
			kind := rapid.SampledFrom([]string{"x", "secret"}).Draw(t, "kind")
			return fleet.Key(fmt.Sprintf("%s/%d", kind, rapid.IntRange(0, 4).Draw(t, "id")))
		})
		rt.Repeat(map[string]func(*rapid.T){
			"commit": func(rt *rapid.T) { m.commit(rt, db, key) },
			"restart": func(rt *rapid.T) {
				if err := db.Close(); err != nil {
					rt.Fatal(err)
				}
				if db, err = store.Open(dir, o); err != nil {
					rt.Fatal(err)
				}
			},
			"": func(rt *rapid.T) { m.compare(rt, db) },
		})
		if problems := db.Check(context.Background()); problems != nil {
			rt.Fatal(problems)
		}
	})
}

func (m *model) commit(rt *rapid.T, db *store.DB, key *rapid.Generator[fleet.Key]) {
	var c fleet.Change
	holds := true
	for _, k := range rapid.SliceOfNDistinct(key, 0, 3, rapid.ID).Draw(rt, "if") {
		rev := m.revs[k]
		if rapid.IntRange(0, 3).Draw(rt, "stale") == 0 {
			rev, holds = rev+1, false
		}
		c.If = append(c.If, fleet.Precondition{Key: k, Revision: rev})
	}
	next := maps.Clone(m.values)
	for _, k := range rapid.SliceOfNDistinct(key, 0, 4, rapid.ID).Draw(rt, "write") {
		w := fleet.Write{Key: k}
		delete(next, k)
		if v := rapid.StringN(0, 40, 200).Draw(rt, "value"); rapid.Bool().Draw(rt, "put") {
			next[k] = v
			w.Value = v
			if k.Kind() == fleet.KindSecret {
				w.Value = fleet.NewSecret(v)
			}
		}
		c.Writes = append(c.Writes, w)
	}
	for range rapid.IntRange(0, 3).Draw(rt, "events") {
		c.Events = append(c.Events, fleet.Event{Type: "t", At: time.Unix(1, 0).UTC(), Text: fmt.Sprint(len(m.events) + len(c.Events))})
	}
	rev, err := db.Commit(context.Background(), c)
	if !holds {
		if fleet.CodeOf(err) != "MC-STORE-STALE" {
			rt.Fatalf("a stale change got %v", err)
		}
		return
	}
	if err != nil {
		rt.Fatal(err)
	}
	if len(c.Writes)+len(c.Events) > 0 {
		m.rev++
	}
	if rev != m.rev {
		rt.Fatalf("got revision %d, want %d", rev, m.rev)
	}
	m.values = next
	for _, w := range c.Writes {
		delete(m.revs, w.Key)
		if w.Value != nil {
			m.revs[w.Key] = rev
		}
	}
	for _, e := range c.Events {
		m.events = append(m.events, e.Text)
	}
}

func (m *model) compare(rt *rapid.T, db *store.DB) {
	err := db.View(context.Background(), func(s fleet.Snapshot) error {
		got := map[fleet.Key]string{}
		revs := map[fleet.Key]fleet.Revision{}
		for _, kind := range []string{"x", "secret"} {
			if err := s.List(kind, func(r fleet.Record) bool { revs[r.Key] = r.Revision; return true }); err != nil {
				return err
			}
		}
		for k := range revs {
			v, _, err := fleet.Get[string](s, k)
			if err != nil {
				return err
			}
			got[k] = v
		}
		if diff := cmp.Diff(got, m.values); diff != "" {
			return fmt.Errorf("values: %s", diff)
		}
		if diff := cmp.Diff(revs, m.revs); diff != "" {
			return fmt.Errorf("revisions: %s", diff)
		}
		if s.Revision() != m.rev {
			return fmt.Errorf("revision %d, want %d", s.Revision(), m.rev)
		}
		return nil
	})
	if err != nil {
		rt.Fatal(err)
	}
	dropped := max(0, len(m.events)-10)
	events, err := db.Events(context.Background(), int64(dropped), 100)
	if err != nil {
		rt.Fatal(err)
	}
	var texts []string
	for i, e := range events {
		if e.ID != int64(dropped+i+1) {
			rt.Fatalf("event %d stands at %d", e.ID, dropped+i+1)
		}
		texts = append(texts, e.Text)
	}
	if !slices.Equal(texts, m.events[dropped:]) {
		rt.Fatalf("events %v, want %v", texts, m.events[dropped:])
	}
	if dropped > 0 {
		if _, err := db.Events(context.Background(), int64(dropped)-1, 1); fleet.CodeOf(err) != "MC-EVENTS-GONE" {
			rt.Fatalf("dropped events: %v", err)
		}
	}
}
