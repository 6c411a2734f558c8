package server

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

func (r *routes) operations() {
	s := r.s
	route(r, http.MethodGet, "/operations", "list-operations", "List operations, newest first", http.StatusOK, s.listOperations)
	route(r, http.MethodGet, "/operations/{id}", "get-operation", "Read an operation, or wait until it is over", http.StatusOK, s.getOperation)
	route(r, http.MethodPost, "/operations/{id}/cancel", "cancel-operation", "Ask the plan to abort where its running step allows it", http.StatusAccepted, s.cancelOperation)
}

type listOperationsIn struct {
	Paging
	State string `query:"state" maxLength:"50" doc:"only operations in this state"`
	Node  string `query:"node" maxLength:"200" doc:"only operations of this node, by id or name"`
}

func (s *Server) listOperations(ctx context.Context, in *listOperationsIn) (*plain[api.List[api.Operation]], error) {
	var ops []api.Operation
	var rev fleet.Revision
	err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
		ops, rev = nil, sn.Revision()
		var of fleet.NodeID
		if in.Node != "" {
			n, _, err := findNode(sn, in.Node)
			if err != nil {
				return err
			}
			of = n.ID
		}
		return eachRecord(sn, fleet.KindOperation, func(op fleet.Operation, at fleet.Revision) {
			if (of == "" || op.Node == of) && (in.State == "" || op.State == fleet.OperationState(in.State)) {
				ops = append(ops, s.operationView(op, at))
			}
		})
	})
	if err != nil {
		return nil, err
	}
	out, err := page(ops, in.Paging, true, func(o api.Operation) mark { return mark{o.CreatedAt.UTC().Format(sortableTime), string(o.ID)} })
	out.Revision = rev
	return &plain[api.List[api.Operation]]{out}, err
}

// operationView adds the newest progress, and how far the operation is by it.
func (s *Server) operationView(op fleet.Operation, rev fleet.Revision) api.Operation {
	op.Steps = slices.Clone(op.Steps)
	for i := range op.Steps {
		op.Steps[i].Params = step.Shown(op.Steps[i].Name, op.Steps[i].Params)
	}
	v := api.Operation{Operation: op, Revision: rev}
	if !op.State.Over() {
		v.Waits, v.Progress = s.waits(op.Node), s.progress.of(op.Node, op.ID)
	}
	v.Percent = v.HowFar()
	return v
}

func (s *Server) operation(ctx context.Context, id string) (op fleet.Operation, rev fleet.Revision, err error) {
	err = s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		if !looksLikeID.MatchString(id) {
			return fleet.Errorf(fleet.NotFound, "MC-OPERATION-UNKNOWN", "there is no operation %q", shortened(id)).WithHint("metalctl operation list")
		}
		op, rev, err = fleet.Get[fleet.Operation](sn, fleet.KeyOf(fleet.KindOperation, fleet.OperationID(id)))
		if err != nil && fleet.KindOf(err) == fleet.NotFound {
			if op, rev, err = wishedFor(sn, fleet.OperationID(id)); err != nil || op.ID != "" {
				return err
			}
			return fleet.Errorf(fleet.NotFound, "MC-OPERATION-UNKNOWN", "there is no operation %q", id).WithHint("metalctl operation list")
		}
		return err
	})
	return op, rev, err
}

type getOperationIn struct {
	Item
	Wait string `query:"wait" maxLength:"20" doc:"answer when it is over, or after this time, such as 30s; at most 5m"`
}

// maxWait bounds ?wait=; callers ask again.
const maxWait = 5 * time.Minute

func (s *Server) getOperation(ctx context.Context, in *getOperationIn) (*tagged[api.Operation], error) {
	var wait time.Duration
	if in.Wait != "" {
		var err error
		if wait, err = time.ParseDuration(in.Wait); err != nil || wait < 0 {
			return nil, fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "wait is not a duration such as 30s")
		}
	}
	ctx, cancel := context.WithTimeout(ctx, min(wait, maxWait)+time.Minute)
	defer cancel()
	until, stop := context.WithTimeout(ctx, min(wait, maxWait))
	defer stop()
	for {
		changed := s.Store.Changed()
		op, rev, err := s.operation(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		if op.State.Over() || !waitFor(until, 0, changed) {
			return tag(s.operationView(op, rev), rev), nil
		}
	}
}

type cancelOperationIn struct {
	Item
	Body *api.OperationCancel `required:"false"`
}

func (s *Server) cancelOperation(ctx context.Context, in *cancelOperationIn) (*accepted[api.Operation], error) {
	op, rev, err := s.operation(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if !op.State.Over() {
		v := api.NodeVerb{}
		if in.Body != nil {
			v.Reason = in.Body.Reason
		}
		n, _, err := s.node(ctx, string(op.Node))
		if err != nil {
			return nil, err
		}
		if n.Operation != op.ID {
			return nil, fleet.Errorf(fleet.Conflict, "MC-OPERATION-OTHER", "the operation %s is not the one that works on %s now", op.ID, n.Name).WithHint("metalctl node show %s", n.Name)
		}
		if _, err := s.ask(ctx, &n, string(fleet.VerbAbort), v); err != nil {
			return nil, err
		}
		if op, rev, err = s.operation(ctx, in.ID); err != nil {
			return nil, err
		}
	}
	return &accepted[api.Operation]{Status: http.StatusAccepted, Location: api.Base + "/operations/" + string(op.ID), Body: s.operationView(op, rev)}, nil
}

// wishedFor is an operation that somebody was promised, and that begins when what runs on its node has ended; without an id where there is none.
func wishedFor(sn fleet.Snapshot, id fleet.OperationID) (op fleet.Operation, at fleet.Revision, err error) {
	err = eachRecord(sn, fleet.KindNode, func(n fleet.Node, rev fleet.Revision) {
		if w := n.Wish; w != nil && w.Operation == id {
			use := string(w.Verb)
			if w.Verb == fleet.VerbAccept {
				use = string(step.Clean)
			}
			at, op = rev, fleet.Operation{ID: id, Node: n.ID, NodeName: n.Name, Use: use, Verb: w.Verb, Lease: n.Lease, State: fleet.OperationPending, CreatedAt: w.At, Steps: []fleet.StepRun{}}
		}
	})
	return op, at, err
}
