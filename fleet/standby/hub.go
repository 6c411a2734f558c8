package standby

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// Log is the part of a store that says what is committed.
type Log interface {
	Position() fleet.Position
	Follow(fleet.Position) (int64, error)
	LogAfter(ctx context.Context, seq int64) ([]fleet.LogEntry, error)
}

// Files is the part of a store that hands out the whole of it.
type Files interface {
	CopyFile(ctx context.Context, path string) (fleet.Position, error)
	Files(ctx context.Context) ([]string, error)
	OpenFile(path string) (io.ReadCloser, error)
}

const (
	// tickEvery is how often a follower hears that all is well, Gone how long nothing may be heard before it is not.
	tickEvery = time.Second
	Gone      = 5 * time.Second
	// Late is the lag from which on an operator should know.
	Late = time.Second
	// LookEvery is how often a server that acts asks the other one whether it has taken over, while that one is not heard of.
	LookEvery = 2 * time.Second
	// Notice is how long a server that acts, and can reach the other one, needs at most to find that it was overtaken: the other one stops being heard of, is
	// asked, and answers. The rest is for a slow machine.
	Notice = Gone + LookEvery + askFor + 5*time.Second
)

// Tenure is the right to act of the server that is followed.
type Tenure interface {
	// Beat is which process this is and what its clock says.
	Beat() (run string, at time.Duration)
	// Promised is told that the follower leaves the term alone, in answer to a beat.
	Promised(run string, beat time.Duration)
	// Unname lets the arbiter forget the follower, before the store does; Named undoes that.
	Unname(context.Context) error
	Named()
}

// beat is a tick that was sent, and what the follower has who has answered it.
type beat struct {
	at       time.Duration
	revision fleet.Revision
}

// maxBeats is more than there are on their way to a follower that is in touch.
const maxBeats = 64

// Hub is the side of the server that is followed. It serves one follower at a time; its fields are set before it is used.
type Hub struct {
	Log   Log
	Files Files
	Store fleet.Store
	// Dir is for copies on their way.
	Dir string
	// URL is where this server answers, Nodes where agents reach it.
	URL, Nodes string
	// StepDown makes this server stop acting for good, in favour of the one at that URL; its position is the last. A hub of a server that has retired
	// already has none.
	StepDown func(ctx context.Context, to string) (fleet.Position, error)
	// Tenure is by what right this server acts; nil: by no other's.
	Tenure Tenure
	// Refuse sends an error.
	Refuse func(http.ResponseWriter, *http.Request, error)
	// Mono is time that nobody sets; nil: since NewHub.
	Mono   func() time.Duration
	Logger *slog.Logger

	mu       sync.Mutex // guards what follows
	follower *fleet.Follower
	partner  *fleet.Partner
	stream   context.CancelFunc // ends the stream that is open, nil where none is
	streams  int                // counts them
	acked    fleet.Position
	ackedAt  time.Duration
	evenAt   time.Duration // when the follower was last where this server is
	beats    []beat        // not answered yet
	heard    bool          // something was acknowledged since this process began
	changed  chan struct{} // closed at the next acknowledgement
	was      string        // what was last said of the follower
	stepping sync.Mutex
}

// Begin reads which server follows this one.
func (h *Hub) Begin(ctx context.Context) error {
	if h.Mono == nil {
		start := time.Now()
		h.Mono = func() time.Duration { return time.Since(start) }
	}
	h.changed = make(chan struct{})
	h.ackedAt, h.evenAt = h.Mono(), h.Mono()
	var err error
	if h.follower, err = FollowerOf(ctx, h.Store); err == nil {
		h.partner, err = recorded[fleet.Partner](ctx, h.Store, fleet.PartnerKey)
	}
	return err
}

// reader is a store that is read.
type reader interface {
	View(context.Context, func(fleet.Snapshot) error) error
}

// FollowerOf reads which server is recorded to follow the one whose store it is; nil: none.
func FollowerOf(ctx context.Context, st reader) (*fleet.Follower, error) {
	return recorded[fleet.Follower](ctx, st, fleet.FollowerKey)
}

// recorded reads what a record says; nil where there is none.
func recorded[T any](ctx context.Context, st reader, key fleet.Key) (out *T, err error) {
	err = st.View(ctx, func(s fleet.Snapshot) error {
		v, _, err := fleet.Get[T](s, key)
		if err == nil {
			out = &v
		}
		if fleet.KindOf(err) == fleet.NotFound {
			return nil
		}
		return err
	})
	return out, err
}

// Follower is who follows, or nil.
func (h *Hub) Follower() *fleet.Follower {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.follower
}

// PartnerNodes is the address that agents reach the other server at, whether it follows at present or was taken over from; "" where there is none.
func (h *Hub) PartnerNodes() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.follower != nil:
		return h.follower.Nodes
	case h.partner != nil:
		return h.partner.Nodes
	}
	return ""
}

// Connected reports whether the follower was heard of lately.
func (h *Hub) Connected() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.connectedLocked()
}

func (h *Hub) connectedLocked() bool { return h.heard && h.stream != nil && h.Mono()-h.ackedAt < Gone }

// State fills in what is known of the follower.
func (h *Hub) State(out *api.Standby) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.follower == nil {
		return
	}
	out.Peer, out.Connected = h.follower.URL, h.connectedLocked()
	if !out.Connected {
		out.SilentSeconds = (h.Mono() - h.ackedAt).Seconds()
	}
	if h.heard {
		out.PeerRevision = h.acked.Revision
	}
	lag, at := h.lagLocked()
	if lag > 0 {
		out.LagRevisions, out.LagSeconds = int64(at.Revision-out.PeerRevision), lag.Seconds()
	}
}

// lagLocked is for how long the follower may have lacked something, and where this server is.
func (h *Hub) lagLocked() (time.Duration, fleet.Position) {
	now := h.Mono()
	at := h.Log.Position()
	if h.acked == at {
		h.evenAt = now
		return 0, at
	}
	return max(now-h.evenAt, 1), at
}

// Lag is for how long the follower may have lacked something that is committed here, and whether it is in touch.
func (h *Hub) Lag() (lag time.Duration, connected bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	lag, _ = h.lagLocked()
	return lag, h.connectedLocked()
}

// Run says when the follower goes and comes back, until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		h.tell(ctx)
	}
}

// tell logs, and records as an event, how the follower does where that has changed.
func (h *Hub) tell(ctx context.Context) {
	var s api.Standby
	h.State(&s)
	now, text := "even", "the standby "+s.Peer+" follows"
	switch {
	case s.Peer == "":
		now = ""
	case h.StepDown == nil:
		return // it serves what is left, and records nothing any more
	case !s.Connected:
		now, text = "gone", "the standby "+s.Peer+" is not heard of: whatever is committed now is lost if this server is"
	case s.LagSeconds > Late.Seconds():
		now, text = "late", "the standby "+s.Peer+" is more than a second behind"
	}
	h.mu.Lock()
	before, fresh := h.was, h.Mono()-h.ackedAt < 2*Gone && !h.heard
	if now == "gone" && fresh {
		now = before // it has not had the time to connect since this server began
	}
	h.was = now
	h.mu.Unlock()
	if now == before || now == "" {
		return
	}
	if now == "even" {
		h.Logger.Info("the standby follows", "peer", s.Peer)
	} else {
		h.Logger.Warn(text, "peer", s.Peer, "count", s.LagRevisions, "seconds", s.LagSeconds)
	}
	_, err := h.Store.Commit(ctx, fleet.Change{Events: []fleet.Event{{Type: "standby." + now, Subject: fleet.FollowerKey, Text: text}}})
	if err != nil && ctx.Err() == nil {
		h.Logger.Warn("record how the standby does", "err", err)
	}
}

// Even waits until the follower has everything up to pos; false where ctx ended first.
func (h *Hub) Even(ctx context.Context, pos fleet.Position) bool {
	for {
		h.mu.Lock()
		even, changed := h.acked == pos, h.changed
		h.mu.Unlock()
		if even {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}

// Register puts what a follower asks for onto a mux. Who may ask was judged before.
func (h *Hub) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET "+api.StandbyPath+"/stream", h.serveStream)
	mux.HandleFunc("POST "+api.StandbyPath+"/ack", h.serveAck)
	mux.HandleFunc("GET "+api.StandbyPath+"/files", h.serveFiles)
	mux.HandleFunc("GET "+api.StandbyPath+"/file", h.serveFile)
	mux.HandleFunc("POST "+api.StandbyPath+"/step-down", h.serveStepDown)
}

func (h *Hub) serveFiles(w http.ResponseWriter, r *http.Request) {
	files, err := h.Files.Files(r.Context())
	if err != nil {
		h.Refuse(w, r, err)
		return
	}
	send(w, api.StandbyFiles{Files: files})
}

func (h *Hub) serveFile(w http.ResponseWriter, r *http.Request) {
	f, err := h.Files.OpenFile(r.URL.Query().Get("path"))
	if err != nil {
		h.Refuse(w, r, err)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	io.Copy(w, f) //nolint:errcheck // the follower compares what it got with its digest
}

func send(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the caller is gone
}

// decode reads a small body strictly.
func decode(r *http.Request, v any) error {
	d := json.NewDecoder(io.LimitReader(r.Body, 64<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "the request is not valid: %w", err)
	}
	return nil
}

func (h *Hub) serveAck(w http.ResponseWriter, r *http.Request) {
	var a api.StandbyAck
	if err := decode(r, &a); err != nil {
		h.Refuse(w, r, err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.follower == nil || h.follower.URL != a.URL {
		h.Refuse(w, r, errForgotten(a.URL))
		return
	}
	h.acked, h.ackedAt, h.heard = a.Position, h.Mono(), true
	for len(h.beats) > 0 && h.beats[0].revision <= a.Position.Revision {
		h.evenAt = max(h.evenAt, h.beats[0].at)
		h.beats = h.beats[1:]
	}
	if h.Tenure != nil && a.Run != "" {
		h.Tenure.Promised(a.Run, a.Beat)
	}
	close(h.changed)
	h.changed = make(chan struct{})
	w.WriteHeader(http.StatusNoContent)
}

func errForgotten(who string) error {
	return fleet.Errorf(fleet.Conflict, "MC-STANDBY-FORGOTTEN", "%s is not the server that follows this one", who).WithHint("metalctl standby status")
}

// checkURL refuses what is no server's address.
func checkURL(field, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || len(text) > 500 {
		return fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "%s is not an https URL without path", field).WithHint("set advertise on the server that follows")
	}
	return nil
}

// record makes sure that the store knows its follower before that gets anything.
func (h *Hub) record(ctx context.Context, f fleet.Follower) error {
	for _, u := range []struct{ field, text string }{{"url", f.URL}, {"nodes", f.Nodes}} {
		if err := checkURL(u.field, u.text); err != nil {
			return err
		}
	}
	if f.URL == h.URL {
		return fleet.Errorf(fleet.Invalid, "MC-STANDBY-SELF", "a server cannot follow itself, and the one that asks has this one's address %s", h.URL).
			WithHint("set advertise on the server that follows to its own address")
	}
	f.Primary, f.PrimaryNodes = h.URL, h.Nodes
	old := h.Follower()
	switch {
	case old != nil && (h.StepDown == nil || old.Primary == f.Primary && old.PrimaryNodes == f.PrimaryNodes) && old.URL == f.URL && old.Nodes == f.Nodes:
		return nil
	case h.StepDown == nil:
		return errForgotten(f.URL)
	case old != nil && old.URL != f.URL:
		return fleet.Errorf(fleet.Conflict, "MC-STANDBY-TAKEN", "the server %s follows this one already", old.URL).
			WithHint("where that one is gone for good: metalctl standby forget")
	}
	f.Since = time.Now().UTC().Truncate(time.Second)
	_, err := h.Store.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: fleet.FollowerKey, Value: f}, {Key: fleet.PartnerKey}},
		Events: []fleet.Event{{Type: "standby.named", Subject: fleet.FollowerKey, Text: "the server " + f.URL + " follows this one from now on"}}})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.follower, h.partner = &f, nil
	return nil
}

// Forget lets go of the other server. It never takes over afterwards but by force.
func (h *Hub) Forget(ctx context.Context) error {
	h.mu.Lock()
	var old string
	follows := h.follower != nil && h.connectedLocked()
	switch {
	case h.follower != nil:
		old = h.follower.URL
	case h.partner != nil:
		old = h.partner.URL
	}
	h.mu.Unlock()
	if old == "" {
		return fleet.Errorf(fleet.NotFound, "MC-STANDBY-NONE", "no server follows this one").WithHint("metalctl server --standby %s, on the other machine", h.URL)
	}
	if follows {
		return fleet.Errorf(fleet.Conflict, "MC-STANDBY-HEARD", "%s follows at this moment, and would come back by itself", old).
			WithHint("stop it on its machine, or revoke its token (metalctl token list), then again: metalctl standby forget")
	}
	if h.Tenure != nil {
		if err := h.Tenure.Unname(ctx); err != nil {
			return err
		}
		defer h.Tenure.Named()
	}
	_, err := h.Store.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: fleet.FollowerKey}, {Key: fleet.PartnerKey}},
		Events: []fleet.Event{{Type: "standby.forgotten", Subject: fleet.FollowerKey, Text: "the server " + old + " is not the standby any more"}}})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.follower, h.partner, h.heard, h.was = nil, nil, false, ""
	if h.stream != nil {
		h.stream()
	}
	return nil
}

func (h *Hub) serveStepDown(w http.ResponseWriter, r *http.Request) {
	var in api.StepDown
	if err := decode(r, &in); err != nil {
		h.Refuse(w, r, err)
		return
	}
	h.stepping.Lock()
	defer h.stepping.Unlock()
	f := h.Follower()
	if f == nil || f.URL != in.URL {
		h.Refuse(w, r, errForgotten(in.URL))
		return
	}
	if h.StepDown == nil { // it has: the answer was lost
		send(w, h.Log.Position())
		return
	}
	if !h.Connected() {
		h.Refuse(w, r, fleet.Errorf(fleet.Conflict, "MC-STANDBY-BEHIND", "the server %s does not follow at this moment", in.URL).WithHint("metalctl standby status"))
		return
	}
	pos, err := h.StepDown(r.Context(), in.URL)
	if err != nil {
		h.Refuse(w, r, err)
		return
	}
	send(w, pos)
}
