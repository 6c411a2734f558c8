package redfish

import (
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// TestOneWriterFewReaders has several clients of one BMC that share a breaker, as a server's workers do.
func TestOneWriterFewReaders(t *testing.T) {
	f := newFake(t)
	all := NewBreakers()
	var inFlight, most, writers, mostWriters atomic.Int64
	seen := func(now, most *atomic.Int64) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
	}
	met := make(chan struct{})
	var once sync.Once
	var clients []*BMC
	for range 4 {
		clients = append(clients, f.dial(func(o *Options) { o.Breaker = all.For(f.srv.URL, "admin") }))
	}
	f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		seen(&inFlight, &most)
		defer inFlight.Add(-1)
		if r.Method == "PATCH" {
			seen(&writers, &mostWriters)
			defer writers.Add(-1)
		}
		if inFlight.Load() > 1 {
			once.Do(func() { close(met) })
		}
		select { // the first waits for another to arrive
		case <-met:
		case <-time.After(5 * time.Minute):
		}
		return false
	}
	var wg sync.WaitGroup
	for i, b := range clients {
		wg.Go(func() {
			if err := b.SetBootOnce(t.Context(), []Target{Cd, Pxe}[i%2], KeepMode); err != nil {
				t.Error(err)
			}
		})
		for range 3 {
			wg.Go(func() {
				if _, err := b.Power(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if most.Load() > readersPerBMC || mostWriters.Load() > 1 {
		t.Errorf("%d requests and %d writes at once", most.Load(), mostWriters.Load())
	}
	if most.Load() < 2 {
		t.Error("requests never met: the test shows nothing")
	}
}

func TestBreakersByAddressAndUser(t *testing.T) {
	s := NewBreakers()
	if s.For("https://BMC-1/", "a") != s.For("https://bmc-1:443", "a") {
		t.Error("one BMC has two breakers")
	}
	if s.For("https://bmc-1", "a") == s.For("https://bmc-1", "b") || s.For("https://bmc-1", "a") == s.For("https://bmc-1:8443", "a") {
		t.Error("two credentials share a breaker")
	}
	if s.For("https://bmc-1", "a").gate != s.For("https://bmc-1", "b").gate {
		t.Error("two users of one BMC do not share its gate")
	}
}

func TestRecordedQuirkAndLearnedSlotAreUsed(t *testing.T) {
	f := newFake(t)
	const second = "/redfish/v1/Systems/1/VirtualMedia/Cd2"
	f.slot(second, []any{"CD"})
	f.resources["/redfish/v1/Systems/1/VirtualMedia"] = collection(cdSlot, second)
	b := f.dial(func(o *Options) {
		o.Quirk = "wants-protocol"
		o.Learned = Learned{Slot: second, Parameters: []string{"Image", "TransferMethod"}}
	})
	m, err := b.InsertMedia(t.Context(), MediaRequest{URL: testImage})
	if err != nil || m.URI != second {
		t.Fatalf("%+v, %v", m, err)
	}
	if w := f.writes(); len(w) != 1 || !strings.Contains(w[0], `"TransferMethod":"Stream"`) || strings.Contains(w[0], "TransferProtocolType") {
		t.Errorf("writes %q", w)
	}
	if id, err := b.Identity(t.Context()); err != nil || id.Quirk != "wants-protocol" {
		t.Errorf("%+v, %v", id, err)
	}
}

func TestNextSlotIsTried(t *testing.T) {
	f := newFake(t)
	const second = "/redfish/v1/Systems/1/VirtualMedia/Cd2"
	f.slot(second, []any{"CD"})
	f.resources["/redfish/v1/Systems/1/VirtualMedia"] = collection(cdSlot, second)
	f.actions[insertCd] = func(obj) (int, any) { return 405, nil } // a slot of the remote console (Cisco C845a)
	b := f.dial()
	for range 2 {
		m, err := b.InsertMedia(t.Context(), MediaRequest{URL: testImage})
		if err != nil || m.URI != second {
			t.Fatalf("%+v, %v", m, err)
		}
	}
	tried := 0
	for _, w := range f.writes() {
		if strings.HasPrefix(w, "POST "+insertCd) {
			tried++
		}
	}
	if tried != 1 {
		t.Errorf("the slot that refuses was tried %d times, want once", tried)
	}
}

func TestSameDeviceUnderSystemAndManager(t *testing.T) {
	f := newFake(t)
	shadow := "/redfish/v1/Managers/BMC/VirtualMedia/Cd"
	f.resources["/redfish/v1/Managers/BMC"]["VirtualMedia"] = link("/redfish/v1/Managers/BMC/VirtualMedia")
	f.put("/redfish/v1/Managers/BMC/VirtualMedia", collection(shadow))
	f.slot(shadow, []any{"CD"})
	f.hook = func(_ http.ResponseWriter, r *http.Request, _ []byte) bool { // what one shows, the other shows
		f.mu.Lock()
		defer f.mu.Unlock()
		if r.Method == "GET" && r.URL.Path == shadow {
			for _, key := range []string{"Image", "Inserted", "ConnectedVia"} {
				maps.Copy(f.resources[shadow], obj{key: f.resources[cdSlot][key]})
			}
		}
		return false
	}
	b := f.dial()
	m, err := b.InsertMedia(t.Context(), MediaRequest{URL: testImage})
	if err != nil || m.URI != cdSlot {
		t.Fatalf("%+v, %v", m, err)
	}
	if err := b.EjectMedia(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.at(cdSlot, "Inserted"); got != false {
		t.Errorf("inserted is %v", got)
	}
}

func TestMissingRights(t *testing.T) {
	f := newFake(t)
	b := f.dial()
	f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Method == "POST" {
			answer(w, 403, redfishError("InsufficientPrivilege"))
		}
		return r.Method == "POST"
	}
	if err := b.SetPower(t.Context(), On); fleet.CodeOf(err) != "MC-BMC-AUTH" || !strings.Contains(err.Error(), "may not do this") {
		t.Errorf("got %v", err)
	}
	if s := b.breaker.State(); s.Open {
		t.Errorf("a missing right opened the breaker: %+v", s)
	}
}
