package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"unicode"
	"unicode/utf8"

	"github.com/metalctl/metalctl/fleet"
)

// kindVersions is the version of each kind's schema that this program writes. A kind without a row is at version 1.
var kindVersions = map[string]int{
	fleet.KindNode: 1, fleet.KindOperation: 1, fleet.KindLease: 1, fleet.KindClass: 1, fleet.KindImage: 1, fleet.KindPack: 1, fleet.KindProfile: 1,
	fleet.KindSite: 1, fleet.KindClaim: 1, fleet.KindUnique: 1, fleet.KindSecret: 1, fleet.KindMeta: 1, fleet.KindCA: 1,
	fleet.KindFreeze: 1, fleet.KindHarm: 1, fleet.KindApproval: 1, fleet.KindToken: 1,
	fleet.KindRamdisk: 1, fleet.KindRollout: 1,
	fleet.KindFabric: 1, fleet.KindPartition: 1, fleet.KindPKeys: 1, fleet.KindWires: 1,
	fleet.KindBurned: 1, fleet.KindLoadStop: 1,
}

func versionOf(kind string) int {
	if v, ok := kindVersions[kind]; ok {
		return v
	}
	return 1
}

// recordFormat begins every stored record: format, revision (8 bytes), version (4), length of kind (1), kind, data.
const (
	recordFormat = 1
	recordHead   = 1 + 8 + 4 + 1
	maxKey       = 1024
	maxKind      = 32
)

func encodeRecord(kind string, version int, rev fleet.Revision, data []byte) []byte {
	b := make([]byte, 0, recordHead+len(kind)+len(data))
	b = append(b, recordFormat)
	b = binary.BigEndian.AppendUint64(b, uint64(rev))
	b = binary.BigEndian.AppendUint32(b, uint32(version))
	b = append(b, byte(len(kind)))
	b = append(b, kind...)
	return append(b, data...) // withSum follows
}

// decodeRecord reads what encodeRecord wrote under key. Data aliases b.
func decodeRecord(key, b []byte) (fleet.Record, error) {
	r := fleet.Record{Key: fleet.Key(key)}
	if r.Key.Kind() != fleet.KindSecret {
		var err error
		if b, _, err = cutSum(key, b); err != nil {
			return r, err
		}
	}
	if len(b) < recordHead || b[0] != recordFormat {
		return r, errors.New("is no record")
	}
	r.Revision = fleet.Revision(binary.BigEndian.Uint64(b[1:]))
	r.Version = int(binary.BigEndian.Uint32(b[9:]))
	n := int(b[13])
	if len(b) < recordHead+n || string(b[recordHead:recordHead+n]) != r.Key.Kind() {
		return r, errors.New("is of another kind than its key")
	}
	r.Data = b[recordHead+n:]
	return r, nil
}

// recordRevision reads only the revision, 0 where there is no record.
func recordRevision(b []byte) fleet.Revision {
	if len(b) < recordHead {
		return 0
	}
	return fleet.Revision(binary.BigEndian.Uint64(b[1:]))
}

// keyFault says what is wrong with a key, or "".
func keyFault(k fleet.Key) string {
	kind := k.Kind()
	switch {
	case len(k) > maxKey:
		return "is longer than 1024 bytes"
	case !utf8.ValidString(string(k)):
		return "is not UTF-8"
	case kind == "" || len(kind) > maxKind || len(kind) >= len(k)-1:
		return "is not KIND/ID"
	}
	for _, r := range k {
		if unicode.IsControl(r) {
			return "has control characters"
		}
	}
	return ""
}

// encodeValue is what a write puts: JSON, and for a secret its sealed bytes.
func (db *DB) encodeValue(w fleet.Write) ([]byte, error) {
	if w.Key.Kind() == fleet.KindSecret {
		text, err := secretText(w.Value)
		if err != nil {
			return nil, err
		}
		return db.seal.seal([]byte(w.Key), text)
	}
	if w.Encoded != nil {
		return w.Encoded, nil
	}
	return json.Marshal(w.Value)
}

// secretText is the plaintext of a secret's value. A fleet.Secret marshals as "***", so that it must not take the way of JSON.
func secretText(v any) ([]byte, error) {
	var text []byte
	switch v := v.(type) {
	case fleet.Secret:
		text = []byte(v.Reveal())
	case []byte:
		text = v
	default:
		return nil, errors.New("a secret's value is a fleet.Secret or bytes")
	}
	if !utf8.Valid(text) {
		return nil, errors.New("a secret is UTF-8 text; encode binary keys as PEM or base64")
	}
	return text, nil
}
