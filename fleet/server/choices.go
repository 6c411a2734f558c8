package server

import (
	"context"
	"net/http"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func (r *routes) choices() {
	s := r.s
	route(r, http.MethodPost, "/leases:plan", "plan-lease", "Which nodes such a lease would get and why, or what keeps it from any; takes nothing", http.StatusOK, s.planLease)
	route(r, http.MethodPost, "/leases/{id}/plan-replace", "plan-replace-node", "What a replacement would do; changes nothing", http.StatusOK, s.planReplace)
	route(r, http.MethodPost, "/leases/{id}/replace", "replace-node", "Put another node into the place of one of the lease's", http.StatusAccepted, s.replaceNode)
}

type planLeaseIn struct {
	Body api.LeaseCreate
}

func (s *Server) planLease(ctx context.Context, in *planLeaseIn) (*plain[fleet.Choice], error) {
	if err := s.checkLease(in.Body); err != nil {
		return nil, err
	}
	c, err := s.engine.Choices.PlanLease(ctx, in.Body, callerOf(ctx))
	return &plain[fleet.Choice]{c}, err
}

type replaceNodeIn struct {
	Item
	Body api.LeaseReplace
}

// swapped are the lease and the node that is to leave it.
func (s *Server) swapped(ctx context.Context, in *replaceNodeIn) (l api.Lease, out fleet.NodeID, err error) {
	if l, err = s.lease(ctx, in.ID); err != nil {
		return l, "", err
	}
	err = s.Store.View(ctx, func(sn fleet.Snapshot) error {
		n, _, err := findNode(sn, in.Body.Node)
		out = n.ID
		return err
	})
	return l, out, err
}

func (s *Server) planReplace(ctx context.Context, in *replaceNodeIn) (*plain[api.LeaseSwap], error) {
	l, out, err := s.swapped(ctx, in)
	if err != nil {
		return nil, err
	}
	p, err := s.engine.Choices.PlanReplace(ctx, l.ID, out, in.Body, callerOf(ctx))
	return &plain[api.LeaseSwap]{p}, err
}

func (s *Server) replaceNode(ctx context.Context, in *replaceNodeIn) (*accepted[api.Lease], error) {
	l, out, err := s.swapped(ctx, in)
	if err != nil {
		return nil, err
	}
	if _, err := s.engine.Choices.ReplaceNode(ctx, l.ID, out, in.Body, callerOf(ctx)); err != nil {
		return nil, err
	}
	return s.leaseAccepted(ctx, l.ID)
}
