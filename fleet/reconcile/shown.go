package reconcile

import (
	"fmt"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

const (
	// shownFor is how long a plan that was shown is remembered, shownMost how many are.
	shownFor  = time.Hour
	shownMost = 512
)

const notShown = "; what differs cannot be said, as this server has not shown the former within the last hour"

// shownPlans remembers plans that were shown, so that a digest that does not fit any more can be answered with what differs. It is a convenience: what
// may run is decided by the digest alone.
type shownPlans struct {
	mu    sync.Mutex // guards the rest
	plans map[string]shownPlan
	order []string // oldest first
}

// shownPlan is a plan of a node, or of a lease: then with the digests of its nodes' plans by their names.
type shownPlan struct {
	of      string
	plan    step.Plan
	members map[string]string
	grace   int64
	state   fleet.LeaseState
	at      time.Time
}

func (s *shownPlans) keep(p shownPlan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plans == nil {
		s.plans = map[string]shownPlan{}
	}
	if _, again := s.plans[p.plan.Digest]; !again {
		s.order = append(s.order, p.plan.Digest)
	}
	s.plans[p.plan.Digest] = p
	for len(s.order) > shownMost {
		delete(s.plans, s.order[0])
		s.order = s.order[1:]
	}
}

func (s *shownPlans) find(digest string, now time.Time) (shownPlan, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.plans[digest]
	return p, ok && now.Sub(p.at) < shownFor
}

// otherPlan refuses a digest that is not that of the plan which would run now, and says what differs where that plan was shown here.
func (l *Loop) otherPlan(n *fleet.Node, asked string, p step.Plan) error {
	e := fleet.Errorf(fleet.Conflict, "MC-PLAN-DIGEST", "the plan has become another: %s was asked for, %s is what would run now", asked, p.Digest).
		WithHint("metalctl node plan %s --use %s", n.Name, p.Use)
	was, ok := l.shown.find(asked, l.Now())
	switch {
	case !ok:
		e.Msg += notShown
	case was.plan.Node != n.ID:
		e.Msg += fmt.Sprintf("; the former is a plan of %s and not of %s", was.of, n.Name)
	default:
		e.Fields = step.Differences(was.plan, p)
	}
	return e
}
