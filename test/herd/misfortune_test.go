package herd

import (
	"time"

	"github.com/metalctl/metalctl/fixtures/herd"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

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
		if n.Operation != "" {
			s.stuck(m, n)
			continue
		}
		delete(s.still, m)
		if disk || len(n.Faults) == 0 {
			continue
		}
		s.faults += s.help(m, n)
	}
}

// patient is how long a person watches a machine that stands still.
const patient = time.Minute

// stuck aborts what waits for a machine that is on and runs nothing: one whose server was killed while its firmware read the boot medium, or one that hung. The
// engine waits for it for half an hour, or for hours where its disks are erased, and then refuses the abort.
func (s *soak) stuck(m *herd.Machine, n api.Node) {
	if m.Runs() != "" || n.Power != "on" {
		delete(s.still, m)
		return
	}
	since, known := s.still[m]
	switch {
	case !known:
		s.still[m] = time.Now()
	case time.Since(since) > patient:
		s.still[m] = time.Now()
		_, err := s.client.NodeVerb(s.t.Context(), n.Name, "abort", api.NodeVerb{})
		s.expect("abort what waits for "+n.Name, err)
		s.hurt["machine stood still and its plan was aborted"]++
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
