package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func (r *routes) images() {
	s := r.s
	route(r, http.MethodGet, "/images", "list-images", "List images", http.StatusOK, s.listImages)
	route(r, http.MethodPost, "/images", "add-image", "Record an image; with no URL its bytes follow by PUT content", http.StatusCreated, s.addImage)
	route(r, http.MethodGet, "/images/{id}", "get-image", "Read an image", http.StatusOK, s.getImage)
	route(r, http.MethodDelete, "/images/{id}", "remove-image", "Drop an image that no lease uses", http.StatusNoContent, s.removeImage)
	route(r, http.MethodPost, "/images/{id}/verify", "verify-image", "Read the whole image again and compare its digest", http.StatusOK, s.verifyImage)
}

func (s *Server) listImages(ctx context.Context, in *Paging) (*plain[api.List[fleet.Image]], error) {
	out, err := listOf(ctx, s, fleet.KindImage, *in, func(i fleet.Image) string { return i.Name })
	if err == nil {
		for i, img := range out.Body.Items {
			out.Body.Items[i] = img.Shown()
		}
	}
	return out, err
}

func (s *Server) image(ctx context.Context, name string) (img fleet.Image, rev fleet.Revision, err error) {
	err = s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		img, rev, err = fleet.Get[fleet.Image](sn, fleet.KeyOf(fleet.KindImage, name))
		return err
	})
	if err != nil && fleet.KindOf(err) == fleet.NotFound {
		err = fleet.Errorf(fleet.NotFound, "MC-IMAGE-UNKNOWN", "there is no image %q", shortened(name)).WithHint("metalctl image list")
	}
	return img, rev, err
}

func (s *Server) getImage(ctx context.Context, in *Item) (*tagged[fleet.Image], error) {
	img, rev, err := s.image(ctx, in.ID)
	return tag(img.Shown(), rev), err
}

type addImageIn struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"255" doc:"the same key gets the same answer for 24 hours"`
	Body           api.ImageCreate
}

func (s *Server) addImage(ctx context.Context, in *addImageIn) (*accepted[fleet.Image], error) {
	img := in.Body.Image
	img.SHA256 = strings.ToLower(strings.TrimPrefix(img.SHA256, "sha256:"))
	f := faultList{img.Validate()}
	var origin *url.URL
	if img.URL != "" && len(f.fields) == 0 {
		u, err := url.Parse(img.URL)
		f.check(err == nil, "url", "is no URL")
		origin = u
	}
	if err := f.err("the image " + strconv.Quote(shortened(img.Name))); err != nil {
		return nil, err
	}
	img.CreatedAt = s.Now().UTC()
	key := fleet.KeyOf(fleet.KindImage, img.Name)
	if origin != nil {
		if err := s.checkOrigin(ctx, origin); err != nil {
			return nil, err
		}
	}
	_, err := s.Store.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: key}}, Writes: []fleet.Write{{Key: key, Value: img}},
		Events: []fleet.Event{{Type: "image.added", At: img.CreatedAt, Subject: key, Text: "image " + img.Name + " added by " + callerOf(ctx)}}})
	if fleet.CodeOf(err) == "MC-STORE-STALE" {
		if old, _, gerr := s.image(ctx, img.Name); gerr == nil && s.awaits(old, img) {
			return &accepted[fleet.Image]{Status: http.StatusCreated, Location: api.Base + "/images/" + img.Name, Body: old.Shown()}, nil
		}
		err = fleet.Errorf(fleet.Conflict, "MC-IMAGE-TWICE", "there is an image %s already", img.Name).WithHint("metalctl image show %s; names are not reused while an image has them", img.Name)
	}
	return &accepted[fleet.Image]{Status: http.StatusCreated, Location: api.Base + "/images/" + img.Name, Body: img.Shown()}, err
}

// awaits reports whether old still waits for just the bytes that img is about: an upload that broke off is taken up by the same command.
func (s *Server) awaits(old, img fleet.Image) bool {
	if old.URL != "" || img.URL != "" || old.SHA256 != img.SHA256 || old.Format != img.Format {
		return false
	}
	_, err := os.Stat(s.imageFile(old.SHA256))
	return errors.Is(err, os.ErrNotExist)
}

// verifyLimit bounds the reading of one image.
const verifyLimit = 2 * time.Hour

func (s *Server) verifyImage(ctx context.Context, in *Item) (*plain[api.ImageVerified], error) {
	img, rev, err := s.image(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, verifyLimit)
	defer cancel()
	out := api.ImageVerified{Image: img}
	var virtual int64
	if img.URL != "" {
		site, err := s.imageSite(ctx)
		if err != nil {
			return nil, err
		}
		if out.Read, virtual, err = s.Images.CheckOrigin(ctx, img, site); err != nil {
			return nil, err
		}
	} else {
		if out.Read, err = digestFile(ctx, s.imageFile(img.SHA256), img); err != nil {
			return nil, err
		}
		if virtual, err = s.Images.CheckFile(ctx, s.imageFile(img.SHA256), img); err != nil {
			return nil, err
		}
	}
	if virtual > 0 && virtual != img.VirtualSizeBytes {
		out.VirtualSizeBytes = virtual
		key := fleet.KeyOf(fleet.KindImage, img.Name)
		_, err = s.Store.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: key, Revision: rev}}, Writes: []fleet.Write{{Key: key, Value: out.Image}}})
	}
	out.Image = out.Image.Shown()
	return &plain[api.ImageVerified]{out}, err
}

func digestFile(ctx context.Context, path string, img fleet.Image) (int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, fleet.Errorf(fleet.Conflict, "MC-IMAGE-CONTENT", "the image %s has no content on this server", img.Name).WithHint("metalctl image add %s --file FILE", img.Name)
	} else if err != nil {
		return 0, fleet.Errorf(fleet.Broken, "MC-SERVER-DATADIR", "read the image: %w", err).WithHint("look at the disk of the data folder")
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(&contextReader{ctx, f}, 1<<50))
	if err != nil {
		return n, fmt.Errorf("read the image %s: %w", img.Name, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != img.SHA256 {
		return n, fleet.Errorf(fleet.Broken, "MC-IMAGE-DIGEST", "the stored file of %s has the SHA-256 %s and not %s: the disk changed it", img.Name, got, img.SHA256).
			WithHint("metalctl image remove %s, then add it again; look at the disk (dmesg)", img.Name)
	}
	return n, nil
}

type contextReader struct {
	ctx context.Context // good for one reading
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func (s *Server) removeImage(ctx context.Context, in *Item) (*struct{}, error) {
	s.uploads.Lock()
	defer s.uploads.Unlock()
	img, rev, err := s.image(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	err = s.Store.View(ctx, func(sn fleet.Snapshot) error {
		var user string
		if err := eachRecord(sn, fleet.KindLease, func(l fleet.Lease, _ fleet.Revision) {
			rebuilt := slices.ContainsFunc(l.Members, func(m fleet.Member) bool { return m.Image == img.Name })
			if !l.State.Over() && (l.Request.Image == img.Name || rebuilt) {
				user = string(l.ID)
			}
		}); err != nil {
			return err
		}
		if user != "" {
			return fleet.Errorf(fleet.Conflict, "MC-IMAGE-USED", "the lease %s uses the image %s", user, img.Name).WithHint("metalctl lease show %s", user)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	key := fleet.KeyOf(fleet.KindImage, img.Name)
	_, err = s.Store.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: key, Revision: rev}}, Writes: []fleet.Write{{Key: key}},
		Events: []fleet.Event{{Type: "image.removed", At: s.Now().UTC(), Subject: key, Text: "image " + img.Name + " removed by " + callerOf(ctx)}}})
	if err == nil && img.URL == "" {
		s.dropFile(ctx, img.SHA256)
	}
	return nil, err
}
