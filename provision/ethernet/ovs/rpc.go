package ovs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// maxAnswer bounds what is read of one answer: rows of a switch with thousands of ports are some MiB.
const maxAnswer = 16 << 20

// lostError is an answer that did not come, or broke off: whether the switch did what it was asked is not known.
type lostError struct{ error }

// database is a connection to an OVSDB server (RFC 7047), for one question at a time.
type database struct {
	conn     net.Conn
	left     io.LimitedReader
	decode   *json.Decoder
	last     int
	patience time.Duration
}

func newDatabase(conn net.Conn, patience time.Duration) *database {
	d := &database{conn: conn, patience: patience}
	d.left = io.LimitedReader{R: conn}
	d.decode = json.NewDecoder(&d.left)
	return d
}

// message is any message of JSON-RPC 1.0: a question has a method, an answer a result or an error.
type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  json.RawMessage `json:"error,omitempty"`
}

// operation is one operation of a transaction, result what became of it.
type (
	operation map[string]any
	result    struct {
		Rows    []json.RawMessage `json:"rows"`
		Count   int               `json:"count"`
		Error   string            `json:"error"`
		Details string            `json:"details"`
	}
)

// errWait is a transaction that was not done, as something in the database is not as it was expected.
var errWait = errors.New("the database is not as expected")

// transact does all operations or none. An expectation that does not hold is errWait.
func (d *database) transact(ctx context.Context, ops ...operation) ([]result, error) {
	params := []any{"Open_vSwitch"}
	for _, o := range ops {
		params = append(params, o)
	}
	raw, err := d.call(ctx, "transact", params)
	if err != nil {
		return nil, err
	}
	return results(raw, len(ops))
}

// results reads the answer to a transaction of n operations.
func results(raw json.RawMessage, n int) ([]result, error) {
	var all []*result
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, garbled("the result of a transaction: %v", err)
	}
	out := make([]result, 0, n)
	for _, r := range all {
		switch {
		case r == nil: // not tried, as one before it failed
		case r.Error == "timed out":
			return nil, errWait
		case r.Error != "":
			return nil, fleet.Errorf(fleet.Refused, "MC-SWITCH-COMMAND", "the switch's database refused the change: %s: %s", r.Error, r.Details).WithHint("its log says more: ovsdb-server.log")
		default:
			out = append(out, *r)
		}
	}
	if len(out) < n {
		return nil, garbled("%d results for %d operations", len(out), n)
	}
	return out, nil
}

func garbled(format string, args ...any) error {
	return fleet.Errorf(fleet.Unavailable, "MC-SWITCH-ANSWER", "what the switch answered is not understood: "+format, args...).WithHint("is this address that of an Open vSwitch?")
}

// call asks one question and waits for its answer, however often the answer comes, and answers the server's own questions meanwhile.
func (d *database) call(ctx context.Context, method string, params any) (json.RawMessage, error) {
	d.last++
	id := fmt.Sprint(d.last)
	q, err := json.Marshal(map[string]any{"id": d.last, "method": method, "params": params})
	if err != nil {
		return nil, fmt.Errorf("write a question to the switch: %w", err)
	}
	if err := d.conn.SetDeadline(deadline(ctx, d.patience)); err != nil {
		return nil, lost(err)
	}
	if _, err := d.conn.Write(q); err != nil {
		return nil, lost(err)
	}
	d.left.N = maxAnswer
	for {
		m, err := d.next()
		switch {
		case err != nil:
			return nil, err
		case m.Method == "echo":
			a, err := json.Marshal(map[string]any{"id": m.ID, "result": m.Params, "error": nil})
			if err != nil {
				return nil, garbled("an echo: %v", err)
			}
			if _, err := d.conn.Write(a); err != nil {
				return nil, lost(err)
			}
		case m.Method != "" || string(m.ID) != id:
			// An update that nobody asked for, or an older answer once more.
		case len(m.Error) > 0 && string(m.Error) != "null":
			return nil, fleet.Errorf(fleet.Refused, "MC-SWITCH-COMMAND", "the switch's database refused: %s", clip(m.Error)).WithHint("its log says more: ovsdb-server.log")
		default:
			return m.Result, nil
		}
	}
}

// next reads one message.
func (d *database) next() (m message, err error) {
	err = d.decode.Decode(&m)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax) || errors.As(err, &kind):
		return m, garbled("%v", err)
	case err != nil && d.left.N <= 0:
		return m, garbled("an answer is longer than %d MiB", maxAnswer>>20)
	case err != nil:
		return m, lost(err)
	}
	return m, nil
}

func lost(err error) error {
	return fleet.Errorf(fleet.Unavailable, "MC-SWITCH-SILENT", "the switch did not answer: %w", lostError{err}).WithHint("is the switch up, and its address the right one?")
}

// deadline is when an answer must have come.
func deadline(ctx context.Context, patience time.Duration) time.Time {
	at := time.Now().Add(patience)
	if end, ok := ctx.Deadline(); ok && end.Before(at) {
		return end
	}
	return at
}
