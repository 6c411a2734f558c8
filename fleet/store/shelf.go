package store

import (
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

const (
	// shelfBytes is how much JSON the younger half of the shelf stands for at most; its values take about as much again.
	shelfBytes = 8 << 20
	// shelfAge is how long a half is filled: what nobody looks at is dropped after two of them.
	shelfAge = 30 * time.Second
)

// shelf keeps decoded records by key and revision, in two halves: what is used moves to the younger one, and when that is full or old the elder one goes.
type shelf struct {
	mu           sync.Mutex
	young, elder map[fleet.Key]fleet.Kept // guarded by mu
	bytes        int                      // guarded by mu: of the younger half
	began        time.Time                // guarded by mu: when the younger half was begun
}

// get returns what is kept of a record at just that revision.
func (s *shelf) get(key fleet.Key, rev fleet.Revision) (fleet.Kept, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.young[key]
	if !ok {
		if k, ok = s.elder[key]; ok && k.Revision == rev {
			s.addLocked(key, k)
		}
	}
	return k, ok && k.Revision == rev
}

// add keeps records; an older revision never takes the place of a newer one.
func (s *shelf) add(key fleet.Key, k fleet.Kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.young[key]; !ok || old.Revision < k.Revision {
		s.addLocked(key, k)
	}
}

func (s *shelf) addLocked(key fleet.Key, k fleet.Kept) {
	if s.young == nil || s.bytes > shelfBytes {
		s.turnLocked()
	}
	if old, ok := s.young[key]; ok {
		s.bytes -= len(key) + len(old.Data)
	}
	s.young[key], s.bytes = k, s.bytes+len(key)+len(k.Data)
}

func (s *shelf) turnLocked() {
	s.elder, s.young, s.bytes = s.young, map[fleet.Key]fleet.Kept{}, 0
}

// age turns the halves where the younger one is old.
func (s *shelf) age(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.began) >= shelfAge {
		s.began = now
		s.turnLocked()
	}
}
