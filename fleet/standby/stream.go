package standby

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// open makes ctx the only stream.
func (h *Hub) open(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stream != nil {
		h.stream()
	}
	h.streams++
	h.stream = cancel
	mine := h.streams
	return ctx, func() {
		cancel()
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.streams == mine {
			h.stream = nil
		}
	}
}

func (h *Hub) serveStream(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	rev, err := strconv.ParseInt(q.Get("revision"), 10, 64)
	if err != nil {
		h.Refuse(w, r, fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "revision is no number"))
		return
	}
	if err := h.record(r.Context(), fleet.Follower{URL: q.Get("url"), Nodes: q.Get("nodes")}); err != nil {
		h.Refuse(w, r, err)
		return
	}
	ctx, end := h.open(r.Context())
	defer end()
	pos := fleet.Position{Epoch: q.Get("epoch"), Revision: fleet.Revision(rev), Chain: q.Get("chain")}
	seq, err := h.Log.Follow(pos)
	copying := fleet.CodeOf(err) == "MC-STANDBY-BEHIND"
	if err != nil && !copying {
		h.Refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	out := &flusher{w: bufio.NewWriterSize(w, chunkSize), control: http.NewResponseController(w)}
	err = writeJSON(out.w, kindHello, hello{Format: format, Epoch: h.Log.Position().Epoch, Copy: copying})
	if err == nil && copying {
		seq, err = h.sendCopy(ctx, out)
	}
	if err == nil {
		err = h.sendLog(ctx, out, seq)
	}
	if err != nil && ctx.Err() == nil {
		h.Logger.Info("the standby's stream ended", "peer", q.Get("url"), "err", err)
	}
}

// flusher sends what is written, with a deadline for each piece.
type flusher struct {
	w       *bufio.Writer
	control *http.ResponseController
}

func (f *flusher) flush() error {
	f.control.SetWriteDeadline(time.Now().Add(time.Minute)) //nolint:errcheck // a writer without deadlines (tests) cannot stall
	return errors.Join(f.w.Flush(), f.control.Flush())
}

// sendCopy writes the whole store, and returns the entry that it leads to.
func (h *Hub) sendCopy(ctx context.Context, out *flusher) (int64, error) {
	dir, err := os.MkdirTemp(h.Dir, ".standby-*")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "copy")
	pos, err := h.Files.CopyFile(ctx, path)
	if err != nil {
		return 0, err
	}
	seq, err := h.Log.Follow(pos)
	if err != nil {
		return 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	d, sum, buf := done{Position: pos}, sha256.New(), make([]byte, chunkSize)
	for ctx.Err() == nil {
		n, err := f.Read(buf)
		if n > 0 {
			sum.Write(buf[:n])
			d.SizeBytes += int64(n)
			if err := errors.Join(writeMessage(out.w, kindChunk, buf[:n]), out.flush()); err != nil {
				return 0, err
			}
		}
		if err == io.EOF {
			d.SHA256 = hex.EncodeToString(sum.Sum(nil))
			return seq, errors.Join(writeJSON(out.w, kindDone, d), out.flush())
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, ctx.Err()
}

// tick is where this server is now, and how late it is.
func (h *Hub) tick(kind byte) tick {
	h.mu.Lock()
	defer h.mu.Unlock()
	// The time is taken first: whoever has that position had all that was there then.
	b := beat{at: h.Mono()}
	t := tick{}
	if h.Tenure != nil && kind == kindTick {
		t.Run, t.Beat = h.Tenure.Beat()
	}
	t.Position = h.Log.Position()
	b.revision = t.Position.Revision
	if h.beats = append(h.beats, b); len(h.beats) > maxBeats {
		h.beats = h.beats[1:]
	}
	return t
}

// sendLog writes what is committed, as it is, until ctx ends.
func (h *Hub) sendLog(ctx context.Context, out *flusher, seq int64) error {
	for {
		wait, cancel := context.WithTimeout(ctx, tickEvery)
		entries, err := h.Log.LogAfter(wait, seq)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		for _, e := range entries {
			if err := writeEntry(out.w, e); err != nil {
				return err
			}
			seq = e.Seq
		}
		kind := kindTick
		if h.StepDown == nil && len(entries) == 0 {
			kind = kindEnd
		}
		if err := errors.Join(writeJSON(out.w, kind, h.tick(kind)), out.flush()); err != nil {
			return err
		}
	}
}
