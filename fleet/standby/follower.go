package standby

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// Copy is the store of a server that follows.
type Copy interface {
	CopyPath() (string, error)
	Install(ctx context.Context, file, peer string) (aside string, err error)
	Apply(context.Context, []fleet.LogEntry) (fleet.Position, error)
	State(context.Context) (fleet.Position, fleet.StoreIdentity, fleet.StoreRole, bool, error)
	Promote(ctx context.Context, why string, handsOff bool) (fleet.StoreIdentity, error)
}

// Shelf is where the files that records name are kept.
type Shelf interface {
	Has(path string) bool
	PutFile(ctx context.Context, path string, r io.Reader) error
	DropFiles(ctx context.Context, there []string) error
}

// Primary is the server that is followed, as *api.Client reaches it.
type Primary interface {
	FollowStore(ctx context.Context, pos fleet.Position, self fleet.Follower) (io.ReadCloser, error)
	StandbyFiles(context.Context) ([]string, error)
	StandbyFile(ctx context.Context, path string) (io.ReadCloser, error)
	AckStandby(context.Context, api.StandbyAck) error
	StepDown(ctx context.Context, by string) (fleet.Position, error)
	Role(context.Context) (api.Role, error)
}

// Follower is the side of the server that follows. Its fields are set before Run.
type Follower struct {
	Primary Primary
	Copy    Copy
	Shelf   Shelf
	// Peer is the primary's URL; Self is where this server answers.
	Peer string
	Self fleet.Follower
	// Mono is time that nobody sets; nil: since Begin.
	Mono func() time.Duration
	// Term is how this server comes to the term of an arbiter; nil: there is none, and nothing is promised.
	Term Claimant
	Log  *slog.Logger

	mu      sync.Mutex // guards what follows
	pos     fleet.Position
	have    bool           // there is a store
	spent   bool           // it is the one of a server that has retired, and follows nobody yet
	peer    fleet.Position // where the primary was at its newest tick
	heardAt time.Duration
	evenAt  time.Duration
	run     string        // the process that its newest beat came from
	beat    time.Duration // "" and 0: it wants no promise
	open    bool          // a stream is
	problem error
	changed chan struct{} // closed when any of it changes

	uploads chan string // images and packs that came to the primary

	promoting sync.Mutex
	applying  sync.Mutex // held while something is applied, and for good once the copy is promoted
	promoted  bool       // guarded by applying
}

// Begin reads what is here.
func (f *Follower) Begin(ctx context.Context) error {
	if f.Mono == nil {
		start := time.Now()
		f.Mono = func() time.Duration { return time.Since(start) }
	}
	f.changed, f.uploads = make(chan struct{}), make(chan string, 64)
	f.heardAt, f.evenAt = f.Mono(), f.Mono()
	pos, _, role, have, err := f.Copy.State(ctx)
	if f.have, f.spent = have, role.Kind == fleet.RoleRetired; !f.spent {
		f.pos = pos
	}
	return err
}

func (f *Follower) change(set func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	set()
	close(f.changed)
	f.changed = make(chan struct{})
}

// until waits for a state; false where ctx ended first.
func (f *Follower) until(ctx context.Context, is func() bool) bool {
	for {
		f.mu.Lock()
		yes, changed := is(), f.changed
		f.mu.Unlock()
		if yes {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}

// Ready waits until there is a store that shows who may ask this server.
func (f *Follower) Ready(ctx context.Context) bool {
	return f.until(ctx, func() bool { return f.have })
}

// State fills in how far this server has followed.
func (f *Follower) State(out *api.Standby) {
	f.mu.Lock()
	defer f.mu.Unlock()
	silent := f.Mono() - f.heardAt
	out.Peer, out.PeerRevision, out.Connected = f.Peer, f.peer.Revision, f.open && silent < Gone
	out.LagRevisions = max(int64(f.peer.Revision-f.pos.Revision), 0)
	if f.pos != f.peer || !out.Connected {
		out.LagSeconds = (f.Mono() - f.evenAt).Seconds()
	}
	if !out.Connected {
		out.SilentSeconds = silent.Seconds()
		if f.problem != nil {
			out.Problem, out.Code = f.problem.Error(), fleet.CodeOf(f.problem)
		}
	}
}

// Run follows until ctx ends. Whatever goes wrong is tried again; State says what it was.
func (f *Follower) Run(ctx context.Context) error {
	pause := 200 * time.Millisecond
	said := ""
	for {
		began := f.Mono()
		err := f.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.change(func() { f.open, f.problem = false, err })
		if text := fmt.Sprint(err); text != said {
			f.Log.Warn("the server is not followed at this moment", "peer", f.Peer, "err", err)
			said = text
		}
		if f.Mono()-began > 10*time.Second {
			pause, said = 200*time.Millisecond, ""
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
		pause = min(2*pause, 2*time.Second)
	}
}

// follow reads one stream to its end, which is always an error.
func (f *Follower) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f.mu.Lock()
	pos := f.pos
	f.mu.Unlock()
	watch := time.AfterFunc(30*time.Second, func() { cancel(errSilent(f.Peer)) })
	defer watch.Stop()
	body, err := f.Primary.FollowStore(ctx, pos, f.Self)
	if err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	defer body.Close()
	r := bufio.NewReaderSize(&patient{body, watch}, chunkSize)
	m, err := readMessage(r)
	switch {
	case err != nil:
		return f.ended(ctx, err)
	case m.kind != kindHello:
		return errSpeech("it begins with %q", m.kind)
	case m.hello.Format != format:
		return fleet.Errorf(fleet.Refused, "MC-STORE-NEWER", "the server %s speaks form %d of the stream and this program form %d", f.Peer, m.hello.Format, format).
			WithHint("install the version on this machine that runs there; of two servers the one that follows is upgraded first")
	case m.hello.Copy:
		if err := f.takeCopy(ctx, r); err != nil {
			return f.ended(ctx, err)
		}
	}
	f.change(func() { f.open, f.problem, f.heardAt = true, nil, f.Mono() })
	// Files that are stored from now on are in the stream; what was there before is in the list. Blobs are small and come before the records that name
	// them; images and packs are fetched beside.
	there, err := f.Primary.StandbyFiles(ctx)
	if err != nil {
		return f.ended(ctx, err)
	}
	big, err := f.takeFiles(ctx, there)
	if err != nil {
		return f.ended(ctx, err)
	}
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel(nil)
	beside.Go(func() { f.keepFiles(ctx, big) })
	beside.Go(func() { f.acknowledge(ctx) })
	return f.ended(ctx, f.repeat(ctx, r))
}

// ended prefers the reason why a stream was given up over what its reader saw of it.
func (f *Follower) ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fleet.Errorf(fleet.Unavailable, "MC-CLIENT-UNREACHABLE", "the server %s ended the stream: %w", f.Peer, err)
	}
	return err
}

func errSilent(peer string) error {
	return fleet.Errorf(fleet.Unavailable, "MC-CLIENT-UNREACHABLE", "the server %s says nothing", peer)
}

func errSpeech(format string, args ...any) error {
	return fleet.Errorf(fleet.Broken, "MC-STANDBY-DIVERGED", "the stream of the other server cannot be understood: "+format, args...).
		WithHint("metalctl standby status; it begins anew by itself")
}

// patient gives a stream ten seconds for each piece: the primary sends something every second.
type patient struct {
	r     io.Reader
	watch *time.Timer
}

func (p *patient) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.watch.Reset(2 * Gone)
	return n, err
}

// takeCopy reads a whole copy and puts it in its place.
func (f *Follower) takeCopy(ctx context.Context, r *bufio.Reader) error {
	path, err := f.Copy.CopyPath()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("take a copy of the store: %w", err)
	}
	defer os.Remove(path)
	sum, size := sha256.New(), int64(0)
	for {
		m, err := readMessage(r)
		if err == nil && m.kind == kindDone {
			if got := hex.EncodeToString(sum.Sum(nil)); got != m.done.SHA256 || size != m.done.SizeBytes {
				err = errSpeech("the copy has %d bytes with the digest %s, announced were %d with %s", size, got, m.done.SizeBytes, m.done.SHA256)
			}
			if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
				return err
			}
			return f.install(ctx, path, m.done.Position)
		}
		if err == nil && m.kind != kindChunk {
			err = errSpeech("%q stands within a copy", m.kind)
		}
		if err == nil {
			sum.Write(m.chunk)
			size += int64(len(m.chunk))
			_, err = out.Write(m.chunk)
		}
		if err != nil {
			return errors.Join(err, out.Close())
		}
	}
}

func (f *Follower) install(ctx context.Context, path string, at fleet.Position) error {
	f.applying.Lock()
	defer f.applying.Unlock()
	if f.promoted {
		return context.Canceled
	}
	aside, err := f.Copy.Install(ctx, path, f.Peer)
	if err != nil {
		return err
	}
	if aside != "" {
		f.Log.Warn("the store that this server had when it acted is kept aside", "path", aside)
	}
	pos, _, _, _, err := f.Copy.State(ctx)
	if err != nil {
		return err
	}
	if pos != at {
		return errSpeech("the copy is at revision %d and not at %d", pos.Revision, at.Revision)
	}
	f.Log.Info("a copy of the store is here", "peer", f.Peer, "revision", pos.Revision)
	f.change(func() { f.pos, f.have, f.spent = pos, true, false })
	return nil
}

// repeat applies what comes, as much at once as has come.
func (f *Follower) repeat(ctx context.Context, r *bufio.Reader) error {
	var batches []fleet.LogEntry
	size := 0
	for {
		m, err := readMessage(r)
		if err != nil {
			return err
		}
		switch m.kind {
		case kindBatch:
			batches = append(batches, m.entry)
			size += len(m.entry.Batch)
			if r.Buffered() > 0 && size < 16<<20 && len(batches) < 256 {
				continue
			}
		case kindFile, kindTick, kindEnd:
		default:
			return errSpeech("%q stands between batches", m.kind)
		}
		if len(batches) > 0 {
			if err := f.apply(ctx, batches); err != nil {
				return err
			}
			batches, size = nil, 0
		}
		switch m.kind {
		case kindFile:
			big, err := f.takeFiles(ctx, []string{m.entry.File})
			if err != nil {
				return err
			}
			for _, path := range big {
				select {
				case f.uploads <- path:
				default: // the next look for all of them finds it
				}
			}
		case kindTick, kindEnd:
			if err := f.heard(m.tick); err != nil {
				return err
			}
		}
	}
}

func (f *Follower) apply(ctx context.Context, batches []fleet.LogEntry) error {
	f.applying.Lock()
	defer f.applying.Unlock()
	if f.promoted {
		return context.Canceled
	}
	pos, err := f.Copy.Apply(ctx, batches)
	if fleet.CodeOf(err) == "MC-STANDBY-DIVERGED" {
		f.change(func() { f.pos = fleet.Position{} }) // the next stream begins with a copy
	}
	if err != nil {
		return err
	}
	f.change(func() { f.pos = pos })
	return nil
}

// heard takes a tick: the primary's position after everything that came before it.
func (f *Follower) heard(t tick) error {
	differ, at := false, fleet.Revision(0)
	f.change(func() {
		f.peer, f.heardAt, f.run, f.beat = t.Position, f.Mono(), t.Run, t.Beat
		if f.pos == t.Position {
			f.evenAt = f.heardAt
		}
		// The tick's position may be ahead of what was sent before it, and is never behind.
		differ = t.Position.Revision < f.pos.Revision || t.Position.Revision == f.pos.Revision && t.Position != f.pos
		at = f.pos.Revision
	})
	if differ {
		f.change(func() { f.pos = fleet.Position{} })
		return errSpeech("it is at revision %d and the copy of it at %d, with another digest", t.Position.Revision, at)
	}
	return nil
}

// acknowledge tells the primary how far this server is, when that changes and when something was heard.
func (f *Follower) acknowledge(ctx context.Context) {
	promised := tick{}
	for ctx.Err() == nil {
		f.mu.Lock()
		a, changed := api.StandbyAck{URL: f.Self.URL, Position: f.pos}, f.changed
		run, beat := f.run, f.beat
		f.mu.Unlock()
		// A beat is promised for once: what the primary says when it has stepped down wants no promise.
		if now := (tick{Run: run, Beat: beat}); f.Term != nil && run != "" && now != promised && f.Term.Promise() {
			a.Run, a.Beat, promised = run, beat, now
		}
		ask, cancel := context.WithTimeout(ctx, Gone)
		err := f.Primary.AckStandby(ask, a)
		cancel()
		if err != nil && ctx.Err() == nil {
			f.Log.Debug("tell the primary how far this server is", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// takeFiles fetches the blobs among those that are missing here, and returns the images and packs.
func (f *Follower) takeFiles(ctx context.Context, paths []string) (big []string, err error) {
	for _, path := range paths {
		switch {
		case f.Shelf.Has(path):
		case !isBlob(path):
			big = append(big, path)
		default:
			if err := f.takeFile(ctx, path); err != nil {
				return nil, err
			}
			f.change(func() { f.heardAt = f.Mono() })
		}
	}
	return big, nil
}

func isBlob(path string) bool { return len(path) > 6 && path[:6] == "blobs/" }

// takeFile fetches one file. One that the primary has no more is not needed.
func (f *Follower) takeFile(ctx context.Context, path string) error {
	r, err := f.Primary.StandbyFile(ctx, path)
	if fleet.KindOf(err) == fleet.NotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("fetch %s: %w", path, err)
	}
	defer r.Close()
	return f.Shelf.PutFile(ctx, path, r)
}

// keepFiles fetches images and packs, looks each minute for new ones, and each hour for what the primary has dropped. What fails is tried the next time.
func (f *Follower) keepFiles(ctx context.Context, big []string) {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for round := 0; ; round++ {
		for _, path := range big {
			if err := f.takeFile(ctx, path); err != nil && ctx.Err() == nil {
				f.Log.Warn("a file of the primary is not here yet", "path", path, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case path := <-f.uploads:
			big = []string{path}
			round--
			continue
		case <-t.C:
		}
		there, err := f.Primary.StandbyFiles(ctx)
		if err == nil && round%60 == 59 {
			err = f.Shelf.DropFiles(ctx, there)
		}
		if big = nil; err == nil {
			for _, path := range there {
				if !f.Shelf.Has(path) { // a blob, too, where it was dropped on an old list
					big = append(big, path)
				}
			}
		}
		if err != nil && ctx.Err() == nil {
			f.Log.Warn("look for the primary's files", "err", err)
		}
	}
}
