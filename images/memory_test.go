package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"hash"
	"io"
)

// memory is a Source of bytes.
type memory []byte

func (m memory) Size() int64 { return int64(len(m)) }

func (m memory) Stream(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(m)), nil
}

func (m memory) ReadRange(_ context.Context, off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off+n > int64(len(m)) {
		return nil, io.ErrUnexpectedEOF
	}
	return bytes.Clone(m[off : off+n]), nil
}

func newSHA() hash.Hash { return sha256.New() }
