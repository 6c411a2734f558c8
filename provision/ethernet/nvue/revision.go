package nvue

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// States of a revision. A state that is in none of these lists is a failure: what a release invents later is not guessed at.
var (
	// working: the device is at it.
	working = []string{"apply", "checking", "checked", "readying", "ready", "verifying", "verified", "reloading", "reloaded", "ays_yes", "confirm_yes"}
	// waiting: it is applied, and goes back when nobody confirms it in time. Some releases call it ays, as they call each of their questions.
	waiting = []string{"confirm", "ays"}
	// done: it is what the device does; some releases go on to save it by themselves.
	done = []string{"applied", "applied_and_saved", "auto_save", "auto_saving", "save", "saving", "saved"}
	// idle: it does nothing, and did nothing since anybody looked.
	idle = []string{"pending", "detached", "inactive", "previous", "empty", "invalid", "ays_fail", "ays_no", "confirm_fail", "confirm_no", "apply_fail", "apply_error", "ready_error", "verify_error"}
)

// named are the revisions that go by a name and not by an id.
var named = []string{"applied", "startup", "empty", "operational", "pending"}

// Revision is a configuration that the device knows, with what it does with it.
type Revision struct {
	ID, State string
	// Says is what the device tells of it, such as why it is invalid.
	Says string
}

// revisionOf reads what the API tells of a revision. Some releases put it under its id once more.
func revisionOf(id string, o object) (Revision, error) {
	if inner, err := sub(o, id); err == nil && inner != nil {
		o = inner
	}
	r := Revision{ID: id}
	var err error
	if r.State, err = text(o, "state"); err != nil {
		return r, err
	}
	if r.State == "" {
		return r, fmt.Errorf("it has no state")
	}
	t, err := sub(o, "transition")
	if err != nil {
		return r, err
	}
	var says []string
	if progress, err := text(t, "progress"); err != nil {
		return r, err
	} else if progress != "" {
		says = append(says, clip(progress))
	}
	issues, err := sub(t, "issue")
	if err != nil {
		return r, err
	}
	for _, k := range keys(issues) {
		issue, err := sub(issues, k)
		if err != nil {
			return r, err
		}
		if m, err := text(issue, "message"); err == nil && m != "" {
			says = append(says, clip(m))
		}
	}
	r.Says = strings.Join(says[:min(len(says), 4)], "; ")
	return r, nil
}

func revisionPath(id string) string { return "/revision/" + url.PathEscape(id) }

// revisions are all that the device knows by an id, by that id.
func (c *Client) revisions(ctx context.Context) (map[string]Revision, error) {
	o, err := c.get(ctx, "/revision", nil)
	if err != nil {
		return nil, err
	}
	out := map[string]Revision{}
	for _, id := range keys(o) {
		one, err := sub(o, id)
		if err == nil && !slices.Contains(named, id) {
			out[id], err = revisionOf(id, one)
		}
		if err != nil {
			return nil, fleet.Errorf(fleet.Broken, codeSilent, "the switch %s tells of its revision %s: %w", c.at, clip(id), err)
		}
	}
	return out, nil
}

func (c *Client) revision(ctx context.Context, id string) (Revision, error) {
	o, err := c.get(ctx, revisionPath(id), nil)
	if err != nil {
		return Revision{}, err
	}
	r, err := revisionOf(id, o)
	if err != nil {
		return r, fleet.Errorf(fleet.Broken, codeSilent, "the switch %s tells of its revision %s: %w", c.at, clip(id), err)
	}
	return r, nil
}

// create makes a revision on top of what is applied. Where the answer got lost another one is made; the first one stays unused.
func (c *Client) create(ctx context.Context) (string, error) {
	o, err := c.again(ctx, http.MethodPost, "/revision", nil, nil)
	if err != nil {
		return "", err
	}
	if len(o) != 1 || keys(o)[0] == "" || slices.Contains(named, keys(o)[0]) {
		return "", fleet.Errorf(fleet.Broken, codeSilent, "the switch %s was asked for a revision and answers with %d", c.at, len(o))
	}
	return keys(o)[0], nil
}

// config reads the configuration of a revision as it was written, without defaults.
func (c *Client) config(ctx context.Context, rev string) (object, error) {
	return c.get(ctx, "/", url.Values{"rev": {rev}, "filled": {"false"}})
}

// difference is what has to be set, and with null unset, to turn one revision into another.
func (c *Client) difference(ctx context.Context, from, to string) (object, error) {
	return c.get(ctx, "/", url.Values{"rev": {to}, "diff": {from}, "filled": {"false"}})
}

// patch changes a revision, all in one.
func (c *Client) patch(ctx context.Context, rev string, change object) error {
	_, err := c.again(ctx, http.MethodPatch, "/", url.Values{"rev": {rev}}, change)
	return err
}

// discard drops a revision that was never applied.
func (c *Client) discard(ctx context.Context, rev string) error {
	_, err := c.again(ctx, http.MethodDelete, revisionPath(rev), nil, nil)
	if fleet.KindOf(err) == fleet.NotFound {
		return nil
	}
	return err
}

// yes answers the question whether one is sure, which is asked where files were changed by hand.
var yes = object{"ays": "ays_yes"}

// apply has the device take a revision. With a time it goes back by itself unless it is confirmed before that has passed.
func (c *Client) apply(ctx context.Context, rev string, confirm time.Duration) error {
	body := object{"state": "apply", "auto-prompt": yes}
	if confirm > 0 {
		body["state-controls"] = object{"confirm": int((confirm + time.Second - 1) / time.Second)}
	}
	return c.tell(ctx, rev, body, func(state string) bool { return state == "pending" })
}

// confirm keeps a revision that waits for it.
func (c *Client) confirm(ctx context.Context, r Revision) error {
	body := object{"state": "confirm_yes", "auto-prompt": yes}
	if r.State == "ays" {
		body["state"] = "apply"
	}
	return c.tell(ctx, r.ID, body, func(state string) bool { return slices.Contains(waiting, state) })
}

// reject has a revision that waits for its confirmation go back at once.
func (c *Client) reject(ctx context.Context, r Revision) error {
	body := object{"state": "confirm_no"}
	if r.State == "ays" {
		body["state"] = "ays_no"
	}
	return c.tell(ctx, r.ID, body, func(state string) bool { return slices.Contains(waiting, state) })
}

// tell changes a revision's state. Where the answer got lost it looks first whether the device heard it.
func (c *Client) tell(ctx context.Context, rev string, body object, unheard func(state string) bool) error {
	for n := 1; ; n++ {
		_, err := c.call(ctx, http.MethodPatch, revisionPath(rev), nil, body)
		if err == nil || n == tries || !lost(err) {
			return err
		}
		r, lookErr := c.revision(ctx, rev)
		if lookErr != nil {
			return err
		}
		if !unheard(r.State) {
			return nil
		}
	}
}

// await polls a revision until it is in one of the states, and says which.
func (c *Client) await(ctx context.Context, rev string, until []string, meanwhile func(Revision) error) (Revision, error) {
	pause := 20 * time.Millisecond
	for {
		r, err := c.revision(ctx, rev)
		if err != nil {
			return r, err
		}
		if slices.Contains(until, r.State) {
			return r, nil
		}
		if !slices.Contains(working, r.State) && !slices.Contains(waiting, r.State) && !slices.Contains(done, r.State) {
			return r, fleet.Errorf(fleet.Broken, codeApply, "the switch %s did not take revision %s: it is %s %s", c.at, clip(rev), clip(r.State), r.Says).
				WithHint("nv config revision, on the switch; nv show system, and its log")
		}
		if err := meanwhile(r); err != nil {
			return r, err
		}
		select {
		case <-ctx.Done():
			return r, fleet.Errorf(fleet.Timeout, codeApply, "the switch %s is not done with revision %s: it is %s %s", c.at, clip(rev), r.State, r.Says)
		case <-time.After(pause):
			pause = min(2*pause, 250*time.Millisecond)
		}
	}
}

// save has the device start with what is applied.
func (c *Client) save(ctx context.Context) error {
	_, err := c.again(ctx, http.MethodPatch, "/revision/applied", nil, object{"state": "save", "auto-prompt": yes})
	return err
}
