package herd

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/herd"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// bootable is a raw disk of a megabyte with the signature of an MBR: a herd's disks hold names, not bytes.
func bootable() []byte {
	b := make([]byte, 1<<20)
	b[446+4], b[446+8], b[446+12] = 0x83, 1, 8
	b[510], b[511] = 0x55, 0xaa
	return b
}

// lease asks for one machine until its system runs; grace 0, so that a release leads to cleaning.
func (f *farm) lease(ctx context.Context, m *herd.Machine) (api.Lease, error) {
	return f.client.CreateLease(ctx, api.LeaseCreate{LeaseRequest: fleet.LeaseRequest{Nodes: []string{m.Name()}, Image: "small", Ready: fleet.ReadyOS}}, "")
}

// leases waits until every lease is in that state.
func (f *farm) leases(all []api.Lease, want fleet.LeaseState) {
	f.t.Helper()
	over := time.Now().Add(patience)
	for {
		l, err := f.client.Leases(f.t.Context(), api.ListOptions{})
		if err != nil {
			f.t.Fatalf("list leases: %v", err)
		}
		is := map[fleet.LeaseID]api.Lease{}
		for _, x := range l.Items {
			is[x.ID] = x
		}
		open := 0
		var one api.Lease
		for _, x := range all {
			if got := is[x.ID]; got.State != want {
				open++
				one = got
				if got.State == fleet.LeaseFailed {
					f.t.Fatalf("lease %s failed: %+v", x.ID, got)
				}
			}
		}
		if open == 0 {
			return
		}
		if time.Now().After(over) {
			f.t.Fatalf("%d leases are not %s, such as %s, which is %s:\n%s", open, want, one.ID, one.State, f.run("lease", "show", string(one.ID)))
		}
		pause(f.t.Context(), 100*time.Millisecond)
	}
}

// clean is what must hold when nodes wait for a tenant: empty disks, nothing left at the BMC.
func clean(t testing.TB, machines []*herd.Machine) {
	t.Helper()
	for _, m := range machines {
		if h := m.Holds(); h != "" {
			t.Errorf("%s is offered, and holds %s", m.Name(), h)
		}
		if l := m.Left(); l != "" && m.Runs() != "agent" {
			t.Errorf("%s is offered, and its BMC holds %s", m.Name(), l)
		}
	}
}

// wrongs reports what must never have happened.
func wrongs(t testing.TB, machines []*herd.Machine) {
	t.Helper()
	for _, m := range machines {
		for _, w := range m.Wrongs() {
			t.Error(w)
		}
	}
}

// orphans counts sessions that are left although the server has ended in order. One that was never used is one whose login was cut short by a kill:
// nobody can know it, and the BMC ends it.
func orphans(t testing.TB, machines []*herd.Machine) int {
	t.Helper()
	n := 0
	for _, m := range machines {
		for _, s := range m.Sessions() {
			if s.Uses > 0 {
				t.Errorf("%s: the session %s was left, made %s, last used %s", m.Name(), s.URI, s.Made.Format(time.TimeOnly), s.Used.Format(time.TimeOnly))
				continue
			}
			n++
		}
	}
	return n
}

// TestHerd takes many nodes through their whole life before a real server, which is killed in the middle.
func TestHerd(t *testing.T) {
	if testing.Short() {
		t.Skip("long: fifty machines before a server process")
	}
	began := time.Now()
	f := newFarm(t, 50, herd.Options{}, "log_level: warn\n")
	mark := func(what string) {
		t.Logf("%5.1f s: %s; the server used %s", time.Since(began).Seconds(), what, f.usage().cpu)
	}
	f.start()
	f.found()
	mark("founded")
	all := f.herd.Machines()
	f.enrol(all)
	for _, m := range all {
		if c := m.Count(); c.Writes != 0 {
			t.Errorf("%s was written to when it was enrolled", m.Name())
		}
	}
	mark("enrolled")
	f.ready(all)
	mark("ready")
	clean(t, all)
	for round := range 2 {
		leases := make([]api.Lease, len(all))
		f.each(all, 16, func(ctx context.Context, m *herd.Machine) (err error) {
			var i int
			if _, err := fmt.Sscanf(m.Name(), "herd-%d", &i); err != nil {
				return err
			}
			leases[i], err = f.lease(ctx, m)
			return err
		})
		if round == 1 {
			f.kill()
			f.start()
		}
		f.leases(leases, fleet.LeaseActive)
		mark("active")
		for i, m := range all {
			if want := string(leases[i].ID) + "-" + m.Name(); m.Holds() != want || m.Runs() != "system" {
				t.Errorf("%s is active, holds %q instead of %q, and runs %q", m.Name(), m.Holds(), want, m.Runs())
			}
		}
		f.each(all, 16, func(ctx context.Context, m *herd.Machine) error {
			var i int
			if _, err := fmt.Sscanf(m.Name(), "herd-%d", &i); err != nil {
				return err
			}
			_, err := f.client.ReleaseLease(ctx, string(leases[i].ID))
			return err
		})
		f.leases(leases, fleet.LeaseReleased)
		f.states(all, fleet.Available)
		mark("available")
		clean(t, all)
	}
	wrongs(t, all)
	for _, m := range all {
		if c := m.Count(); c.MostSessions > 3 {
			t.Errorf("%s had %d sessions at once", m.Name(), c.MostSessions)
		}
	}
	f.stop()
	f.run("server", "check", "--data-dir", f.dir+"/data")
	t.Logf("%d sessions were lost with the killed server", orphans(t, all))
}
