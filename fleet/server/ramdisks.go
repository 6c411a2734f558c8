package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func (r *routes) ramdisks() {
	s := r.s
	route(r, http.MethodGet, "/ramdisks", "list-ramdisks", "List boot media, newest first, with what became of their boots", http.StatusOK, s.listRamdisks)
	route(r, http.MethodGet, "/ramdisks/{id}", "get-ramdisk", "Read a boot medium by digest, the digits that begin it, or version", http.StatusOK, s.getRamdisk)
	route(r, http.MethodPost, "/ramdisks/{id}/canary", "canary-ramdisk", "Let some nodes boot it before the others do", http.StatusOK, s.canaryRamdisk)
	route(r, http.MethodPost, "/ramdisks/{id}/promote", "promote-ramdisk", "Make it what the nodes of a class boot from now on", http.StatusOK, s.promoteRamdisk)
	route(r, http.MethodPost, "/ramdisks:rollback", "rollback-ramdisk", "End a canary, or go back to the ramdisk before", http.StatusOK, s.rollbackRamdisk)
}

// fleetOfRamdisks is all that decides which node boots what.
type fleetOfRamdisks struct {
	media    []fleet.Ramdisk
	rollouts map[string]fleet.Rollout
	revs     map[string]fleet.Revision // of the rollouts
	classes  map[string]fleet.Class
	nodes    []fleet.Node
}

// pin is what the node's class names.
func (f *fleetOfRamdisks) pin(n fleet.Node) string { return f.classes[n.Class].Ramdisk }

func (s *Server) readRamdisks(ctx context.Context) (*fleetOfRamdisks, error) {
	return s.readRollouts(ctx, func(sn fleet.Snapshot, f *fleetOfRamdisks) error {
		return eachRecord(sn, fleet.KindNode, func(n fleet.Node, _ fleet.Revision) { f.nodes = append(f.nodes, n) })
	})
}

// readRollouts is readRamdisks without the nodes, of which there may be many; more reads in the same snapshot, and may be nil.
func (s *Server) readRollouts(ctx context.Context, more func(fleet.Snapshot, *fleetOfRamdisks) error) (*fleetOfRamdisks, error) {
	var f *fleetOfRamdisks
	err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
		f = &fleetOfRamdisks{rollouts: map[string]fleet.Rollout{}, revs: map[string]fleet.Revision{}, classes: map[string]fleet.Class{}}
		var err error
		if f.media, err = fleet.List[fleet.Ramdisk](sn, fleet.KindRamdisk); err != nil {
			return err
		}
		if err := eachRecord(sn, fleet.KindRollout, func(r fleet.Rollout, rev fleet.Revision) { f.rollouts[r.Class], f.revs[r.Class] = r, rev }); err != nil {
			return err
		}
		if err := eachRecord(sn, fleet.KindClass, func(c fleet.Class, _ fleet.Revision) { f.classes[c.Name] = c }); err != nil {
			return err
		}
		if more == nil {
			return nil
		}
		return more(sn, f)
	})
	if err != nil {
		return nil, fmt.Errorf("read the ramdisks: %w", err)
	}
	slices.SortStableFunc(f.media, func(a, b fleet.Ramdisk) int { return b.AddedAt.Compare(a.AddedAt) })
	return f, nil
}

// ramdiskOf is the digest of what a node boots now, and why.
func (s *Server) ramdiskOf(ctx context.Context, id fleet.NodeID) (sha256, why string, err error) {
	err = s.Store.View(ctx, func(sn fleet.Snapshot) error {
		n, _, err := findNode(sn, string(id))
		if err != nil {
			return err
		}
		rollouts := map[string]fleet.Rollout{}
		for _, class := range []string{"", n.Class} {
			r, _, err := fleet.Get[fleet.Rollout](sn, fleet.KeyOf(fleet.KindRollout, fleet.RolloutID(class)))
			if err != nil && fleet.KindOf(err) != fleet.NotFound {
				return err
			}
			if err == nil {
				rollouts[class] = r
			}
		}
		c, _, err := fleet.Get[fleet.Class](sn, fleet.KeyOf(fleet.KindClass, n.Class))
		if err != nil && fleet.KindOf(err) != fleet.NotFound {
			return err
		}
		sha256, why = fleet.Boots(n, c.Ramdisk, rollouts)
		return nil
	})
	if err != nil {
		return "", "", err
	}
	_, err = s.Media.Medium(sha256)
	return sha256, why, err
}

// learnRamdisks records the media that there are. The first one that a server ever has is booted by all; a new one waits for somebody to let a canary
// try it, unless what was booted so far is gone or has an agent that this server does not work with.
func (s *Server) learnRamdisks(ctx context.Context) error {
	found, err := s.Media.Ramdisks()
	if err != nil {
		return err
	}
	f, err := s.readRollouts(ctx, nil)
	if err != nil {
		return err
	}
	now := s.Now().UTC()
	known := map[string]fleet.Ramdisk{}
	for _, r := range f.media {
		known[r.SHA256] = r
	}
	here := map[string]bool{}
	var c fleet.Change
	for i, r := range found {
		here[r.SHA256] = true
		if old, ok := known[r.SHA256]; ok && (old.Program != "" || r.Program == "") {
			continue
		} else if ok {
			old.Program, old.Protocol = r.Program, r.Protocol
			r = old
		} else {
			r.AddedAt = now.Add(-time.Duration(i) * time.Second) // in the order in which they were found, this program's own being the newest
		}
		key := fleet.KeyOf(fleet.KindRamdisk, r.SHA256)
		known[r.SHA256] = r
		c.Writes = append(c.Writes, fleet.Write{Key: key, Value: r})
		c.Events = append(c.Events, fleet.Event{Type: "ramdisk.added", At: now, Subject: key, Text: fmt.Sprintf("ramdisk %s is there: metalctl %s, kernel %s", r.Name(), word(r.Program), r.Kernel)})
	}
	own := found[0]
	all := f.rollouts[""]
	switch current := known[all.Current]; {
	case all.Current == "":
		all.Promote(own.SHA256, "the server, as the first one", now)
	case !here[all.Current]:
		all.Promote(own.SHA256, "the server, because the file of the one before is gone", now)
	case current.Protocol > 0 && !s.speaks(current.Protocol):
		all.Promote(own.SHA256, fmt.Sprintf("the server, because it does not work with agents of version %d any more", current.Protocol), now)
	}
	if all.Current != f.rollouts[""].Current {
		c.Writes = append(c.Writes, fleet.Write{Key: fleet.KeyOf(fleet.KindRollout, fleet.RolloutID("")), Value: all})
		c.Events = append(c.Events, rolloutEvent(all, now, "ramdisk.promoted", "ramdisk %s is booted from now on, by %s", own.Name(), all.By))
		s.Log.Info("all nodes that follow boot this ramdisk", "ramdisk", own.Name(), "by", all.By)
	} else if all.Current != own.SHA256 && (all.Canary == nil || all.Canary.Ramdisk != own.SHA256) {
		s.Log.Info("a new ramdisk waits to be tried: metalctl ramdisk canary "+own.Name(), "ramdisk", own.Name(), "booted_now", fleet.Ramdisk{SHA256: all.Current}.Name())
	}
	if f.rollouts[""].Current == "" {
		c.Events = nil // what a server begins with is no news
	}
	if len(c.Writes) > 0 {
		if _, err := s.Store.Commit(ctx, c); err != nil {
			return err
		}
	}
	return s.beginTally(ctx)
}

func (s *Server) ramdiskView(f *fleetOfRamdisks, r fleet.Ramdisk) api.Ramdisk {
	v := api.Ramdisk{Ramdisk: r, Name: r.Name(), Roles: []api.RamdiskRole{}}
	for _, class := range sortedKeys(f.rollouts) {
		o := f.rollouts[class]
		if o.Current == r.SHA256 {
			v.Roles = append(v.Roles, api.RamdiskRole{Role: "current", Class: class})
		}
		if o.Canary != nil && o.Canary.Ramdisk == r.SHA256 {
			v.Roles = append(v.Roles, api.RamdiskRole{Role: "canary", Class: class, Canary: o.Canary})
		}
		if o.Previous == r.SHA256 && o.Current != r.SHA256 {
			v.Roles = append(v.Roles, api.RamdiskRole{Role: "previous", Class: class})
		}
	}
	for _, class := range sortedKeys(f.classes) {
		if strings.TrimPrefix(f.classes[class].Ramdisk, "sha256:") == r.SHA256 {
			v.Roles = append(v.Roles, api.RamdiskRole{Role: "pinned", Class: class})
		}
	}
	for _, n := range f.nodes {
		if n.Boot.Ramdisk == r.SHA256 {
			v.Nodes++
		}
	}
	return v
}

func (s *Server) listRamdisks(ctx context.Context, _ *Paging) (*plain[api.List[api.Ramdisk]], error) {
	f, err := s.readRamdisks(ctx)
	if err != nil {
		return nil, err
	}
	out := api.List[api.Ramdisk]{Items: []api.Ramdisk{}}
	for _, r := range f.media {
		out.Items = append(out.Items, s.ramdiskView(f, r))
	}
	return &plain[api.List[api.Ramdisk]]{out}, nil
}

func (s *Server) getRamdisk(ctx context.Context, in *Item) (*plain[api.Ramdisk], error) {
	f, err := s.readRamdisks(ctx)
	if err != nil {
		return nil, err
	}
	r, err := fleet.FindRamdisk(f.media, in.ID)
	return &plain[api.Ramdisk]{s.ramdiskView(f, r)}, err
}

// SweepRamdisks removes media that no node boots any more; the two newest stay. It returns how many.
func (s *Server) SweepRamdisks(ctx context.Context) (int, error) {
	f, err := s.readRamdisks(ctx)
	if err != nil {
		return 0, err
	}
	var classes []fleet.Class
	for _, c := range f.classes {
		classes = append(classes, c)
	}
	used := fleet.InUseRamdisks(f.nodes, classes, f.rollouts)
	found, err := s.Media.Ramdisks()
	if err != nil {
		return 0, err
	}
	used[found[0].SHA256] = true
	gone := 0
	for i, r := range f.media {
		if i < 2 || used[r.SHA256] {
			continue
		}
		// The record goes first: what has none is never booted.
		key := fleet.KeyOf(fleet.KindRamdisk, r.SHA256)
		_, err := s.Store.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: key}},
			Events: []fleet.Event{{Type: "ramdisk.removed", At: s.Now().UTC(), Subject: key, Text: fmt.Sprintf("ramdisk %s removed: no node boots it any more", r.Name())}}})
		if err != nil {
			return gone, err
		}
		if err := s.Media.Drop(r.SHA256); err != nil {
			return gone, err
		}
		gone++
	}
	return gone, nil
}
