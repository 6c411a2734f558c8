package images

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"testing"
)

// A Content-Range that is understood is a part of a file.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-0/1", "bytes 5-9/*", "bytes 5-9/-1", "bytes 5-9/-7", "bytes 5-9/3", "bytes 9-5/10", "bytes 0-10/10", "bytes */0", "bytes 0-/5", "bytes  0-0/1", "octets 0-0/1", "bytes +0-0/1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		from, total, err := contentRange(text)
		if err == nil && (from < 0 || total < -1 || total >= 0 && from >= total) {
			t.Fatalf("%q: from %d of %d", text, from, total)
		}
	})
}

// scripted answers one request after the other; the last answer stays.
type scripted struct {
	answers []*http.Response
	bodies  [][]byte
	next    int
}

func (s *scripted) RoundTrip(*http.Request) (*http.Response, error) {
	i := min(s.next, len(s.answers)-1)
	s.next++
	res := *s.answers[i]
	res.Body = io.NopCloser(io.MultiReader(bytes.NewReader(s.bodies[i]), broken{}))
	return &res, nil
}

// broken is a connection that breaks.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Whatever an origin answers when its broken stream is taken up again: the stream ends, and only at the file's end without an error; and what was
// asked for from a place is never taken from another.
func FuzzResume(f *testing.F) {
	f.Add(206, `"v1"`, "bytes 4-9/10", []byte("456789"))
	f.Add(206, `"v1"`, "bytes 0-9/10", []byte("0123456789"))
	f.Add(206, `"v2"`, "bytes 4-9/10", []byte("456789"))
	f.Add(206, `"v1"`, "bytes 4-9/*", []byte("4"))
	f.Add(200, `"v1"`, "", []byte("0123456789"))
	f.Add(416, `"v1"`, "bytes */10", []byte(nil))
	f.Add(206, `"v1"`, "bytes 4-9/10", []byte("456789 and more than the file has"))
	f.Fuzz(func(t *testing.T, status int, etag, span string, body []byte) {
		if len(body) > 4096 {
			return
		}
		wire := &scripted{
			answers: []*http.Response{
				{StatusCode: 206, Header: http.Header{"Etag": {`"v1"`}, "Content-Range": {"bytes 0-9/10"}}},
				{StatusCode: status, Header: http.Header{"Etag": {etag}, "Content-Range": {span}}, ContentLength: -1},
			},
			bodies: [][]byte{[]byte("0123"), body},
		}
		p := Policy{Origins: []string{"https://images.example.org"}, Tries: 3, Wait: func(ctx context.Context, _ int) error { return ctx.Err() }}
		u, err := url.Parse("https://images.example.org/a")
		if err != nil {
			t.Fatal(err)
		}
		o := &Origin{url: u, policy: p, client: &http.Client{Transport: wire}, size: 10, etag: `"v1"`, ranges: true}
		in, err := o.Stream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		got, err := io.ReadAll(io.LimitReader(in, 1<<20))
		if !bytes.HasPrefix(got, []byte("0123")) || len(got) > 10 {
			t.Fatalf("got %q of a file of 10 bytes", got)
		}
		if err == nil && len(got) != 10 || errors.Is(err, io.EOF) {
			t.Fatalf("ended after %d bytes with %v", len(got), err)
		}
		if from, _, e := contentRange(span); len(got) > 4 && (status != http.StatusPartialContent || etag != `"v1"` || e != nil || from < 4) {
			t.Fatalf("took %q from an answer %d %q %q", got, status, etag, span)
		}
	})
}
