package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func (r *routes) packs() {
	s := r.s
	route(r, http.MethodGet, "/packs", "list-packs", "List packs", http.StatusOK, s.listPacks)
	route(r, http.MethodGet, "/packs/{id}", "get-pack", "Read a pack by NAME@VERSION or sha256:DIGEST", http.StatusOK, s.getPack)
	route(r, http.MethodDelete, "/packs/{id}", "remove-pack", "Drop a pack that no class wants", http.StatusNoContent, s.removePack)
}

func (s *Server) packDir() string { return filepath.Join(s.cfg.DataDir, "packs") }

func (s *Server) packFile(sha256 string) string { return filepath.Join(s.packDir(), sha256) }

func (s *Server) listPacks(ctx context.Context, in *Paging) (*plain[api.List[fleet.Pack]], error) {
	return listOf(ctx, s, fleet.KindPack, *in, fleet.Pack.ID)
}

// pack finds a pack by NAME@VERSION or digest.
func (s *Server) pack(ctx context.Context, ref string) (p fleet.Pack, rev fleet.Revision, err error) {
	err = s.Store.View(ctx, func(sn fleet.Snapshot) error {
		all, err := fleet.List[fleet.Pack](sn, fleet.KindPack)
		if err != nil {
			return err
		}
		found, ok := fleet.FindPack(all, ref)
		if !ok {
			return errNoPack(ref)
		}
		p, rev, err = fleet.Get[fleet.Pack](sn, fleet.KeyOf(fleet.KindPack, found.ID()))
		return err
	})
	return p, rev, err
}

func errNoPack(ref string) error {
	return fleet.Errorf(fleet.NotFound, "MC-PACK-UNKNOWN", "there is no pack %q", shortened(ref)).WithHint("metalctl pack list; add it: metalctl pack add FILE")
}

func (s *Server) getPack(ctx context.Context, in *Item) (*tagged[fleet.Pack], error) {
	p, rev, err := s.pack(ctx, in.ID)
	return tag(p, rev), err
}

// packContent takes a pack: PUT packs/{NAME@VERSION}/content. It is kept only where a key that the site trusts signed it and it is what the address says.
// The same pack again is no error.
func (s *Server) packContent(w http.ResponseWriter, r *http.Request) {
	p, status, err := s.takePack(r, http.NewResponseController(w))
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	answer(w, status, p)
}

func (s *Server) takePack(r *http.Request, control *http.ResponseController) (p fleet.Pack, status int, err error) {
	ctx, id := r.Context(), r.PathValue("id")
	site, err := s.getSite(ctx, nil)
	if err != nil {
		return p, 0, err
	}
	if len(site.Body.PackKeys) == 0 {
		return p, 0, fleet.Errorf(fleet.Conflict, "MC-PACK-KEYS", "the site trusts no key, so no pack is good").
			WithHint("name the maker's public keys as pack_keys in the site's file, then: metalctl site apply -f FILE")
	}
	tmp, err := os.CreateTemp(s.packDir(), uploading+"*")
	if err != nil {
		return p, 0, diskError("store the pack", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	digest, n, err := receive(tmp, "store the pack", r.Body, control)
	if err != nil {
		return p, 0, err
	}
	if p, err = s.Packs.CheckPack(ctx, tmp.Name(), site.Body.PackKeys); err != nil {
		return p, 0, err
	}
	if p.ID() != id {
		return p, 0, fleet.Errorf(fleet.Invalid, "MC-PACK-NAME", "what came is the pack %s and not %s", p.ID(), shortened(id)).WithHint("metalctl pack add FILE")
	}
	p.SHA256, p.SizeBytes, p.AddedAt = digest, n, s.Now().UTC()
	s.uploads.Lock()
	defer s.uploads.Unlock()
	key := fleet.KeyOf(fleet.KindPack, id)
	if old, _, err := s.pack(ctx, id); err == nil {
		if old.SHA256 != digest {
			return p, 0, fleet.Errorf(fleet.Conflict, "MC-PACK-TWICE", "there is a pack %s already, and it is another (sha256 %s)", id, old.SHA256[:16]).
				WithHint("give this one another version: metalctl pack build DIR --name %s --version V --out FILE", p.Name)
		}
		p = old
	} else if fleet.KindOf(err) != fleet.NotFound {
		return p, 0, err
	}
	if err := settle(tmp, s.packFile(digest)); err != nil {
		return p, 0, diskError("store the pack", err)
	}
	s.Stored("packs/" + digest)
	_, err = s.Store.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: key}}, Writes: []fleet.Write{{Key: key, Value: p}},
		Events: []fleet.Event{{Type: "pack.added", At: p.AddedAt, Subject: key, Text: fmt.Sprintf("pack %s of %d bytes, signed by %s, added by %s", id, n, p.KeyID, callerOf(ctx))}}})
	if fleet.CodeOf(err) == "MC-STORE-STALE" {
		return p, http.StatusOK, nil // it was there, and its file is whole again
	}
	if err != nil {
		s.dropPack(context.WithoutCancel(ctx), digest)
	}
	return p, http.StatusCreated, err
}

// dropPack removes a pack's file where no record has it (any more). The caller holds uploads.
func (s *Server) dropPack(ctx context.Context, digest string) {
	_, _, err := s.pack(ctx, "sha256:"+digest)
	if fleet.KindOf(err) == fleet.NotFound {
		err = os.Remove(s.packFile(digest))
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.Log.Warn("the file of a removed pack stays", "sha256", digest, "err", err)
	}
}

func (s *Server) removePack(ctx context.Context, in *Item) (*struct{}, error) {
	s.uploads.Lock()
	defer s.uploads.Unlock()
	p, rev, err := s.pack(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	err = s.Store.View(ctx, func(sn fleet.Snapshot) error {
		var user string
		err := eachRecord(sn, fleet.KindClass, func(c fleet.Class, _ fleet.Revision) {
			if slices.ContainsFunc(c.Packs, func(ref string) bool { _, wants := fleet.FindPack([]fleet.Pack{p}, ref); return wants }) {
				user = c.Name
			}
		})
		if err == nil && user != "" {
			return fleet.Errorf(fleet.Conflict, "MC-PACK-USED", "the class %s wants the pack %s", user, p.ID()).WithHint("take it out of the class first: metalctl class apply -f FILE")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	key := fleet.KeyOf(fleet.KindPack, p.ID())
	_, err = s.Store.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: key, Revision: rev}}, Writes: []fleet.Write{{Key: key}},
		Events: []fleet.Event{{Type: "pack.removed", At: s.Now().UTC(), Subject: key, Text: "pack " + p.ID() + " removed by " + callerOf(ctx)}}})
	if err == nil {
		s.dropPack(ctx, p.SHA256)
	}
	return nil, err
}

// checkPacks adds which of the packs that a class wants are not to be had, or do not fit together, and returns the records that they are, which must not go meanwhile.
func (s *Server) checkPacks(ctx context.Context, c fleet.Class, f *faultList) ([]fleet.Precondition, error) {
	var pins []fleet.Precondition
	seen := map[string]bool{}
	var all []fleet.Pack
	for i, ref := range c.Packs {
		p, rev, err := s.pack(ctx, ref)
		if fleet.KindOf(err) == fleet.NotFound {
			f.check(false, at("packs", i), "is no pack on this server: metalctl pack add FILE")
			continue
		}
		if err != nil {
			return nil, err
		}
		// Two versions of one pack would be at the same place.
		f.check(!seen[p.Name], at("packs", i), "is another "+p.Name+"; a machine has one of each name")
		seen[p.Name] = true
		all = append(all, p)
		pins = append(pins, fleet.Precondition{Key: fleet.KeyOf(fleet.KindPack, p.ID()), Revision: rev})
	}
	for _, why := range fleet.MisfitPacks(all, c) {
		f.check(false, "packs", "do not fit together: "+why)
	}
	return pins, nil
}

var packDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// agentPack serves a pack to the agent of a node's present boot.
func (s *Server) agentPack(w http.ResponseWriter, r *http.Request, who caller) error {
	digest := r.PathValue("sha256")
	if !packDigest.MatchString(digest) {
		return errNoPack(digest)
	}
	p, _, err := s.pack(r.Context(), "sha256:"+digest)
	if err != nil {
		return err
	}
	f, err := os.Open(s.packFile(digest))
	if errors.Is(err, os.ErrNotExist) {
		return fleet.Errorf(fleet.NotFound, "MC-PACK-CONTENT", "the pack %s has no content on this server", p.ID()).WithHint("metalctl pack add FILE")
	}
	if err != nil {
		return diskError("read the pack", err)
	}
	defer f.Close()
	w.Header().Set("ETag", `"`+digest+`"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	s.serveRecorded(w, r, p.AddedAt, f, who.id, fleet.TimelineEntry{Source: "pack", Generation: who.generation})
	return nil
}

// at names an item of a list, such as packs[2].
func at(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }
