package store

import (
	"sync"

	"github.com/metalctl/metalctl/fleet"
)

// feedKeys is how many changed keys of one kind are remembered.
const feedKeys = 8192

// feed remembers which records were written lately, by kind. A commit enters its keys before it becomes visible and takes them back where it fails, so that
// a snapshot never shows a change that the feed does not know.
type feed struct {
	mu    sync.Mutex
	from  fleet.Revision         // guarded by mu: of what was before nothing is known
	kinds map[string]*feedOfKind // guarded by mu
}

type feedOfKind struct {
	// from is the revision from which on all changes are here; they are in order of their revisions.
	from    fleet.Revision
	changes []feedEntry
}

type feedEntry struct {
	rev fleet.Revision
	key fleet.Key
}

// begin says at which revision the store was opened.
func (f *feed) begin(rev fleet.Revision) {
	f.from, f.kinds = rev, map[string]*feedOfKind{}
}

// enter adds what a commit is about to write.
func (f *feed) enter(rev fleet.Revision, puts []put) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range puts {
		k := f.kinds[p.kind]
		if k == nil {
			k = &feedOfKind{from: f.from}
			f.kinds[p.kind] = k
		}
		if len(k.changes) == 2*feedKeys {
			k.from = k.changes[feedKeys-1].rev
			k.changes = append(k.changes[:0], k.changes[feedKeys:]...)
		}
		k.changes = append(k.changes, feedEntry{rev, fleet.Key(p.key)})
	}
}

// lose says that nothing is known of what came before rev, which is about to be committed by somebody who does not say what it writes.
func (f *feed) lose(rev fleet.Revision) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begin(rev)
}

// forget takes back what came after rev: it was not committed.
func (f *feed) forget(rev fleet.Revision) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range f.kinds {
		for len(k.changes) > 0 && k.changes[len(k.changes)-1].rev > rev {
			k.changes = k.changes[:len(k.changes)-1]
		}
	}
}

// since returns the keys of a kind that were written after one revision, up to another; false where that is too long ago.
func (f *feed) since(kind string, after, upTo fleet.Revision) ([]fleet.Key, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.kinds[kind]
	if k == nil {
		return nil, after >= f.from
	}
	if after < k.from {
		return nil, false
	}
	var out []fleet.Key
	for i := len(k.changes) - 1; i >= 0 && k.changes[i].rev > after; i-- {
		if k.changes[i].rev <= upTo {
			out = append(out, k.changes[i].key)
		}
	}
	return out, true
}
