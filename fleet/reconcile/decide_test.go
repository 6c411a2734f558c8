package reconcile

import (
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// opOf is an operation of one step in a state.
func opOf(use step.Use, name string, state fleet.StepState) *fleet.Operation {
	s, _ := step.Find(name)
	op := &fleet.Operation{ID: "o", Use: string(use), State: fleet.OperationRunning, StartedAt: t0,
		Steps: []fleet.StepRun{{Name: name, Side: s.Side, State: state, StartedAt: t0}}}
	if state == fleet.StepFailed {
		op.Steps[0].Error = &fleet.Problem{Detail: "broken"}
	}
	return op
}

func TestDecide(t *testing.T) {
	hold := func(n *fleet.Node) { n.Hold = &fleet.Hold{By: "p", Reason: "r"} }
	wish := func(v fleet.Verb) func(*fleet.Node) {
		return func(n *fleet.Node) { n.Wish = &fleet.Wish{Verb: v, Operation: "o", By: "p"} }
	}
	pending := func(use step.Use) *fleet.Operation {
		op := opOf(use, step.PowerOff, fleet.StepPending)
		op.State = fleet.OperationPending
		return op
	}
	up := Facts{AgentUp: true}
	left := func(u fleet.Undo) func(*fleet.Node) { return func(n *fleet.Node) { n.Undo = &u } }
	for name, c := range map[string]struct {
		state fleet.State
		node  func(*fleet.Node)
		op    *fleet.Operation
		lease *fleet.Lease
		facts Facts
		now   time.Time
		want  MoveKind
		use   step.Use
	}{
		"available rests":              {state: fleet.Available, want: Rest},
		"active rests":                 {state: fleet.Active, want: Rest},
		"retired rests":                {state: fleet.Retired, want: Rest},
		"managed rests":                {state: fleet.Managed, want: Rest},
		"cleaning without a plan":      {state: fleet.Cleaning, want: Plan, use: step.Clean},
		"burning without a plan":       {state: fleet.Burning, want: Plan, use: step.Burn},
		"releasing without a plan":     {state: fleet.Releasing, want: Plan, use: step.Release},
		"release failed":               {state: fleet.Releasing, node: func(n *fleet.Node) { n.RaiseFault(fleet.Fault{Code: "MC-FAULT-RELEASE", Component: "plan/release"}) }, want: Rest},
		"cleaning, held":               {state: fleet.Cleaning, node: hold, want: Plan, use: step.Clean},
		"wish without a plan":          {state: fleet.Allocated, node: wish(fleet.VerbDeploy), want: Plan, use: step.Deploy},
		"wish with its plan":           {state: fleet.Managed, node: wish(fleet.VerbInspect), op: pending(step.Inspect), want: Enter},
		"wish with its plan, held":     {state: fleet.Managed, node: func(n *fleet.Node) { wish(fleet.VerbInspect)(n); hold(n) }, op: pending(step.Inspect), want: Wait},
		"release enters though held":   {state: fleet.Active, node: func(n *fleet.Node) { wish(fleet.VerbRelease)(n); hold(n) }, op: pending(step.Release), want: Enter},
		"wish aborted before it began": {state: fleet.Managed, node: wish(fleet.VerbInspect), op: func() *fleet.Operation { o := pending(step.Inspect); o.Abort = true; return o }(), want: Stop},
		"plan of a working state":      {state: fleet.Cleaning, op: pending(step.Clean), want: Start},
		"step starts":                  {state: fleet.Cleaning, op: opOf(step.Clean, step.PowerOff, fleet.StepPending), want: Start},
		"step waits for a hold":        {state: fleet.Cleaning, node: hold, op: opOf(step.Clean, step.EraseDisks, fleet.StepPending), facts: up, want: Wait},
		"isolation though held":        {state: fleet.Releasing, node: hold, op: opOf(step.Release, step.Isolate, fleet.StepPending), want: Start},
		"in-band runs":                 {state: fleet.Cleaning, op: opOf(step.Clean, step.EraseDisks, fleet.StepStarted), facts: up, want: Await},
		"in-band, agent just silent":   {state: fleet.Cleaning, op: opOf(step.Clean, step.EraseDisks, fleet.StepStarted), want: Await},
		"in-band, agent lost":          {state: fleet.Cleaning, op: opOf(step.Clean, step.Inventory, fleet.StepStarted), now: t0.Add(time.Hour), want: Fail},
		"erasing, network cut":         {state: fleet.Cleaning, op: opOf(step.Clean, step.EraseDisks, fleet.StepStarted), now: t0.Add(time.Hour), want: Await},
		"out of band was cut short":    {state: fleet.Cleaning, op: opOf(step.Clean, step.PowerOff, fleet.StepStarted), want: Recover},
		"all steps finished":           {state: fleet.Cleaning, op: opOf(step.Clean, step.PowerOff, fleet.StepFinished), want: Complete},
		"step failed":                  {state: fleet.Cleaning, op: opOf(step.Clean, step.PowerOff, fleet.StepFailed), want: Fail},
		"a person is asked":            {state: fleet.Cleaning, op: opOf(step.Clean, step.PowerOff, fleet.StepAsk), want: Rest},
		"abort": {state: fleet.Cleaning, op: func() *fleet.Operation {
			o := opOf(step.Clean, step.PowerOff, fleet.StepPending)
			o.Abort = true
			return o
		}(), want: Stop},
		"release waits behind a plan":    {state: fleet.Deploying, node: func(n *fleet.Node) { n.Wish = &fleet.Wish{Verb: fleet.VerbRelease, Operation: "p"} }, op: opOf(step.Deploy, step.WriteImage, fleet.StepStarted), facts: up, want: Await},
		"protected since its release":    {state: fleet.Cleaning, node: func(n *fleet.Node) { n.Protected = true }, want: Rest},
		"undo":                           {state: fleet.Managed, node: left(fleet.Undo{Power: true}), want: Plan, use: step.Undo},
		"undo, held":                     {state: fleet.Managed, node: func(n *fleet.Node) { left(fleet.Undo{Power: true})(n); hold(n) }, want: Rest},
		"undo failed a moment ago":       {state: fleet.Managed, node: left(fleet.Undo{Power: true, NotBefore: t0.Add(time.Second)}), want: Wait},
		"undo, the agent may go on":      {state: fleet.Managed, node: left(fleet.Undo{Power: true, AgentUntil: t0.Add(time.Second)}), facts: up, want: Wait},
		"undo, the agent is silent":      {state: fleet.Managed, node: left(fleet.Undo{Power: true, AgentUntil: t0.Add(time.Second)}), want: Plan, use: step.Undo},
		"undo, protected":                {state: fleet.Managed, node: func(n *fleet.Node) { left(fleet.Undo{Power: true})(n); n.Protected = true }, want: Rest},
		"undo, protected, with medium":   {state: fleet.Managed, node: func(n *fleet.Node) { left(fleet.Undo{Power: true, Medium: true})(n); n.Protected = true }, want: Plan, use: step.Undo},
		"undo never powers a tenant off": {state: fleet.Active, node: left(fleet.Undo{Power: true}), want: Rest},
		"undo after a wish":              {state: fleet.Managed, node: func(n *fleet.Node) { left(fleet.Undo{Power: true})(n); wish(fleet.VerbInspect)(n) }, want: Plan, use: step.Inspect},
		"undo after a cleaning is due":   {state: fleet.Cleaning, node: left(fleet.Undo{Power: true}), want: Plan, use: step.Clean},
		"grace":                          {state: fleet.Grace, lease: &fleet.Lease{State: fleet.LeaseReleased, GraceEnds: t0.Add(time.Hour)}, want: Wait},
		"grace over":                     {state: fleet.Grace, lease: &fleet.Lease{State: fleet.LeaseReleased, GraceEnds: t0}, want: EndGrace},
		"grace over, held":               {state: fleet.Grace, node: hold, lease: &fleet.Lease{State: fleet.LeaseReleased, GraceEnds: t0}, want: Rest},
		"grace over, protected":          {state: fleet.Grace, node: func(n *fleet.Node) { n.Protected = true }, lease: &fleet.Lease{State: fleet.LeaseReleased, GraceEnds: t0}, want: Rest},
		"grace, lease extended":          {state: fleet.Grace, lease: &fleet.Lease{State: fleet.LeaseDeploying, GraceEnds: t0.Add(time.Hour), Members: []fleet.Member{{Node: "n", State: fleet.MemberReserved}}}, want: ComeBack},
		"grace, given back alone":        {state: fleet.Grace, lease: &fleet.Lease{State: fleet.LeaseActive, GraceEnds: t0.Add(time.Hour), Members: []fleet.Member{{Node: "n", State: fleet.MemberReleased}}}, want: Wait},
		"grace over, given back alone":   {state: fleet.Grace, lease: &fleet.Lease{State: fleet.LeaseActive, GraceEnds: t0, Members: []fleet.Member{{Node: "n", State: fleet.MemberReleased}}}, want: EndGrace},
		"grace of a lease that is gone":  {state: fleet.Grace, want: EndGrace},
	} {
		t.Run(name, func(t *testing.T) {
			n := fleet.Node{ID: "n", Name: "n1", State: c.state}
			if c.node != nil {
				c.node(&n)
			}
			if c.now.IsZero() {
				c.now = t0
			}
			c.facts.Sure = c.now
			got := Decide(n, c.op, c.lease, c.facts, c.now)
			if got.Kind != c.want || c.use != "" && got.Use != c.use {
				t.Errorf("got %s (%s), want %s %s", got.Kind, got.Why, c.want, c.use)
			}
		})
	}
}

// TestDecideAlways goes over every state with every shape of a run: nothing panics, what waits says why, and a node at rest is in a state where it may.
func TestDecideAlways(t *testing.T) {
	shapes := []*fleet.Operation{nil}
	for _, s := range step.Catalogue {
		for _, state := range []fleet.StepState{fleet.StepPending, fleet.StepStarted, fleet.StepFinished, fleet.StepFailed, fleet.StepAsk} {
			for _, abort := range []bool{false, true} {
				op := opOf(s.Uses[0], s.Name, state)
				op.Abort = abort
				shapes = append(shapes, op)
			}
		}
	}
	n := 0
	for _, state := range fleet.States() {
		for _, op := range shapes {
			for _, held := range []bool{false, true} {
				for _, up := range []bool{false, true} {
					for _, now := range []time.Time{t0, t0.Add(24 * time.Hour)} {
						node := fleet.Node{Name: "n1", State: state, Undo: &fleet.Undo{Power: true, Medium: up}}
						if held {
							node.Hold = &fleet.Hold{}
						}
						m := Decide(node, op, nil, Facts{AgentUp: up}, now)
						n++
						if m.Kind == Rest && (op != nil && op.Steps[0].State != fleet.StepAsk || op == nil && state == fleet.Cleaning) {
							t.Errorf("%s with %+v rests: %s", state, op, m.Why)
						}
						if (m.Kind == Wait || m.Kind == Await || m.Kind == Fail) && m.Why == "" {
							t.Errorf("%s with %+v: %s without a reason", state, op, m.Kind)
						}
						if m.Kind == Start && held && op != nil {
							if decl, _ := step.Find(op.Steps[0].Name); !decl.EvenHeld {
								t.Errorf("%s starts on a held node", decl.Name)
							}
						}
						if m.Kind == Plan && m.Use == step.Undo && (held || op != nil) {
							t.Errorf("%s with %+v is cleaned up, held %v", state, op, held)
						}
						if m.Kind == Start && op.Steps[0].Side == step.InBand && !up {
							t.Errorf("%s starts without an agent", op.Steps[0].Name)
						}
					}
				}
			}
		}
	}
	if n < 10000 {
		t.Errorf("only %d cases", n)
	}
}

func TestDecideLease(t *testing.T) {
	node := func(s fleet.State) *fleet.Node { return &fleet.Node{ID: "a", Name: "a", State: s, Lease: "l"} }
	member := func(s fleet.MemberState) []fleet.Member { return []fleet.Member{{Node: "a", Name: "a", State: s}} }
	two := func(x, y fleet.MemberState) []fleet.Member {
		return []fleet.Member{{Node: "a", Name: "a", State: x}, {Node: "b", Name: "b", State: y}}
	}
	for name, c := range map[string]struct {
		state   fleet.LeaseState
		members []fleet.Member
		node    *fleet.Node
		change  func(*fleet.Lease)
		want    LeaseMoveKind
		verb    string
		fault   bool
	}{
		"pending":                       {state: fleet.LeasePending, members: member(fleet.MemberReserved), want: LeaseVerb, verb: "allocate"},
		"member to allocate":            {state: fleet.LeaseAllocating, members: member(fleet.MemberReserved), node: &fleet.Node{State: fleet.Available}, want: MemberAllocate},
		"every member allocated":        {state: fleet.LeaseAllocating, members: member(fleet.MemberReserved), node: node(fleet.Allocated), want: LeaseVerb, verb: "deploy"},
		"none could be allocated":       {state: fleet.LeaseAllocating, members: member(fleet.MemberFailed), node: &fleet.Node{State: fleet.Managed}, want: LeaseVerb, verb: "fail", fault: true},
		"one of two held, other failed": {state: fleet.LeaseAllocating, members: two(fleet.MemberReserved, fleet.MemberFailed), node: node(fleet.Allocated), want: LeaseVerb, verb: "release", fault: true},
		"one of two suffices":           {state: fleet.LeaseAllocating, members: two(fleet.MemberReserved, fleet.MemberFailed), node: node(fleet.Allocated), change: func(l *fleet.Lease) { l.Request.MinReady = 1 }, want: LeaseVerb, verb: "deploy"},
		"member to deploy":              {state: fleet.LeaseDeploying, members: member(fleet.MemberReserved), node: node(fleet.Allocated), want: MemberDeploy},
		"member is being deployed":      {state: fleet.LeaseDeploying, members: member(fleet.MemberDeploying), node: node(fleet.Deploying), want: LeaseRest},
		"node is held":                  {state: fleet.LeaseDeploying, members: member(fleet.MemberReserved), node: func() *fleet.Node { n := node(fleet.Allocated); n.Hold = &fleet.Hold{}; return n }(), want: LeaseRest},
		"all ready":                     {state: fleet.LeaseDeploying, members: member(fleet.MemberReady), node: node(fleet.Active), want: LeaseVerb, verb: "ready"},
		"one ready, one on its way":     {state: fleet.LeaseDeploying, members: two(fleet.MemberReady, fleet.MemberDeploying), node: node(fleet.Active), want: LeaseRest},
		"one ready suffices":            {state: fleet.LeaseDeploying, members: two(fleet.MemberReady, fleet.MemberFailed), node: node(fleet.Active), change: func(l *fleet.Lease) { l.Request.MinReady = 1 }, want: LeaseVerb, verb: "ready"},
		"one failed, one on its way":    {state: fleet.LeaseDeploying, members: two(fleet.MemberFailed, fleet.MemberDeploying), node: node(fleet.Allocated), change: func(l *fleet.Lease) { l.Request.MinReady = 1 }, want: MemberRelease},
		"one failed, active":            {state: fleet.LeaseActive, members: two(fleet.MemberFailed, fleet.MemberReady), node: node(fleet.Allocated), want: MemberRelease},
		"one failed and is held":        {state: fleet.LeaseActive, members: two(fleet.MemberFailed, fleet.MemberReady), node: func() *fleet.Node { n := node(fleet.Allocated); n.Hold = &fleet.Hold{}; return n }(), want: LeaseRest},
		"one failed and goes back":      {state: fleet.LeaseActive, members: two(fleet.MemberFailed, fleet.MemberReady), node: node(fleet.Releasing), want: LeaseRest},
		"member failed":                 {state: fleet.LeaseDeploying, members: member(fleet.MemberFailed), node: node(fleet.Allocated), want: LeaseVerb, verb: "release", fault: true},
		"deadline":                      {state: fleet.LeaseDeploying, members: member(fleet.MemberDeploying), node: node(fleet.Deploying), change: func(l *fleet.Lease) { l.Request.DeadlineSeconds = 60 }, want: LeaseVerb, verb: "release", fault: true},
		"comes back from grace":         {state: fleet.LeaseDeploying, members: member(fleet.MemberReserved), node: node(fleet.Grace), change: func(l *fleet.Lease) { l.GraceEnds = t0.Add(time.Hour) }, want: LeaseRest},
		"active":                        {state: fleet.LeaseActive, members: member(fleet.MemberReady), node: node(fleet.Active), want: LeaseRest},
		"active, a late member":         {state: fleet.LeaseActive, members: two(fleet.MemberReserved, fleet.MemberReady), node: node(fleet.Allocated), want: MemberDeploy},
		"its time is over":              {state: fleet.LeaseActive, members: member(fleet.MemberReady), node: node(fleet.Active), change: func(l *fleet.Lease) { l.Request.Until = t0 }, want: LeaseVerb, verb: "release"},
		"its time is over, protected":   {state: fleet.LeaseActive, members: member(fleet.MemberReady), node: node(fleet.Active), change: func(l *fleet.Lease) { l.Request.Until, l.Protected = t0, true }, want: LeaseOverdue},
		"a protected node keeps it":     {state: fleet.LeaseActive, members: member(fleet.MemberReady), node: func() *fleet.Node { n := node(fleet.Active); n.Protected = true; return n }(), change: func(l *fleet.Lease) { l.Request.Until = t0 }, want: LeaseOverdue},
		"ends soon":                     {state: fleet.LeaseActive, members: member(fleet.MemberReady), node: node(fleet.Active), change: func(l *fleet.Lease) { l.Request.Until = t0.Add(time.Minute) }, want: LeaseWarn},
		"ends soon, told already":       {state: fleet.LeaseActive, members: member(fleet.MemberReady), node: node(fleet.Active), change: func(l *fleet.Lease) { l.Request.Until, l.WarnedAt = t0.Add(time.Minute), t0 }, want: LeaseRest},
		"last node given back":          {state: fleet.LeaseActive, members: member(fleet.MemberReleased), node: node(fleet.Grace), want: LeaseVerb, verb: "release"},
		"member to release":             {state: fleet.LeaseReleasing, members: member(fleet.MemberReady), node: node(fleet.Active), want: MemberRelease},
		"deploying member to release":   {state: fleet.LeaseReleasing, members: member(fleet.MemberDeploying), node: node(fleet.Deploying), want: MemberRelease},
		"member is being released":      {state: fleet.LeaseReleasing, members: member(fleet.MemberReleasing), node: node(fleet.Releasing), want: LeaseRest},
		"member is protected":           {state: fleet.LeaseReleasing, members: member(fleet.MemberReady), node: func() *fleet.Node { n := node(fleet.Active); n.Protected = true; return n }(), want: LeaseRest},
		"member was never held":         {state: fleet.LeaseReleasing, members: member(fleet.MemberReserved), node: &fleet.Node{State: fleet.Available}, want: MemberGone},
		"member's node is gone":         {state: fleet.LeaseReleasing, members: member(fleet.MemberReserved), want: MemberGone},
		"all released":                  {state: fleet.LeaseReleasing, members: member(fleet.MemberReleased), node: node(fleet.Cleaning), want: LeaseVerb, verb: "released"},
		"all released after a failure":  {state: fleet.LeaseReleasing, members: member(fleet.MemberReleased), change: func(l *fleet.Lease) { l.Fault = "x" }, want: LeaseVerb, verb: "failed"},
		"failed to come back":           {state: fleet.LeaseReleasing, members: member(fleet.MemberReleased), change: func(l *fleet.Lease) { l.Fault, l.GraceEnds = "x", t0 }, want: LeaseVerb, verb: "released"},
		"released":                      {state: fleet.LeaseReleased, members: member(fleet.MemberReleased), want: LeaseRest},
		"failed":                        {state: fleet.LeaseFailed, members: member(fleet.MemberReleased), want: LeaseRest},
	} {
		t.Run(name, func(t *testing.T) {
			l := fleet.Lease{ID: "l", State: c.state, Members: c.members, CreatedAt: t0.Add(-time.Hour)}
			if c.change != nil {
				c.change(&l)
			}
			nodes := map[fleet.NodeID]*fleet.Node{}
			if c.node != nil {
				nodes["a"] = c.node
			}
			if len(c.members) == 2 && c.state != fleet.LeaseAllocating {
				nodes["b"] = &fleet.Node{ID: "b", State: fleet.Active, Lease: "l"}
			}
			got := DecideLease(l, nodes, t0)
			if got.Kind != c.want || got.Verb != c.verb || got.Fault != c.fault {
				t.Errorf("got %+v, want kind %d verb %q fault %v", got, c.want, c.verb, c.fault)
			}
			if got.Kind == LeaseVerb {
				if _, err := fleet.MoveLease(c.state, got.Verb); err != nil {
					t.Errorf("the lease's table refuses it: %v", err)
				}
			}
		})
	}
}

func TestNothingEndsOnAClockThatStepped(t *testing.T) {
	var c trusted
	c.start(t0, 0)
	now, stepped := c.earlier(t0.Add(time.Minute), time.Minute)
	if !now.Equal(t0.Add(time.Minute)) || stepped != 0 {
		t.Errorf("a good clock: %s, stepped %s", now, stepped)
	}
	now, stepped = c.earlier(t0.AddDate(1, 0, 0), 2*time.Minute)
	if !now.Equal(t0.Add(2*time.Minute)) || stepped == 0 {
		t.Errorf("set forward by a year: %s, stepped %s", now, stepped)
	}
	if _, stepped = c.earlier(t0.AddDate(1, 0, 0), 2*time.Minute); stepped != 0 {
		t.Errorf("the same step was told twice: %s", stepped)
	}
	now, stepped = c.earlier(t0.Add(-time.Hour), 3*time.Minute)
	if !now.Equal(t0.Add(-time.Hour)) || stepped == 0 {
		t.Errorf("set back by an hour: %s, stepped %s", now, stepped)
	}
}
