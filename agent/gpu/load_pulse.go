//go:build cgo

package gpu

import (
	"time"

	"github.com/metalctl/metalctl/agent/gpu/cuda"
)

// pulse computes and rests by turns, in phase with the other GPUs of the machine and with no other machine.
type pulse struct{ *compute }

func (p *pulse) turn(int64) error {
	since := time.Duration(cuda.Monotonic() - p.l.run.Start)
	if since < 0 {
		time.Sleep(-since)
		since = 0
	}
	// Every child finds the same phase by the machine's clock, whatever it did before.
	phase, rest := phaseAt(since, p.l.run.Stretch)
	time.Sleep(rest)
	for end := cuda.Monotonic() + phase.Nanoseconds(); ; {
		if err := p.round(p.kernels[0]); err != nil {
			return err
		}
		if cuda.Monotonic() >= end {
			return nil
		}
	}
}
