package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"slices"
	"sync/atomic"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

// request is one Change on its way through the committer.
type request struct {
	conditions []fleet.Precondition
	puts       []put
	events     [][]byte
	// state decides between a caller that gives up and the committer that begins: whoever swaps first.
	state  atomic.Int32
	answer chan answer
}

type put struct {
	key     []byte
	kind    string
	version int
	// data is nil to delete.
	data []byte
	// value is the same decoded, for the shelf; nil where it is not kept.
	value fleet.Keeper
}

type answer struct {
	revision fleet.Revision
	err      error
}

const (
	waiting int32 = iota
	taken
	givenUp
)

// Commit implements fleet.Store. Where ctx ends while the commit already runs, its outcome is still waited for: the caller always knows.
func (db *DB) Commit(ctx context.Context, c fleet.Change) (fleet.Revision, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	r, err := db.request(c)
	if err != nil {
		return 0, err
	}
	select {
	case db.queue <- r:
	case <-db.closing:
		return 0, errClosed("commit")
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	select {
	case a := <-r.answer:
		return a.revision, a.err
	case <-db.stopped:
	case <-ctx.Done():
		if r.state.CompareAndSwap(waiting, givenUp) {
			return 0, ctx.Err()
		}
	}
	// The committer answers what it has taken before it stops; what it has not taken by then it never will.
	select {
	case a := <-r.answer:
		return a.revision, a.err
	case <-db.stopped:
	}
	select {
	case a := <-r.answer:
		return a.revision, a.err
	default:
		return 0, errClosed("commit")
	}
}

// request checks a change against the limits and encodes it on the caller's goroutine, so that the committer only writes.
func (db *DB) request(c fleet.Change) (*request, error) {
	r := &request{conditions: c.If, answer: make(chan answer, 1)}
	var faults []fleet.FieldError
	fault := func(k fleet.Key, msg string) {
		faults = append(faults, fleet.FieldError{Field: string(k), Message: msg})
	}
	keys := make(map[fleet.Key]bool)
	size := 0
	for _, p := range c.If {
		if msg := keyFault(p.Key); msg != "" {
			fault(p.Key, msg)
		}
		keys[p.Key] = true
	}
	written := make(map[fleet.Key]bool)
	for _, w := range c.Writes {
		if msg := keyFault(w.Key); msg != "" {
			fault(w.Key, msg)
		}
		if written[w.Key] {
			fault(w.Key, "is written twice")
		}
		written[w.Key], keys[w.Key] = true, true
		kind := w.Key.Kind()
		p := put{key: []byte(w.Key), kind: kind, version: versionOf(kind)}
		if w.Value != nil {
			var err error
			if p.data, err = db.encodeValue(w); err != nil {
				fault(w.Key, err.Error())
			}
			if k, ok := w.Value.(fleet.Keeper); ok {
				p.value, _ = k.Keep().(fleet.Keeper)
			}
		}
		size += len(p.key) + len(p.data)
		r.puts = append(r.puts, p)
	}
	for _, e := range c.Events {
		if e.At.IsZero() {
			e.At = db.now().UTC()
		}
		e.ID, e.Revision = 0, 0
		b, err := json.Marshal(e)
		if err != nil {
			fault(e.Subject, err.Error())
		}
		size += len(b)
		r.events = append(r.events, b)
	}
	if len(faults) > 0 {
		e := fleet.Errorf(fleet.Invalid, "MC-STORE-VALUE", "the change cannot be stored")
		e.Fields = faults
		return nil, e
	}
	if n := len(keys) + len(c.Events); n > MaxKeys || size > MaxBytes {
		return nil, fleet.Errorf(fleet.Invalid, "MC-STORE-LIMIT", "a change of %d keys and %d bytes is over the limits of %d and %d", n, size, MaxKeys, MaxBytes).
			WithHint("ask for fewer things at once")
	}
	return r, nil
}

const (
	// batchChanges and batchBytes bound one bbolt transaction.
	batchChanges = 1024
	batchBytes   = 16 << 20
)

// commitLoop is the only writer. It drains what waits and commits it in one transaction; while one fsync runs, the next batch gathers.
func (db *DB) commitLoop() {
	defer close(db.stopped)
	for {
		select {
		case <-db.closing:
			return
		case f := <-db.control:
			f()
		case first := <-db.queue:
			batch := db.drain(first)
			refusal := db.broken
			if refusal == nil {
				refusal = db.may()
			}
			answers, err := db.commitBatch(batch, refusal)
			if err != nil && db.broken == nil && fleet.KindOf(err) == fleet.Broken {
				// After a failed fsync the page cache may hold what the disk does not: nothing more is acknowledged until a restart reads it anew.
				db.broken = err
				db.log.Error("the store takes no more writes", "err", err)
			}
			for i, r := range batch {
				if err != nil {
					answers[i] = answer{err: err}
				}
				r.answer <- answers[i]
			}
		}
	}
}

func (db *DB) drain(first *request) []*request {
	var batch []*request
	size := 0
	for r := first; ; {
		if r.state.CompareAndSwap(waiting, taken) {
			batch = append(batch, r)
			for _, p := range r.puts {
				size += len(p.data)
			}
		}
		if len(batch) >= batchChanges || size >= batchBytes {
			return batch
		}
		select {
		case r = <-db.queue:
		default:
			return batch
		}
	}
}

// commitBatch applies each change that its preconditions allow; an error means that none was.
func (db *DB) commitBatch(requests []*request, refusal error) ([]answer, error) {
	answers := make([]answer, len(requests))
	if refusal != nil || len(requests) == 0 {
		return answers, refusal
	}
	tx, err := db.bolt.Begin(true)
	if err != nil {
		return answers, storeError("begin a commit", err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing, before it there is nothing to lose
	records, meta, events := tx.Bucket(bucketRecords), tx.Bucket(bucketMeta), tx.Bucket(bucketEvents)
	before := fleet.Revision(getUint(meta, metaRevision))
	rev, done := before, false
	defer func() {
		if !done {
			db.feed.forget(before)
		}
	}()
	var log batch
	for i, r := range requests {
		if err := checkConditions(records, r.conditions); err != nil {
			answers[i].err = err
			continue
		}
		if len(r.puts) > 0 || len(r.events) > 0 {
			rev++
			db.feed.enter(rev, r.puts)
			if err := r.apply(records, events, rev, &log); err != nil {
				return answers, storeError("write a commit", err)
			}
		}
		answers[i].revision = rev
	}
	if rev == before {
		return answers, nil
	}
	if err := trimEvents(events, db.limits.Events); err != nil {
		return answers, storeError("trim the event log", err)
	}
	if err := putUint(meta, metaRevision, uint64(rev)); err != nil {
		return answers, storeError("write a commit", err)
	}
	log.before, log.after = before, rev
	log.lastEvent = events.Sequence()
	if log.oldestEvent = 1; log.lastEvent > uint64(db.limits.Events) {
		log.oldestEvent = log.lastEvent - uint64(db.limits.Events) + 1
	}
	entry, pos, err := log.entry(tx, db.epoch)
	if err != nil {
		return answers, storeError("write a commit", err)
	}
	if err := db.finish(tx, entry, pos); err != nil {
		return answers, storeError("commit", err)
	}
	done = true
	for i, r := range requests {
		if answers[i].err == nil {
			db.keep(r, answers[i].revision)
		}
	}
	db.ring()
	return answers, nil
}

// keep puts what was committed on the shelf, so that nobody has to decode it.
func (db *DB) keep(r *request, rev fleet.Revision) {
	for _, p := range r.puts {
		if p.value != nil {
			db.shelf.add(fleet.Key(p.key), fleet.Kept{Value: p.value, Data: p.data, Revision: rev})
		}
	}
}

// finish commits, and hands what was committed to followers before anybody can see it without them.
func (db *DB) finish(tx *bbolt.Tx, e fleet.LogEntry, pos fleet.Position) error {
	db.relay.mu.Lock()
	defer db.relay.mu.Unlock()
	if err := tx.Commit(); err != nil {
		return err
	}
	db.relay.addLocked(e, pos)
	return nil
}

func checkConditions(records *bbolt.Bucket, conditions []fleet.Precondition) error {
	var stale []fleet.FieldError
	for _, p := range conditions {
		switch got := recordRevision(records.Get([]byte(p.Key))); {
		case got == p.Revision:
		case got == 0:
			stale = append(stale, fleet.FieldError{Field: string(p.Key), Message: "does not exist any more"})
		case p.Revision == 0:
			stale = append(stale, fleet.FieldError{Field: string(p.Key), Message: "exists already"})
		default:
			stale = append(stale, fleet.FieldError{Field: string(p.Key), Message: "was changed by somebody else"})
		}
	}
	if stale == nil {
		return nil
	}
	slices.SortFunc(stale, func(a, b fleet.FieldError) int {
		if a.Field < b.Field {
			return -1
		}
		return 1
	})
	e := fleet.Errorf(fleet.Conflict, "MC-STORE-STALE", "what was read has changed meanwhile").WithHint("read it again and repeat the command")
	e.Fields = stale
	return e
}

// apply writes the change, and into log what it wrote.
func (r *request) apply(records, events *bbolt.Bucket, rev fleet.Revision, log *batch) error {
	for _, p := range r.puts {
		if p.data == nil {
			if err := records.Delete(p.key); err != nil {
				return err
			}
			log.put(false, p.key, nil)
			continue
		}
		value := encodeRecord(p.kind, p.version, rev, p.data)
		if p.kind != fleet.KindSecret {
			value = withSum(p.key, value)
		}
		if err := records.Put(p.key, value); err != nil {
			return err
		}
		log.put(false, p.key, value)
	}
	for _, e := range r.events {
		id, err := events.NextSequence()
		if err != nil {
			return err
		}
		key := binary.BigEndian.AppendUint64(nil, id)
		value := withSum(key, append(binary.BigEndian.AppendUint64(nil, uint64(rev)), e...))
		if err := events.Put(key, value); err != nil {
			return err
		}
		log.put(true, key, value)
	}
	return nil
}
