package fleet

import (
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// world is a node as the table sees it, and, beside it, what is really so: whose data the disks hold and whether a tenant is on the wires. The
// table's durable facts must never promise more than that.
type world struct {
	state    State
	dirty    Dirty
	isolated bool
	lease    LeaseID
	// fromAvailable and hasInventory are what a running inspection knows.
	fromAvailable, hasInventory bool

	data    data
	exposed bool
}

// data is a set of those whose data may be on the disks.
type data uint8

const (
	dataUnknown data = 1 << iota
	dataL1
	dataL2
)

var dataOf = map[LeaseID]data{"L1": dataL1, "L2": dataL2}

// tenancy are the states in which a tenant's system, or the operator in its place, may write the disks and use the tenant's wires.
var tenancy = []State{Deploying, Active, Rebuilding, Rescuing, Rescued, Unrescuing, Servicing, Resuming}

// boolFacts are the facts that are yes or no, by reflection, so that a new one is searched without being listed here.
var boolFacts = func() (fields []int) {
	for i := range reflect.TypeFor[Facts]().NumField() {
		if reflect.TypeFor[Facts]().Field(i).Type.Kind() == reflect.Bool {
			fields = append(fields, i)
		}
	}
	return fields
}()

// support finds the yes-or-no facts that a guard looks at, by turning each over in many random situations. A guard is a few conditions joined by
// and, so that 20,000 tries miss none.
func support(g Guard) []int {
	rng := rand.New(rand.NewPCG(1, uint64(len(g.Name))))
	dirts, leases := []Dirty{"", DirtyUnknown, "L1", "L2"}, []LeaseID{"", "L1", "L2"}
	var out []int
	for range 20_000 {
		f := Facts{Dirty: dirts[rng.IntN(4)], Lease: leases[rng.IntN(3)]}
		v := reflect.ValueOf(&f).Elem()
		for _, i := range boolFacts {
			v.Field(i).SetBool(rng.IntN(2) == 0)
		}
		before := g.Holds(f)
		for _, i := range boolFacts {
			v.Field(i).SetBool(!v.Field(i).Bool())
			if g.Holds(f) != before && !slices.Contains(out, i) {
				out = append(out, i)
			}
			v.Field(i).SetBool(!v.Field(i).Bool())
		}
	}
	return out
}

// situations yields f with every combination of those facts.
func situations(f Facts, fields []int, yield func(Facts)) {
	v := reflect.ValueOf(&f).Elem()
	for n := range 1 << len(fields) {
		for bit, i := range fields {
			v.Field(i).SetBool(n>>bit&1 == 1)
		}
		yield(f)
	}
}

// tied are the facts that the world decides; the others are free.
var tied = []string{"Isolated", "IsolationWaived", "FromAvailable", "HasInventory"}

func free(fields []int) []int {
	return slices.DeleteFunc(slices.Clone(fields), func(i int) bool {
		return slices.Contains(tied, reflect.TypeFor[Facts]().Field(i).Name)
	})
}

// search is the exhaustive walk over all worlds from enrolment.
type search struct {
	t       *testing.T
	waived  bool
	support map[string][]int
	seen    map[world]bool
	next    map[world][]world
	queue   []world
}

func walk(t *testing.T, waived bool) *search {
	s := &search{t: t, waived: waived, support: map[string][]int{}, seen: map[world]bool{}, next: map[world][]world{}}
	for _, tr := range Lifecycle {
		s.support[tr.Guard.Name] = free(support(tr.Guard))
	}
	s.visit(world{}, world{state: Enrolled, dirty: DirtyUnknown, data: dataUnknown})
	for len(s.queue) > 0 {
		w := s.queue[0]
		s.queue = s.queue[1:]
		s.expand(w)
	}
	return s
}

func (s *search) visit(from, w world) {
	if from.state != "" {
		s.next[from] = append(s.next[from], w)
	}
	if !s.seen[w] {
		s.seen[w] = true
		s.queue = append(s.queue, w)
	}
}

func (s *search) facts(w world) Facts {
	return Facts{Dirty: w.dirty, Isolated: w.isolated, IsolationWaived: s.waived, Lease: w.lease, FromAvailable: w.fromAvailable, HasInventory: w.hasInventory}
}

// expand makes every move from w: each row of the table under each combination of facts, and a read-back of the wires.
func (s *search) expand(w world) {
	// Isolation is set only by a read-back, which sees what is so. While a tenant is on the wires it cannot succeed; a release takes them off first.
	back := w
	if w.state == Releasing || w.state == Cleaning {
		back.exposed = false
	}
	back.isolated = !back.exposed && !slices.Contains(tenancy, w.state)
	if back != w && w.state != Forgotten && w.state != Retired {
		s.visit(w, back)
	}
	for _, tr := range Lifecycle {
		if !slices.Contains(tr.From, w.state) {
			continue
		}
		leases := []LeaseID{w.lease}
		if tr.Verb == VerbAllocate || tr.Verb == VerbAdopt {
			leases = []LeaseID{"L1", "L2"} // the lease of the wish may be any
		}
		for _, lease := range leases {
			f := s.facts(w)
			f.Lease = lease
			situations(f, s.support[tr.Guard.Name], func(f Facts) {
				if tr.Guard.Holds(f) {
					s.move(w, tr, f)
				}
			})
		}
	}
}

// move applies a row and checks every invariant that speaks of a step.
func (s *search) move(w world, tr Transition, f Facts) {
	n := w
	n.state = tr.To
	n.fromAvailable = tr.To == Inspecting && w.state == Available
	n.hasInventory = w.hasInventory || w.state == Inspecting && tr.Verb == VerbDone
	if tr.Verb == VerbAllocate || tr.Verb == VerbAdopt {
		n.lease = f.Lease
	}
	if tr.Does&MarkDirty != 0 {
		n.dirty = Dirty(f.Lease)
	}
	if tr.Does&ClearDirty != 0 {
		n.dirty = ""
		if w.state != Cleaning || tr.Verb != VerbDone {
			s.t.Errorf("%v clears dirty, and only `cleaning done` may", tr)
		}
	}
	if tr.Does&DropLease != 0 {
		n.lease = ""
	}
	if tr.Does&LoseIsolation != 0 {
		n.isolated = false
	}
	// What is really so: cleaning that is done has erased everything, and a tenancy leaves data and is on the wires.
	if w.state == Cleaning && tr.Verb == VerbDone {
		n.data = 0
	}
	if slices.Contains(tenancy, n.state) {
		n.data |= dataOf[n.lease]
		n.exposed = true
	}
	if tr.To == Retired && n.data != 0 && !f.Destroyed {
		s.t.Errorf("%v retires a node that holds data of %b, and no media were recorded as destroyed: %+v", tr, n.data, w)
	}
	if tr.To == Retired && f.Destroyed {
		n.data = 0 // what held it is no more
	}
	if tr.To == Forgotten && n.data&(dataL1|dataL2) != 0 {
		s.t.Errorf("%v forgets a node that holds a tenant's data: %+v", tr, w)
	}
	if tr.To == Forgotten {
		n = world{state: Forgotten}
	}
	s.visit(w, n)
}

// TestLifecycleInvariants walks every world that the table allows, once with wires that must be isolated and once on a site that waives it.
func TestLifecycleInvariants(t *testing.T) {
	for _, waived := range []bool{false, true} {
		t.Run(fmt.Sprintf("isolation waived %v", waived), func(t *testing.T) {
			s := walk(t, waived)
			t.Logf("%d worlds", len(s.seen))
			reached := map[State]bool{}
			for w := range s.seen {
				reached[w.state] = true
				s.holds(w)
			}
			for _, st := range States() {
				if !reached[st] {
					t.Errorf("I1: %s is not reachable from enrolled", st)
				}
			}
			s.ends()
		})
	}
}

// holds checks what must be so in every world.
func (s *search) holds(w world) {
	t := s.t
	own := dataOf[w.lease]
	switch {
	case w.state == Available || w.state == Burning || w.state == Allocated && w.data&^own != 0:
		if w.data != 0 {
			t.Errorf("I3: %s with data of %03b on it, past cleaning: %+v", w.state, w.data, w)
		}
	case slices.Contains(tenancy, w.state):
		if w.data&^own&^dataUnknown != 0 {
			t.Errorf("I3: %s under %s with another lease's data on it: %+v", w.state, w.lease, w)
		}
		if w.lease == "" {
			t.Errorf("I3: %s without a lease: %+v", w.state, w)
		}
	}
	if w.data != 0 && w.dirty == "" {
		t.Errorf("I3: dirty is empty and the disks hold data of %03b: %+v", w.data, w)
	}
	if w.dirty == "L1" && w.data&dataL2 != 0 || w.dirty == "L2" && w.data&dataL1 != 0 {
		t.Errorf("I3: dirty names another than whose data there are: %+v", w)
	}
	if w.isolated && w.exposed {
		t.Errorf("I4: isolated, and a tenant is on the wires: %+v", w)
	}
	if !s.waived && w.exposed && (w.state == Grace || w.state == Cleaning || w.state == Available || w.state == Retired) {
		t.Errorf("I4: %s, and a tenant is still on the wires: %+v", w.state, w)
	}
}

// ends checks that nothing but retired is an end, and that from everywhere a node can be retired or be available again.
func (s *search) ends() {
	for w := range s.seen {
		if len(s.next[w]) == 0 && w.state != Retired && w.state != Forgotten {
			s.t.Errorf("I2: nothing leads on from %+v", w)
		}
		if w.state == Retired {
			for _, n := range s.next[w] {
				if n.state != Forgotten {
					s.t.Errorf("I2: retired leads to %s", n.state)
				}
			}
		}
	}
	good := map[world]bool{}
	for again := true; again; {
		again = false
		for w := range s.seen {
			ok := w.state == Available || w.state == Retired || w.state == Forgotten
			ok = ok || slices.ContainsFunc(s.next[w], func(n world) bool { return good[n] })
			if ok && !good[w] {
				good[w], again = true, true
			}
		}
	}
	for w := range s.seen {
		if !good[w] {
			s.t.Errorf("I2: no way leads from %+v to available or retired", w)
		}
	}
}

// TestLifecycleIsolationGate: without a read-back or a waiver no node leaves releasing, and none is allocated.
func TestLifecycleIsolationGate(t *testing.T) {
	for _, tr := range Lifecycle {
		gated := slices.Contains(tr.From, Releasing) || tr.To == Allocated && tr.Verb == VerbAllocate
		if !gated {
			continue
		}
		situations(Facts{Lease: "L1"}, support(tr.Guard), func(f Facts) {
			if !f.Isolated && !f.IsolationWaived && tr.Guard.Holds(f) {
				t.Errorf("I4: %v holds without isolation: %+v", tr, f)
			}
		})
	}
}

// TestLifecycleWorkingStates: every state in which a plan runs has done and another way out.
func TestLifecycleWorkingStates(t *testing.T) {
	for _, s := range States() {
		if s.Working() != strings.HasSuffix(string(s), "ing") {
			t.Errorf("I5: %s: working %v, and its name says otherwise", s, s.Working())
		}
		if s.Working() && len(Verbs(s)) == 0 {
			t.Errorf("I5: %s has no way out but done", s)
		}
	}
}

// TestLifecycleGuardsExclude: of two rows with the same from and verb at most one holds, in every combination of the facts that either looks at.
func TestLifecycleGuardsExclude(t *testing.T) {
	for i, a := range Lifecycle {
		for _, b := range Lifecycle[i+1:] {
			if a.Verb != b.Verb || !slices.ContainsFunc(a.From, func(s State) bool { return slices.Contains(b.From, s) }) {
				continue
			}
			fields := support(a.Guard)
			for _, f := range support(b.Guard) {
				if !slices.Contains(fields, f) {
					fields = append(fields, f)
				}
			}
			for _, dirty := range []Dirty{"", DirtyUnknown, "L1", "L2"} {
				for _, lease := range []LeaseID{"", "L1", "L2"} {
					situations(Facts{Dirty: dirty, Lease: lease}, fields, func(f Facts) {
						if a.Guard.Holds(f) && b.Guard.Holds(f) {
							t.Errorf("I6: %v and %v both hold: %+v", a, b, f)
						}
					})
				}
			}
		}
	}
}

// TestLifecycleEndingsAreTotal: a plan's end always leads somewhere, but for a release, which waits for isolation.
func TestLifecycleEndingsAreTotal(t *testing.T) {
	for _, s := range States() {
		for _, verb := range []Verb{VerbDone, VerbAbort} {
			var guards []Guard
			for _, tr := range Lifecycle {
				if tr.Verb == verb && slices.Contains(tr.From, s) {
					guards = append(guards, tr.Guard)
				}
			}
			if len(guards) == 0 {
				continue
			}
			var fields []int
			for _, g := range guards {
				for _, f := range support(g) {
					if !slices.Contains(fields, f) {
						fields = append(fields, f)
					}
				}
			}
			for _, dirty := range []Dirty{"", DirtyUnknown, "L1"} {
				situations(Facts{Dirty: dirty, Lease: "L1"}, fields, func(f Facts) {
					holds := slices.ContainsFunc(guards, func(g Guard) bool { return g.Holds(f) })
					if !holds && !(s == Releasing && !f.Isolated && !f.IsolationWaived) {
						t.Errorf("%s %s leads nowhere: %+v", s, verb, f)
					}
				})
			}
		}
	}
}

// TestLifecycleHandsOff: a hold stops what starts new work, and protection stops what does harm; the isolation of a release runs regardless.
func TestLifecycleHandsOff(t *testing.T) {
	for _, tr := range Lifecycle {
		for _, c := range []struct {
			what  string
			verbs []Verb
			fact  func(Facts) bool
		}{
			{"a hold", []Verb{VerbAccept, VerbClean, VerbBurn, VerbAllocate, VerbDeploy, VerbRebuild, VerbRescue, VerbUnrescue, VerbService}, func(f Facts) bool { return f.Held }},
			{"protection", []Verb{VerbAccept, VerbAllocate, VerbRebuild, VerbRelease}, func(f Facts) bool { return f.Protected }},
		} {
			if !slices.Contains(c.verbs, tr.Verb) || slices.Contains(tr.From, Grace) {
				continue // the end of grace is the lease's, not a person's new step
			}
			for _, dirty := range []Dirty{"", "L1"} {
				situations(Facts{Dirty: dirty, Lease: "L1"}, support(tr.Guard), func(f Facts) {
					if c.fact(f) && tr.Guard.Holds(f) {
						t.Errorf("%s does not stop %v: %+v", c.what, tr, f)
					}
				})
			}
		}
		if slices.Contains(tr.From, Releasing) && tr.Verb == VerbDone {
			situations(Facts{Isolated: true, Lease: "L1"}, support(tr.Guard), func(f Facts) {
				other := f
				other.Held, other.Protected = true, true
				if tr.Guard.Holds(f) != tr.Guard.Holds(other) {
					t.Errorf("a hold stops %v", tr)
				}
			})
		}
	}
}

// TestMove shows what an operator is told.
func TestMove(t *testing.T) {
	for name, c := range map[string]struct {
		from  State
		verb  Verb
		facts Facts
		to    State
		code  string
		text  string
		hint  string
	}{
		"a clean, fit node is allocated": {Available, VerbAllocate, Facts{Fresh: true, ClassMatches: true, Isolated: true, Lease: "L1"}, Allocated, "", "", ""},
		"a dirty node is not":            {Available, VerbAllocate, Facts{Fresh: true, ClassMatches: true, Isolated: true, Lease: "L1", Dirty: "L2"}, "", "MC-NODE-GUARD", "allocate from available needs: no blocking fault, no hold, not protected, not dirty, fresh, class matches, burn-in fresh, isolated", ""},
		"a verb of another state":        {Active, VerbAccept, Facts{}, "", "MC-NODE-VERB", `a node that is active does not take "accept"`, "from active a node takes: rebuild, release"},
		"from the end nothing leads on":  {Retired, VerbInspect, Facts{}, "", "MC-NODE-VERB", `a node that is retired does not take "inspect"`, "from retired a node takes: forget"},
		"every guard that refused":       {Releasing, VerbDone, Facts{}, "", "MC-NODE-GUARD", "done from releasing needs: isolated; lease grants grace; or: isolated; no grace", ""},
	} {
		got, err := Move(c.from, c.verb, c.facts)
		if got.To != c.to || CodeOf(err) != c.code || HintOf(err) != c.hint {
			t.Errorf("%s: to %q, %v, hint %q", name, got.To, err, HintOf(err))
		}
		if err != nil && err.Error() != c.text {
			t.Errorf("%s: got %q, want %q", name, err, c.text)
		}
	}
}

func TestLifecycleMarkdown(t *testing.T) {
	const file = "../docs/lifecycle.md"
	want := LifecycleMarkdown()
	if os.Getenv("METALCTL_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(got), want); diff != "" {
		t.Errorf("docs/lifecycle.md is not what the tables say; run make generate\n%s", diff)
	}
	for _, tr := range Lifecycle {
		if tr.Why == "" || tr.Guard.ok != nil && tr.Guard.Text == "" {
			t.Errorf("%v does not say why", tr)
		}
	}
}
