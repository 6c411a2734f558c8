//go:build !ramdisk

package main

import (
	"bytes"
	"io"
	"sync"
	"time"
)

const (
	// ringBytes bounds what is kept of the log, ringLine one line of it.
	ringBytes = 1 << 20
	ringLine  = 8 << 10
)

// logRing passes on what is logged and keeps the end of it, in whole lines.
type logRing struct {
	to      io.Writer  // nil: kept only
	mu      sync.Mutex // guards the rest
	lines   [][]byte
	bytes   int
	dropped int64
	// unwritten counts the lines that to did not take since the first of them, for trouble; nil where it took the last one.
	unwritten int
	since     time.Time
	trouble   error
	cut       bool // to has the beginning of a line
}

// Write takes one or more whole lines, as slog's handlers write them. It never fails: a log that nobody takes, such as on a full disk, stops no server.
func (r *logRing) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pass(p)
	for line := range bytes.Lines(p) {
		if len(line) > ringLine {
			r.dropped += int64(len(line) - ringLine)
			line = append(bytes.Clone(line[:ringLine]), " … cut\n"...)
		} else {
			line = bytes.Clone(line)
		}
		r.lines = append(r.lines, line)
		r.bytes += len(line)
	}
	gone := 0
	for r.bytes > ringBytes {
		r.bytes -= len(r.lines[gone])
		r.dropped += int64(len(r.lines[gone]))
		r.lines[gone] = nil
		gone++
	}
	r.lines = r.lines[gone:]
	return len(p), nil
}

// pass writes to where the log goes; mu is held.
func (r *logRing) pass(p []byte) {
	if r.to == nil {
		return
	}
	if r.cut {
		if _, err := r.to.Write([]byte("\n")); err == nil {
			r.cut = false
		}
	}
	n, err := r.to.Write(p)
	if err == nil {
		r.unwritten, r.trouble = 0, nil
		return
	}
	if r.trouble == nil {
		r.since = time.Now()
	}
	r.cut = r.cut || n > 0
	r.unwritten, r.trouble = r.unwritten+bytes.Count(p[n:], []byte("\n")), err
}

// lost is how many lines were not passed on since when, and why the last one was not; nil where it was.
func (r *logRing) lost() (lines int, since time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unwritten, r.since, r.trouble
}

// tail returns what is kept, and how many bytes before it and within it are not.
func (r *logRing) tail() ([]byte, int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Join(r.lines, nil), r.dropped
}
