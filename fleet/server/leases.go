package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func (r *routes) leases() {
	s := r.s
	r.choices()
	route(r, http.MethodGet, "/leases", "list-leases", "List leases", http.StatusOK, s.listLeases)
	route(r, http.MethodPost, "/leases", "create-lease", "Reserve nodes and deploy them", http.StatusAccepted, s.createLease)
	route(r, http.MethodGet, "/leases/{id}", "get-lease", "Read a lease", http.StatusOK, s.getLease)
	route(r, http.MethodGet, "/leases/{id}/explain", "explain-lease", "What the lease waits for, and what unsticks it", http.StatusOK, s.explainLease)
	route(r, http.MethodPost, "/leases/{id}/extend", "extend-lease", "Move the end of a lease", http.StatusOK, s.extendLease)
	route(r, http.MethodPost, "/leases/{id}/protect", "protect-lease", "Make the lease refuse its release, also by time", http.StatusOK, s.protectLease)
	route(r, http.MethodPost, "/leases/{id}/unprotect", "unprotect-lease", "End the protection", http.StatusOK, s.unprotectLease)
	route(r, http.MethodGet, "/leases/{id}/plan", "plan-lease-release", "What the release of a lease would run on each of its nodes; changes nothing", http.StatusOK, s.planRelease)
	route(r, http.MethodPost, "/leases/{id}/release", "release-lease", "End a lease; idempotent", http.StatusAccepted, s.releaseLease)
}

type listLeasesIn struct {
	Paging
	State string `query:"state" maxLength:"50" doc:"only leases in this state"`
	Node  string `query:"node" maxLength:"200" doc:"only leases that hold or held this node, by id or name"`
	Sort  string `query:"sort" maxLength:"20" doc:"created, name or state; - before it turns the order round"`
}

func (s *Server) listLeases(ctx context.Context, in *listLeasesIn) (*plain[api.List[api.Lease]], error) {
	key, desc, err := sortOrder(in.Sort, "created", "name", "state")
	if err != nil {
		return nil, err
	}
	var leases []api.Lease
	var rev fleet.Revision
	err = s.Store.View(ctx, func(sn fleet.Snapshot) error {
		leases, rev = nil, sn.Revision()
		site, _, err := readSite(sn)
		if err != nil {
			return err
		}
		var of fleet.NodeID
		if in.Node != "" {
			n, _, err := findNode(sn, in.Node)
			if err != nil {
				return err
			}
			of = n.ID
		}
		return eachRecord(sn, fleet.KindLease, func(l fleet.Lease, at fleet.Revision) {
			if in.State != "" && l.State != fleet.LeaseState(in.State) {
				return
			}
			if of != "" && !slices.ContainsFunc(l.Members, func(m fleet.Member) bool { return m.Node == of }) {
				return
			}
			leases = append(leases, leaseView(l, at, site))
		})
	})
	if err != nil {
		return nil, err
	}
	out, err := page(leases, in.Paging, desc, func(l api.Lease) mark {
		k := map[string]string{"created": l.CreatedAt.UTC().Format(sortableTime), "name": l.Name, "state": string(l.State)}[key]
		return mark{k, string(l.ID)}
	})
	out.Revision = rev
	return &plain[api.List[api.Lease]]{out}, err
}

func leaseView(l fleet.Lease, rev fleet.Revision, site fleet.Site) api.Lease {
	return api.Lease{Lease: l, Revision: rev, Isolation: site.Isolation}
}

// findLease reads a lease by id, or by a name that one lease alone has among those that are not over (or, if all are over, at all).
func findLease(sn fleet.Snapshot, idOrName string) (fleet.Lease, fleet.Revision, error) {
	unknown := fleet.Errorf(fleet.NotFound, "MC-LEASE-UNKNOWN", "there is no lease %q", shortened(idOrName)).WithHint("metalctl lease list")
	if looksLikeID.MatchString(idOrName) {
		l, rev, err := fleet.Get[fleet.Lease](sn, fleet.KeyOf(fleet.KindLease, fleet.LeaseID(idOrName)))
		if err != nil && fleet.KindOf(err) == fleet.NotFound {
			err = unknown
		}
		return l, rev, err
	}
	type found struct {
		lease fleet.Lease
		rev   fleet.Revision
	}
	var live, over []found
	err := eachRecord(sn, fleet.KindLease, func(l fleet.Lease, rev fleet.Revision) {
		if l.Name != idOrName {
			return
		}
		if l.State.Over() {
			over = append(over, found{l, rev})
		} else {
			live = append(live, found{l, rev})
		}
	})
	if len(live) == 0 {
		live = over
	}
	switch {
	case err != nil:
		return fleet.Lease{}, 0, err
	case idOrName == "" || len(live) == 0:
		return fleet.Lease{}, 0, unknown
	case len(live) > 1:
		return fleet.Lease{}, 0, fleet.Errorf(fleet.Conflict, "MC-LEASE-AMBIGUOUS", "%d leases have the name %q", len(live), idOrName).WithHint("give the id: metalctl lease list")
	}
	return live[0].lease, live[0].rev, nil
}

func (s *Server) lease(ctx context.Context, idOrName string) (v api.Lease, err error) {
	err = s.Store.View(ctx, func(sn fleet.Snapshot) error {
		l, rev, err := findLease(sn, idOrName)
		if err != nil {
			return err
		}
		site, _, err := readSite(sn)
		if err != nil {
			return err
		}
		v = leaseView(l, rev, site)
		v.Wires, err = leaseWires(sn, l)
		return err
	})
	return v, err
}

func (s *Server) getLease(ctx context.Context, in *Item) (*tagged[api.Lease], error) {
	l, err := s.lease(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return tag(l, l.Revision), nil
}

type createLeaseIn struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"255" doc:"the same key gets the same answer for 24 hours"`
	Body           api.LeaseCreate
}

func (s *Server) createLease(ctx context.Context, in *createLeaseIn) (*accepted[api.Lease], error) {
	req := in.Body
	if err := s.checkLease(req); err != nil {
		return nil, err
	}
	l, err := s.engine.Leases.CreateLease(ctx, req, callerOf(ctx))
	if err != nil {
		return nil, err
	}
	return s.leaseAccepted(ctx, l.ID)
}

// checkLease lists all that is wrong with a request by itself.
func (s *Server) checkLease(req api.LeaseCreate) error {
	var f faultList
	f.check(req.Name == "" || fleet.ValidName(req.Name) && !looksLikeID.MatchString(req.Name), "name", "must be 1 to 63 of a-z, 0-9, . _ - and not look like an id")
	f.check(len(req.Nodes) > 0 || req.Count != 0, "nodes", "names no node, and count is 0")
	f.check(len(req.Nodes) == 0 || req.Count == 0, "nodes", "does not go with count")
	f.check(req.Count >= 0, "count", "is negative")
	f.check((req.Count == 0) == (req.Class == ""), "class", "goes with count, and count with class")
	f.check(req.Topology == "" || req.Topology.Valid() && req.Count > 0, "topology", "goes with count, and is one of "+fleet.TopologyNames())
	_, err := fleet.ParseSelector(req.Selector)
	f.check(err == nil && (req.Selector == "" || req.Count > 0), "selector", "goes with count, and is written as key=value, key!=value, key or !key, with commas between")
	f.check(req.Image != "", "image", "is missing")
	f.check(req.GraceSeconds >= 0, "grace_seconds", "is negative")
	f.check(req.DeadlineSeconds >= 0, "deadline_seconds", "is negative")
	f.check(req.MinReady >= 0 && req.MinReady <= req.Wanted(), "min_ready", fmt.Sprintf("is not between 0 and the %d nodes", req.Wanted()))
	f.check(slices.Contains([]fleet.Ready{"", fleet.ReadyOS, fleet.ReadyPhoneHome, fleet.ReadyNow}, req.Ready), "ready", "is none of os-running, phone-home, now")
	f.check(slices.Contains([]fleet.ConfigDriveForm{"", fleet.ConfigDriveOpenStack, fleet.ConfigDriveNoCloud}, req.ConfigDrive), "config_drive", "is none of openstack, nocloud")
	f.check(req.Until.IsZero() || req.Until.After(s.Now()), "until", "is in the past")
	f.check(len(req.UserData) <= fleet.MaxUserData, "user_data", fmt.Sprintf("has more than %d bytes", fleet.MaxUserData))
	return f.err("the lease")
}

func (s *Server) leaseAccepted(ctx context.Context, id fleet.LeaseID) (*accepted[api.Lease], error) {
	v, err := s.lease(ctx, string(id))
	return &accepted[api.Lease]{Status: http.StatusAccepted, Location: api.Base + "/leases/" + string(id), Body: v}, err
}

type extendLeaseIn struct {
	Item
	Body api.LeaseExtend
}

func (s *Server) extendLease(ctx context.Context, in *extendLeaseIn) (*tagged[api.Lease], error) {
	l, err := s.lease(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if !in.Body.Until.After(s.Now()) {
		return nil, fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "until is missing or in the past").WithHint("give a time such as 2026-12-01T12:00:00Z")
	}
	if _, err := s.engine.Leases.ExtendLease(ctx, l.ID, in.Body, callerOf(ctx)); err != nil {
		return nil, err
	}
	return s.getLease(ctx, &Item{string(l.ID)})
}

func (s *Server) planRelease(ctx context.Context, in *Item) (*plain[api.LeasePlan], error) {
	l, err := s.lease(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	p, err := s.engine.Plans.ReleasePlan(ctx, l.ID, "")
	return &plain[api.LeasePlan]{p}, err
}

type releaseLeaseIn struct {
	Item
	Body *api.LeaseRelease
}

func (s *Server) releaseLease(ctx context.Context, in *releaseLeaseIn) (*accepted[api.Lease], error) {
	l, err := s.lease(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if in.Body != nil && in.Body.Plan != "" {
		if _, err := s.engine.Plans.ReleasePlan(ctx, l.ID, in.Body.Plan); err != nil {
			return nil, err
		}
	}
	if _, err := s.engine.Leases.ReleaseLease(ctx, l.ID, callerOf(ctx)); err != nil {
		return nil, err
	}
	return s.leaseAccepted(ctx, l.ID)
}

func (s *Server) protectLease(ctx context.Context, in *Item) (*tagged[api.Lease], error) {
	return s.leaseProtection(ctx, in, api.VerbProtect)
}

func (s *Server) unprotectLease(ctx context.Context, in *Item) (*tagged[api.Lease], error) {
	return s.leaseProtection(ctx, in, api.VerbUnprotect)
}

func (s *Server) leaseProtection(ctx context.Context, in *Item, verb string) (*tagged[api.Lease], error) {
	l, err := s.lease(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if _, err := s.engine.Leases.ProtectLease(ctx, l.ID, verb, callerOf(ctx)); err != nil {
		return nil, err
	}
	return s.getLease(ctx, &Item{string(l.ID)})
}
