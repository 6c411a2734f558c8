package server

import (
	"context"
	"net/http"
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func (r *routes) approvals() {
	s := r.s
	route(r, http.MethodGet, "/approvals", "list-approvals", "What waits for a second person, and what was decided; newest first", http.StatusOK, s.listApprovals)
	route(r, http.MethodPost, "/approvals:ask", "ask-leave", "Ask whether something may be done to several nodes at once; where not, one request is made for all of it", http.StatusNoContent, s.askLeave)
	route(r, http.MethodPost, "/approvals/{id}/grant", "grant-approval", "Let exactly what was asked happen, with another token than it was asked with", http.StatusOK, s.grantApproval)
	route(r, http.MethodPost, "/approvals/{id}/deny", "deny-approval", "Refuse what was asked", http.StatusOK, s.denyApproval)
}

func (s *Server) listApprovals(ctx context.Context, _ *nothing) (*plain[api.List[fleet.Approval]], error) {
	var out api.List[fleet.Approval]
	err := s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		out.Revision = sn.Revision()
		out.Items, err = fleet.List[fleet.Approval](sn, fleet.KindApproval)
		return err
	})
	slices.Reverse(out.Items) // ids are in the order of time
	for i := range out.Items {
		out.Items[i].State = out.Items[i].Now(s.Now())
	}
	if out.Items == nil {
		out.Items = []fleet.Approval{}
	}
	return &plain[api.List[fleet.Approval]]{out}, err
}

type leaveIn struct {
	Body api.Leave
}

func (s *Server) askLeave(ctx context.Context, in *leaveIn) (*struct{}, error) {
	return nil, s.engine.Brakes.Leave(ctx, in.Body, callerOf(ctx))
}

type decideIn struct {
	Item
	Body *api.ApprovalDecision `required:"false"`
}

func (s *Server) grantApproval(ctx context.Context, in *decideIn) (*plain[fleet.Approval], error) {
	return s.decide(ctx, in, "grant")
}

func (s *Server) denyApproval(ctx context.Context, in *decideIn) (*plain[fleet.Approval], error) {
	return s.decide(ctx, in, "deny")
}

func (s *Server) decide(ctx context.Context, in *decideIn, verb string) (*plain[fleet.Approval], error) {
	reason := ""
	if in.Body != nil {
		reason = in.Body.Reason
	}
	a, err := s.engine.Brakes.Decide(ctx, fleet.ApprovalID(in.ID), verb, approverOf(ctx), reason)
	return &plain[fleet.Approval]{a}, err
}
