package store

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

// batch is what one transaction of the committer did, as a follower repeats it: keys and values as they lie in the file, so that secrets stay sealed.
type batch struct {
	before, after fleet.Revision
	// lastEvent is the newest event's id, oldestEvent the oldest that is kept.
	lastEvent, oldestEvent uint64
	ops                    []batchOp
}

type batchOp struct {
	event bool
	key   []byte
	// value is nil to delete.
	value []byte
}

const (
	batchFormat = 1
	batchHead   = 1 + 4*8 + 4
	// maxBatch bounds a batch: the committer's own bound, what one more change adds, heads and events.
	maxBatch = 64 << 20
	// opDeleted is the length of a value that is deleted.
	opDeleted = 1<<32 - 1
)

// metaChain holds the running digest over all batches.
var metaChain = []byte("chain")

func (b *batch) put(event bool, key, value []byte) {
	b.ops = append(b.ops, batchOp{event, key, value})
}

func (b *batch) encode() []byte {
	n := batchHead
	for _, op := range b.ops {
		n += 1 + 4 + 4 + len(op.key) + len(op.value)
	}
	out := make([]byte, 0, n)
	out = append(out, batchFormat)
	for _, v := range []uint64{uint64(b.before), uint64(b.after), b.lastEvent, b.oldestEvent} {
		out = binary.BigEndian.AppendUint64(out, v)
	}
	out = binary.BigEndian.AppendUint32(out, uint32(len(b.ops)))
	for _, op := range b.ops {
		kind, size := byte('r'), uint32(len(op.value))
		if op.event {
			kind = 'e'
		}
		if op.value == nil {
			size = opDeleted
		}
		out = append(out, kind)
		out = binary.BigEndian.AppendUint32(out, uint32(len(op.key)))
		out = binary.BigEndian.AppendUint32(out, size)
		out = append(out, op.key...)
		out = append(out, op.value...)
	}
	return out
}

var errBatch = errors.New("is no batch")

// decodeBatch reads what encode wrote. Keys and values alias text.
func decodeBatch(text []byte) (batch, error) {
	var b batch
	if len(text) < batchHead || len(text) > maxBatch || text[0] != batchFormat {
		return b, errBatch
	}
	number := func(i int) uint64 { return binary.BigEndian.Uint64(text[1+8*i:]) }
	b.before, b.after, b.lastEvent, b.oldestEvent = fleet.Revision(number(0)), fleet.Revision(number(1)), number(2), number(3)
	count := binary.BigEndian.Uint32(text[1+4*8:])
	if b.before < 0 || b.after <= b.before || b.oldestEvent > b.lastEvent+1 {
		return b, errBatch
	}
	for rest := text[batchHead:]; ; count-- {
		if count == 0 {
			if len(rest) != 0 {
				return b, errBatch
			}
			return b, nil
		}
		if len(rest) < 9 || rest[0] != 'r' && rest[0] != 'e' {
			return b, errBatch
		}
		op := batchOp{event: rest[0] == 'e'}
		keyLen, valueLen := uint64(binary.BigEndian.Uint32(rest[1:])), uint64(binary.BigEndian.Uint32(rest[5:]))
		deleted := valueLen == opDeleted
		if deleted {
			valueLen = 0
		}
		rest = rest[9:]
		if keyLen == 0 || keyLen > maxKey || keyLen+valueLen > uint64(len(rest)) || op.event && (deleted || keyLen != 8) {
			return b, errBatch
		}
		op.key = rest[:keyLen:keyLen]
		if !deleted {
			op.value = rest[keyLen : keyLen+valueLen : keyLen+valueLen]
		}
		rest = rest[keyLen+valueLen:]
		b.ops = append(b.ops, op)
	}
}

// do repeats the batch in a transaction whose store is at the revision before it.
func (b *batch) do(tx *bbolt.Tx) error {
	records, events := tx.Bucket(bucketRecords), tx.Bucket(bucketEvents)
	for _, op := range b.ops {
		var err error
		switch {
		case op.event:
			err = events.Put(op.key, op.value)
		case op.value == nil:
			err = records.Delete(op.key)
		default:
			err = records.Put(op.key, op.value)
		}
		if err != nil {
			return err
		}
	}
	if err := events.SetSequence(b.lastEvent); err != nil {
		return err
	}
	c := events.Cursor()
	for k, _ := c.First(); k != nil && binary.BigEndian.Uint64(k) < b.oldestEvent; k, _ = c.First() {
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return putUint(tx.Bucket(bucketMeta), metaRevision, uint64(b.after))
}

// nextChain is the running digest after a batch.
func nextChain(before, text []byte) []byte {
	h := sha256.New()
	h.Write(before)
	h.Write(text)
	return h.Sum(nil)
}

func positionOf(tx *bbolt.Tx) (fleet.Position, error) {
	id, err := identityOf(tx)
	return fleet.Position{Epoch: id.Epoch(), Revision: id.Revision, Chain: hex.EncodeToString(tx.Bucket(bucketMeta).Get(metaChain))}, err
}
