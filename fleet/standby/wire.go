// Package standby lets a second server follow the first one's store, and take over from it so that never both act.
package standby

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// format is the form of the stream that this program writes and reads.
const format = 1

// A stream is a row of messages: a kind, the length of what follows in four bytes, and that. The first is hello. Where the follower's position is not
// kept, a copy of the whole store comes next, in chunks; then batches, names of files, and a tick each second.
const (
	kindHello byte = 'h'
	kindChunk byte = 'c'
	kindDone  byte = 'd'
	kindBatch byte = 'b'
	kindFile  byte = 'f'
	kindTick  byte = 't'
	// kindEnd says that the server has retired: nothing is committed after its position.
	kindEnd byte = 'x'
)

const (
	maxMessage = 64<<20 + chainSize
	maxSmall   = 1 << 20
	chunkSize  = 256 << 10
	chainSize  = 32
)

// hello says what the stream is.
type hello struct {
	Format int    `json:"format"`
	Epoch  string `json:"epoch"`
	// Copy says that the whole store comes first.
	Copy bool `json:"copy"`
}

// done ends a copy.
type done struct {
	SizeBytes int64          `json:"size_bytes"`
	SHA256    string         `json:"sha256"`
	Position  fleet.Position `json:"position"`
}

// tick says where the server is, once a second and at the end.
type tick struct {
	Position fleet.Position `json:"position"`
	// Run and Beat say when it was sent, by the clock of that process: what a promise counts from.
	Run  string        `json:"run,omitempty"`
	Beat time.Duration `json:"beat,omitempty"`
}

func writeMessage(w io.Writer, kind byte, parts ...[]byte) error {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(size))
	if _, err := w.Write(head); err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

func writeJSON(w io.Writer, kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeMessage(w, kind, b)
}

// writeEntry writes a batch or the name of a file.
func writeEntry(w io.Writer, e fleet.LogEntry) error {
	if e.File != "" {
		return writeMessage(w, kindFile, []byte(e.File))
	}
	chain, err := hex.DecodeString(e.Chain)
	if err != nil || len(chain) != chainSize {
		return fmt.Errorf("a batch has the digest %q", e.Chain)
	}
	return writeMessage(w, kindBatch, chain, e.Batch)
}

var errStream = errors.New("is not what a server sends to a follower")

// message is one as it was read: exactly one field is set, as kind says.
type message struct {
	kind  byte
	hello hello
	done  done
	tick  tick
	entry fleet.LogEntry
	chunk []byte
}

// readMessage reads the next message; io.EOF only between two.
func readMessage(r *bufio.Reader) (message, error) {
	kind, err := r.ReadByte()
	if err != nil {
		return message{}, err
	}
	m := message{kind: kind}
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return m, cut(err)
	}
	size, limit := int64(binary.BigEndian.Uint32(head[:])), int64(maxSmall)
	if kind == kindBatch {
		limit = maxMessage
	}
	if size > limit {
		return m, fmt.Errorf("a message of %d bytes %w", size, errStream)
	}
	// What was announced is believed as it comes, not before: a length alone takes no memory.
	body, err := io.ReadAll(io.LimitReader(r, size))
	if err == nil && int64(len(body)) < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return m, cut(err)
	}
	switch kind {
	case kindHello:
		err = json.Unmarshal(body, &m.hello)
	case kindDone:
		err = json.Unmarshal(body, &m.done)
	case kindTick, kindEnd:
		err = json.Unmarshal(body, &m.tick)
	case kindFile:
		m.entry.File = string(body)
		if len(body) == 0 {
			err = errStream
		}
	case kindChunk:
		m.chunk = body
	case kindBatch:
		if len(body) <= chainSize {
			return m, fmt.Errorf("a batch of %d bytes %w", len(body), errStream)
		}
		m.entry.Chain, m.entry.Batch = hex.EncodeToString(body[:chainSize]), body[chainSize:]
	default:
		err = errStream
	}
	if err != nil {
		return m, fmt.Errorf("a message %q: %w", kind, err)
	}
	return m, nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
