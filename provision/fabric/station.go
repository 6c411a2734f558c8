package fabric

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Port is the port of this machine by which datagrams leave; routes begin there.
type Port interface {
	// Send gives a datagram to the port. The port may overwrite the upper half of the transaction id.
	Send(datagram []byte) error
	// Receive waits for a datagram until that time, and then fails with os.ErrDeadlineExceeded. One that was lost may come back as it was sent.
	Receive(buf []byte, until time.Time) (int, error)
}

// Station asks devices through a port. It may be used by several goroutines; one question batch runs at a time.
type Station struct {
	mu   sync.Mutex // guards port and tid
	port Port
	tid  uint32
	now  func() time.Time
	mkey uint64
	// window is how many questions are out at once.
	window int
	// patience is how long one waits for an answer, tries how often it is asked for.
	patience time.Duration
	tries    int
}

// Options of a station; the zero value asks for nothing special.
type Options struct {
	// MKey is the fabric's management key, without which protected devices do not answer; 0 where there is none.
	MKey uint64
	// Window is how many questions are out at once; 0 is 32. Subnet managers use 4 and more.
	Window int
	// Patience is how long an answer may take; 0 is 500 ms. Each question is asked three times.
	Patience time.Duration
	// Now tells the time.
	Now func() time.Time
}

// NewStation asks through port.
func NewStation(port Port, o Options) *Station {
	s := &Station{port: port, now: o.Now, mkey: o.MKey, window: o.Window, patience: o.Patience, tries: 3}
	if s.window <= 0 {
		s.window = 32
	}
	if s.patience <= 0 {
		s.patience = 500 * time.Millisecond
	}
	if s.now == nil {
		s.now = time.Now
	}
	return s
}

type pending struct {
	i     int // of the question
	tries int
	until time.Time
}

// errSilent is the answer of a device that gave none.
var errSilent = errors.New("did not answer")

// ask asks all questions and returns the answers in their order. Its own error is the port's, or ctx's; what a single device did is in its answer.
func (s *Station) ask(ctx context.Context, qs []question) ([]answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answers := make([]answer, len(qs))
	out := map[uint32]pending{}
	next, buf := 0, make([]byte, Size)
	for next < len(qs) || len(out) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("ask the fabric: %w", err)
		}
		for ; next < len(qs) && len(out) < s.window; next++ {
			if err := s.send(qs, out, pending{i: next, tries: s.tries}); err != nil {
				return nil, err
			}
		}
		if err := s.receive(qs, answers, out, buf); err != nil {
			return nil, err
		}
		if err := s.again(qs, answers, out); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

func (s *Station) send(qs []question, out map[uint32]pending, p pending) error {
	s.tid++
	p.until = s.now().Add(s.patience)
	p.tries--
	out[s.tid] = p
	d := qs[p.i].encode(uint64(s.tid), s.mkey)
	if err := s.port.Send(d[:]); err != nil {
		return fleet.Errorf(fleet.Unavailable, "MC-FABRIC-PORT", "send to the InfiniBand fabric: %w", err).
			WithHint("ibstat on the machine with the subnet manager shows whether its port is up")
	}
	return nil
}

// receive takes one datagram, or waits until the first question's patience is over.
func (s *Station) receive(qs []question, answers []answer, out map[uint32]pending, buf []byte) error {
	var first time.Time
	for _, p := range out {
		if first.IsZero() || p.until.Before(first) {
			first = p.until
		}
	}
	n, err := s.port.Receive(buf, first)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		return fleet.Errorf(fleet.Unavailable, "MC-FABRIC-PORT", "receive from the InfiniBand fabric: %w", err).
			WithHint("ibstat on the machine with the subnet manager shows whether its port is up")
	}
	if n != Size {
		return nil
	}
	tid := binary.BigEndian.Uint32(buf[12:])
	p, asked := out[tid]
	if !asked {
		return nil // late: its question was asked again, or given up
	}
	if a, ok := qs[p.i].decode(buf[:n]); ok {
		answers[p.i] = a
		delete(out, tid)
	} else if buf[3] == methodGet || buf[3] == methodSet { // came back undelivered
		p.until = s.now()
		out[tid] = p
	}
	return nil
}

// again asks anew what was not answered in time, and gives up what was asked often enough.
func (s *Station) again(qs []question, answers []answer, out map[uint32]pending) error {
	now := s.now()
	for tid, p := range out {
		if now.Before(p.until) {
			continue
		}
		delete(out, tid)
		if p.tries == 0 {
			answers[p.i].err = fmt.Errorf("%s: %w", qs[p.i], errSilent)
			continue
		}
		if err := s.send(qs, out, p); err != nil {
			return err
		}
	}
	return nil
}
