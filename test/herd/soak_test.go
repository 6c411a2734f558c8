package herd

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/herd"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// Failures per node and year. Meta counted 419 unexpected interruptions of 2,048 nodes of eight GPUs in 54 days (The Llama 3 Herd of Models, table 5): 1.38 per
// node and year. Here each of them takes the power, hangs the machine or kills its disk, as less than that is not seen from where the server stands. Of BMCs
// nobody publishes rates: two restarts and one outage in a year are assumed.
const (
	nodeFailures = 1.38
	bmcRestarts  = 2.0
	bmcOutages   = 1.0
	year         = 365 * 24 * time.Hour
)

// soak is the state of a long run.
type soak struct {
	*farm
	rng   *rand.Rand
	speed float64 // how much faster than in life things fail
	// hurt counts what was done, by kind.
	mu     sync.Mutex // guards the rest
	hurt   map[string]int
	leases map[string]fleet.LeaseID // machine → lease
	cycles int
	faults int
	broken map[*herd.Machine]time.Time // disks that fail, until they are replaced
}

// TestSoak leases and releases thousands of nodes while machines, BMCs and the server fail, and looks at what must always hold.
func TestSoak(t *testing.T) {
	minutes := setting("METALCTL_SOAK_MINUTES", 0)
	if minutes == 0 {
		t.Skip("long: make soak MINUTES=30")
	}
	seed := uint64(setting("METALCTL_SEED", int(rand.Uint32())))
	nodes := setting("METALCTL_SOAK_NODES", 2000)
	speed := setting("METALCTL_SOAK_SPEED", 100)
	fmt.Printf("soak: %d nodes, %d minutes, failures %d times as often as in life, METALCTL_SEED=%d\n", nodes, minutes, speed, seed)
	s := &soak{farm: newFarm(t, nodes, herd.Options{SessionLife: 30 * time.Minute}, "log_level: error\npower_on_for: 10s\n"), rng: rand.New(rand.NewPCG(seed, 1)),
		speed: float64(speed), hurt: map[string]int{}, leases: map[string]fleet.LeaseID{}, broken: map[*herd.Machine]time.Time{}}
	s.start()
	s.found()
	all := s.herd.Machines()
	began := time.Now()
	s.enrol(all)
	fmt.Printf("soak: enrolled after %s\n", time.Since(began).Round(time.Second))
	s.ready(all)
	fmt.Printf("soak: all available after %s\n", time.Since(began).Round(time.Second))

	var samples []sample
	kills := 0
	end := time.Now().Add(time.Duration(minutes) * time.Minute)
	lived, life := time.Now(), s.life(minutes)
	look, fail := time.Now(), time.Now()
	for time.Now().Before(end) {
		s.tenants()
		s.misfortune(time.Since(fail))
		fail = time.Now()
		if time.Since(look) > 15*time.Second {
			look = time.Now()
			samples = append(samples, s.sample(kills, time.Since(lived)))
			s.invariants()
		}
		if time.Since(lived) > life {
			s.kill()
			s.hurt["server killed"]++
			kills++
			s.start()
			lived, life = time.Now(), s.life(minutes)
		}
		if t.Failed() {
			return
		}
		pause(t.Context(), 500*time.Millisecond)
	}
	s.report()
	s.settle()
	s.invariants()
	s.stop()
	wrongs(t, all)
	fmt.Printf("soak: %d cycles, %d faults named, %d kills, %d sessions lost with killed servers and restarted BMCs\n", s.cycles, s.faults, kills, orphans(t, all))
	fmt.Print(s.run("server", "check", "--data-dir", s.dir+"/data"))
	flat(t, samples)
}

// life is how long a server lives: at random, with eight in a run and at least half a minute.
func (s *soak) life(minutes int) time.Duration {
	mean := max(time.Duration(minutes)*time.Minute/8, time.Minute)
	return mean/2 + time.Duration(s.rng.Int64N(int64(mean)))
}

// tenants keeps half of the nodes leased: who is available is leased now and then, and who is active goes now and then.
func (s *soak) tenants() {
	all := s.nodes()
	var free, used []api.Node
	for _, n := range all {
		switch {
		case n.State == fleet.Available && len(n.Blocked(fleet.BlocksAllocate)) == 0:
			free = append(free, n)
		case n.State == fleet.Active:
			used = append(used, n)
		}
	}
	byName := func(a, b api.Node) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(free, byName)
	slices.SortFunc(used, byName)
	s.rng.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	s.rng.Shuffle(len(used), func(i, j int) { used[i], used[j] = used[j], used[i] })
	rate := max(1, len(all)/200)
	var wg sync.WaitGroup
	for _, n := range free[:min(rate, len(free))] {
		wg.Go(func() {
			_, err := s.client.CreateLease(s.t.Context(), api.LeaseCreate{LeaseRequest: fleet.LeaseRequest{Nodes: []string{n.Name}, Image: "small", Ready: fleet.ReadyOS}}, "")
			s.expect("lease "+n.Name, err)
		})
	}
	if len(used) > len(all)/3 {
		for _, n := range used[:min(rate, len(used))] {
			wg.Go(func() {
				_, err := s.client.ReleaseLease(s.t.Context(), string(n.Lease))
				s.expect("release "+n.Name, err)
				if err == nil {
					s.mu.Lock()
					s.cycles++
					s.mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	s.person(all)
}

// expect takes the refusals that are right: somebody was first, a fault is in the way, the BMC does not answer.
func (s *soak) expect(what string, err error) {
	switch fleet.KindOf(err) {
	case fleet.Conflict, fleet.Refused, fleet.Unavailable, fleet.Timeout:
		return
	}
	if err != nil {
		s.t.Errorf("%s: %v", what, err)
	}
}

// person does what an operator does about a node that names its fault: replaces a disk, clears the fault, tries again.
func (s *soak) person(all map[string]api.Node) {
	for _, m := range s.herd.Machines() {
		n := all[m.Name()]
		at, disk := s.broken[m]
		if disk && time.Since(at) > 30*time.Second {
			m.SetDisk(false)
			delete(s.broken, m)
			disk = false
		}
		if disk || n.Operation != "" || len(n.Faults) == 0 {
			continue
		}
		s.faults += s.help(m, n)
	}
}

// help answers the faults of a node that waits for a person and returns how many there were.
func (s *soak) help(m *herd.Machine, n api.Node) int {
	ctx := s.t.Context()
	for _, f := range n.Faults {
		if f.Code == "" || f.Hint == "" {
			s.t.Errorf("%s has a fault that does not say what to do: %+v", n.Name, f)
		}
		_, err := s.client.NodeVerb(ctx, n.Name, api.VerbClearFault, api.NodeVerb{FaultCode: f.Code, FaultComponent: f.Component})
		s.expect("clear a fault of "+n.Name, err)
	}
	var err error
	switch n.State {
	case fleet.Managed:
		if n.Dirty == "" && n.Erased != "" {
			_, err = s.client.NodeVerb(ctx, n.Name, "inspect", api.NodeVerb{AllowReboot: true})
			break
		}
		var p api.Plan
		if p, err = s.client.NodePlan(ctx, n.Name, api.PlanQuery{Use: "clean"}); err == nil {
			_, err = s.client.NodeVerb(ctx, n.Name, "accept", api.NodeVerb{Plan: p.Digest})
		}
	case fleet.Allocated:
		if n.Lease != "" {
			_, err = s.client.ReleaseLease(ctx, string(n.Lease))
		}
	case fleet.Releasing:
		_, err = s.client.NodeVerb(ctx, n.Name, "retry", api.NodeVerb{})
	}
	s.expect("help "+n.Name, err)
	return len(n.Faults)
}

// misfortune does to machines and BMCs what so much time brings, as a Poisson process.
func (s *soak) misfortune(d time.Duration) {
	all := s.herd.Machines()
	some := func(perYear float64) (struck []*herd.Machine) {
		mean := perYear * s.speed * float64(len(all)) * float64(d) / float64(year)
		for mean -= s.rng.ExpFloat64(); mean > 0; mean -= s.rng.ExpFloat64() {
			struck = append(struck, all[s.rng.IntN(len(all))])
		}
		return struck
	}
	now := time.Now()
	for _, m := range some(nodeFailures) {
		switch s.rng.IntN(3) {
		case 0:
			m.LosePower()
			s.hurt["node lost its power"]++
		case 1:
			m.Freeze()
			s.hurt["node hung"]++
		default:
			m.SetDisk(true)
			s.broken[m] = now
			s.hurt["disk died"]++
		}
	}
	for _, m := range some(bmcRestarts) {
		m.RebootBMC(now.Add(time.Duration(5+s.rng.IntN(20)) * time.Second))
		s.hurt["BMC restarted"]++
	}
	for _, m := range some(bmcOutages) {
		how := herd.Reach(1 + s.rng.IntN(2))
		m.SetReach(how, now.Add(time.Duration(10+s.rng.IntN(60))*time.Second))
		s.hurt["BMC dead for a while"]++
	}
}

// report says what was done.
func (s *soak) report() {
	var kinds []string
	for k, n := range s.hurt {
		kinds = append(kinds, fmt.Sprintf("%s %d times", k, n))
	}
	slices.Sort(kinds)
	fmt.Printf("soak: %s\n", strings.Join(kinds, ", "))
}

// invariants compares what the server says with what the machines hold: nothing is offered dirty, and who has a lease has his data. A node that changed
// while it was looked at is not judged.
func (s *soak) invariants() {
	s.t.Helper()
	before := s.nodes()
	type truth struct{ holds, runs string }
	held := map[string]truth{}
	for _, m := range s.herd.Machines() {
		held[m.Name()] = truth{m.Holds(), m.Runs()}
	}
	after := s.nodes()
	leases, err := s.client.Leases(s.t.Context(), api.ListOptions{})
	if err != nil {
		s.t.Fatalf("list leases: %v", err)
	}
	owner := map[fleet.NodeID]fleet.LeaseID{}
	for _, l := range leases.Items {
		if l.State.Over() {
			continue
		}
		for _, m := range l.Members {
			if m.State == fleet.MemberReleased || m.State == fleet.MemberFailed {
				continue
			}
			if o := owner[m.Node]; o != "" {
				s.t.Errorf("node %s is in the leases %s and %s", m.Name, o, l.ID)
			}
			owner[m.Node] = l.ID
		}
	}
	for name, n := range before {
		if after[name].Revision != n.Revision {
			continue
		}
		h := held[name]
		switch n.State {
		case fleet.Available:
			if h.holds != "" || n.Dirty != "" {
				s.t.Errorf("%s is offered, its disks hold %q, and its record says dirty %q", name, h.holds, n.Dirty)
			}
		case fleet.Active:
			if want := string(n.Lease) + "-" + name; h.holds != want {
				s.t.Errorf("%s is active in lease %s, and its disks hold %q", name, n.Lease, h.holds)
			}
		}
	}
	wrongs(s.t, s.herd.Machines())
}

// settle makes everything work, ends all leases, and waits until each node is available or says what it waits for.
func (s *soak) settle() {
	s.t.Helper()
	for _, m := range s.herd.Machines() {
		m.SetReach(herd.Answers, time.Time{})
		m.SetDisk(false)
		delete(s.broken, m)
	}
	began := time.Now()
	over := began.Add(15 * time.Minute)
	for {
		all := s.nodes()
		counts := map[fleet.State]int{}
		open, waits := 0, 0
		var wg sync.WaitGroup
		for _, n := range all {
			counts[n.State]++
			switch {
			case n.State == fleet.Available && len(n.Blocked(fleet.BlocksAllocate)) == 0:
			case s.erasing(n):
				waits++
			default:
				open++
			}
			if n.State == fleet.Active {
				wg.Go(func() {
					_, err := s.client.ReleaseLease(s.t.Context(), string(n.Lease))
					s.expect("release "+n.Name, err)
				})
			}
		}
		wg.Wait()
		if open == 0 {
			fmt.Printf("soak: %d nodes available again %s after the last failure; %d wait out an erase whose machine hung\n", len(all)-waits, time.Since(began).Round(time.Second), waits)
			return
		}
		s.person(all)
		if time.Now().After(over) {
			s.t.Errorf("%d nodes did not come to rest: %v", open, counts)
			shown := 0
			for name, n := range all {
				if n.State != fleet.Available && shown < 5 {
					shown++
					s.t.Logf("%s:\n%s", name, s.run("node", "explain", name))
				}
			}
			return
		}
		pause(s.t.Context(), time.Second)
	}
}

// erasing reports whether the node waits for a machine that hung in a step that destroys: it may still be at it for all that anybody knows, so that it is
// given all its time, hours, and the node's explanation says so.
func (s *soak) erasing(n api.Node) bool {
	if n.Operation == "" {
		return false
	}
	op, err := s.client.Operation(s.t.Context(), n.Operation, 0)
	if err != nil {
		s.expect("read the operation of "+n.Name, err)
		return false
	}
	i := op.Current()
	if i < 0 || op.Steps[i].State != fleet.StepStarted {
		return false
	}
	decl, _ := step.Find(op.Steps[i].Name)
	for _, m := range s.herd.Machines() {
		if m.Name() == n.Name {
			return decl.Destroys && m.Runs() == ""
		}
	}
	return false
}

// sample is the server's size at a moment of its life.
type sample struct {
	server                  int // which of the servers
	age                     time.Duration
	rss, heap               float64 // MiB
	goroutines, descriptors float64
}

func (s *soak) sample(server int, age time.Duration) sample {
	u := s.usage()
	x := sample{server: server, age: age, rss: float64(u.rss) / mib, heap: s.metric("go_memstats_heap_inuse_bytes") / mib, goroutines: s.metric("go_goroutines"), descriptors: float64(s.descriptors())}
	if os.Getenv("METALCTL_SOAK_SAMPLES") != "" {
		fmt.Printf("soak: server %d, %s old: %.0f MiB resident, %.0f MiB heap, %.0f goroutines, %.0f descriptors\n", server, age.Round(time.Second), x.rss, x.heap, x.goroutines, x.descriptors)
	}
	return x
}
