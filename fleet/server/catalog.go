package server

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

func (r *routes) classes() {
	s := r.s
	route(r, http.MethodGet, "/classes", "list-classes", "List classes", http.StatusOK, s.listClasses)
	route(r, http.MethodGet, "/classes/{id}", "get-class", "Read a class", http.StatusOK, s.getClass)
	route(r, http.MethodPut, "/classes/{id}", "put-class", "Create or replace a class", http.StatusOK, s.putClass)
	route(r, http.MethodDelete, "/classes/{id}", "delete-class", "Drop a class that no node names", http.StatusNoContent, s.deleteClass)
}

func (r *routes) site() {
	route(r, http.MethodGet, "/site", "get-site", "Read the site's settings", http.StatusOK, r.s.getSite)
	route(r, http.MethodPut, "/site", "put-site", "Replace the site's settings", http.StatusOK, r.s.putSite)
}

func (r *routes) capabilities() {
	route(r, http.MethodGet, "/capabilities", "get-capabilities", "What the server is and can do", http.StatusOK, r.s.getCapabilities)
}

func (s *Server) listClasses(ctx context.Context, in *Paging) (*plain[api.List[fleet.Class]], error) {
	return listOf(ctx, s, fleet.KindClass, *in, func(c fleet.Class) string { return c.Name })
}

func findClass(sn fleet.Snapshot, name string) (fleet.Class, fleet.Revision, error) {
	c, rev, err := fleet.Get[fleet.Class](sn, fleet.KeyOf(fleet.KindClass, name))
	if err != nil && fleet.KindOf(err) == fleet.NotFound {
		err = fleet.Errorf(fleet.NotFound, "MC-CLASS-UNKNOWN", "there is no class %q", shortened(name)).WithHint("metalctl class list")
	}
	return c, rev, err
}

func (s *Server) getClass(ctx context.Context, in *Item) (*tagged[fleet.Class], error) {
	var c fleet.Class
	var rev fleet.Revision
	err := s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		c, rev, err = findClass(sn, in.ID)
		return err
	})
	return tag(c, rev), err
}

type putClassIn struct {
	Item
	IfMatch string `header:"If-Match" maxLength:"100" doc:"the ETag that was read; a stale one gets 412"`
	Body    fleet.Class
}

func (s *Server) putClass(ctx context.Context, in *putClassIn) (*tagged[fleet.Class], error) {
	c := in.Body
	f := faultList{c.Validate()}
	f.check(c.Name == in.ID, "name", "is not the name in the path")
	var others []fleet.Class
	err := s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		others, err = fleet.List[fleet.Class](sn, fleet.KindClass)
		return err
	})
	if err != nil {
		return nil, err
	}
	f.fields = append(f.fields, fleet.SlippedUnits(c, others)...)
	pins, err := s.checkPacks(ctx, c, &f)
	if err != nil {
		return nil, err
	}
	own, err := s.checkProfiles(ctx, c, &f)
	if err != nil {
		return nil, err
	}
	pins = append(pins, own...)
	if c.Ramdisk != "" {
		all, err := s.readRamdisks(ctx)
		if err != nil {
			return nil, err
		}
		m, err := s.bootable(all, c.Ramdisk)
		if err != nil {
			f.check(false, "ramdisk", "cannot be booted: "+err.Error())
		}
		c.Ramdisk = "sha256:" + m.SHA256 // whatever it was called by, it stays this one
	}
	if err := f.err("the class"); err != nil {
		return nil, err
	}
	rev, err := putRecord(ctx, s, fleet.KeyOf(fleet.KindClass, c.Name), in.IfMatch, c, "class.changed", "class "+c.Name+" changed by "+callerOf(ctx), pins...)
	return tag(c, rev), err
}

// putRecord replaces a record under an If-Match, where what else is named is still as it was.
func putRecord[T any](ctx context.Context, s *Server, key fleet.Key, ifMatch string, v T, event, text string, also ...fleet.Precondition) (fleet.Revision, error) {
	var at fleet.Revision
	err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
		r, err := sn.Get(key)
		if err != nil && fleet.KindOf(err) != fleet.NotFound {
			return err
		}
		at = r.Revision
		return matches(ifMatch, at)
	})
	if err != nil {
		return 0, err
	}
	rev, err := s.Store.Commit(ctx, fleet.Change{If: append(also, fleet.Precondition{Key: key, Revision: at}), Writes: []fleet.Write{{Key: key, Value: v}},
		Events: []fleet.Event{{Type: event, At: s.Now().UTC(), Subject: key, Text: text}}})
	if fleet.CodeOf(err) == "MC-STORE-STALE" && ifMatch != "" {
		err = matches(ifMatch, -1)
	}
	return rev, err
}

func (s *Server) deleteClass(ctx context.Context, in *Item) (*struct{}, error) {
	key := fleet.KeyOf(fleet.KindClass, in.ID)
	var rev fleet.Revision
	err := s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		if _, rev, err = findClass(sn, in.ID); err != nil {
			return err
		}
		var user string
		err = eachRecord(sn, fleet.KindNode, func(n fleet.Node, _ fleet.Revision) {
			if n.Class == in.ID {
				user = n.Name
			}
		})
		if err == nil && user != "" {
			return fleet.Errorf(fleet.Conflict, "MC-CLASS-USED", "the class %s is used, by the node %s for one", in.ID, user).WithHint("metalctl node list --class %s", in.ID)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	_, err = s.Store.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: key, Revision: rev}}, Writes: []fleet.Write{{Key: key}},
		Events: []fleet.Event{{Type: "class.removed", At: s.Now().UTC(), Subject: key, Text: "class " + in.ID + " removed by " + callerOf(ctx)}}})
	return nil, err
}

func (s *Server) getSite(ctx context.Context, _ *struct{}) (*tagged[fleet.Site], error) {
	var site fleet.Site
	var rev fleet.Revision
	err := s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		site, rev, err = readSite(sn)
		return err
	})
	return tag(site, rev), err
}

type putSiteIn struct {
	IfMatch string `header:"If-Match" maxLength:"100" doc:"the ETag that was read; a stale one gets 412"`
	Body    fleet.Site
}

func (s *Server) putSite(ctx context.Context, in *putSiteIn) (*tagged[fleet.Site], error) {
	site := in.Body
	f := faultList{site.Validate()}
	for i, k := range site.PackKeys {
		if err := s.Packs.CheckPackKey(k); err != nil {
			f.check(false, at("pack_keys", i), err.Error())
		}
	}
	if err := f.err("the site"); err != nil {
		return nil, err
	}
	bmcs, err := s.bmcHosts(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range site.Origins {
		if u, err := url.Parse(o); err == nil && !strings.HasPrefix(u.Hostname(), "*") {
			if node := bmcs.node(ctx, u.Hostname()); node != "" {
				return nil, errBMCOrigin(u.Host, node)
			}
		}
	}
	rev, err := putRecord(ctx, s, fleet.SiteKey, in.IfMatch, site, "site.changed", "site changed by "+callerOf(ctx)+": isolation "+site.Isolation)
	return tag(site, rev), err
}

func (s *Server) getCapabilities(ctx context.Context, _ *struct{}) (*plain[api.Capabilities], error) {
	site, err := s.getSite(ctx, nil)
	if err != nil {
		return nil, err
	}
	out := api.Capabilities{Version: s.cfg.Version, Commit: s.cfg.Commit, Drivers: s.cfg.Drivers, Isolation: site.Body.Isolation}
	for _, t := range fleet.Lifecycle {
		out.Lifecycle = append(out.Lifecycle, api.LifecycleRow{From: t.From, Verb: t.Verb, Guard: t.Guard.Text, To: t.To, Why: t.Why})
	}
	for _, st := range step.Catalogue {
		doc := api.StepDoc{Name: st.Name, Side: st.Side, Destroys: st.Destroys, Crash: string(st.OnCrash), Abort: string(st.Abort), Limit: st.Limit.String(), Doc: st.Doc}
		for _, u := range st.Uses {
			doc.Uses = append(doc.Uses, string(u))
		}
		out.Steps = append(out.Steps, doc)
	}
	return &plain[api.Capabilities]{out}, nil
}
