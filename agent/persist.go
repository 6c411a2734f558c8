package agent

import (
	"context"
	"net/http"

	"github.com/metalctl/metalctl/fleet/api"
)

// mostRefusals is how often in a row something may fail although the server answers.
const mostRefusals = 3

// persist does what needs the own server, and does it again while that is away: a server that is restarted, or whose place another one takes, fails no step.
// It ends with do, with ctx, and where do fails over and over although there is a server.
func (h *Home) persist(ctx context.Context, do func() error) error {
	h.mu.Lock()
	c := h.client
	h.mu.Unlock()
	if c == nil {
		return do()
	}
	pause, refusals := newBackoff(c.cfg.Pace), 0
	for {
		err := do()
		if err == nil || passing(err) == 0 || ctx.Err() != nil {
			return err
		}
		if refusals++; !c.answers(ctx) {
			refusals = 0
		}
		if refusals == mostRefusals {
			return err
		}
		c.cfg.Log.Warn("the server is needed; looking for it", "err", err)
		if pause.wait(ctx) != nil {
			return err
		}
	}
}

// answers reports whether there is a server: registering is no GET, and its refusal is an answer, too.
func (c *client) answers(ctx context.Context) bool {
	_, err := c.call(ctx, c.server(), c.cfg.Pace.Call, http.MethodGet, api.AgentRegisterPath, nil, nil, 0)
	return err == nil || statusOf(err) != 0
}
