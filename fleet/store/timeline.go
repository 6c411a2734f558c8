package store

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

const (
	flushEvery = time.Second
	// pendingEntries of one node wait in memory at most; beyond, the oldest are dropped (a disk that is full for long).
	pendingEntries = 4096
	flushEntries   = 256
)

// timeline appends to DIR/NODE/new.jsonl; when that is full it becomes old.jsonl, so that a node keeps between one and two segments.
type timeline struct {
	dir     string
	segment int64
	log     *slog.Logger
	wake    chan struct{}
	done    chan struct{}
	stopped chan struct{}

	files sync.Mutex // held while segments are read, written or renamed; taken before mu

	mu      sync.Mutex // guards the rest
	pending map[fleet.NodeID][]fleet.TimelineEntry
	// repeats is the newest entry of each node that may be repeated, and what came of it: Count is how often, 0 for not yet.
	repeats map[fleet.NodeID]fleet.TimelineEntry
	dropped int
	failing bool
}

func openTimeline(dir string, segment int64, log *slog.Logger) (*timeline, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	t := &timeline{dir: dir, segment: segment, log: log, wake: make(chan struct{}, 1), done: make(chan struct{}), stopped: make(chan struct{}),
		pending: make(map[fleet.NodeID][]fleet.TimelineEntry), repeats: make(map[fleet.NodeID]fleet.TimelineEntry)}
	go t.flushLoop()
	return t, nil
}

func (t *timeline) flushLoop() {
	defer close(t.stopped)
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-t.done:
			return
		case <-tick.C:
		case <-t.wake:
		}
		t.flush() //nolint:errcheck // flush logs, and keeps what it could not write for the next time
	}
}

func (t *timeline) close() error {
	close(t.done)
	<-t.stopped
	t.mu.Lock()
	for id := range t.repeats {
		t.settleLocked(id)
	}
	t.mu.Unlock()
	return t.flush()
}

var nodeDir = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// AppendTimeline implements fleet.Timeline. It never waits for the disk. A byte range that follows the last one of the same source and
// generation is merged into it, and a repeat of the last entry is counted; up to mostRepeats are in memory only.
func (db *DB) AppendTimeline(id fleet.NodeID, e fleet.TimelineEntry) { db.timeline.append(id, e) }

func (t *timeline) append(id fleet.NodeID, e fleet.TimelineEntry) {
	if !nodeDir.MatchString(string(id)) {
		t.log.Warn("timeline entry without a proper node id", "node", id, "text", e.Text)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.repeatedLocked(id, e) {
		return
	}
	t.appendLocked(id, e)
}

// mostRepeats is how many repeats of an entry make one: a machine at rest is asked the same once a minute.
const mostRepeats = 60

// repeatedLocked counts a repeat of the node's newest entry, and settles what was repeated before anything else.
func (t *timeline) repeatedLocked(id fleet.NodeID, e fleet.TimelineEntry) bool {
	r, ok := t.repeats[id]
	if ok && e.Same != "" && r.Same == e.Same && r.Source == e.Source && r.Generation == e.Generation {
		if r.Count++; r.Count == 1 {
			r.At = e.At
		}
		r.Text, r.Until = e.Text, e.At
		t.repeats[id] = r
		if r.Count >= mostRepeats {
			t.settleLocked(id)
			t.repeats[id] = e
		}
		return true
	}
	t.settleLocked(id)
	if e.Same != "" {
		t.repeats[id] = e
	}
	return false
}

// settleLocked ends a row of repeats.
func (t *timeline) settleLocked(id fleet.NodeID) {
	if r, ok := t.repeats[id]; ok {
		delete(t.repeats, id)
		if r.Count > 0 {
			t.appendLocked(id, r)
		}
	}
}

func (t *timeline) appendLocked(id fleet.NodeID, e fleet.TimelineEntry) {
	e.Same = ""
	waiting := t.pending[id]
	if n := len(waiting); n > 0 && merge(&waiting[n-1], e) {
		return
	}
	if len(waiting) >= pendingEntries {
		waiting = waiting[1:]
		t.dropped++
	}
	t.pending[id] = append(waiting, e)
	if len(waiting) >= flushEntries {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

func merge(last *fleet.TimelineEntry, e fleet.TimelineEntry) bool {
	if e.Source != "media" && e.Source != "image" || last.Source != e.Source || last.Generation != e.Generation ||
		e.Length == 0 || last.Length == 0 || last.Offset+last.Length != e.Offset {
		return false
	}
	last.Length += e.Length
	last.Count = max(last.Count, 1) + max(e.Count, 1)
	return true
}

// flush writes what waits. What could not be written goes back to the front of its queue.
func (t *timeline) flush() error {
	t.files.Lock()
	defer t.files.Unlock()
	t.mu.Lock()
	pending := t.pending
	t.pending = make(map[fleet.NodeID][]fleet.TimelineEntry)
	t.mu.Unlock()
	var errs []error
	for id, entries := range pending {
		n, err := t.writeNode(id, entries)
		if err == nil {
			continue
		}
		errs = append(errs, err)
		t.mu.Lock()
		t.pending[id] = append(entries[n:], t.pending[id]...)
		t.mu.Unlock()
	}
	err := errors.Join(errs...)
	t.report(err)
	return storeError("write the timeline", err)
}

// report logs the change between writing and not writing, once each.
func (t *timeline) report(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil && !t.failing:
		t.log.Warn("the timeline cannot be written and is kept in memory", "err", err)
	case err == nil && t.failing:
		t.log.Info("the timeline is written again", "dropped", t.dropped)
		t.dropped = 0
	}
	t.failing = err != nil
}

// writeNode appends entries and returns how many of them are in the file.
func (t *timeline) writeNode(id fleet.NodeID, entries []fleet.TimelineEntry) (int, error) {
	dir := filepath.Join(t.dir, string(id))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, err
	}
	for done := 0; done < len(entries); {
		f, err := os.OpenFile(filepath.Join(dir, "new.jsonl"), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return done, err
		}
		n, full, err := t.fill(f, entries[done:])
		done += n
		if err = errors.Join(err, f.Close()); err != nil {
			return done, err
		}
		if full {
			if err := os.Rename(filepath.Join(dir, "new.jsonl"), filepath.Join(dir, "old.jsonl")); err != nil {
				return done, err
			}
		}
	}
	return len(entries), nil
}

// fill appends entries until the segment is full. A write that fails part-way is cut off again, so that a segment ends with a whole line.
func (t *timeline) fill(f *os.File, entries []fleet.TimelineEntry) (n int, full bool, err error) {
	end, err := wholeLines(f)
	if err != nil {
		return 0, false, err
	}
	if end >= t.segment {
		return 0, true, nil
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	for ; n < len(entries) && end+int64(buf.Len()) < t.segment; n++ {
		if err := enc.Encode(entries[n]); err != nil {
			return 0, false, err
		}
	}
	if _, err := f.WriteAt(buf.Bytes(), end); err != nil {
		return 0, false, errors.Join(err, f.Truncate(end))
	}
	return n, end+int64(buf.Len()) >= t.segment, nil
}

// wholeLines returns where the last whole line ends: a crash may have left half a line behind it, which is cut off.
func wholeLines(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	for end := size; end > 0; {
		start := max(0, end-4096)
		buf := make([]byte, end-start)
		if _, err := f.ReadAt(buf, start); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf, '\n'); i >= 0 {
			end = start + int64(i) + 1
			if end < size {
				return end, f.Truncate(end)
			}
			return end, nil
		}
		end = start
	}
	return 0, f.Truncate(0)
}

// ReadTimeline implements fleet.Timeline: the newest limit entries (all where limit is 0) that are later than since, oldest first.
func (db *DB) ReadTimeline(ctx context.Context, id fleet.NodeID, since time.Time, limit int) ([]fleet.TimelineEntry, error) {
	return db.timeline.read(ctx, id, since, limit)
}

func (t *timeline) read(ctx context.Context, id fleet.NodeID, since time.Time, limit int) ([]fleet.TimelineEntry, error) {
	if !nodeDir.MatchString(string(id)) {
		return nil, fleet.Errorf(fleet.NotFound, "MC-STORE-ABSENT", "there is no timeline of node %q", id)
	}
	t.files.Lock()
	defer t.files.Unlock()
	var out []fleet.TimelineEntry
	keep := func(e fleet.TimelineEntry) {
		if e.At.After(since) || e.Until.After(since) {
			e.Same = ""
			out = append(out, e)
		}
	}
	for _, name := range []string{"old.jsonl", "new.jsonl"} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := readSegment(filepath.Join(t.dir, string(id), name), keep); err != nil {
			return nil, storeError("read the timeline", err)
		}
	}
	t.mu.Lock()
	for _, e := range t.pending[id] {
		keep(e)
	}
	if r := t.repeats[id]; r.Count > 0 {
		keep(r)
	}
	t.mu.Unlock()
	if limit > 0 && len(out) > limit {
		out = out[len(out)-limit:]
	}
	return out, nil
}

// readSegment yields each line that is an entry. A damaged line is left out: the timeline helps people and proves nothing.
func readSegment(path string, yield func(fleet.TimelineEntry)) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e fleet.TimelineEntry
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			yield(e)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil
	}
	return lines.Err()
}

// ForgetTimeline removes a node's timeline, when its record is dropped.
func (db *DB) ForgetTimeline(id fleet.NodeID) error {
	t := db.timeline
	if !nodeDir.MatchString(string(id)) {
		return nil
	}
	t.files.Lock()
	defer t.files.Unlock()
	t.mu.Lock()
	delete(t.pending, id)
	delete(t.repeats, id)
	t.mu.Unlock()
	return storeError("remove the timeline", os.RemoveAll(filepath.Join(t.dir, string(id))))
}
