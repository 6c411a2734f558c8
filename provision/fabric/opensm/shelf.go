package opensm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/metalctl/metalctl/provision/fabric"
)

// shelf is the folder with the partition file. Beside the file itself there are
//
//	.good  the last one that every device was read back with,
//	.next  the one that is being brought in, until it is .good,
//	.lock  held by whoever changes any of them.
//
// A live file that is neither .good nor .next is somebody else's.
type shelf struct{ path string }

func (s shelf) good() string { return s.path + ".good" }
func (s shelf) next() string { return s.path + ".next" }

// read returns a file's text, and "" where it is not there.
func (s shelf) read(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read partitions: %w", err)
	}
	return string(b), nil
}

// write puts text to path so that a reader sees the old file or the new one, whole, also after a loss of power.
func (s shelf) write(path, text string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*")
	if err != nil {
		return fmt.Errorf("write partitions: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // it is renamed by then, or worthless
	_, err = tmp.WriteString(text)
	// The daemon may run as another user, and nothing in it is secret.
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write partitions: %w", err)
	}
	return nil
}

// settle makes .next the good one.
func (s shelf) settle() error {
	if err := os.Rename(s.next(), s.good()); err != nil {
		return fmt.Errorf("keep partitions: %w", err)
	}
	return syncDir(filepath.Dir(s.path))
}

// forget drops .next.
func (s shelf) forget() error {
	if err := os.Remove(s.next()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("drop partitions: %w", err)
	}
	return syncDir(filepath.Dir(s.path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lock waits for the shelf, among processes and goroutines, and returns what gives it back.
func (s shelf) lock(ctx context.Context) (func(), error) { return fabric.Lock(ctx, s.path+".lock") }

// mark stands for a text.
func mark(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}
