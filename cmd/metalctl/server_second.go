//go:build !ramdisk

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/server"
	"github.com/metalctl/metalctl/fleet/standby"
	"github.com/metalctl/metalctl/fleet/store"
)

// actingSide is what a server that acts has to do with a second one: it is followed by it, steps down for it, and looks whether it has taken over.
type actingSide struct {
	db          *store.DB
	log         *slog.Logger
	tenure      *tenure // nil: no arbiter is configured
	controllers *bmcs
	hub         *standby.Hub
	srv         *server.Server
	engine      *reconcile.Loop
	mux         *http.ServeMux
	role        fleet.StoreRole
	handsOff    time.Duration // as in serverConfig
	// calm is closed when the calls of the server before are surely over, which is at until; nil: there was none.
	calm  chan struct{}
	until time.Time
	// overtaken is rung where somebody else than run finds that another server has taken over.
	overtaken chan struct{}

	stepping sync.Mutex    // held while this server steps down
	halted   chan struct{} // closed when the engine is told to end
	stopLoop context.CancelFunc
	loopDone chan struct{}
	halt     func()
	// retired gets the last position once this server has stepped down.
	retired chan fleet.Position

	mu      sync.Mutex // guards what follows
	refuses error
	stepped *fleet.Position
	failed  error         // stepping down did, and this stage ends
	writes  int           // to BMCs, under way
	idle    chan struct{} // closed when there is none any more; nil where nobody waits
	askedAt time.Time     // when the other server was last asked whether it has taken over, answer or not
}

var _ server.Standby = (*actingSide)(nil)

// begin is called before anything runs.
func (a *actingSide) begin(ctx context.Context, srv *server.Server, engine *reconcile.Loop, role fleet.StoreRole) error {
	a.srv, a.engine, a.role = srv, engine, role
	a.hub = &standby.Hub{Log: a.db, Files: a.db, Store: a.db, Dir: a.db.Dir(), URL: srv.URL(), Nodes: srv.NodesURL(), StepDown: a.stepDownFor, Refuse: srv.Refuse, Logger: a.log}
	if a.tenure != nil {
		a.hub.Tenure, a.hub.Mono = a.tenure, sinceBoot
	}
	a.loopDone, a.halted, a.retired, a.overtaken = make(chan struct{}), make(chan struct{}), make(chan fleet.Position, 1), make(chan struct{}, 1)
	if role.HandsOff {
		// One that lives all the same, and reaches this one, stops within Notice; what it has sent by then may run for the longest call.
		engine.HandsOff = cmp.Or(a.handsOff, engine.CallDeadline+standby.Notice)
		a.calm, a.until = make(chan struct{}), time.Now().Add(engine.HandsOff)
		time.AfterFunc(engine.HandsOff, func() { close(a.calm) })
		a.log.Warn("the server before this one may still be speaking to BMCs; nothing is written to them for a while", "seconds", engine.HandsOff.Seconds(), "peer", role.Peer)
	}
	a.halt = sync.OnceFunc(func() { close(a.halted) })
	a.controllers.fence = a
	a.mux = http.NewServeMux()
	a.hub.Register(a.mux)
	a.mux.HandleFunc("GET "+api.StandbyPath, a.serveStatus)
	a.mux.HandleFunc("DELETE "+api.StandbyPath, a.serveForget)
	a.mux.HandleFunc("GET "+api.RolePath, a.serveRole)
	a.mux.HandleFunc("POST "+api.StandbyPath+"/promote", func(w http.ResponseWriter, r *http.Request) {
		srv.Refuse(w, r, fleet.Errorf(fleet.Conflict, "MC-STANDBY-ACTS", "this server acts already").WithHint("metalctl standby status; name the other one with --server"))
	})
	if err := a.hub.Begin(ctx); err != nil {
		return err
	}
	if a.tenure != nil {
		a.tenure.served(a.hub)
	}
	return nil
}

// loop runs the engine until it is stopped; then it waits for the stage's end.
func (a *actingSide) loop(ctx context.Context) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	a.mu.Lock()
	a.stopLoop = cancel
	stepping := a.refuses != nil
	a.mu.Unlock()
	var err error
	if !stepping {
		err = a.engine.Run(inner)
	}
	close(a.loopDone)
	if ctx.Err() == nil && inner.Err() != nil {
		<-ctx.Done()
	}
	return err
}

// run looks after the other server until this one has stepped down or ctx ends.
func (a *actingSide) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() { _ = a.hub.Run(ctx) }) // it ends with ctx and for no other reason
	if !a.until.IsZero() {
		beside.Go(func() { a.handsOn(ctx) })
	}
	look := time.NewTicker(standby.LookEvery)
	defer look.Stop()
	right := time.NewTicker(lookForTerm)
	defer right.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case last := <-a.retired:
			if last == (fleet.Position{}) {
				return errNextStage
			}
			wait, enough := context.WithTimeout(ctx, 10*time.Second)
			if !a.hub.Even(wait, last) {
				a.log.Warn("the standby has not taken the last commits yet; it gets them all the same", "revision", last.Revision)
			}
			enough()
			return errNextStage
		case <-right.C:
			if a.fenced() {
				return errNextStage
			}
			continue
		case <-look.C:
		case <-a.overtaken:
		}
		if err := a.look(ctx); err != nil {
			return err
		}
	}
}

// fenced reports whether this server has lost the right to act. Its engine ends then; what waits for a write to a BMC waits on until it is told.
func (a *actingSide) fenced() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refuses != nil || a.tenure.held() == nil {
		return false
	}
	if a.stopLoop != nil {
		a.stopLoop()
	}
	a.halt()
	return true
}

// handsOn notes when the calls of the server before are surely over, so that a restart does not wait for them again.
func (a *actingSide) handsOn(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-a.calm:
	}
	if err := a.db.HandsOn(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("a restart will keep its hands off BMCs for a while again", "err", err)
		return
	}
	a.engine.Bell()
}

// look asks a follower that is not heard of whether it has taken over. This server then stops at once.
func (a *actingSide) look(ctx context.Context) error {
	f := a.hub.Follower()
	if f == nil || a.hub.Connected() {
		return nil
	}
	v, err := a.ask(ctx, f.URL)
	switch {
	case err != nil:
		return nil // it does not answer; that it is not heard of is told elsewhere
	case v.took:
		a.log.Error("another server has taken over; this one stops acting", "by", v.by)
		_, err := a.stepDown(ctx, v.by, tookOver)
		return err
	case v.split:
		return a.freezeSplit(ctx, f.URL)
	}
	return nil
}

// freezeSplit stops all writes to the outside where two servers act, each on its own branch: only a person can say which one is right.
func (a *actingSide) freezeSplit(ctx context.Context, other string) error {
	var frozen bool
	err := a.db.View(ctx, func(s fleet.Snapshot) error {
		all, err := fleet.Freezes(s)
		for _, f := range all {
			frozen = frozen || f.Scope == fleet.FreezeAll
		}
		return err
	})
	if err != nil || frozen {
		return err
	}
	text := "the server " + other + " acts, too, and neither store is what became of the other"
	a.log.Error("two servers act; everything is frozen here", "peer", other)
	f := fleet.Freeze{ID: newFreezeID(), Scope: fleet.FreezeAll, Reason: text, By: "the server", Since: time.Now().UTC().Truncate(time.Second), Source: fleet.FrozenByWitness}
	key := fleet.KeyOf(fleet.KindFreeze, f.ID)
	_, err = a.db.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: key, Value: f}}, Events: []fleet.Event{{Type: "standby.split", Subject: key, Text: text + "; everything is frozen"}}})
	return err
}

// tookOver is why a server retires that was not asked.
const tookOver = "it took over"

func (a *actingSide) stepDownFor(ctx context.Context, to string) (fleet.Position, error) {
	if a.tenure != nil {
		// Nothing is ended for a successor who would not get the term.
		if _, err := a.tenure.look(ctx); err != nil {
			return fleet.Position{}, err
		}
	}
	return a.stepDown(ctx, to, "it was asked to step down")
}

// stepDown ends, in this order: what is being written to BMCs, requests, the engine, sessions, the store. When it returns without an error that is durable, and
// its position is the last. After an error this stage ends, and the server acts again if its store does.
func (a *actingSide) stepDown(ctx context.Context, to, why string) (fleet.Position, error) {
	a.stepping.Lock()
	defer a.stepping.Unlock()
	a.mu.Lock()
	if a.stepped != nil || a.failed != nil {
		defer a.mu.Unlock()
		if a.failed != nil {
			return fleet.Position{}, a.failed
		}
		return *a.stepped, nil
	}
	a.refuses = fleet.Errorf(fleet.Unavailable, "MC-STANDBY-RETIRED", "this server steps down in favour of %s", to).WithHint("ask %s", to)
	a.mu.Unlock()
	// The caller may go; what was begun is ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	last, err := a.quiet(ctx, to, why)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.log.Error("step down", "err", err)
		a.failed = err
		a.retired <- fleet.Position{} // the stage begins anew
		return last, err
	}
	a.stepped = &last
	a.log.Warn("this server has stepped down", "peer", to, "revision", last.Revision)
	a.retired <- last
	return last, nil
}

func (a *actingSide) quiet(ctx context.Context, to, why string) (fleet.Position, error) {
	// What was sent to a BMC gets its answer before the engine ends, so that the successor finds it done, or not begun.
	err := a.dry(ctx)
	a.mu.Lock()
	if a.stopLoop != nil {
		a.stopLoop()
	}
	a.halt()
	a.mu.Unlock()
	if err != nil {
		return fleet.Position{}, fleet.Errorf(fleet.Timeout, "MC-STANDBY-BUSY", "a call to a BMC does not end: %w", err).WithHint("repeat: metalctl standby promote")
	}
	if err := a.srv.Quiesce(ctx); err != nil {
		return fleet.Position{}, fleet.Errorf(fleet.Timeout, "MC-STANDBY-BUSY", "requests that were taken before do not end: %w", err).WithHint("repeat: metalctl standby promote")
	}
	select {
	case <-a.loopDone:
	case <-ctx.Done():
		return fleet.Position{}, fleet.Errorf(fleet.Timeout, "MC-STANDBY-BUSY", "a call to a BMC does not end").WithHint("repeat: metalctl standby promote")
	}
	closing, cancel := context.WithTimeout(ctx, 10*time.Second)
	a.controllers.close(closing)
	cancel()
	if a.tenure != nil && why != tookOver {
		if err := a.tenure.handOver(ctx, a.hub, a.db.Position(), to); err != nil {
			return fleet.Position{}, err
		}
	}
	return a.db.Retire(ctx, to, why)
}

// PartnerNodes implements server.Standby.
func (a *actingSide) PartnerNodes() string { return a.hub.PartnerNodes() }

// State implements server.Standby.
func (a *actingSide) State(out *api.Standby) {
	a.hub.State(out)
	a.tenure.fill(out)
}

// Settled implements server.Standby.
func (a *actingSide) Settled(ctx context.Context) error { return a.tenure.settled(ctx) }

// Refuses implements server.Standby.
func (a *actingSide) Refuses() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refuses != nil {
		return a.refuses
	}
	return a.tenure.held()
}

// ServeHTTP implements server.Standby.
func (a *actingSide) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

func (a *actingSide) serveRole(w http.ResponseWriter, r *http.Request) {
	id, err := a.db.Identity(r.Context())
	if err != nil {
		a.srv.Refuse(w, r, err)
		return
	}
	out := api.Role{Role: fleet.RoleActs.Word(), Store: id}
	a.mu.Lock()
	if a.stepped != nil {
		out.Role = string(fleet.RoleRetired)
	}
	a.mu.Unlock()
	answerJSON(w, out)
}

func (a *actingSide) serveForget(w http.ResponseWriter, r *http.Request) {
	if err := a.hub.Forget(r.Context()); err != nil {
		a.srv.Refuse(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// answerJSON sends v.
func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the caller is gone
}

func (a *actingSide) serveStatus(w http.ResponseWriter, r *http.Request) {
	out, err := a.status(r.Context())
	if err != nil {
		a.srv.Refuse(w, r, err)
		return
	}
	answerJSON(w, out)
}

func (a *actingSide) status(ctx context.Context) (api.Standby, error) {
	id, err := a.db.Identity(ctx)
	out := api.Standby{Role: fleet.RoleActs.Word(), URL: a.srv.URL(), Why: a.role.Why, Since: a.role.Since,
		Revision: id.Revision, Generation: id.Generation(), Epoch: id.Epoch()}
	a.State(&out)
	if rest := time.Until(a.until); rest > 0 && !a.until.IsZero() {
		out.HandsOffSeconds = rest.Seconds()
	}
	return out, err
}

// asker asks another server what it is. Its key is the one in the store, which all servers of a fleet have.
type asker struct {
	db  *store.DB
	url string
	cl  *api.Client
}

// heardRole is what another server's role means for this one.
type heardRole struct {
	took  bool   // it, or one after it, took over
	by    string // which one
	split bool   // it acts on another branch
}

func newAsker(ctx context.Context, db *store.DB, url string) (*asker, error) {
	pin, _, err := server.Trust(ctx, db)
	if err != nil {
		return nil, err
	}
	cl, err := api.NewClient(api.Config{Server: url, Pin: pin, Timeout: 3 * time.Second})
	return &asker{db, url, cl}, err
}

func (a *asker) verdict(ctx context.Context) (heardRole, error) {
	defer a.cl.Close()
	mine, err := a.db.Identity(ctx)
	if err != nil {
		return heardRole{}, err
	}
	role, err := a.cl.Role(ctx)
	if err != nil {
		return heardRole{}, err
	}
	v := heardRole{by: a.url, took: role.Store.Succeeds(mine)}
	acts := role.Role == fleet.RoleActs.Word()
	if v.took && !acts && role.Peer != "" {
		v.by = role.Peer
	}
	v.split = acts && !v.took && !mine.Succeeds(role.Store)
	return v, nil
}

// retire makes the store that of a server that was taken over from.
func (a *asker) retire(ctx context.Context, v heardRole) error {
	if _, err := a.db.Retire(ctx, v.by, "it took over"); err != nil {
		return err
	}
	return errors.Join(errNextStage, fmt.Errorf("%s has taken over", v.by))
}
