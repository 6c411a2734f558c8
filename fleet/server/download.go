package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// stalled is how long a reader may take no byte before its connection is cut.
const stalled = 2 * time.Minute

// serveBoot serves one node's boot medium: GET and HEAD, whole or one range.
func (s *Server) serveBoot(w http.ResponseWriter, r *http.Request) {
	m, err := s.openMedium(r.Context(), r.PathValue("medium"))
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if err := oneRange(r); err != nil {
		s.refuse(w, r, err)
		return
	}
	if r.TLS == nil {
		if err := s.readPlain(r.Context(), m); err != nil {
			s.refuse(w, r, err)
			return
		}
	}
	h := w.Header()
	h.Set("ETag", `"`+hashToken(r.PathValue("medium"))[:32]+`"`)
	h.Set("Content-Type", "application/octet-stream") // some BMCs refuse what they do not know
	h.Set("Cache-Control", "no-store")
	s.serveRecorded(w, r, m.issued, io.NewSectionReader(m.content, 0, m.size), m.node, fleet.TimelineEntry{Source: "media", Generation: m.generation})
}

// readPlain records, once a boot, that the medium went over http: somebody on the way could have changed it.
func (s *Server) readPlain(ctx context.Context, m *medium) error {
	if m.plain.Load() {
		return nil
	}
	err := s.updateNode(ctx, m.node, func(n *fleet.Node, _ *fleet.Change) error {
		if n.Boot.Generation != m.generation || n.Boot.Unauthenticated || n.Boot.AgentKey != "" {
			return errUnchanged
		}
		n.Boot.Unauthenticated = true
		return nil
	})
	if err != nil {
		return fmt.Errorf("record that the boot path is not authenticated: %w", err)
	}
	m.plain.Store(true)
	return nil
}

// oneRange refuses several ranges at once: no firmware asks for them, and the answer (multipart) confuses those that send the header by mistake.
func oneRange(r *http.Request) error {
	ranges := r.Header.Values("Range")
	if len(ranges) > 1 || len(ranges) == 1 && strings.Contains(ranges[0], ",") {
		return fleet.Errorf(fleet.Invalid, "MC-BOOT-RANGE", "one byte range at a time is served, not several")
	}
	return nil
}

// serveRecorded serves content and puts what was read on the node's timeline. e says what kind of read it is.
func (s *Server) serveRecorded(w http.ResponseWriter, r *http.Request, modified time.Time, content io.ReadSeeker, id fleet.NodeID, e fleet.TimelineEntry) {
	counted := &countedWriter{ResponseWriter: w, control: http.NewResponseController(w), status: http.StatusOK}
	http.ServeContent(counted, r, "", modified, content)
	counted.control.SetWriteDeadline(time.Time{}) //nolint:errcheck // the connection may be gone

	e.At, e.Count = s.Now().UTC(), 1
	e.Length = counted.n
	over := "https"
	if r.TLS == nil {
		over = "http"
	}
	what := "read"
	switch {
	case counted.status >= 400:
		what = fmt.Sprintf("refused with %d", counted.status)
	case counted.status == http.StatusNotModified:
		what = "asked whether it changed"
	case r.Method == http.MethodHead:
		what = "asked for the size"
	case counted.status == http.StatusPartialContent:
		var end, size int64
		fmt.Sscanf(w.Header().Get("Content-Range"), "bytes %d-%d/%d", &e.Offset, &end, &size) //nolint:errcheck // ServeContent wrote it
		if counted.n < end-e.Offset+1 {
			what = "read, cut short,"
		}
	case counted.status == http.StatusOK && fmt.Sprint(counted.n) != w.Header().Get("Content-Length"):
		what = "read, cut short,"
	}
	e.Text = fmt.Sprintf("%s by %s over %s", what, remoteHost(r), over)
	s.Timeline.AppendTimeline(id, e)
}

func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// countedWriter counts what is sent and cuts readers that stall.
type countedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	status  int
	n       int64
}

func (c *countedWriter) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *countedWriter) Write(p []byte) (int, error) {
	c.control.SetWriteDeadline(time.Now().Add(stalled)) //nolint:errcheck // a writer without deadlines (tests) cannot stall
	n, err := c.ResponseWriter.Write(p)
	c.n += int64(n)
	return n, err
}

// imageDir holds uploaded images, each under its digest.
func (s *Server) imageDir() string { return filepath.Join(s.cfg.DataDir, "images") }

func (s *Server) imageFile(sha256 string) string { return filepath.Join(s.imageDir(), sha256) }

// ImagePath is the path on this server at which the agent that runs op may read the image, until op is over. It is unguessable. The error is
// of kind Conflict where the image's bytes were not uploaded.
func (s *Server) ImagePath(op fleet.OperationID, img fleet.Image) (string, error) {
	if _, err := os.Stat(s.imageFile(img.SHA256)); err != nil {
		return "", fleet.Errorf(fleet.Conflict, "MC-IMAGE-CONTENT", "the image %s has no content on this server", img.Name).
			WithHint("metalctl image add %s --file FILE", img.Name)
	}
	return "/images/" + s.imageToken(op, img.Name) + "/" + img.Name, nil
}

func (s *Server) imageToken(op fleet.OperationID, name string) string {
	return fmt.Sprintf("%s.%x", op, s.ca.mac("image", string(op), name)[:24])
}

// serveImage serves an image to the agent of a running operation.
func (s *Server) serveImage(w http.ResponseWriter, r *http.Request) {
	op, img, err := s.imageOf(r.Context(), r.PathValue("token"), r.PathValue("name"))
	if err == nil {
		err = oneRange(r)
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	f, err := os.Open(s.imageFile(img.SHA256))
	if err != nil {
		s.refuse(w, r, fleet.Errorf(fleet.NotFound, "MC-IMAGE-CONTENT", "the image %s has no content on this server", img.Name))
		return
	}
	defer f.Close()
	h := w.Header()
	h.Set("ETag", `"`+img.SHA256+`"`)
	h.Set("Content-Type", "application/octet-stream")
	s.serveRecorded(w, r, img.CreatedAt, f, op.Node, fleet.TimelineEntry{Source: "image", Generation: op.Generation})
}

var errNoImage = fleet.Errorf(fleet.NotFound, "MC-IMAGE-ADDRESS", "there is no image at this address, or its operation is over")

// imageOf checks an address that imageToken made.
func (s *Server) imageOf(ctx context.Context, token, name string) (op fleet.Operation, img fleet.Image, err error) {
	id, _, ok := strings.Cut(token, ".")
	if !ok || !looksLikeID.MatchString(id) || !fleet.ValidName(name) || !sameText(token, s.imageToken(fleet.OperationID(id), name)) {
		return op, img, errNoImage
	}
	err = s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		if op, _, err = fleet.Get[fleet.Operation](sn, fleet.KeyOf(fleet.KindOperation, fleet.OperationID(id))); err != nil {
			return err
		}
		img, _, err = fleet.Get[fleet.Image](sn, fleet.KeyOf(fleet.KindImage, name))
		return err
	})
	if fleet.KindOf(err) == fleet.NotFound || err == nil && op.State.Over() {
		return op, img, errNoImage
	}
	return op, img, err
}
