package redfish

import (
	"context"
	"net/http"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/stmcginnis/gofish/schemas"
)

// taskLimit bounds how long a task of a power, media or boot change is followed; a BMC's own restart fits in.
const taskLimit = 15 * time.Minute

// follow waits for the end of a task where an answer is 202. A BMC that restarts meanwhile refuses connections, answers 503 and
// forgets the session; all that is waited out. The monitor vanishes after the end, then the task itself is asked. Where
// neither is told, or both are gone, the caller's read-back decides.
func (b *BMC) follow(ctx context.Context, req request, r *response) error {
	if r.status != http.StatusAccepted {
		return nil
	}
	monitor := pathOfLocation(r.header.Get("Location"))
	task := ""
	if res, err := parseResource(req.uri, r); err == nil {
		task = res.link("@odata.id")
		if monitor == "" {
			monitor = linkOf(res.at("TaskMonitor"))
		}
		if over, err := b.taskEnd(req, res); over {
			return err
		}
	}
	every := time.Second
	if d, ok := retryAfter(r.header, b.now()); ok {
		every = max(d, time.Second)
	}
	at := first(monitor, task)
	if at == "" {
		return nil
	}
	var result error
	over, err := b.until(ctx, taskLimit, every, func() (bool, error) {
		r, err := b.call(ctx, request{method: http.MethodGet, uri: at})
		switch s := statusOf(err); {
		case s == http.StatusNotFound || s == http.StatusGone:
			if at != task && task != "" {
				at = task
				return false, nil
			}
			return true, nil
		case AsError(err) != nil && at == monitor && s < 500 && s != http.StatusUnauthorized:
			result = explain(err, "the task of "+req.method+" "+req.uri) // the monitor gives the operation's own answer
			return true, nil
		case err != nil:
			return false, err
		}
		res, perr := parseResource(at, r)
		if perr != nil {
			return r.status != http.StatusAccepted, nil
		}
		if task == "" {
			task = res.link("@odata.id")
		}
		done, err := b.taskEnd(req, res)
		if done {
			result = err
			return true, nil
		}
		return r.status != http.StatusAccepted && res.str("TaskState") == "", nil
	})
	if err != nil {
		return explain(err, "follow the task of "+req.method+" "+req.uri)
	}
	if over {
		return fleet.Errorf(fleet.Timeout, "MC-BMC-TASK", "the BMC's task of %s %s does not end within %s", req.method, req.uri, taskLimit).
			WithHint("look at %s on the BMC", at)
	}
	return result
}

// taskEnd reports whether a task is over, and its failure.
func (b *BMC) taskEnd(req request, res *resource) (bool, error) {
	switch t := typed[schemas.Task](res); t.TaskState {
	case schemas.CompletedTaskState:
		if t.TaskStatus != schemas.CriticalHealth {
			return true, nil
		}
		fallthrough
	case schemas.ExceptionTaskState, schemas.KilledTaskState, schemas.CancelledTaskState:
		e := parseError(0, req.method, req.uri, []byte(b.wire.scrub.text(string(res.raw))))
		if e.licence() {
			return true, explain(e, "task")
		}
		return true, fleet.Errorf(fleet.Broken, "MC-BMC-TASK", "the BMC's task ended as %s: %w", t.TaskState, e).
			WithHint("metalctl node timeline NODE shows the exchange")
	}
	return false, nil
}
