//go:build !ramdisk

package main

import (
	"bytes"
	"sync"
)

const (
	// ringBytes bounds what is kept of the log, ringLine one line of it.
	ringBytes = 1 << 20
	ringLine  = 8 << 10
)

// logRing keeps the end of what was logged, in whole lines.
type logRing struct {
	mu      sync.Mutex // guards the rest
	lines   [][]byte
	bytes   int
	dropped int64
}

// Write takes one or more whole lines, as slog's handlers write them. It never fails.
func (r *logRing) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
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

// tail returns what is kept, and how many bytes before it and within it are not.
func (r *logRing) tail() ([]byte, int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Join(r.lines, nil), r.dropped
}
