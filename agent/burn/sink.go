package burn

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/metalctl/metalctl/fleet"
)

// Bounds of what a stressor can make a part hold: it may run somebody else's library.
const (
	maxMeasured = 4096
	maxUntold   = 1024
	maxDetails  = 20
	maxDetail   = 200
)

// Sink takes what stressors tell; it may be used by many goroutines.
type Sink struct {
	stop context.CancelCauseFunc

	mu       sync.Mutex // guards what follows
	closed   bool
	measured []fleet.Measured
	at       map[[3]string]int
	untold   []fleet.Untold
	ran      []fleet.StressRun
	far      map[string]string
}

func newSink() *Sink { return &Sink{at: map[[3]string]int{}, far: map[string]string{}} }

// Measured takes a value; it replaces the one of the same check, component and engine.
func (s *Sink) Measured(m fleet.Measured) {
	if len(m.Details) > maxDetails {
		m.Details = m.Details[:maxDetails]
	}
	m.Details = slices.Clone(m.Details)
	for i, d := range m.Details {
		if len(d) > maxDetail {
			m.Details[i] = strings.ToValidUTF8(d[:maxDetail], "")
		}
	}
	if c, ok := fleet.FindMeasured(m.Check); ok && m.Unit == "" {
		m.Unit = c.Unit
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	key := [3]string{m.Check, m.Component, m.Engine}
	if i, seen := s.at[key]; seen {
		s.measured[i] = m
		return
	}
	if len(s.measured) == maxMeasured {
		s.untoldLocked(fleet.Untold{Check: m.Check, Component: "node", Cause: "other", Words: fmt.Sprintf("there are more than %d values", maxMeasured)})
		return
	}
	s.at[key] = len(s.measured)
	s.measured = append(s.measured, m)
}

// Untold takes what could not be measured; the same of the same component is kept once.
func (s *Sink) Untold(u fleet.Untold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.untoldLocked(u)
}

func (s *Sink) untoldLocked(u fleet.Untold) {
	if s.closed || len(s.untold) >= maxUntold || slices.Contains(s.untold, u) {
		return
	}
	s.untold = append(s.untold, u)
}

// Ran takes what ran, and with what; the last one of a stress and an engine counts.
func (s *Sink) Ran(x fleet.StressRun) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if i := slices.IndexFunc(s.ran, func(y fleet.StressRun) bool { return y.Stress == x.Stress && y.Engine == x.Engine }); i >= 0 {
		s.ran[i] = x
		return
	}
	s.ran = append(s.ran, x)
}

// Progress takes in a few words what a stressor does now.
func (s *Sink) Progress(stress, words string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.far[stress] = words
}

// Wrong says that a component computed or kept wrong data: the load ends, as nothing else can be learned that matters more. It was told as Measured before.
func (s *Sink) Wrong(component, words string) {
	if s.stop != nil {
		s.stop(&stopped{fleet.StoppedWrong + ": " + component + ": " + words})
	}
}

// words are what the stressors do now.
func (s *Sink) words(names []string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, n := range names {
		if w := s.far[n]; w != "" {
			out = append(out, n+": "+w)
		}
	}
	return strings.Join(out, ", ")
}

// take ends the telling: what is left behind changes nothing any more.
func (s *Sink) take() ([]fleet.Measured, []fleet.Untold, []fleet.StressRun) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.measured, s.untold, s.ran
}
