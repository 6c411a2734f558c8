package server

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func (r *routes) profiles() {
	s := r.s
	route(r, http.MethodGet, "/profiles", "list-profiles", "List burn-in profiles: those that ship and the site's own", http.StatusOK, s.listProfiles)
	route(r, http.MethodGet, "/profiles/{id}", "get-profile", "Read a burn-in profile", http.StatusOK, s.getProfile)
	route(r, http.MethodPut, "/profiles/{id}", "put-profile", "Create or replace a burn-in profile of the site's own", http.StatusOK, s.putProfile)
	route(r, http.MethodDelete, "/profiles/{id}", "delete-profile", "Drop a burn-in profile that no class names", http.StatusNoContent, s.deleteProfile)
}

// profilesIn are all burn-in profiles: those that ship come first.
func (s *Server) profilesIn(sn fleet.Snapshot) ([]fleet.BurnProfile, error) {
	own, err := fleet.List[fleet.BurnProfile](sn, fleet.KindProfile)
	return slices.Concat(s.Profiles, own), err
}

func (s *Server) listProfiles(ctx context.Context, in *Paging) (*plain[api.List[fleet.BurnProfile]], error) {
	return listed(ctx, s, *in, func(p fleet.BurnProfile) string { return p.Name }, s.profilesIn)
}

func errNoProfile(name string) error {
	return fleet.Errorf(fleet.NotFound, "MC-BURN-PROFILE", "there is no burn-in profile %q", shortened(name)).WithHint("metalctl profile list")
}

func (s *Server) getProfile(ctx context.Context, in *Item) (*tagged[fleet.BurnProfile], error) {
	if p, ok := fleet.FindProfile(s.Profiles, in.ID); ok {
		return tag(p, 0), nil
	}
	var p fleet.BurnProfile
	var rev fleet.Revision
	err := s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		p, rev, err = fleet.Get[fleet.BurnProfile](sn, fleet.KeyOf(fleet.KindProfile, in.ID))
		return err
	})
	if fleet.KindOf(err) == fleet.NotFound {
		err = errNoProfile(in.ID)
	}
	return tag(p, rev), err
}

type putProfileIn struct {
	Item
	IfMatch string `header:"If-Match" maxLength:"100" doc:"the ETag that was read; a stale one gets 412"`
	Body    fleet.BurnProfile
}

func (s *Server) putProfile(ctx context.Context, in *putProfileIn) (*tagged[fleet.BurnProfile], error) {
	p := in.Body
	f := faultList{p.Validate()}
	f.check(p.Name == in.ID, "name", "is not the name in the path")
	f.check(!slices.Contains(fleet.StandardProfiles, p.Name), "name", "is that of a profile that ships; "+strings.Join(fleet.StandardProfiles, ", ")+" stay what they are")
	if err := f.err("the profile"); err != nil {
		return nil, err
	}
	rev, err := putRecord(ctx, s, fleet.KeyOf(fleet.KindProfile, p.Name), in.IfMatch, p, "profile.changed", "burn-in profile "+p.Name+" changed by "+callerOf(ctx))
	return tag(p, rev), err
}

func (s *Server) deleteProfile(ctx context.Context, in *Item) (*struct{}, error) {
	if slices.Contains(fleet.StandardProfiles, in.ID) {
		return nil, fleet.Errorf(fleet.Refused, "MC-BURN-STANDARD", "the profile %s is a standard one and stays", in.ID)
	}
	key := fleet.KeyOf(fleet.KindProfile, in.ID)
	// A class that begins to name it meanwhile is refused: it pins the record.
	var rev fleet.Revision
	err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
		r, err := sn.Get(key)
		if err != nil {
			return err
		}
		rev = r.Revision
		var user string
		err = eachRecord(sn, fleet.KindClass, func(c fleet.Class, _ fleet.Revision) {
			if c.BurnIn == in.ID || c.AfterTenant == in.ID {
				user = c.Name
			}
		})
		if err == nil && user != "" {
			return fleet.Errorf(fleet.Conflict, "MC-BURN-USED", "the class %s names the profile %s", user, in.ID).WithHint("take it out of the class first: metalctl class apply -f FILE")
		}
		return err
	})
	if fleet.KindOf(err) == fleet.NotFound {
		err = errNoProfile(in.ID)
	}
	if err != nil {
		return nil, err
	}
	_, err = s.Store.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: key, Revision: rev}}, Writes: []fleet.Write{{Key: key}},
		Events: []fleet.Event{{Type: "profile.removed", At: s.Now().UTC(), Subject: key, Text: "burn-in profile " + in.ID + " removed by " + callerOf(ctx)}}})
	return nil, err
}

// checkProfiles adds which of the profiles that a class names do not exist, and returns the records of those that do, which must not go meanwhile.
func (s *Server) checkProfiles(ctx context.Context, c fleet.Class, f *faultList) ([]fleet.Precondition, error) {
	var pins []fleet.Precondition
	err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
		pins = nil
		for field, name := range map[string]string{"burnin": c.BurnIn, "after_tenant": c.AfterTenant} {
			if _, ships := fleet.FindProfile(s.Profiles, name); ships || name == "" || name == fleet.NoBurnIn {
				continue
			}
			r, err := sn.Get(fleet.KeyOf(fleet.KindProfile, name))
			if fleet.KindOf(err) == fleet.NotFound {
				f.check(false, field, "names no burn-in profile that exists: metalctl profile list")
				continue
			}
			if err != nil {
				return err
			}
			pins = append(pins, fleet.Precondition{Key: r.Key, Revision: r.Revision})
		}
		return nil
	})
	return pins, err
}
