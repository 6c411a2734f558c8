package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Origin is a Source over http(s). A broken connection is taken up again where it broke, so whoever hashes the stream notices nothing.
type Origin struct {
	url    *url.URL
	policy Policy
	client *http.Client
	size   int64
	// etag and modified name the version that was opened; a resumed request must get the same one.
	etag, modified string
	ranges         bool
}

// Open asks the origin for the file's length and version. The address must be allowed by p (MC-IMAGE-ORIGIN); what goes wrong on the way is
// MC-IMAGE-FETCH, Unavailable where a later attempt may work.
func Open(ctx context.Context, address string, p Policy) (*Origin, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fleet.Errorf(fleet.Invalid, "MC-IMAGE-ORIGIN", "the image's address cannot be read: %w", plain(err))
	}
	if err := p.Check(u); err != nil {
		return nil, err
	}
	o := &Origin{url: u, policy: p, client: p.client(), size: -1}
	var last error
	for attempt := range p.tries() {
		if attempt > 0 {
			if err := p.wait(ctx, attempt); err != nil {
				return nil, err
			}
		}
		if last = o.probe(ctx); last == nil || !again(last) {
			return o, last
		}
	}
	return nil, last
}

// Close gives the connections back.
func (o *Origin) Close() { o.client.CloseIdleConnections() }

// Size is the file's length, or -1 where the origin does not tell it.
func (o *Origin) Size() int64 { return o.size }

// probe asks for one byte: unlike HEAD that works with signed addresses, too, and shows whether ranges do.
func (o *Origin) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	res, err := o.get(ctx, "bytes=0-0", false)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	o.etag, o.modified = res.Header.Get("ETag"), res.Header.Get("Last-Modified")
	switch res.StatusCode {
	case http.StatusPartialContent:
		_, total, err := contentRange(res.Header.Get("Content-Range"))
		if err != nil {
			return o.broken("%w", err)
		}
		o.size, o.ranges = total, true
	case http.StatusRequestedRangeNotSatisfiable: // an empty file
		o.size = 0
	default:
		o.size = res.ContentLength
	}
	return nil
}

// contentRange reads "bytes FROM-TO/TOTAL" (RFC 9110, 14.4).
func contentRange(s string) (from, total int64, err error) {
	span, ok := strings.CutPrefix(s, "bytes ")
	ends, all, ok2 := strings.Cut(span, "/")
	first, last, ok3 := strings.Cut(ends, "-")
	bad := fmt.Errorf("a Content-Range of %q", s)
	if !ok || !ok2 || !ok3 {
		return 0, 0, bad
	}
	a, err1 := strconv.ParseUint(first, 10, 63)
	b, err2 := strconv.ParseUint(last, 10, 63)
	if err1 != nil || err2 != nil || b < a {
		return 0, 0, bad
	}
	if all == "*" {
		return int64(a), -1, nil
	}
	n, err := strconv.ParseUint(all, 10, 63)
	if err != nil || n <= b {
		return 0, 0, bad
	}
	return int64(a), int64(n), nil
}

// present is the file's address as of now.
func (o *Origin) present() (*url.URL, error) {
	if o.policy.Moved == nil {
		return o.url, nil
	}
	at := o.policy.Moved()
	if at == "" {
		return o.url, nil
	}
	to, err := url.Parse(at)
	if err != nil {
		return nil, fleet.Errorf(fleet.Invalid, "MC-IMAGE-ORIGIN", "the image's address cannot be read: %w", plain(err))
	}
	u := *o.url
	u.Scheme, u.Host = to.Scheme, to.Host
	return &u, o.policy.Check(&u)
}

// get sends one request; answers other than 200, 206 and 416 are errors.
func (o *Origin) get(ctx context.Context, span string, same bool) (*http.Response, error) {
	address, err := o.present()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range o.policy.Header {
		req.Header[k] = v
	}
	req.Header.Set("Accept-Encoding", "identity")
	if span != "" {
		req.Header.Set("Range", span)
	}
	if v := o.validator(); same && v != "" {
		req.Header.Set("If-Range", v)
	}
	res, err := o.client.Do(req)
	if err != nil {
		if err = plain(err); fleet.CodeOf(err) != "" {
			return nil, err
		}
		return nil, o.broken("%w", err)
	}
	switch res.StatusCode {
	case http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
		return res, nil
	}
	_ = res.Body.Close()
	kind := fleet.Broken
	switch {
	case res.StatusCode >= 500, res.StatusCode == http.StatusTooManyRequests, res.StatusCode == http.StatusRequestTimeout:
		kind = fleet.Unavailable
	case res.StatusCode == http.StatusNotFound, res.StatusCode == http.StatusGone:
		kind = fleet.NotFound
	case res.StatusCode == http.StatusUnauthorized, res.StatusCode == http.StatusForbidden:
		kind = fleet.Denied
	}
	return nil, fleet.Errorf(kind, "MC-IMAGE-FETCH", "fetch %s: the origin answers %s", o.policy.shown(o.url), res.Status).
		WithHint("curl -I %s from the same network", o.policy.shown(o.url))
}

// validator is what If-Range may carry: a strong tag or a date.
func (o *Origin) validator() string {
	if o.etag != "" && !strings.HasPrefix(o.etag, "W/") {
		return o.etag
	}
	return o.modified
}

func (o *Origin) broken(format string, args ...any) error {
	return fleet.Errorf(fleet.Unavailable, "MC-IMAGE-FETCH", "fetch "+strings.ReplaceAll(o.policy.shown(o.url), "%", "%%")+": "+format, args...).
		WithHint("curl -I %s from the same network", o.policy.shown(o.url))
}

func (o *Origin) replaced() error {
	return fleet.Errorf(fleet.Conflict, "MC-IMAGE-DIGEST", "fetch %s: the origin replaced the file while it was read", o.policy.shown(o.url)).
		WithHint("metalctl image verify IMAGE; if the origin published a new file, add it under a new name")
}

// again says whether another attempt may help.
func again(err error) bool { return fleet.KindOf(err) == fleet.Unavailable }

// ReadRange reads exactly n bytes from off, of the version that was opened.
func (o *Origin) ReadRange(ctx context.Context, off, n int64) ([]byte, error) {
	if !o.ranges {
		return nil, fleet.Errorf(fleet.Invalid, "MC-IMAGE-FETCH", "fetch %s: the origin does not serve ranges, which qcow2 needs", o.policy.shown(o.url)).
			WithHint("serve the image from this server (metalctl image add NAME --file FILE), or use raw.zst")
	}
	var last error
	for attempt := range o.policy.tries() {
		if attempt > 0 {
			if err := o.policy.wait(ctx, attempt); err != nil {
				return nil, err
			}
		}
		b, err := o.readRange(ctx, off, n)
		if err == nil || !again(err) {
			return b, err
		}
		last = err
	}
	return nil, last
}

func (o *Origin) readRange(ctx context.Context, off, n int64) ([]byte, error) {
	s := &originStream{o: o, ctx: ctx, off: off, end: off + n}
	defer s.Close()
	if err := s.connect(); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	for got := 0; got < len(b); {
		k, err := s.read(b[got:])
		got += k
		if err != nil && got < len(b) {
			return nil, o.broken("%d of %d bytes from %d: %w", got, n, off, err)
		}
	}
	return b, nil
}

// Stream reads the file from its beginning and goes on after a broken connection.
func (o *Origin) Stream(ctx context.Context) (io.ReadCloser, error) {
	return &originStream{o: o, ctx: ctx}, nil
}

type originStream struct {
	o    *Origin
	ctx  context.Context // good for one stream
	off  int64
	end  int64 // of the wanted range; 0: the file's end
	fail int   // attempts in a row without a byte

	// of the connection
	body    io.ReadCloser
	request context.Context
	cancel  context.CancelCauseFunc
	stall   *time.Timer
}

var errStalled = errors.New("no byte came for too long")

// Read returns io.EOF only at the file's end; a plain end before the known length is a broken connection like any other.
func (s *originStream) Read(p []byte) (int, error) {
	for {
		if err := context.Cause(s.ctx); err != nil {
			return 0, err
		}
		var err error
		if s.body == nil {
			err = s.connect()
		}
		if err == nil {
			var n int
			if n, err = s.read(p); n > 0 {
				s.fail = 0
				return n, nil
			}
			if err == io.EOF && (s.o.size < 0 || s.off >= s.o.size) {
				return 0, io.EOF
			}
			if err == nil {
				continue
			}
			err = s.o.broken("after %d of %d bytes: %w", s.off, s.o.size, err)
		}
		s.hangUp()
		if !again(err) || s.o.size < 0 && s.off > 0 {
			return 0, err
		}
		if s.fail++; s.fail >= s.o.policy.tries() {
			return 0, err
		}
		if err := s.o.policy.wait(s.ctx, s.fail); err != nil {
			return 0, err
		}
	}
}

func (s *originStream) read(p []byte) (int, error) {
	if s.o.size >= 0 { // an answer that goes on behind the file's end is not read there
		if s.off >= s.o.size {
			return 0, io.EOF
		}
		p = p[:min(int64(len(p)), s.o.size-s.off)]
	}
	s.stall.Reset(s.o.policy.stall())
	n, err := s.body.Read(p)
	s.stall.Stop()
	s.off += int64(n)
	if err != nil && err != io.EOF && errors.Is(context.Cause(s.request), errStalled) {
		err = errStalled
	}
	return n, err
}

func (s *originStream) connect() error {
	ctx, cancel := context.WithCancelCause(s.ctx)
	s.request, s.cancel = ctx, cancel
	span := ""
	if s.off > 0 || s.end > 0 {
		span = fmt.Sprintf("bytes=%d-", s.off)
		if s.end > 0 {
			span += strconv.FormatInt(s.end-1, 10)
		}
	}
	res, err := s.o.get(ctx, span, true)
	if err != nil {
		return err
	}
	s.body = res.Body
	s.stall = time.AfterFunc(s.o.policy.stall(), func() { cancel(errStalled) })
	return s.check(res)
}

// check sees to it that the answer is the same version from the right place.
func (s *originStream) check(res *http.Response) error {
	o := s.o
	if etag := res.Header.Get("ETag"); etag != o.etag {
		return o.replaced()
	}
	switch res.StatusCode {
	case http.StatusPartialContent:
		from, total, err := contentRange(res.Header.Get("Content-Range"))
		if err != nil || from != s.off {
			return o.broken("asked for bytes from %d, got %q", s.off, res.Header.Get("Content-Range"))
		}
		if total != o.size {
			return o.replaced()
		}
	case http.StatusOK:
		if o.size >= 0 && res.ContentLength >= 0 && res.ContentLength != o.size || o.ranges && s.off > 0 {
			return o.replaced()
		}
		// An origin without ranges sends all of it again.
		for skip := s.off; skip > 0; {
			n, err := io.CopyN(io.Discard, s.body, min(skip, 1<<20))
			skip -= n
			s.stall.Reset(o.policy.stall())
			if err != nil {
				return o.broken("go on at byte %d: %w", s.off, err)
			}
		}
	default:
		return o.replaced()
	}
	return nil
}

func (s *originStream) hangUp() {
	if s.cancel != nil {
		s.cancel(nil)
	}
	if s.stall != nil {
		s.stall.Stop()
	}
	if s.body != nil {
		_ = s.body.Close() // what was read counts, not how the rest ends
	}
	s.body, s.stall, s.cancel = nil, nil, nil
}

// Close ends the stream.
func (s *originStream) Close() error {
	s.hangUp()
	return nil
}
