package images

import (
	"context"
	"fmt"
	"io"
	"os"
)

// Source is where an image's file is read from.
type Source interface {
	// Size is the file's length in bytes, or -1 where it is not known.
	Size() int64
	// Stream reads the file once from its beginning; the caller closes it. A read fails once ctx has ended.
	Stream(ctx context.Context) (io.ReadCloser, error)
	// ReadRange reads exactly n bytes from off.
	ReadRange(ctx context.Context, off, n int64) ([]byte, error)
}

// File is a Source over a file of this machine.
type File struct {
	f    *os.File
	size int64
}

// OpenFile opens path; the caller closes the File.
func OpenFile(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("open image %s: not a regular file", path)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &File{f: f, size: info.Size()}, nil
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }

// Size is the file's length when it was opened.
func (f *File) Size() int64 { return f.size }

// Stream reads the file from its beginning, independent of other streams.
func (f *File) Stream(ctx context.Context) (io.ReadCloser, error) {
	return &fileStream{ctx: ctx, SectionReader: io.NewSectionReader(f.f, 0, f.size)}, nil
}

// ReadRange reads exactly n bytes from off.
func (f *File) ReadRange(_ context.Context, off, n int64) ([]byte, error) {
	b := make([]byte, n)
	if _, err := f.f.ReadAt(b, off); err != nil {
		return nil, fmt.Errorf("read %d bytes at %d: %w", n, off, err)
	}
	return b, nil
}

type fileStream struct {
	ctx context.Context // good for one stream
	*io.SectionReader
}

func (s *fileStream) Read(p []byte) (int, error) {
	if err := context.Cause(s.ctx); err != nil {
		return 0, err
	}
	return s.SectionReader.Read(p)
}

func (s *fileStream) Close() error { return nil }
