package kmsg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Device is the kernel's log, a record a read (Documentation/ABI/testing/dev-kmsg).
const Device = "/dev/kmsg"

// maxRecords bounds what one call of Each reads: rings hold some hundred thousand lines at most.
const maxRecords = 1 << 20

// Log reads the kernel's log, or a recording of it: a file with a record a line. It is for one goroutine.
type Log struct {
	path string
	fd   int // -1 for a recording, which is opened anew by each reading as it may have been replaced
	read int // lines of a recording that were read
}

// Open opens the log at path: Device, or a recording's file.
func Open(path string) (*Log, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open the kernel's log: %w", err)
	}
	if info.Mode().IsRegular() {
		return &Log{path: path, fd: -1}, nil
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &Log{path: path, fd: fd}, nil
}

// Close lets go of the log.
func (l *Log) Close() error {
	if l.fd < 0 {
		return nil
	}
	return unix.Close(l.fd)
}

// Skip passes over what is there now.
func (l *Log) Skip(ctx context.Context) error {
	if l.fd < 0 {
		return l.Each(ctx, func(string) {})
	}
	if _, err := unix.Seek(l.fd, 0, 2); err != nil {
		return fmt.Errorf("go to the end of %s: %w", l.path, err)
	}
	return nil
}

// Each gives every record that is there and was not given before, and does not wait for more. Where the ring overtook the reader it goes on with the oldest
// record that there is: the numbers of the records tell.
func (l *Log) Each(ctx context.Context, each func(record string)) error {
	if l.fd < 0 {
		return l.lines(ctx, each)
	}
	b := make([]byte, 8192) // one read is one record, at most CONSOLE_EXT_LOG_MAX long
	for range maxRecords {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Read(l.fd, b)
		switch {
		case errors.Is(err, unix.EAGAIN), err == nil && n == 0:
			return nil
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("read %s: %w", l.path, err)
		}
		each(string(b[:n]))
	}
	return nil
}

func (l *Log) lines(ctx context.Context, each func(record string)) error {
	b, err := os.ReadFile(l.path)
	if err != nil {
		return fmt.Errorf("read the kernel's log: %w", err)
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if n++; n > l.read {
			each(line)
		}
	}
	l.read = n
	return nil
}
