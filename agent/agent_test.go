package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

func TestATaskIsDoneAndReported(t *testing.T) {
	f := newFakeServer(t)
	var told atomic.Int32
	release := make(chan struct{})
	cfg := config(f, step.Funcs{step.Inventory: func(ctx context.Context, c step.Call) (step.Outcome, error) {
		c.Progress("reading", 1, 4)
		<-release
		return step.Outcome{Evidence: map[string]int{"disks": 2}, Attachment: map[string]string{"big": "thing"}}, nil
	}})
	cfg.Uptime = func() float64 { return 4.5 }
	cfg.OnRegistered = func(r api.Registered) {
		if r.Name == "n01" {
			told.Add(1)
		}
	}
	start(t, cfg)
	f.push(task(step.Inventory, 1))
	for {
		p := receive(t, f.progress, "progress")
		if p.Stage == "reading" {
			if p.Percent != 25 || p.Done != 1 || p.Total != 4 || p.Operation != "op" || p.Step != step.Inventory {
				t.Errorf("progress = %+v", p)
			}
			break
		}
	}
	close(release)
	got := receive(t, f.results, "result")
	if got.Error != nil || string(got.Evidence) != `{"disks":2}` || string(got.Attachment) != `{"big":"thing"}` || got.Index != 3 || got.Try != 1 {
		t.Errorf("result = %s", mustJSON(t, got))
	}
	if told.Load() != 1 {
		t.Errorf("OnRegistered was called %d times, want 1", told.Load())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if reg := f.registers[0]; reg.Generation != 7 || reg.UUID != "u" || reg.Boot.Uptime != 4.5 || reg.Serial != "s" || !slices.Equal(reg.MACs, []fleet.MAC{"52:54:00:00:00:01"}) {
		t.Errorf("register = %+v", reg)
	}
}

func TestALostReplyAtRegisteringIsAskedForAgainWithTheSameKey(t *testing.T) {
	f := newFakeServer(t)
	lost := 0
	f.onRegist = func(w http.ResponseWriter, _ api.Register) bool {
		if lost++; lost > 2 {
			return false
		}
		cut(w)
		return true
	}
	start(t, config(f, step.Funcs{step.Inventory: nothing}))
	f.push(task(step.Inventory, 1))
	receive(t, f.results, "result")
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.registers) != 3 || f.registers[0].CSR != f.registers[2].CSR {
		t.Errorf("%d registrations; the request must stay the same", len(f.registers))
	}
}

func nothing(context.Context, step.Call) (step.Outcome, error) { return step.Outcome{}, nil }

func TestTheEndOfASession(t *testing.T) {
	for name, tc := range map[string]struct {
		set  func(*fakeServer, *Config)
		code string
		kind fleet.Kind
		text string
	}{
		"token spent by another key": {func(f *fakeServer, _ *Config) { f.boundTo = "sha256/other" }, "MC-AGENT-REFUSED", fleet.Denied, "spent by another key"},
		"unknown token":              {func(_ *fakeServer, c *Config) { c.Credential.Token = fleet.NewSecret("other") }, "MC-AGENT-REFUSED", fleet.Denied, "no such token"},
		"a version too far away": {func(f *fakeServer, _ *Config) {
			f.onRegist = func(w http.ResponseWriter, _ api.Register) bool {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusForbidden)
				_ = json.NewEncoder(w).Encode(api.Problem{Status: http.StatusForbidden, Kind: fleet.Denied.String(), Code: "MC-AGENT-VERSION", Detail: "the ramdisk is too old for this server"})
				return true
			}
		}, "MC-AGENT-REFUSED", fleet.Denied, "MC-AGENT-VERSION: the server answers 403: the ramdisk is too old for this server"},
		"an answer in another version": {func(f *fakeServer, _ *Config) {
			f.onRegist = func(w http.ResponseWriter, _ api.Register) bool {
				_ = json.NewEncoder(w).Encode(api.Registered{Version: api.AgentVersion + 1, Certificate: f.answer.Certificate, Now: f.now, Name: "n01"})
				return true
			}
		}, "MC-AGENT-REFUSED", fleet.Denied, "and this agent speaks "},
		"older generation": {func(f *fakeServer, _ *Config) { f.gone = true }, "MC-AGENT-OVER", fleet.Conflict, "replaced by 8"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeServer(t)
			cfg := config(f, nil)
			tc.set(f, &cfg)
			err := receive(t, start(t, cfg), "end")
			if fleet.CodeOf(err) != tc.code || fleet.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.text) || fleet.HintOf(err) == "" {
				t.Errorf("Run = %v (code %s, kind %v)", err, fleet.CodeOf(err), fleet.KindOf(err))
			}
			if strings.Contains(err.Error(), "spend-me") {
				t.Error("the message shows the token")
			}
		})
	}
}

func TestANewerGenerationEndsTheSessionBetweenPolls(t *testing.T) {
	f := newFakeServer(t)
	end := start(t, config(f, step.Funcs{step.Inventory: nothing}))
	f.push(task(step.Inventory, 1))
	receive(t, f.results, "result")
	f.mu.Lock()
	f.gone = true
	f.mu.Unlock()
	if err := receive(t, end, "end"); fleet.CodeOf(err) != "MC-AGENT-OVER" {
		t.Errorf("Run = %v", err)
	}
}

func TestAServerWithAnotherKeyIsNeverSpokenTo(t *testing.T) {
	f, wrong := newFakeServer(t), newFakeServer(t)
	cfg := config(f, step.Funcs{step.Inventory: nothing})
	// The first server of the list holds another key than the medium says; the second is right.
	cfg.Credential.Servers = []fleet.ServerRef{{URL: "https://" + wrong.addr, KeyPin: f.pin}, {URL: "https://" + f.addr, KeyPin: f.pin}}
	start(t, cfg)
	f.push(task(step.Inventory, 1))
	receive(t, f.results, "result")
	wrong.mu.Lock()
	defer wrong.mu.Unlock()
	if len(wrong.registers) != 0 {
		t.Error("the token was sent to a server with another key")
	}
}

func TestAServerThatIsDownIsTriedUntilItComes(t *testing.T) {
	f := newFakeServer(t)
	f.stop()
	cfg := config(f, step.Funcs{step.Inventory: nothing})
	tries := make(chan struct{}, 1000)
	cfg.Dial = countingDial(tries)
	start(t, cfg)
	for range 5 {
		receive(t, tries, "try")
	}
	f.restart()
	f.push(task(step.Inventory, 1))
	receive(t, f.results, "result")
}

func TestAServerRestartMidTaskLosesNothing(t *testing.T) {
	f := newFakeServer(t)
	began, release := make(chan struct{}, 8), make(chan struct{})
	start(t, config(f, step.Funcs{step.WriteImage: func(ctx context.Context, c step.Call) (step.Outcome, error) {
		began <- struct{}{}
		<-release
		return step.Outcome{Evidence: "written"}, ctx.Err()
	}}))
	f.push(task(step.WriteImage, 1))
	receive(t, began, "start")
	f.stop()
	close(release) // the step ends while nobody listens
	f.mu.Lock()
	f.forgotten = true // and the new server has no session in memory
	f.mu.Unlock()
	f.restart()
	got := receive(t, f.results, "result")
	if got.Error != nil || string(got.Evidence) != `"written"` {
		t.Errorf("result = %s", mustJSON(t, got))
	}
	if len(began) != 0 {
		t.Error("the step ran twice")
	}
}

func TestAResultIsSentAgainWhenTheNetworkIsCutBeforeTheAnswer(t *testing.T) {
	f := newFakeServer(t)
	var cuts atomic.Int32
	f.onResult = func(w http.ResponseWriter, _ api.Result) bool {
		if cuts.Add(1) > 3 {
			return false
		}
		cut(w)
		return true
	}
	var runs atomic.Int32
	start(t, config(f, step.Funcs{step.Inventory: func(context.Context, step.Call) (step.Outcome, error) {
		runs.Add(1)
		return step.Outcome{Evidence: 1}, nil
	}}))
	f.push(task(step.Inventory, 1))
	if got := receive(t, f.results, "result"); string(got.Evidence) != "1" {
		t.Errorf("result = %s", mustJSON(t, got))
	}
	if runs.Load() != 1 || cuts.Load() != 4 {
		t.Errorf("%d runs and %d deliveries, want 1 and 4", runs.Load(), cuts.Load())
	}
}

func TestAnotherServerTakesOverWhenTheFirstIsGone(t *testing.T) {
	f := newFakeServer(t)
	cfg := config(f, step.Funcs{step.Inventory: nothing})
	cfg.Credential.Servers = append(cfg.Credential.Servers, f.second())
	start(t, cfg)
	f.push(task(step.Inventory, 1))
	receive(t, f.results, "result")
	f.stop()
	// A dying server may take a task along, and a result that it did not acknowledge comes twice:
	// work is handed out until its result is there, as the real server does.
	over := time.After(patience)
	for {
		f.push(task(step.Inventory, 2))
		select {
		case got := <-f.results:
			if got.Try == 2 {
				return
			}
		case <-time.After(time.Second):
		case <-over:
			t.Fatal("no result by the other server")
		}
	}
}

func TestAnswersThatPassDoNotEndTheSessionOrLoseTheResult(t *testing.T) {
	for name, problem := range map[string]api.Problem{
		"a rule forbids it for now":     {Status: http.StatusForbidden, Kind: "refused", Detail: "the server is frozen"},
		"another writer was first":      {Status: http.StatusConflict, Kind: "conflict", Code: "MC-STORE-STALE"},
		"the store is full":             {Status: http.StatusServiceUnavailable},
		"a proxy without its server":    {Status: http.StatusNotFound},
		"a server with a new authority": {Status: http.StatusForbidden, Kind: "denied", Code: "MC-AGENT-CERT"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeServer(t)
			var asked atomic.Int32
			f.onResult = func(w http.ResponseWriter, _ api.Result) bool {
				if asked.Add(1) > 2 {
					return false
				}
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(problem.Status)
				_, _ = w.Write([]byte(mustJSON(t, problem)))
				return true
			}
			start(t, config(f, step.Funcs{step.Inventory: nothing}))
			f.push(task(step.Inventory, 1))
			if got := receive(t, f.results, "result"); got.Error != nil {
				t.Errorf("result = %s", mustJSON(t, got))
			}
		})
	}
}

func TestTheClock(t *testing.T) {
	f := newFakeServer(t)
	cfg := config(f, step.Funcs{step.Inventory: func(ctx context.Context, _ step.Call) (step.Outcome, error) {
		<-ctx.Done()
		return step.Outcome{}, ctx.Err()
	}})
	issued := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	f.now = time.Date(2026, 5, 1, 0, 3, 0, 0, time.UTC)
	cfg.Credential.IssuedAt = issued
	t.Run("a machine in 1970 gets the credential's time, then the server's", func(t *testing.T) {
		var mu sync.Mutex
		now := time.Unix(42, 0)
		var set []time.Time
		cfg := cfg
		cfg.Home = &Home{}
		cfg.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
		cfg.Clock = func(to time.Time) error {
			mu.Lock()
			defer mu.Unlock()
			now = to
			set = append(set, to)
			return nil
		}
		registered := make(chan struct{})
		cfg.OnRegistered = func(api.Registered) { close(registered) }
		start(t, cfg)
		receive(t, registered, "registration")
		mu.Lock()
		defer mu.Unlock()
		if len(set) != 2 || !set[0].Equal(issued) || !set[1].Equal(f.now) {
			t.Errorf("the clock was set to %v", set)
		}
	})
	t.Run("a clock that cannot be set is corrected in what is sent", func(t *testing.T) {
		f := newFakeServer(t)
		f.now = issued.Add(3 * time.Minute)
		cfg := cfg
		cfg.Credential.Servers = f.credential().Servers
		cfg.Home = &Home{}
		cfg.Now = func() time.Time { return time.Unix(42, 0) }
		start(t, cfg)
		f.push(task(step.Inventory, 1))
		if p := receive(t, f.progress, "progress"); !p.At.Equal(f.now) {
			t.Errorf("progress at %v, want %v", p.At, f.now)
		}
	})
	t.Run("a server whose own clock is dead does not pull the agent below the issue time", func(t *testing.T) {
		now := time.Unix(0, 0)
		c := &clock{read: func() time.Time { return now }, set: func(to time.Time) error { now = to; return nil }, log: quiet}
		c.atLeast(issued)
		c.follow(time.Unix(99, 0), issued)
		if !c.now().Equal(issued) {
			t.Errorf("now = %v, want %v", c.now(), issued)
		}
	})
}

func TestPowerOffComesAfterItsResult(t *testing.T) {
	f := newFakeServer(t)
	cfg := config(f, step.Funcs{step.AgentPowerOff: nothing})
	var delivered atomic.Bool
	f.onResult = func(http.ResponseWriter, api.Result) bool { delivered.Store(true); return false }
	var off atomic.Bool
	cfg.PowerOff = func(context.Context) error {
		off.Store(delivered.Load())
		return nil
	}
	end := start(t, cfg)
	f.push(task(step.AgentPowerOff, 1))
	if err := receive(t, end, "end"); err != nil {
		t.Errorf("Run = %v", err)
	}
	if !off.Load() {
		t.Error("the machine was not powered off after the result was delivered")
	}
	for r := receive(t, f.reports, "report"); r.Kind != "shutdown"; r = receive(t, f.reports, "report") {
		continue
	}
}

func TestHomeFetchesAndReports(t *testing.T) {
	f := newFakeServer(t)
	cfg := config(f, nil)
	cfg.Home.Report("stage", "network up") // before registration: it waits
	registered := make(chan struct{})
	cfg.OnRegistered = func(api.Registered) { close(registered) }
	if _, err := cfg.Home.Fetch(context.Background(), "/secret", 100); fleet.KindOf(err) != fleet.Unavailable {
		t.Errorf("before registration: %v", err)
	}
	start(t, cfg)
	receive(t, registered, "registration")
	b, err := cfg.Home.Fetch(context.Background(), "/secret", 100)
	if err != nil || string(b) != "user-data" {
		t.Errorf("Fetch = %q, %v", b, err)
	}
	for path, want := range map[string]fleet.Kind{"/none": fleet.Broken, "https://elsewhere/": fleet.Invalid, "//elsewhere/x": fleet.Invalid} {
		if _, err := cfg.Home.Fetch(context.Background(), path, 100); fleet.KindOf(err) != want {
			t.Errorf("Fetch(%s) = %v, want kind %v", path, err, want)
		}
	}
	if _, err := cfg.Home.Fetch(context.Background(), "/secret", 3); fleet.KindOf(err) != fleet.Invalid {
		t.Errorf("more than the limit: %v", err)
	}
	if r := receive(t, f.reports, "report"); r.Kind != "stage" || !hasLine(r, "network up") {
		t.Errorf("report = %+v", r)
	}
}

func TestReportsAreBounded(t *testing.T) {
	h := &Home{}
	for i := range maxLines + 500 {
		h.Report("log", fmt.Sprint(i))
	}
	var lines int
	var last api.Report
	for r, ok := h.take(); ok; r, ok = h.take() {
		lines += len(r.Lines)
		last = r
	}
	if lines != maxLines+1 || !hasLine(last, "500 lines were lost") {
		t.Errorf("%d lines, the last %q", lines, last.Lines[len(last.Lines)-1])
	}
}

// panicOnce is a log that panics at the first record with that message.
type panicOnce struct {
	slog.Handler
	message string
	done    *atomic.Bool
}

func (p panicOnce) Enabled(context.Context, slog.Level) bool { return true }

func (p panicOnce) Handle(_ context.Context, r slog.Record) error {
	if r.Message == p.message && !p.done.Swap(true) {
		panic("a defect in the loop")
	}
	return nil
}

func (p panicOnce) WithAttrs([]slog.Attr) slog.Handler { return p }

func TestALoopThatPanicsBeginsAgain(t *testing.T) {
	for _, message := range []string{"result not delivered yet", "answering a repeated task from memory"} {
		t.Run(message, func(t *testing.T) {
			f := newFakeServer(t)
			refused := false
			f.onResult = func(w http.ResponseWriter, _ api.Result) bool {
				if refused {
					return false
				}
				refused = true
				refuse(w, http.StatusServiceUnavailable, "not now")
				return true
			}
			cfg := config(f, step.Funcs{step.VerifyErase: func(context.Context, step.Call) (step.Outcome, error) { return step.Outcome{}, nil }})
			var done atomic.Bool
			cfg.Log = slog.New(panicOnce{slog.DiscardHandler, message, &done})
			start(t, cfg)
			f.push(task(step.VerifyErase, 1))
			if r := receive(t, f.results, "result"); r.Error != nil {
				t.Errorf("result = %s", mustJSON(t, r))
			}
			f.push(task(step.VerifyErase, 1))
			for r := receive(t, f.reports, "report"); r.Kind != "panic" || !hasLine(r, "a defect in the loop"); r = receive(t, f.reports, "report") {
				continue
			}
			f.push(task(step.VerifyErase, 2))
			for r := receive(t, f.results, "result after the panic"); r.Try != 2; r = receive(t, f.results, "result after the panic") {
				continue
			}
		})
	}
}
