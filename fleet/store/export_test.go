package store

import (
	"encoding/hex"
	"maps"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

// Handles for tests in package store_test, which may import the contract.

// WithSchema makes Open believe in another schema, reached by one migration per step from the first.
func (o Options) WithSchema(schema uint64, steps ...func(*bbolt.Tx) error) Options {
	o.schema, o.migrations = schema, nil
	for i, run := range steps {
		o.migrations = append(o.migrations, migration{uint64(i) + 1, run})
	}
	return o
}

// Bolt is the file below, for damaging it.
func (db *DB) Bolt() *bbolt.DB { return db.bolt }

// FlushTimeline writes what waits.
func (db *DB) FlushTimeline() error { return db.timeline.flush() }

// EncodeRecord makes what stands in the file.
func EncodeRecord(kind string, version int, rev int64, data string) []byte {
	return encodeRecord(kind, version, fleet.Revision(rev), []byte(data))
}

// DecodeRecord reads it.
var DecodeRecord = decodeRecord

// Kinds are the kinds that the store knows, in order.
func Kinds() []string { return slices.Sorted(maps.Keys(kindVersions)) }

// ChainAfter is the running digest after a batch.
func ChainAfter(pos fleet.Position, text []byte) string {
	before, err := hex.DecodeString(pos.Chain)
	if err != nil {
		panic(err)
	}
	return hex.EncodeToString(nextChain(before, text))
}
