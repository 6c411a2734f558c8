package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// imageContent takes the bytes of an image: PUT images/{name}/content. They are stored only where digest, size and format are right.
func (s *Server) imageContent(w http.ResponseWriter, r *http.Request) {
	img, err := s.takeImage(r, http.NewResponseController(w))
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	answer(w, http.StatusOK, img)
}

func (s *Server) takeImage(r *http.Request, control *http.ResponseController) (fleet.Image, error) {
	img, rev, err := s.image(r.Context(), r.PathValue("id"))
	if err != nil {
		return img, err
	}
	if img.URL != "" {
		return img, fleet.Errorf(fleet.Conflict, "MC-IMAGE-ELSEWHERE", "the image %s comes from %s and is not uploaded", img.Name, img.Shown().URL)
	}
	tmp, err := os.CreateTemp(s.imageDir(), uploading+"*")
	if err != nil {
		return img, diskError("store the image", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	digest, n, err := receive(tmp, "store the image", r.Body, control)
	if err != nil {
		return img, err
	}
	if digest != img.SHA256 {
		return img, fleet.Errorf(fleet.Invalid, "MC-IMAGE-DIGEST", "the %d bytes that came have the SHA-256 %s, the image %s has %s", n, digest, img.Name, img.SHA256).
			WithHint("compare with: sha256sum FILE; a cut-short upload has another digest, too")
	}
	if img.SizeBytes != 0 && img.SizeBytes != n {
		return img, fleet.Errorf(fleet.Invalid, "MC-IMAGE-SIZE", "%d bytes came, the image %s has %d", n, img.Name, img.SizeBytes)
	}
	virtual, err := s.Images.CheckFile(r.Context(), tmp.Name(), img)
	if err != nil {
		return img, err
	}
	img.SizeBytes, img.VirtualSizeBytes = n, virtual
	s.uploads.Lock()
	defer s.uploads.Unlock()
	if err := settle(tmp, s.imageFile(img.SHA256)); err != nil {
		return img, diskError("store the image", err)
	}
	s.Stored("images/" + img.SHA256)
	key := fleet.KeyOf(fleet.KindImage, img.Name)
	_, err = s.Store.Commit(r.Context(), fleet.Change{If: []fleet.Precondition{{Key: key, Revision: rev}}, Writes: []fleet.Write{{Key: key, Value: img}},
		Events: []fleet.Event{{Type: "image.uploaded", At: s.Now().UTC(), Subject: key, Text: fmt.Sprintf("image %s: %d bytes came", img.Name, n)}}})
	if err != nil {
		s.dropFile(context.WithoutCancel(r.Context()), img.SHA256)
	}
	return img, err
}

// dropFile removes an image's file where no image has it (any more). The caller holds uploads.
func (s *Server) dropFile(ctx context.Context, digest string) {
	used := false
	err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
		return eachRecord(sn, fleet.KindImage, func(i fleet.Image, _ fleet.Revision) { used = used || i.URL == "" && i.SHA256 == digest })
	})
	if err == nil && !used {
		err = os.Remove(s.imageFile(digest))
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.Log.Warn("the file of a removed image stays", "sha256", digest, "err", err)
	}
}

// receive copies an upload to f, and fails where nothing comes for a time. doing says what for.
func receive(f *os.File, doing string, body io.Reader, control *http.ResponseController) (digest string, n int64, err error) {
	defer control.SetReadDeadline(time.Time{}) //nolint:errcheck // as at every deadline here
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		control.SetReadDeadline(time.Now().Add(stalled)) //nolint:errcheck // a reader without deadlines (tests) cannot stall
		got, readErr := body.Read(buf)
		h.Write(buf[:got])
		if _, err := f.Write(buf[:got]); err != nil {
			return "", n, diskError(doing, err)
		}
		n += int64(got)
		if readErr == io.EOF {
			return hex.EncodeToString(h.Sum(nil)), n, nil
		}
		if readErr != nil {
			return "", n, fleet.Errorf(fleet.Invalid, "MC-API-BODY", "the upload was cut short after %d bytes: %w", n, readErr).WithHint("send it again")
		}
	}
}
