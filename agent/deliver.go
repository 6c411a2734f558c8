package agent

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// deliver sends results in order, each until the server has it. A result leaves the outbox only by an answer (invariant A3). A server that has a newer try
// takes a late result and ignores it, so that a conflict is one between its own writers and passes.
func (w *worker) deliver(ctx context.Context, c *client) error {
	pause := newBackoff(w.cfg.Pace)
	for {
		r, ok := w.head()
		if !ok {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-w.bell:
			}
			continue
		}
		_, err := c.member(ctx, w.cfg.Pace.Call, http.MethodPost, api.AgentResultPath, r, nil, 0)
		switch code := statusOf(err); {
		case err == nil:
			w.delivered()
			pause.reset()
			if r.Step == step.AgentPowerOff && r.Error == nil {
				return errPoweredOff
			}
		case ctx.Err() != nil:
			return ctx.Err()
		case isOver(err):
			return err
		case code == http.StatusBadRequest || code == http.StatusRequestEntityTooLarge || code == http.StatusUnprocessableEntity:
			w.rejected(r, err)
		default:
			w.cfg.Log.Warn("result not delivered yet", fleet.LogOperation, r.Operation, fleet.LogStep, r.Step, fleet.LogTry, r.Try, "err", err)
			w.undelivered()
			if err := pause.wait(ctx); err != nil {
				return err
			}
		}
	}
}

func (w *worker) head() (api.Result, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sending = len(w.outbox) > 0
	if !w.sending {
		return api.Result{}, false
	}
	return w.outbox[0], true
}

// delivered takes the result that was on its way out of the outbox.
func (w *worker) delivered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sending = false
	w.outbox = w.outbox[1:]
}

// undelivered says that the first result is not on its way any more.
func (w *worker) undelivered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sending = false
}

// rejected replaces a result that the server can never take by a short one that says so; if that is refused as well, there is nothing left to say.
func (w *worker) rejected(r api.Result, cause error) {
	w.cfg.Log.Error("the server refuses the result", fleet.LogOperation, r.Operation, fleet.LogStep, r.Step, fleet.LogTry, r.Try, "err", cause)
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Error != nil && r.Error.Code == "MC-AGENT-RESULT" {
		w.outbox, w.sending = w.outbox[1:], false
		return
	}
	w.sending = false
	short := problem(fleet.Errorf(fleet.Broken, "MC-AGENT-RESULT", "%s ended, but the server refused its result of %d bytes: %w", r.Step, len(r.Evidence)+len(r.Attachment), cause))
	short.Operation, short.Index, short.Try, short.Step = r.Operation, r.Index, r.Try, r.Step
	w.outbox[0] = short
	for i := range w.done {
		if w.done[i].Operation == r.Operation && w.done[i].Index == r.Index && w.done[i].Try == r.Try {
			w.done[i] = short
		}
	}
}

// meter keeps the newest progress of a step. set never blocks for longer than a copy takes.
type meter struct {
	mu          sync.Mutex
	stage       string // guarded by mu
	done, total int64  // guarded by mu
}

func (m *meter) set(stage string, done, total int64) {
	m.mu.Lock()
	m.stage, m.done, m.total = stage, done, total
	m.mu.Unlock()
}

func (m *meter) read(p *fleet.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p.Stage, p.Done, p.Total = m.stage, m.done, m.total
	if m.total > 0 {
		p.Percent = 100 * float64(min(max(m.done, 0), m.total)) / float64(m.total)
	}
}

// sendProgress tells once a second how far the running step is. What cannot be sent is forgotten: the next is newer.
func (w *worker) sendProgress(ctx context.Context, c *client) error {
	tick := time.NewTicker(w.cfg.Pace.Progress)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		t, m, ok := w.current()
		if !ok {
			continue
		}
		p := fleet.Progress{Node: fleet.NodeID(w.cfg.Credential.Node), Operation: t.Operation, Step: t.Step, At: w.clock.now()}
		m.read(&p)
		_, err := c.member(ctx, min(w.cfg.Pace.Call, 10*time.Second), http.MethodPost, api.AgentProgressPath, p, nil, 0)
		if isOver(err) {
			return err
		}
		if err != nil && ctx.Err() == nil {
			w.cfg.Log.Debug("progress not sent", "err", fmt.Sprint(err))
			if c.silence() > w.cfg.Pace.Silence {
				w.endLoad(ctx, t)
			}
		}
	}
}
