package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// Streams write themselves; huma only describes them.
func (r *routes) events(mux *http.ServeMux) {
	mux.HandleFunc("GET "+api.Base+"/events", r.s.streamEvents)
	mux.HandleFunc("PUT "+api.Base+"/images/{id}/content", r.s.imageContent)
	mux.HandleFunc("PUT "+api.Base+"/packs/{id}/content", r.s.packContent)

	schema := func(kind string) *huma.Schema { return &huma.Schema{Type: kind} }
	query := func(name, kind, doc string) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: doc, Schema: schema(kind)}
	}
	text := huma.MediaType{Schema: schema("string")}
	problem := &huma.Response{Description: "Error", Content: map[string]*huma.MediaType{api.ProblemType: {Schema: &huma.Schema{Ref: "#/components/schemas/Problem"}}}}
	r.api.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "stream-events", Method: http.MethodGet, Path: api.Base + "/events", Tags: []string{"events"},
		Summary:     "Events: committed changes, in order",
		Description: "Server-sent events with Accept: text/event-stream or format=sse, else one JSON object a line. 410 with code MC-EVENTS-GONE where the events asked for are no longer kept.",
		Parameters: []*huma.Param{
			query("after", "integer", "id of the last event seen; 0: the oldest kept; -1: what comes from now on. Last-Event-ID counts more."),
			query("limit", "integer", "end after so many events; 0: no limit"),
			query("follow", "boolean", "go on with what is committed next; default: only for server-sent events"),
			query("progress", "boolean", "mix in progress, as events of type progress without id"),
			query("node", "string", "only what is about this node, by id or name"),
			query("format", "string", "sse or json"),
			{Name: "Last-Event-ID", In: "header", Description: "id of the last event seen", Schema: schema("string")},
		},
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{"text/event-stream": &text, "application/x-ndjson": &text}}, "default": problem},
	})
	r.api.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "put-image-content", Method: http.MethodPut, Path: api.Base + "/images/{id}/content", Tags: []string{"images"},
		Summary:    "Upload the bytes of an image; they are stored only where digest, size and format are right",
		Parameters: []*huma.Param{{Name: "id", In: "path", Required: true, Description: "name of the image", Schema: schema("string")}},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}},
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			"application/json": {Schema: &huma.Schema{Ref: "#/components/schemas/Image"}}}}, "default": problem},
	})
	made := &huma.Response{Description: "Kept", Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Ref: "#/components/schemas/Pack"}}}}
	r.api.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "put-pack-content", Method: http.MethodPut, Path: api.Base + "/packs/{id}/content", Tags: []string{"packs"},
		Summary:    "Upload a pack; it is kept only where a key that the site trusts signed it",
		Parameters: []*huma.Param{{Name: "id", In: "path", Required: true, Description: "NAME@VERSION, as its manifest says", Schema: schema("string")}},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}},
		Responses: map[string]*huma.Response{"200": {Description: "It was there already", Content: made.Content}, "201": made, "default": problem},
	})
}

// streamQuery is what a stream was asked for.
type streamQuery struct {
	after            int64
	oldest           bool // begin with the oldest that is kept
	limit            int
	follow, progress bool
	sse              bool
	node             fleet.NodeID
}

func (s *Server) parseStream(r *http.Request) (q streamQuery, err error) {
	var f faultList
	v := r.URL.Query()
	number := func(name, text string) int64 {
		n, err := strconv.ParseInt(text, 10, 64)
		f.check(text == "" || err == nil && n >= -1, name, "is no number of 0 or more")
		return n
	}
	flag := func(name string, otherwise bool) bool {
		if !v.Has(name) {
			return otherwise
		}
		b, err := strconv.ParseBool(v.Get(name))
		f.check(err == nil, name, "is neither true nor false")
		return b
	}
	for name := range v {
		f.check(strings.Contains(" after limit follow progress node format ", " "+name+" "), name, "is no parameter of this")
	}
	f.check(v.Get("format") == "" || v.Get("format") == "sse" || v.Get("format") == "json", "format", "is neither sse nor json")
	q.sse = v.Get("format") == "sse" || v.Get("format") == "" && strings.Contains(r.Header.Get("Accept"), "text/event-stream")
	q.after = number("after", v.Get("after"))
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		q.after = number("Last-Event-ID", id)
	}
	q.limit = int(max(number("limit", v.Get("limit")), 0))
	q.follow = flag("follow", q.sse)
	q.progress = flag("progress", false)
	if err := f.err("the request for events"); err != nil {
		return q, err
	}
	if name := v.Get("node"); name != "" {
		n, _, err := s.node(r.Context(), name)
		if err != nil {
			return q, err
		}
		q.node = n.ID
	}
	if q.oldest = q.after == 0; q.after == api.EventsNow {
		q.after, err = s.Store.LastEvent(r.Context())
	}
	return q, err
}

// alive is how often a quiet stream says where it is, so that proxies keep it and readers see that it lives.
const alive = 15 * time.Second

// streamEvents writes events in order. A reader that is too slow for two minutes is cut, and resumes with Last-Event-ID; of progress it gets what is newest.
func (s *Server) streamEvents(w http.ResponseWriter, r *http.Request) {
	q, err := s.parseStream(r)
	var first []fleet.Event
	// The first look decides between an answer and a refusal.
	switch {
	case err == nil && q.oldest:
		q.after, first, err = s.oldestEvents(r.Context(), s.batch(q.limit))
	case err == nil:
		first, err = s.Store.Events(r.Context(), q.after, s.batch(q.limit))
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/x-ndjson")
	if q.sse {
		h.Set("Content-Type", "text/event-stream")
	}
	h.Set("Cache-Control", "no-store")
	out := &stream{w: w, control: http.NewResponseController(w), q: q, after: q.after}
	if q.sse && !out.position() || !q.sse && q.follow && !out.flush() {
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	if err := s.follow(ctx, out, first); err != nil && ctx.Err() == nil {
		s.Log.Debug("an event stream ends", "err", err)
		out.problem(api.NewProblem(err, r.URL.Path))
	}
}

func (s *Server) batch(limit int) int {
	if limit > 0 && limit < 500 {
		return limit
	}
	return 500
}

func (s *Server) follow(ctx context.Context, out *stream, events []fleet.Event) error {
	tick := time.NewTicker(alive)
	defer tick.Stop()
	_, seen, bell := s.progress.since(0)
	if out.q.progress {
		seen = 0 // what runs is resent to whoever begins to look
	}
	for {
		changed := s.Store.Changed()
		for _, e := range events {
			if !out.event(e) {
				return nil
			}
		}
		if out.done() {
			return nil
		}
		if out.q.progress {
			var fresh []fleet.Progress
			fresh, seen, bell = s.progress.since(seen)
			for _, p := range fresh {
				if !out.progress(p) {
					return nil
				}
			}
		}
		var err error
		had := len(events)
		if events, err = s.Store.Events(ctx, out.after, s.batch(0)); err != nil {
			return err
		}
		if len(events) > 0 {
			continue
		}
		if !out.q.follow {
			return nil
		}
		if had > 0 && !out.flush() {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-bell:
			if !out.q.progress {
				_, _, bell = s.progress.since(seen)
			}
		case <-tick.C:
			if out.q.sse && !out.position() {
				return nil
			}
		}
	}
}

// stream writes messages. Its methods return false when the reader is gone.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	q       streamQuery
	after   int64 // id of the last event that was considered
	sent    int
}

func (o *stream) done() bool { return o.q.limit > 0 && o.sent >= o.q.limit }

func (o *stream) event(e fleet.Event) bool {
	if o.done() {
		return true
	}
	o.after = e.ID
	if o.q.node != "" && e.Node != o.q.node {
		return true
	}
	o.sent++
	return o.write(e.Type, strconv.FormatInt(e.ID, 10), e)
}

func (o *stream) progress(p fleet.Progress) bool {
	if o.q.node != "" && p.Node != o.q.node {
		return true
	}
	return o.write("progress", "", p) && o.flush()
}

// position tells a reader where to resume, though what was committed was not for it.
func (o *stream) position() bool {
	return o.write("position", strconv.FormatInt(o.after, 10), struct{}{}) && o.flush()
}

// problem ends a stream that has begun; a line of JSON alone could be taken for an event.
func (o *stream) problem(p api.Problem) {
	if o.q.sse {
		o.write("problem", "", p)
		o.flush()
	}
}

func (o *stream) write(kind, id string, v any) bool {
	data, err := json.Marshal(v)
	if err != nil {
		return false
	}
	o.control.SetWriteDeadline(time.Now().Add(stalled)) //nolint:errcheck // a writer without deadlines (tests) cannot stall
	if !o.q.sse {
		_, err = fmt.Fprintf(o.w, "%s\n", data)
		return err == nil
	}
	if id != "" {
		id = "id: " + id + "\n"
	}
	_, err = fmt.Fprintf(o.w, "event: %s\n%sdata: %s\n\n", kind, id, data)
	return err == nil
}

func (o *stream) flush() bool { return o.control.Flush() == nil }
