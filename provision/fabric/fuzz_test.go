package fabric

import (
	"context"
	"os"
	"testing"
	"time"
)

// echo answers each datagram with what the fuzzer made, with or without the transaction id that was asked with.
type echo struct {
	raw   []byte
	exact bool
	out   [][]byte
}

func (e *echo) Send(d []byte) error {
	a := append([]byte(nil), d...)
	if e.exact {
		a[3] = methodGetResp
		copy(a[4:6], e.raw)
		copy(a[dataAt:], e.raw[min(len(e.raw), 2):])
	} else {
		a = append([]byte(nil), e.raw...)
	}
	e.out = append(e.out, a)
	return nil
}

func (e *echo) Receive(buf []byte, _ time.Time) (int, error) {
	if len(e.out) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(buf, e.out[0])
	e.out = e.out[1:]
	return n, nil
}

// FuzzSweep walks fabrics whose every device answers the same, whatever that is: a walk ends, and no table is longer than its device says.
func FuzzSweep(f *testing.F) {
	host := make([]byte, 66)
	host[4], host[5], host[31], host[38] = 1, 1, 64, 1
	f.Add(host, true)
	ring := make([]byte, 66)
	ring[4], ring[5], ring[31], ring[35], ring[38] = 2, 36, 32, 5<<4, 3
	f.Add(ring, true)
	f.Add([]byte{0, 28}, true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, raw []byte, exact bool) {
		if len(raw) > Size {
			raw = raw[:Size]
		}
		// Time stands still but for the asking, so that silence costs nothing.
		now := time.Unix(0, 0)
		clock := func() time.Time { now = now.Add(time.Second); return now }
		s, err := NewStation(&echo{raw: raw, exact: exact}, Options{Now: clock}).Sweep(context.Background())
		if err != nil {
			return
		}
		for _, e := range s.Ends {
			if len(e.Keys) > e.cap {
				t.Fatalf("%d keys in a table of %d", len(e.Keys), e.cap)
			}
		}
	})
}
