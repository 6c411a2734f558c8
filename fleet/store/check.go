package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

// Problem is one thing that Check found.
type Problem struct {
	// Key is the record, event or blob that it is about; "" for the file as a whole.
	Key  string `json:"key,omitempty"`
	Text string `json:"text"`
}

func (p Problem) String() string {
	if p.Key == "" {
		return p.Text
	}
	return p.Key + ": " + p.Text
}

// maxNode is what a node's record may weigh; what is bigger belongs in a blob.
const maxNode = 4 << 10

// checker gathers what a pass over the file finds out. It keeps of each record only what others are compared with: a check of a large fleet's backup runs
// beside the server's own work.
type checker struct {
	db       *DB
	problems []Problem

	ids        map[string][]string // id → kinds that have it
	nodes      map[fleet.NodeID]nodeTies
	leases     map[fleet.LeaseID]leaseTies
	operations map[fleet.OperationID]operationTies
	uniques    map[string]string
	blobs      map[string]string // digest → the record that names it
}

// nodeTies, leaseTies and operationTies are what a record says about others.
type nodeTies struct {
	lease           fleet.LeaseID
	operation, wish fleet.OperationID
}

type leaseTies struct {
	state   fleet.LeaseState
	members []memberTies
}

type memberTies struct {
	node  fleet.NodeID
	state fleet.MemberState
}

type operationTies struct {
	node fleet.NodeID
	over bool
}

func (c *checker) addf(key, format string, args ...any) {
	c.problems = append(c.problems, Problem{key, fmt.Sprintf(format, args...)})
}

// Check goes over the whole file and all blobs in one snapshot and returns what does not hold, nil when all is well:
//
//	S1  bbolt's own pages are consistent
//	S2  every record decodes, carries its kind and a version that this program knows, and no revision from the future
//	S3  a unique/ key names a living record, and that record has the value
//	S4  a lease's members and the nodes' leases agree, and no node is in two leases
//	S5  a node has at most one open operation and points to it
//	S6  a node's record is under 4 KiB
//	S7  blobs that records name exist, and every blob matches its digest
//	S8  secrets decrypt
//	S9  event ids count up by one and their revisions never go back
//	S10 the store's lives follow one another, none begins after the revision that it is at
func (db *DB) Check(ctx context.Context) []Problem {
	c := &checker{db: db, ids: map[string][]string{}, nodes: map[fleet.NodeID]nodeTies{}, leases: map[fleet.LeaseID]leaseTies{},
		operations: map[fleet.OperationID]operationTies{}, uniques: map[string]string{}, blobs: map[string]string{}}
	err := db.bolt.View(func(tx *bbolt.Tx) error {
		if !db.half { // else bbolt panics at the first page, and all others were proven when the store was opened
			for err := range tx.Check() {
				c.addf("", "page check: %v", err)
			}
		}
		rev := fleet.Revision(getUint(tx.Bucket(bucketMeta), metaRevision))
		c.lives(tx)
		err := tx.Bucket(bucketRecords).ForEach(func(k, v []byte) error {
			c.record(k, v, rev)
			return ctx.Err()
		})
		c.uniqueKeys(tx.Bucket(bucketRecords))
		return errors.Join(err, c.events(ctx, tx.Bucket(bucketEvents), rev))
	})
	if err != nil {
		c.addf("", "read the store: %v", err)
		return c.problems
	}
	c.memberships()
	c.runs()
	c.checkBlobs(ctx)
	return c.problems
}

// record checks S2, S6 and S8 and remembers what the others need.
func (c *checker) record(k, v []byte, now fleet.Revision) {
	key := string(k)
	r, err := decodeRecord(k, v)
	if err != nil {
		c.addf(key, "%v", err)
		return
	}
	kind := r.Key.Kind()
	id := strings.TrimPrefix(key, kind+"/")
	if r.Version < 1 || r.Version > versionOf(kind) {
		c.addf(key, "has version %d of its kind; this program knows up to %d", r.Version, versionOf(kind))
	}
	if r.Revision < 1 || r.Revision > now {
		c.addf(key, "is of revision %d and the store at %d", r.Revision, now)
	}
	c.ids[id] = append(c.ids[id], kind)
	switch kind {
	case fleet.KindSecret:
		if _, err := c.db.seal.open(k, r.Data); err != nil {
			c.addf(key, "%v", err)
		}
		return
	case fleet.KindNode:
		if len(r.Data) >= maxNode {
			c.addf(key, "has %d bytes; a node's record stays under %d", len(r.Data), maxNode)
		}
		if n, ok := decodeInto[fleet.Node](c, key, r.Data); ok {
			c.sameID(key, id, string(n.ID))
			ties := nodeTies{lease: n.Lease, operation: n.Operation}
			if n.Wish != nil {
				ties.wish = n.Wish.Operation
			}
			c.nodes[n.ID] = ties
			for _, digest := range []string{n.Inventory, n.LastInventory, n.AcceptedAs, n.Board, n.LastBoard} {
				if digest != "" {
					c.blobs[digest] = key
				}
			}
			if n.Cleaning != "" {
				c.blobs[n.Cleaning] = key
			}
		}
	case fleet.KindLease:
		if l, ok := decodeInto[fleet.Lease](c, key, r.Data); ok {
			c.sameID(key, id, string(l.ID))
			ties := leaseTies{state: l.State}
			for _, m := range l.Members {
				ties.members = append(ties.members, memberTies{m.Node, m.State})
			}
			c.leases[l.ID] = ties
			if l.UserData != "" {
				c.blobs[l.UserData] = key
			}
			for _, m := range l.Members {
				for _, digest := range []string{m.Cleaning, m.Wires} {
					if digest != "" {
						c.blobs[digest] = key
					}
				}
			}
		}
	case fleet.KindOperation:
		if o, ok := decodeInto[fleet.Operation](c, key, r.Data); ok {
			c.sameID(key, id, string(o.ID))
			c.operations[o.ID] = operationTies{o.Node, o.State.Over()}
		}
	case fleet.KindClass:
		decodeInto[fleet.Class](c, key, r.Data)
	case fleet.KindImage:
		decodeInto[fleet.Image](c, key, r.Data)
	case fleet.KindPack:
		if p, ok := decodeInto[fleet.Pack](c, key, r.Data); ok {
			c.sameID(key, id, p.ID())
		}
	case fleet.KindProfile:
		if p, ok := decodeInto[fleet.BurnProfile](c, key, r.Data); ok {
			c.sameID(key, id, p.Name)
		}
	case fleet.KindRamdisk:
		if x, ok := decodeInto[fleet.Ramdisk](c, key, r.Data); ok {
			c.sameID(key, id, x.SHA256)
		}
	case fleet.KindRollout:
		if x, ok := decodeInto[fleet.Rollout](c, key, r.Data); ok {
			c.sameID(key, id, fleet.RolloutID(x.Class))
		}
	case fleet.KindSite:
		decodeInto[fleet.Site](c, key, r.Data)
	case fleet.KindFabric:
		if f, ok := decodeInto[fleet.Fabric](c, key, r.Data); ok {
			c.sameID(key, id, f.Name)
		}
	case fleet.KindPartition:
		if p, ok := decodeInto[fleet.TenantPartition](c, key, r.Data); ok {
			c.sameID(key, id, p.Name)
		}
	case fleet.KindPKeys:
		if p, ok := decodeInto[fleet.TagPool](c, key, r.Data); ok {
			for _, f := range p.Check() {
				c.addf(key, "%s %s", f.Field, f.Message)
			}
		}
	case fleet.KindWires:
		if w, ok := decodeInto[fleet.NodeWires](c, key, r.Data); ok {
			c.sameID(key, id, string(w.Node))
		}
	case fleet.KindBurned:
		if x, ok := decodeInto[fleet.BurnValues](c, key, r.Data); ok {
			c.sameID(key, id, string(x.Node))
		}
	case fleet.KindHarm:
		decodeInto[fleet.HarmRecord](c, key, r.Data)
	case fleet.KindApproval:
		if a, ok := decodeInto[fleet.Approval](c, key, r.Data); ok {
			c.sameID(key, id, string(a.ID))
		}
	case fleet.KindToken:
		decodeInto[fleet.Token](c, key, r.Data)
	case fleet.KindFreeze:
		if f, ok := decodeInto[fleet.Freeze](c, key, r.Data); ok {
			c.sameID(key, id, string(f.ID))
		}
	case fleet.KindLoadStop:
		if s, ok := decodeInto[fleet.LoadStop](c, key, r.Data); ok {
			c.sameID(key, id, string(s.ID))
		}
	case fleet.KindUnique:
		if owner, ok := decodeInto[string](c, key, r.Data); ok {
			c.uniques[id] = owner
		}
		return
	}
	if !json.Valid(r.Data) {
		c.addf(key, "is not JSON")
	}
}

// lives checks S10.
func (c *checker) lives(tx *bbolt.Tx) {
	id, err := identityOf(tx)
	if err != nil {
		c.addf("", "%v", err)
	}
	before := fleet.StoreLife{}
	for _, l := range id.Lives {
		if l.From < before.From || l.From > id.Revision || l.Epoch == "" || l.Epoch == before.Epoch {
			c.addf("", "life %q begins at revision %d, the one before at %d, and the store is at %d", l.Epoch, l.From, before.From, id.Revision)
		}
		before = l
	}
}

func decodeInto[T any](c *checker, key string, data []byte) (T, bool) {
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		c.addf(key, "does not decode: %v", err)
		return v, false
	}
	return v, true
}

func (c *checker) sameID(key, want, got string) {
	if want != got {
		c.addf(key, "holds the id %q", got)
	}
}

// events checks S9.
func (c *checker) events(ctx context.Context, b *bbolt.Bucket, now fleet.Revision) error {
	var lastID uint64
	var lastRev fleet.Revision
	err := b.ForEach(func(k, v []byte) error {
		e, err := decodeEvent(k, v)
		if err != nil {
			c.addf(fmt.Sprintf("event/%x", k), "%v", err)
			return ctx.Err()
		}
		id := binary.BigEndian.Uint64(k)
		if lastID != 0 && id != lastID+1 {
			c.addf(fmt.Sprintf("event/%d", id), "follows event %d", lastID)
		}
		if e.Revision < lastRev || e.Revision < 1 || e.Revision > now {
			c.addf(fmt.Sprintf("event/%d", id), "is of revision %d, the one before of %d, the store at %d", e.Revision, lastRev, now)
		}
		lastID, lastRev = id, e.Revision
		return ctx.Err()
	})
	if err == nil && lastID != b.Sequence() {
		c.addf("", "the newest event is %d and the sequence says %d", lastID, b.Sequence())
	}
	return err
}

// uniqueKeys checks S3. A key unique/KIND-FIELD/VALUE must name a record of that kind, whose field, where it is a string, has that value; any other
// unique key must name something that lives.
func (c *checker) uniqueKeys(records *bbolt.Bucket) {
	for rest, owner := range c.uniques {
		key := fleet.KindUnique + "/" + rest
		if len(c.ids[owner]) == 0 {
			c.addf(key, "names %q, which does not exist", owner)
			continue
		}
		what, want, _ := strings.Cut(rest, "/")
		kind, field, _ := strings.Cut(what, "-")
		if _, known := kindVersions[kind]; !known {
			continue
		}
		at := []byte(kind + "/" + owner)
		v := records.Get(at)
		if v == nil {
			c.addf(key, "names %q, which is no %s", owner, kind)
			continue
		}
		var fields map[string]json.RawMessage
		if r, err := decodeRecord(at, v); err != nil || json.Unmarshal(r.Data, &fields) != nil {
			continue // the record's own problem, and named as such
		}
		var value string
		if raw, has := fields[field]; has && json.Unmarshal(raw, &value) == nil && !strings.EqualFold(value, want) {
			c.addf(key, "names %q, whose %s is %q", owner, field, value)
		}
	}
}
