package fleet

import (
	"context"
	"encoding/json"
	"io"
	"time"
)

// Revision counts commits. It never goes back; event ids and ETags are revisions.
type Revision int64

// Key names a record: a kind and an id, such as "node/0199…". Keys under "unique/" hold the id that claimed a unique value; keys under
// "secret/" are encrypted with the key as associated data.
type Key string

// Kinds of records.
const (
	KindNode      = "node"
	KindOperation = "operation"
	KindLease     = "lease"
	KindClass     = "class"
	KindImage     = "image"
	KindPack      = "pack"
	KindProfile   = "profile"
	KindSite      = "site"
	KindClaim     = "claim"
	KindUnique    = "unique"
	KindSecret    = "secret"
	KindMeta      = "meta"
	// KindCA holds PEM certificates that BMCs are trusted by, under their SHA-256.
	KindCA = "ca"
)

// SiteKey is the key of the one record of a place's settings.
const SiteKey Key = KindSite + "/site"

// KeyOf joins a kind and an id.
func KeyOf[ID ~string](kind string, id ID) Key { return Key(kind + "/" + string(id)) }

// Kind returns the part of the key before the first slash.
func (k Key) Kind() string {
	for i := range k {
		if k[i] == '/' {
			return string(k[:i])
		}
	}
	return string(k)
}

// Record is one stored object.
type Record struct {
	Key Key
	// Version is the version of the kind's schema that Data was written with.
	Version int
	// Revision is the commit that wrote it.
	Revision Revision
	Data     json.RawMessage
}

// Precondition must hold at commit, else the whole commit is refused with Conflict and code MC-STORE-STALE.
type Precondition struct {
	Key Key
	// Revision is what the record must be at; 0 means that it must not exist.
	Revision Revision
}

// Write puts a record (Value is marshalled to JSON) or, with Value nil, deletes it.
type Write struct {
	Key   Key
	Value any
	// Encoded is what json.Marshal made of Value, where the writer knows it already; else nil. No secret has it.
	Encoded json.RawMessage
}

// Change is what one commit does: all of it or nothing. At most 64 keys and 512 KiB, so that it fits etcd from the start.
type Change struct {
	If     []Precondition
	Writes []Write
	// Events are appended to the event log in the same transaction; the store sets their Revision.
	Events []Event
}

// Event is a committed change that watchers are told of. ID orders events; several may share a Revision.
type Event struct {
	ID       int64    `json:"id"`
	Revision Revision `json:"revision"`
	// Type is what happened, such as "node.state" or "operation.step".
	Type string    `json:"type"`
	At   time.Time `json:"at"`
	// Subject is the record's key; Node and Lease help to filter.
	Subject Key             `json:"subject"`
	Node    NodeID          `json:"node,omitempty"`
	Lease   LeaseID         `json:"lease,omitempty"`
	Text    string          `json:"text"`
	Data    json.RawMessage `json:"data,omitempty"`
}

// Snapshot is the store at one revision; it does not change and is valid until its View returns.
type Snapshot interface {
	Revision() Revision
	// Get returns the record, or an Error of kind NotFound.
	Get(Key) (Record, error)
	// List calls yield for every record of a kind in key order, until it returns false.
	List(kind string, yield func(Record) bool) error
	// Revisions is List without the records' data: of many records it costs a fraction.
	Revisions(kind string, yield func(Key, Revision) bool) error
}

// Store remembers everything durable. Implementations pass fixtures/contract.Store.
type Store interface {
	// View reads one consistent snapshot. The callback does no I/O.
	View(context.Context, func(Snapshot) error) error
	// Commit does c durably (it returns after the fsync) or refuses it: Conflict where a precondition fails, Invalid where c is over the limits.
	Commit(ctx context.Context, c Change) (Revision, error)
	// Events returns up to limit events with ID > after; kind NotFound, code MC-EVENTS-GONE and the oldest id in the text where they were dropped.
	Events(ctx context.Context, after int64, limit int) ([]Event, error)
	// Changed returns a channel that is closed at the next commit.
	Changed() <-chan struct{}
}

// Blobs keep what is too big for a record, by digest ("sha256:…").
type Blobs interface {
	PutBlob(ctx context.Context, kind string, r io.Reader) (digest string, err error)
	OpenBlob(ctx context.Context, digest string) (io.ReadSeekCloser, error)
}

// Timeline keeps what happened around nodes, appended without fsync and bounded per node.
type Timeline interface {
	AppendTimeline(NodeID, TimelineEntry)
	ReadTimeline(ctx context.Context, id NodeID, since time.Time, limit int) ([]TimelineEntry, error)
}

// Get reads and decodes one record; its revision is the precondition for writing it back.
func Get[T any](s Snapshot, key Key) (T, Revision, error) {
	var v T
	k, ok, err := Peek[T](s, key)
	if err != nil {
		return v, 0, err
	}
	if ok {
		return *k.Value.Keep().(*T), k.Revision, nil
	}
	r, err := s.Get(key)
	if err != nil {
		return v, 0, err
	}
	if err := json.Unmarshal(r.Data, &v); err != nil {
		return v, 0, Errorf(Broken, "MC-STORE-DECODE", "decode record %s: %w", key, err)
	}
	return v, r.Revision, nil
}

// Peek returns the record as the snapshot keeps it, its value a *T that is shared and only looked at; false where the snapshot keeps none of that type.
func Peek[T any](s Snapshot, key Key) (Kept, bool, error) {
	shelf, ok := s.(Shelf)
	if !ok {
		return Kept{}, false, nil
	}
	if _, ok := any((*T)(nil)).(Keeper); !ok {
		return Kept{}, false, nil
	}
	k, err := shelf.Kept(key, func(data json.RawMessage) (Keeper, error) {
		v := new(T)
		return any(v).(Keeper), json.Unmarshal(data, v)
	})
	if err != nil {
		return k, false, err
	}
	_, ok = any(k.Value).(*T)
	return k, ok, nil
}

// List reads and decodes every record of a kind, in key order.
func List[T any](s Snapshot, kind string) ([]T, error) {
	var out []T
	var bad error
	err := s.List(kind, func(r Record) bool {
		var v T
		if err := json.Unmarshal(r.Data, &v); err != nil {
			bad = Errorf(Broken, "MC-STORE-DECODE", "decode record %s: %w", r.Key, err)
			return false
		}
		out = append(out, v)
		return true
	})
	if bad != nil {
		return nil, bad
	}
	return out, err
}
