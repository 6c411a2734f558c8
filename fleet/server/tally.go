package server

import (
	"sync"

	"github.com/metalctl/metalctl/fleet"
)

// tally keeps what a metric counts of each record of a kind, so that a scrape decodes what was written since the last one, and not years of journals.
type tally[T any, L comparable] struct {
	kind  string
	label func(T) L

	mu  sync.Mutex // guards the rest
	rev fleet.Revision
	all map[fleet.Key]L
}

// count counts the records at sn by their label.
func (t *tally[T, L]) count(sn fleet.Snapshot) (map[L]float64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.follow(sn); err != nil {
		t.all = nil
		return nil, err
	}
	counts := map[L]float64{}
	for _, l := range t.all {
		counts[l]++
	}
	return counts, nil
}

// follow brings what is kept to sn; the caller holds mu.
func (t *tally[T, L]) follow(sn fleet.Snapshot) error {
	at := sn.Revision()
	if t.all != nil && at <= t.rev {
		return nil // somebody with a newer snapshot was first
	}
	if feed, ok := sn.(fleet.Feed); ok && t.all != nil {
		if keys, known := feed.Since(t.kind, t.rev); known {
			seen := map[fleet.Key]bool{}
			for _, key := range keys {
				if seen[key] {
					continue
				}
				seen[key] = true
				r, err := sn.Get(key)
				if err != nil && fleet.KindOf(err) == fleet.NotFound {
					delete(t.all, key)
					continue
				}
				if err == nil {
					err = t.enter(r)
				}
				if err != nil {
					return err
				}
			}
			t.rev = at
			return nil
		}
	}
	t.all, t.rev = map[fleet.Key]L{}, at
	var bad error
	err := sn.List(t.kind, func(r fleet.Record) bool {
		bad = t.enter(r)
		return bad == nil
	})
	if bad != nil {
		return bad
	}
	return err
}

func (t *tally[T, L]) enter(r fleet.Record) error {
	var v T
	if err := decodeRecord(r, &v); err != nil {
		return err
	}
	t.all[r.Key] = t.label(v)
	return nil
}
