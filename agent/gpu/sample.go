package gpu

import (
	"context"
	"errors"
	"sync"

	"github.com/metalctl/metalctl/fleet"
)

// sample is what a GPU's values are now; Component is empty.
type sample struct {
	Values []fleet.Sample `json:"values"`
}

// Sampler asks GPUs again and again for the values that change all the time: temperatures, power, clocks, the PCIe link, and counters of throttling and ECC.
// Each GPU has a child that stays, so that one that hangs costs the others nothing; it is not asked again.
type Sampler struct {
	opts    Options
	targets []Target

	mu       sync.Mutex // guards what follows
	children map[string]*child
	gone     map[string]error // by component: why it is not asked any more
}

// NewSampler starts nothing yet: children start with the first Sample. Close ends them.
func NewSampler(opts Options, targets []Target) *Sampler {
	return &Sampler{opts: opts.filled(), targets: targets, children: map[string]*child{}, gone: map[string]error{}}
}

// Sample reads all GPUs at once. Beside the values it returns an error where GPUs do not tell theirs, those of earlier calls included.
func (s *Sampler) Sample(ctx context.Context) ([]fleet.Sample, error) {
	answers := make([][]fleet.Sample, len(s.targets))
	var all sync.WaitGroup
	for i, t := range s.targets {
		all.Go(func() { answers[i] = s.one(ctx, t) })
	}
	all.Wait()
	var out []fleet.Sample
	for i, t := range s.targets {
		for _, v := range answers[i] {
			v.Component = t.Component
			out = append(out, v)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, t := range s.targets {
		if err := s.gone[t.Component]; err != nil {
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

// one asks one GPU; at most one question a GPU is open.
func (s *Sampler) one(ctx context.Context, t Target) (values []fleet.Sample) {
	s.mu.Lock()
	c, gone := s.children[t.Component], s.gone[t.Component]
	s.mu.Unlock()
	if gone != nil || ctx.Err() != nil {
		return nil
	}
	var failed *failure
	err := error(nil)
	if c == nil {
		if s.opts.Helper == nil {
			err = errors.New("nothing here answers as NVIDIA's library")
		} else if c, err = startChild(s.opts); err == nil {
			s.mu.Lock()
			s.children[t.Component] = c
			s.mu.Unlock()
		}
	}
	if err == nil {
		err = c.ask(ctx, request{Library: s.opts.Library, PCI: t.PCI, Sample: true}, func(m message) error {
			switch {
			case m.Sample != nil:
				values = m.Sample.Values
			case m.Failed != nil:
				failed = m.Failed
			default:
				return errors.New("a message that is no sample")
			}
			return nil
		})
	}
	if failed != nil && err == nil {
		err = errors.New(failed.Why)
	}
	if err == nil {
		return values
	}
	// A question that was given up leaves the child in the middle of an answer.
	s.mu.Lock()
	defer s.mu.Unlock()
	if c != nil {
		c.end()
	}
	delete(s.children, t.Component)
	if ctx.Err() == nil {
		s.gone[t.Component] = &untold{t.Component, err}
	}
	return nil
}

// untold is why a GPU does not tell.
type untold struct {
	component string
	err       error
}

func (u *untold) Error() string { return u.component + ": " + u.err.Error() }
func (u *untold) Unwrap() error { return u.err }

// Close ends the children.
func (s *Sampler) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.children {
		c.end()
	}
	clear(s.children)
}
