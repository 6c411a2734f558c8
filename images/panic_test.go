package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

// wantPanic checks that err is a panic with its stack, which names where.
func wantPanic(t *testing.T, err error, where string) {
	t.Helper()
	var p *fleet.Panic
	if !errors.As(err, &p) || !strings.Contains(p.Stack, where) {
		t.Errorf("got %v", err)
	}
}

// defective is a source with a defect in one of its methods.
type defective struct {
	Source
	read, close bool
}

func (d defective) Stream(ctx context.Context) (io.ReadCloser, error) {
	r, err := d.Source.Stream(ctx)
	return defectiveStream{r, d}, err
}

type defectiveStream struct {
	io.ReadCloser
	defective
}

func (s defectiveStream) Read(p []byte) (int, error) {
	if s.read {
		panic("a defect in Read")
	}
	return s.ReadCloser.Read(p)
}

func (s defectiveStream) Close() error {
	if s.close {
		panic("a defect in Close")
	}
	return s.ReadCloser.Close()
}

func TestAPanicOfASourceIsDecodesError(t *testing.T) {
	raw := disk(9 << 20)
	path := write(t, "x.raw", raw)
	tool(t, "zstd", "-q", "-k", path)
	for _, file := range []string{path, path + ".zst", write(t, "x.qcow2", qcow2(t, raw))} {
		img, err := Describe(t.Context(), file)
		if err != nil {
			t.Fatal(err)
		}
		src, err := OpenFile(file)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		for _, d := range []defective{{Source: src, read: true}, {Source: src, close: true}} {
			_, err := Decode(t.Context(), d, img, func(e Extent) error { e.Release(); return nil })
			wantPanic(t, err, "panic_test.go")
			if fleet.CodeOf(err) != "MC-IMAGE-DAMAGED" || !strings.Contains(err.Error(), "a defect in") {
				t.Errorf("%s: %v (%s)", img.Format, err, fleet.CodeOf(err))
			}
		}
	}
}

// tired is a hash that panics at the second block.
type tired struct {
	hash.Hash
	written int
}

func (h *tired) Write(p []byte) (int, error) {
	if h.written++; h.written == 2 {
		panic("a defect in the hash")
	}
	return h.Hash.Write(p)
}

func TestAPanicOfTheHashEndsTheFeed(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := &feed{blocks: make(chan *block, feedBlocks), cancel: cancel}
	// Without an end: only the panic ends the feed.
	go f.run(ctx, io.NopCloser(endless{}), newPool(feedBlocks, 4096), &tired{Hash: sha256.New()})
	wantPanic(t, f.verdict(), "panic_test.go")
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestAPanicBelowADecoderIsItsError(t *testing.T) {
	c := &counter{r: readFunc(func([]byte) (int, error) { panic("a defect below") })}
	_, err := io.ReadAll(c)
	wantPanic(t, err, "panic_test.go")
}

func TestAPanicOfADecoderEndsTheRead(t *testing.T) {
	f := newAhead(t.Context(), readFunc(func([]byte) (int, error) { panic("a defect in a decoder") }), newPool(2, 4096))
	for b := range f.blocks {
		b.release()
	}
	wantPanic(t, f.err, "panic_test.go")
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func TestAPanicOverClustersIsDecodesError(t *testing.T) {
	file := bytes.Repeat([]byte{7}, 1<<20)
	mapOf := func(runs ...run) *qcow2Map {
		return &qcow2Map{qcow2Header: qcow2Header{size: 128 << 10, clusterBits: 16}, runs: runs}
	}
	for name, c := range map[string]struct {
		m     *qcow2Map
		where string
	}{
		"of the walk":     {mapOf(run{kind: runData, host: 1 << 10, n: -5}), "qcow2_decode.go"},
		"of the unpacker": {mapOf(run{kind: runPacked, host: 1 << 10, n: 1000}, run{kind: runPacked, host: 1<<10 + 2, n: 10, guest: 64 << 10}), "qcow2_decode.go"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			f := &feed{blocks: make(chan *block, feedBlocks), cancel: cancel}
			go f.run(ctx, io.NopCloser(bytes.NewReader(file)), newPool(feedBlocks, BlockBytes), sha256.New())
			defer f.stop()
			d := &decoder{yield: func(e Extent) error { e.Release(); return nil }}
			wantPanic(t, d.placeClusters(ctx, c.m, &window{f: f, size: int64(len(file))}), c.where)
		})
	}
}
