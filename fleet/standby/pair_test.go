package standby_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/standby"
	"github.com/metalctl/metalctl/fleet/store"
)

// patience bounds every wait: two slow cores.
const patience = 90 * time.Second

// pair is a server's store behind a real hub, and a follower of it with a replica.
type pair struct {
	db   *store.DB
	hub  *standby.Hub
	http *httptest.Server
	cl   *api.Client
	dir  string // the replica's
	f    *standby.Follower
	// later is added to the follower's time.
	later atomic.Int64
	stop  func() // ends the follower
}

var secondServer = fleet.Follower{URL: "https://mc2:8443", Nodes: "https://nodes.mc2:8443"}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{db: contract.OpenStore(t), dir: t.TempDir(), stop: func() {}}
	mux := http.NewServeMux()
	p.http = httptest.NewTLSServer(mux)
	t.Cleanup(p.http.Close)
	p.hub = &standby.Hub{Log: p.db, Files: p.db, Store: p.db, Dir: t.TempDir(), URL: "https://mc1:8443", Nodes: "https://nodes.mc1:8443", Logger: slog.New(slog.DiscardHandler),
		StepDown: func(ctx context.Context, to string) (fleet.Position, error) { return p.db.Retire(ctx, to, "asked to") },
		Refuse: func(w http.ResponseWriter, r *http.Request, err error) {
			problem := api.NewProblem(err, r.URL.Path)
			w.Header().Set("Content-Type", api.ProblemType)
			w.WriteHeader(problem.Status)
			json.NewEncoder(w).Encode(problem) //nolint:errcheck // the caller is gone
		}}
	if err := p.hub.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.hub.Register(mux)
	mux.HandleFunc("GET "+api.RolePath, func(w http.ResponseWriter, r *http.Request) {
		role, err := p.db.Role(r.Context())
		if err != nil {
			p.hub.Refuse(w, r, err)
			return
		}
		json.NewEncoder(w).Encode(api.Role{Role: role.Kind.Word()}) //nolint:errcheck // the caller is gone
	})
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.http.Certificate().Raw})
	cl, err := api.NewClient(api.Config{Server: p.http.URL, Token: fleet.NewSecret("x"), CACert: ca})
	if err != nil {
		t.Fatal(err)
	}
	p.cl = cl
	t.Cleanup(cl.Close)
	return p
}

// follow begins to follow; the follower ends with the test, or when stop is called.
func (p *pair) follow(t *testing.T) {
	t.Helper()
	replica, err := store.OpenReplica(p.dir, store.Options{Key: contract.TestKey()})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	p.f = &standby.Follower{Primary: p.cl, Copy: replica, Shelf: replica, Peer: p.hub.URL, Self: secondServer, Log: slog.New(slog.DiscardHandler),
		Mono: func() time.Duration { return time.Since(start) + time.Duration(p.later.Load()) }}
	if err := p.f.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.f.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		if err := replica.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(p.stop)
}

// even waits until the follower is where the server is, and the server knows.
func (p *pair) even(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		// That a follower comes is itself recorded, so that the place to wait for moves.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		even := p.hub.Even(ctx, p.db.Position())
		cancel()
		if even && p.hub.Follower() != nil {
			return
		}
	}
	t.Fatal("the follower does not come")
}

func (p *pair) put(t *testing.T, i int) {
	t.Helper()
	if err := p.commit(i); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) commit(i int) error {
	_, err := p.db.Commit(context.Background(), fleet.Change{Writes: []fleet.Write{{Key: thing(i), Value: i}}, Events: []fleet.Event{{Type: "thing", Subject: thing(i), Text: "put"}}})
	return err
}

func thing(i int) fleet.Key { return fleet.Key(fmt.Sprintf("thing/%05d", i)) }

// taken opens what was the replica as a server does that acts, and wants the first n things in it.
func (p *pair) taken(t *testing.T, n int) {
	t.Helper()
	p.stop()
	db := contract.OpenStoreIn(t, p.dir, store.Options{})
	err := db.View(t.Context(), func(s fleet.Snapshot) error {
		for i := range n {
			if v, _, err := fleet.Get[int](s, thing(i)); err != nil || v != i {
				t.Errorf("%s: %d, %v", thing(i), v, err)
			}
		}
		partner, _, err := fleet.Get[fleet.Partner](s, fleet.PartnerKey)
		if err != nil || partner.URL != p.hub.URL || partner.Nodes != p.hub.Nodes {
			t.Errorf("its partner is %+v, %v", partner, err)
		}
		if _, _, err := fleet.Get[fleet.Follower](s, fleet.FollowerKey); fleet.KindOf(err) != fleet.NotFound {
			t.Errorf("it still has a follower: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := db.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: "thing/mine", Value: 1}}}); err != nil {
		t.Errorf("it does not act: %v", err)
	}
}

// TestHandOverLosesNothing: whatever was acknowledged before the first server retired is on the second one, however busy it was.
func TestHandOverLosesNothing(t *testing.T) {
	p := newPair(t)
	for i := range 50 {
		p.put(t, i)
	}
	p.follow(t)
	p.even(t)
	written := make(chan int)
	go func() {
		for i := 50; ; i++ {
			if err := p.commit(i); err != nil {
				if fleet.CodeOf(err) != "MC-STANDBY-RETIRED" {
					t.Error(err)
				}
				written <- i
				return
			}
		}
	}()
	for p.db.Position().Revision < 80 { // some are committed while others are sent
		wait, cancel := context.WithTimeout(t.Context(), patience)
		<-changedOrDone(wait, p.db)
		cancel()
	}
	id, err := p.f.Promote(t.Context(), false, "admin")
	if err != nil {
		t.Fatal(err)
	}
	n := <-written
	if id.Generation() != 2 || n <= 50 {
		t.Errorf("%d things, then %+v", n, id)
	}
	p.taken(t, n)
}

func changedOrDone(ctx context.Context, db *store.DB) <-chan struct{} {
	ch, out := db.Changed(), make(chan struct{})
	go func() {
		defer close(out)
		select {
		case <-ch:
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond): // it changed before it was asked for
		}
	}()
	return out
}

func TestAnswerOfAStepDownThatWasLost(t *testing.T) {
	p := newPair(t)
	p.put(t, 0)
	p.follow(t)
	p.even(t)
	asked := 0
	retire := p.hub.StepDown
	p.hub.StepDown = func(ctx context.Context, to string) (fleet.Position, error) {
		if asked++; asked > 1 {
			t.Error("it stepped down twice")
		}
		if _, err := retire(ctx, to); err != nil {
			t.Error(err)
		}
		return fleet.Position{}, fleet.Errorf(fleet.Unavailable, "MC-CLIENT-UNREACHABLE", "the answer is lost")
	}
	if _, err := p.f.Promote(t.Context(), false, "admin"); fleet.CodeOf(err) != "MC-STANDBY-PRIMARY-GONE" {
		t.Fatal(err)
	}
	p.hub.StepDown = nil // as in the process that serves what a retired server has left
	if _, err := p.f.Promote(t.Context(), false, "admin"); err != nil {
		t.Fatal(err)
	}
	p.taken(t, 1)
}

func TestServerThatDoesNotStepDownIsNotTakenOverFrom(t *testing.T) {
	p := newPair(t)
	p.follow(t)
	p.even(t)
	p.hub.StepDown = func(context.Context, string) (fleet.Position, error) {
		return fleet.Position{}, fleet.Errorf(fleet.Timeout, "MC-STANDBY-BUSY", "a call to a BMC does not end")
	}
	if _, err := p.f.Promote(t.Context(), false, "admin"); fleet.KindOf(err) != fleet.Timeout && fleet.KindOf(err) != fleet.Unavailable {
		t.Error(err)
	}
	if _, err := p.f.Promote(t.Context(), true, "admin"); fleet.CodeOf(err) != "MC-STANDBY-PRIMARY-ACTS" {
		t.Error(err)
	}
	p.put(t, 1) // it acts on, and is followed
	p.even(t)
}

func TestDeadServerIsTakenOverFromByForceAlone(t *testing.T) {
	p := newPair(t)
	for i := range 3 {
		p.put(t, i)
	}
	p.follow(t)
	p.even(t)
	p.http.CloseClientConnections()
	p.http.Close()
	if _, err := p.f.Promote(t.Context(), false, "admin"); fleet.CodeOf(err) != "MC-STANDBY-PRIMARY-GONE" {
		t.Error(err)
	}
	p.later.Store(int64(standby.Gone)) // nothing was heard for so long
	if _, err := p.f.Promote(t.Context(), true, "admin"); err != nil {
		t.Fatal(err)
	}
	p.stop()
	if role, _, err := store.RoleOf(p.dir); err != nil || role.Kind != fleet.RoleActs || !role.HandsOff {
		t.Errorf("its role is %+v, %v: the last calls of the dead one may still run", role, err)
	}
	p.taken(t, 3)
}

func TestFollowerWithoutACopyTakesNothingOver(t *testing.T) {
	p := newPair(t)
	p.http.Close()
	p.follow(t)
	for _, force := range []bool{false, true} {
		if _, err := p.f.Promote(t.Context(), force, "admin"); fleet.CodeOf(err) != "MC-STANDBY-FOLLOWS" {
			t.Errorf("force %v: %v", force, err)
		}
	}
}

func TestWhoFollows(t *testing.T) {
	p, ctx := newPair(t), t.Context()
	if got := p.hub.PartnerNodes(); got != "" {
		t.Errorf("nobody follows, and agents are told of %q", got)
	}
	var passed atomic.Int64
	p.hub.Mono = func() time.Duration { return time.Duration(passed.Load()) }
	p.follow(t)
	p.even(t)
	if f, err := standby.FollowerOf(ctx, p.db); err != nil || f == nil || f.URL != secondServer.URL || f.Primary != p.hub.URL || f.PrimaryNodes != p.hub.Nodes {
		t.Errorf("%+v, %v", f, err)
	}
	if got := p.hub.PartnerNodes(); got != secondServer.Nodes {
		t.Errorf("agents are told of %q", got)
	}
	for name, c := range map[string]struct {
		who  fleet.Follower
		code string
	}{
		"a third one":         {fleet.Follower{URL: "https://mc3:8443", Nodes: "https://mc3:8443"}, "MC-STANDBY-TAKEN"},
		"itself":              {fleet.Follower{URL: p.hub.URL, Nodes: "https://mc3:8443"}, "MC-STANDBY-SELF"},
		"one without TLS":     {fleet.Follower{URL: "http://mc3:8443", Nodes: "https://mc3:8443"}, "MC-API-INVALID"},
		"one with a password": {fleet.Follower{URL: "https://mc3:8443", Nodes: "https://a:b@mc3:8443"}, "MC-API-INVALID"},
	} {
		if _, err := p.cl.FollowStore(ctx, fleet.Position{}, c.who); fleet.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := p.cl.StepDown(ctx, "https://mc3:8443"); fleet.CodeOf(err) != "MC-STANDBY-FORGOTTEN" {
		t.Errorf("it would step down for anybody: %v", err)
	}
	if err := p.hub.Forget(ctx); fleet.CodeOf(err) != "MC-STANDBY-HEARD" || p.hub.Follower() == nil {
		t.Errorf("one that follows is forgotten: %v", err)
	}
	p.stop()
	err := error(nil)
	for end := time.Now().Add(patience); time.Now().Before(end); { // its last word may still be on its way
		passed.Add(int64(standby.Gone))
		if err = p.hub.Forget(ctx); fleet.CodeOf(err) != "MC-STANDBY-HEARD" {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := p.hub.Forget(ctx); fleet.CodeOf(err) != "MC-STANDBY-NONE" {
		t.Error(err)
	}
	if err := p.cl.AckStandby(ctx, api.StandbyAck{URL: secondServer.URL}); fleet.CodeOf(err) != "MC-STANDBY-FORGOTTEN" {
		t.Error(err)
	}
	body, err := p.cl.FollowStore(ctx, fleet.Position{}, fleet.Follower{URL: "https://mc3:8443", Nodes: "https://mc3:8443"})
	if err != nil {
		t.Fatal(err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
}

// TestPredecessorIsNamed: a server that took over names the one before to agents until another one follows it, or it is told to forget it.
func TestPredecessorIsNamed(t *testing.T) {
	db, ctx := contract.OpenStore(t), t.Context()
	partner := fleet.Partner{URL: "https://mc1:8443", Nodes: "https://nodes.mc1:8443"}
	if _, err := db.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: fleet.PartnerKey, Value: partner}}}); err != nil {
		t.Fatal(err)
	}
	h := &standby.Hub{Log: db, Files: db, Store: db, URL: secondServer.URL, Nodes: secondServer.Nodes, Logger: slog.New(slog.DiscardHandler)}
	if err := h.Begin(ctx); err != nil {
		t.Fatal(err)
	}
	if got := h.PartnerNodes(); got != partner.Nodes {
		t.Errorf("agents are told of %q", got)
	}
	if err := errors.Join(h.Forget(ctx), h.Begin(ctx)); err != nil || h.PartnerNodes() != "" {
		t.Errorf("it is not forgotten: %q, %v", h.PartnerNodes(), err)
	}
}
