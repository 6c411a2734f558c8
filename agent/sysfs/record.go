package sysfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Limits of a recording: a machine with eight GPUs has some 5,000 files of 3 MiB in all.
const (
	maxRecorded      = 200_000
	maxRecordedBytes = 256 << 20
	maxLinks         = 40
)

// Recorder keeps what is read of a tree, as it was read: a folder that Write makes of it answers the same questions alike. Its zero value is ready, and safe for
// concurrent use.
type Recorder struct {
	mu    sync.Mutex
	files map[string][]byte // by the path behind all links
	links map[string]string // target as in the tree
	dirs  map[string]bool
	plain map[string]bool // paths that are known to be no links
	bytes int
	err   error
}

// Recorded is the tree whose reading is kept; with a nil recorder it is the tree itself.
func (t Tree) Recorded(r *Recorder) Tree {
	t.recorder = r
	return t
}

// Aside is the tree without its recorder: for what must not be kept as it is.
func (t Tree) Aside() Tree { return t.Recorded(nil) }

// Keep enters a file that the tree does not have, or has with more in it; path is below the root and behind no link. Without a recorder nothing happens.
func (t Tree) Keep(path string, content []byte) {
	if t.recorder != nil {
		t.recorder.Keep(path, content)
	}
}

// Keep enters a file; path is below the recording's root.
func (r *Recorder) Keep(path string, content []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keepLocked(filepath.Clean(path), content)
}

func (r *Recorder) startLocked() {
	if r.files == nil {
		r.files, r.links, r.dirs, r.plain = map[string][]byte{}, map[string]string{}, map[string]bool{}, map[string]bool{}
	}
}

// keepLocked enters a file by the path behind all links.
func (r *Recorder) keepLocked(path string, content []byte) {
	if !filepath.IsLocal(path) {
		return
	}
	r.startLocked()
	old, known := r.files[path]
	if known && len(content) == 0 {
		return // its name was seen; its content is known already
	}
	r.bytes += len(content) - len(old)
	if r.err != nil || r.bytes > maxRecordedBytes || len(r.files)+len(r.links)+len(r.dirs) >= maxRecorded {
		r.err = fmt.Errorf("the machine shows more than %d files or %d bytes", maxRecorded, maxRecordedBytes)
		return
	}
	r.files[path] = slices.Clone(content)
}

// saw enters a path that was looked at, with the links on its way, and what is there: content where it is a file that was read.
func (t Tree) saw(content []byte, parts ...string) {
	if t.recorder == nil {
		return
	}
	r := t.recorder
	r.mu.Lock()
	defer r.mu.Unlock()
	r.startLocked()
	if real, ok := r.followLocked(t.root, filepath.Join(parts...), 0); ok {
		r.enterLocked(t.root, real, content)
	}
}

// enterLocked enters what is at a path behind all links.
func (r *Recorder) enterLocked(root, path string, content []byte) {
	if r.dirs[path] {
		return
	}
	info, err := os.Lstat(filepath.Join(root, path))
	switch {
	case err != nil: // not there, or nobody may know: a recording cannot tell these apart
	case info.IsDir():
		r.dirs[path] = true
	case info.Mode().IsRegular():
		r.keepLocked(path, content)
	}
}

// followLocked is the path behind all links of path, which it enters; false where they lead out of the tree, in a circle, or nowhere.
func (r *Recorder) followLocked(root, path string, depth int) (string, bool) {
	if depth > maxLinks || !filepath.IsLocal(path) {
		return "", false
	}
	done := ""
	rest := strings.Split(filepath.Clean(path), "/")
	for i, name := range rest {
		at := filepath.Join(done, name)
		target, link := r.links[at]
		if !link && !r.plain[at] {
			info, err := os.Lstat(filepath.Join(root, at))
			if err != nil {
				return "", false
			}
			if link = info.Mode()&fs.ModeSymlink != 0; link {
				if target, err = os.Readlink(filepath.Join(root, at)); err != nil {
					return "", false
				}
			}
		}
		if !link {
			r.plain[at] = true
			done = at
			continue
		}
		if filepath.IsAbs(target) { // below another root it would lead out of the recording
			inside, err := filepath.Rel(filepath.Join("/", done), target)
			if err != nil || root != "/" {
				return "", false
			}
			target = inside
		}
		r.links[at] = target
		return r.followLocked(root, filepath.Join(append([]string{done, target}, rest[i+1:]...)...), depth+1)
	}
	return done, true
}

// sawFolder enters a folder with the names in it. What a name stands for is entered without its content: only what is read has one.
func (t Tree) sawFolder(entries []fs.DirEntry, parts ...string) {
	if t.recorder == nil {
		return
	}
	t.saw(nil, parts...)
	for _, e := range entries {
		t.saw(nil, append(slices.Clone(parts), e.Name())...)
	}
}

// Device is the path behind all links of a path that was seen, or "".
func (r *Recorder) Device(path string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.startLocked()
	done := "."
	rest := strings.Split(filepath.Clean(path), "/")
	for hops := 0; len(rest) > 0; rest = rest[1:] {
		done = filepath.Join(done, rest[0])
		if target, link := r.links[done]; link {
			if hops++; hops > maxLinks {
				return ""
			}
			rest = append([]string{""}, append(strings.Split(filepath.Join(filepath.Dir(done), target), "/"), rest[1:]...)...)
			done = "."
		}
	}
	if !r.dirs[done] {
		return ""
	}
	return done
}

// Partial is the name under which Write makes a folder before it is whole.
func Partial(dir string) string { return filepath.Clean(dir) + ".partial" }

// Write makes a folder of what was recorded. It is made beside as dir.partial and gets its name when it is whole; a dir or a dir.partial that is there is an
// error that wraps fs.ErrExist. After an error nothing is left.
func (r *Recorder) Write(dir string) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	if _, err := os.Lstat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, &fs.PathError{Op: "make", Path: dir, Err: fs.ErrExist})
	}
	partial := Partial(dir)
	if err := os.Mkdir(partial, 0o755); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(partial))
		}
	}()
	for path := range r.dirs {
		if err := os.MkdirAll(filepath.Join(partial, path), 0o755); err != nil {
			return err
		}
	}
	for path, content := range r.files {
		at := filepath.Join(partial, path)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(at, content, 0o644); err != nil {
			return err
		}
	}
	for path, target := range r.links { // last: nothing is written through one
		at := filepath.Join(partial, path)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(target, at); err != nil {
			return err
		}
	}
	if err := syncAll(partial); err != nil {
		return err
	}
	return os.Rename(partial, dir)
}

// syncAll waits until what was written to a folder's file system is on its disk.
func syncAll(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("write the recording to its disk: %w", err)
	}
	return nil
}
