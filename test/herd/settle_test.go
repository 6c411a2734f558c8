package herd

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/metalctl/metalctl/fixtures/herd"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

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
	machines := map[string]*herd.Machine{}
	for _, m := range s.herd.Machines() {
		m.SetReach(herd.Answers, time.Time{})
		m.SetDisk(false)
		delete(s.broken, m)
		machines[m.Name()] = m
	}
	began := time.Now()
	over, told := began.Add(5*time.Minute+time.Duration(len(machines))*300*time.Millisecond), began
	for {
		all := s.nodes()
		counts := map[fleet.State]int{}
		open, waits := 0, 0
		for _, n := range all {
			counts[n.State]++
			switch {
			case n.State == fleet.Available && len(n.Blocked(fleet.BlocksAllocate)) == 0:
			case s.erasing(machines[n.Name], n):
				waits++
			default:
				open++
			}
		}
		if open == 0 {
			fmt.Printf("soak: %d nodes available again %s after the last failure; %d wait out an erase whose machine hung\n", len(all)-waits, time.Since(began).Round(time.Second), waits)
			return
		}
		s.release(all)
		s.person(all)
		if time.Since(told) > time.Minute {
			told = time.Now()
			fmt.Printf("soak: settling for %s: %d nodes open: %v\n", time.Since(began).Round(time.Second), open, counts)
		}
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
		pause(s.t.Context(), s.pace(time.Second))
	}
}

// release asks for the end of every lease, once in a minute, and of no more at once than are served.
func (s *soak) release(all map[string]api.Node) {
	s.t.Helper()
	g, ctx := errgroup.WithContext(s.t.Context())
	g.SetLimit(16)
	for name, n := range all {
		if n.State != fleet.Active || time.Since(s.released[name]) < time.Minute {
			continue
		}
		s.released[name] = time.Now()
		g.Go(func() error {
			_, err := s.client.ReleaseLease(ctx, string(n.Lease))
			s.expect("release "+n.Name, err)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		s.t.Fatal(err)
	}
}

// erasing reports whether the node waits for a machine that hung in a step that destroys: it may still be at it for all that anybody knows, so that it is
// given all its time, hours, and the node's explanation says so.
func (s *soak) erasing(m *herd.Machine, n api.Node) bool {
	if n.Operation == "" || m == nil || m.Runs() != "" {
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
	return decl.Destroys
}
