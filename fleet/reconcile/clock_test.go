package reconcile_test

import (
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// waiting is a node in its grace time of 72 hours.
func waiting(t *testing.T) *contract.World {
	t.Helper()
	w := available(t)
	id := leased(t, w, func(r *fleet.LeaseRequest) { r.GraceSeconds = 72 * 3600 })
	if _, err := w.Loop.ReleaseLease(t.Context(), id, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Settle(10 * time.Minute)
	wantState(t, w, fleet.Grace)
	return w
}

func keeps(t *testing.T, w *contract.World, when string) {
	t.Helper()
	w.Settle(time.Minute)
	if n, _ := w.Read(); n.State != fleet.Grace || w.Machine.Holds("ROOT-1") != "debian" {
		t.Fatalf("%s: the node is %s and its disk holds %q", when, n.State, w.Machine.Holds("ROOT-1"))
	}
}

// TestSteppedClockErasesNothing: the grace time is over when it has really passed, whatever the wall clock is set to.
func TestSteppedClockErasesNothing(t *testing.T) {
	w := waiting(t)
	w.Set = 80 * time.Hour
	keeps(t, w, "set 80 hours ahead")
	w.Restart()
	keeps(t, w, "and started anew")
	w.Set = 0
	keeps(t, w, "and set right")
	w.Clock = w.Clock.Add(73 * time.Hour)
	w.Settle(time.Hour)
	wantState(t, w, fleet.Available)
}

// TestClockSetWhileDown: what the wall clock jumped while no server ran did not pass, however often it is started, until a person says so.
func TestClockSetWhileDown(t *testing.T) {
	w := waiting(t)
	w.Set = 80 * time.Hour
	for range 3 {
		w.Restart()
		keeps(t, w, "started with a clock that is 80 hours ahead")
	}
	w.Restart()
	w.Loop.TrustWall = true
	w.Settle(time.Hour)
	wantState(t, w, fleet.Available)
}

// TestRestartWithinADay: a server that was away for less than a day believes its clock.
func TestRestartWithinADay(t *testing.T) {
	w := waiting(t)
	for range 4 {
		w.Clock = w.Clock.Add(19 * time.Hour)
		w.Restart()
		w.Settle(time.Minute)
	}
	w.Settle(time.Hour)
	wantState(t, w, fleet.Available)
}

// TestClockSetBack: a lease that ends while the clock stands too early is kept no shorter for it.
func TestClockSetBack(t *testing.T) {
	w := available(t)
	w.Set = -80 * time.Hour
	id := leased(t, w, func(r *fleet.LeaseRequest) { r.GraceSeconds = 72 * 3600 })
	if _, err := w.Loop.ReleaseLease(t.Context(), id, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Settle(10 * time.Minute)
	wantState(t, w, fleet.Grace)
	w.Set = 0
	keeps(t, w, "released while the clock stood too early")
}

// TestEndGivenWhileTheClockStoodTooEarly: a lease is not ended early by a clock that is set ahead after it was given its end; one that is set right again is believed.
func TestEndGivenWhileTheClockStoodTooEarly(t *testing.T) {
	for name, c := range map[string]struct {
		set  time.Duration
		ends bool
	}{"set ahead": {149 * time.Hour, false}, "set right again": {0, true}} {
		t.Run(name, func(t *testing.T) {
			w := available(t)
			id := leased(t, w, nil)
			w.Set = -39 * time.Hour
			w.Settle(time.Minute)
			until := w.Clock.Add(w.Set + 24*time.Hour)
			if _, err := w.Loop.ExtendLease(t.Context(), id, api.LeaseExtend{Until: until}, "tester"); err != nil {
				t.Fatal(err)
			}
			w.Settle(time.Minute)
			w.Set = c.set
			w.Settle(time.Minute)
			if l := readLease(t, w, id); l.State.Over() != c.ends {
				t.Fatalf("the lease is %s, its end %s, the clock says %s", l.State, until, w.Clock.Add(w.Set))
			}
			w.Clock = w.Clock.Add(25 * time.Hour)
			w.Settle(time.Hour)
			if l := readLease(t, w, id); !l.State.Over() {
				t.Errorf("a day later the lease is %s", l.State)
			}
		})
	}
}
