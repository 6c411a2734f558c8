package redfish

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// retryBudget is how long one request may be tried again in all.
const retryBudget = 2 * time.Minute

// failure makes the error of an answer, without the secrets that a BMC may echo.
func (b *BMC) failure(req request, r *response) *Error {
	return parseError(r.status, req.method, b.wire.scrub.text(req.uri), []byte(b.wire.scrub.text(string(r.body))))
}

// retry sends a request by way of send, again where the rules allow it. The result is a success (below 300) or an error that
// holds an *Error or says why nothing came.
func (b *BMC) retry(ctx context.Context, req request, send func(context.Context, request) (*response, error)) (*response, error) {
	var waited time.Duration
	for try := 1; ; try++ {
		r, err := send(ctx, req)
		var e *Error
		if err == nil {
			if r.status < 300 || r.status == http.StatusNotModified && req.ifNoneMatch != "" {
				return r, nil
			}
			e = b.failure(req, r)
		} else if fleet.KindOf(err) != fleet.Unavailable || AsError(err) != nil {
			return nil, err // a login's refusal has had its own tries
		}
		var after time.Duration
		told := false
		if e != nil {
			after, told = retryAfter(r.header, b.now())
			err = e
		}
		d, ok := again(req.method, try, told, e, err)
		if told {
			d = max(after, time.Second)
		}
		if !ok || waited+d > retryBudget {
			return nil, err
		}
		waited += d
		if serr := b.sleep(ctx, d); serr != nil {
			return nil, fmt.Errorf("%w (while waiting to try again after: %w)", serr, err)
		}
	}
}

// call sends an authorised request.
func (b *BMC) call(ctx context.Context, req request) (*response, error) {
	if req.timeout == 0 {
		req.timeout = b.profile().Slow
	}
	return b.retry(ctx, req, b.authorised)
}

// get reads a resource.
func (b *BMC) get(ctx context.Context, uri string) (*resource, error) {
	b.mu.Lock()
	known := b.seen[uri]
	b.mu.Unlock()
	if known != nil {
		return known, nil
	}
	r, err := b.call(ctx, request{method: http.MethodGet, uri: uri})
	if err != nil {
		return nil, err
	}
	res, err := parseResource(uri, r)
	if err != nil {
		return nil, protocolError("read %w", err)
	}
	if b.opts.ReadOnce {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.seen == nil {
			b.seen = map[string]*resource{}
		}
		b.seen[uri] = res
	}
	return res, nil
}

// members reads a collection's links over all of its pages.
func (b *BMC) members(ctx context.Context, uri string) ([]string, error) {
	var all []string
	seen := map[string]bool{}
	for page := 0; uri != ""; page++ {
		if page == maxPages || seen[uri] || len(all) > maxMembers {
			return nil, protocolError("collection %s has no end", uri)
		}
		seen[uri] = true
		c, err := b.get(ctx, uri)
		if err != nil {
			return nil, err
		}
		for _, l := range c.links("Members") {
			if !slices.Contains(all, l) {
				all = append(all, l)
			}
		}
		uri = linkOf(c.at("Members@odata.nextLink"))
	}
	return all, nil
}

// post runs an action. A BMC that goes on in a task is followed to the task's end.
func (b *BMC) post(ctx context.Context, uri string, body any) error {
	if body == nil {
		body = struct{}{} // iLO answers 415 to an action without a body
	}
	req := request{method: http.MethodPost, uri: uri, body: body}
	r, err := b.call(ctx, req)
	if e := AsError(err); e != nil && e.Status == http.StatusPreconditionRequired {
		req.ifMatch = "*"
		r, err = b.call(ctx, req)
	}
	if err != nil {
		return err
	}
	return b.follow(ctx, req, r)
}

// patch changes properties of a resource as it was read, only if they are still what was seen. A tag that is refused although
// nothing changed is tried in its other forms; where somebody else changed the same properties it ends in MC-BMC-CONFLICT.
func (b *BMC) patch(ctx context.Context, uri string, body map[string]any) error {
	p := b.profile()
	before, err := b.get(ctx, uri)
	if err != nil {
		return err
	}
	now := before
	tried := map[string]bool{}
	for try := 0; ; try++ {
		tag, ok := nextTag(now.tags, tried, p.AnyTag, p.TagsMove, try)
		if !ok {
			return fleet.Errorf(fleet.Conflict, "MC-BMC-CONFLICT", "change %s: the BMC refuses every form of its own tag", uri).
				WithHint("metalctl node timeline NODE shows the exchange; update the BMC's firmware")
		}
		tried[tag] = true
		req := request{method: http.MethodPatch, uri: uri, body: body, ifMatch: tag}
		r, err := b.call(ctx, req)
		if err == nil {
			return b.follow(ctx, req, r)
		}
		switch statusOf(err) {
		case http.StatusPreconditionFailed:
		case http.StatusPreconditionRequired:
			if tag == "" {
				p.AnyTag = true
			}
		default:
			return err
		}
		if now, err = b.get(ctx, uri); err != nil {
			return err
		}
		if !same(before.obj, now.obj, body) {
			if same(body, now.obj, body) {
				return nil // somebody else set what we want
			}
			return fleet.Errorf(fleet.Conflict, "MC-BMC-CONFLICT", "change %s: somebody else changed it meanwhile", uri).
				WithHint("look at the node again, then: metalctl node retry NODE")
		}
	}
}

// nextTag picks the next If-Match: each form of the present tag once, then none, and * where the vendor needs it. "" sends none.
// Sending none is the last resort and only follows a read that showed nothing changed.
func nextTag(tags []string, tried map[string]bool, anyTag, moving bool, try int) (string, bool) {
	if try > 7 {
		return "", false
	}
	forms := slices.Clone(tags)
	switch {
	case anyTag:
		forms = append([]string{"*"}, append(forms, "")...)
	case try >= 4 || moving && try >= 2:
		forms = append([]string{""}, forms...)
	default:
		forms = append(forms, "")
	}
	for _, t := range forms {
		if !tried[t] {
			return t, true
		}
	}
	return "", false
}

// same reports whether a and b agree in every property that body names.
func same(a, b, body map[string]any) bool {
	for key, want := range body {
		inner, ok := want.(map[string]any)
		if ok {
			am, _ := a[key].(map[string]any)
			bm, _ := b[key].(map[string]any)
			if !same(am, bm, inner) {
				return false
			}
			continue
		}
		if !reflect.DeepEqual(canonical(a[key]), canonical(b[key])) {
			return false
		}
	}
	return true
}

// canonical makes values from Go and from JSON comparable.
func canonical(v any) any {
	b, err := json.Marshal(v)
	if err != nil {
		return v
	}
	return string(b)
}

// writing takes the one writer's turn at this BMC.
func (b *BMC) writing(ctx context.Context) (release func(), err error) {
	if b.opts.ReadOnce {
		return nil, fleet.Errorf(fleet.Invalid, "MC-BMC-CONFLICT", "this object was opened to look only: what it knows may be old")
	}
	if err := acquire(ctx, b.breaker.gate.writer); err != nil {
		return nil, fleet.Errorf(fleet.Timeout, "MC-BMC-TIMEOUT", "wait for another writer of this BMC: %w", err)
	}
	return func() { <-b.breaker.gate.writer }, nil
}

// until reads by probe until it says done, an error that will not pass, or the time is over. Errors that may pass (the BMC
// restarts) are waited out; the last of them is returned with over set.
func (b *BMC) until(ctx context.Context, limit, every time.Duration, probe func() (done bool, err error)) (over bool, err error) {
	deadline := b.now().Add(limit)
	for {
		done, err := probe()
		if err == nil && done {
			return false, nil
		}
		if err != nil {
			if k := fleet.KindOf(err); ctx.Err() != nil || k == fleet.Denied || k == fleet.Refused || k == fleet.Timeout {
				return false, err
			}
			if s := statusOf(err); s >= 400 && s < 500 && s != 404 && s != 409 && s != 429 {
				return false, err
			}
		}
		if !b.now().Add(every).Before(deadline) {
			return true, err
		}
		if serr := b.sleep(ctx, every); serr != nil {
			return false, serr
		}
	}
}
