// Package sysfs reads the files by which a kernel describes its machine: this machine's, or a recording's below a folder.
package sysfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// MaxFile is the most bytes of a file that is read: attributes have a page, tables a few dozen.
const MaxFile = 1 << 20

// Tree reads attributes below a root: this machine's, or a recording's.
type Tree struct {
	root     string
	recorder *Recorder // nil: nothing is kept
}

// New returns the tree below a root; "" is this machine.
func New(root string) Tree {
	if root == "" {
		root = "/"
	}
	return Tree{root: filepath.Clean(root)}
}

// Live reports whether the tree is the machine itself.
func (t Tree) Live() bool { return t.root == "/" }

// Path is where a file of the tree lies on this machine.
func (t Tree) Path(parts ...string) string {
	return filepath.Join(append([]string{t.root}, parts...)...)
}

// Bytes returns a file's content, at most MaxFile of it.
func (t Tree) Bytes(parts ...string) ([]byte, error) {
	f, err := os.Open(t.Path(parts...))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxFile))
	if err == nil {
		t.saw(b, parts...)
	}
	return b, err
}

// Text returns a file's content without the space around it.
func (t Tree) Text(parts ...string) (string, error) {
	b, err := t.Bytes(parts...)
	return strings.ToValidUTF8(strings.TrimSpace(strings.TrimRight(string(b), "\x00")), "?"), err
}

// Try is Text, and "" for what cannot be read.
func (t Tree) Try(parts ...string) string {
	s, err := t.Text(parts...)
	if err != nil {
		return ""
	}
	return s
}

// Number returns the integer that a file holds, decimal or with the prefix of another base.
func (t Tree) Number(parts ...string) (int64, error) {
	s, err := t.Text(parts...)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("%s holds %q, not a number", filepath.Join(parts...), s)
	}
	return n, nil
}

// NumberOr is Number, and or for what cannot be read.
func (t Tree) NumberOr(or int64, parts ...string) int64 {
	if n, err := t.Number(parts...); err == nil {
		return n
	}
	return or
}

// List returns the names in a folder, sorted; a folder that is not there is empty.
func (t Tree) List(parts ...string) ([]string, error) {
	entries, err := os.ReadDir(t.Path(parts...))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	t.sawFolder(entries, parts...)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Exists reports whether a path is there.
func (t Tree) Exists(parts ...string) bool {
	_, err := os.Stat(t.Path(parts...))
	t.saw(nil, parts...)
	return err == nil
}

// Device resolves a link such as /sys/block/sda to the folder of its device, as a path below the root, or "".
func (t Tree) Device(parts ...string) string {
	p, err := filepath.EvalSymlinks(t.Path(parts...))
	if err != nil {
		return ""
	}
	t.saw(nil, parts...)
	root, err := filepath.EvalSymlinks(t.root)
	if err != nil {
		return ""
	}
	rel, err := filepath.Rel(root, p)
	if err != nil || strings.HasPrefix(rel, "..") {
		return ""
	}
	return "/" + rel
}

// Base is the last name that a link leads to, or "".
func (t Tree) Base(parts ...string) string {
	if d := t.Device(parts...); d != "" {
		return filepath.Base(d)
	}
	return ""
}

// Plain is an error's text with paths as the machine has them, whatever the root.
func (t Tree) Plain(err error) string {
	s := err.Error()
	if !t.Live() {
		s = strings.ReplaceAll(s, t.root, "")
	}
	return s
}

// PCIAddress returns the last PCI address on a device's path, or "".
func PCIAddress(device string) string {
	found := ""
	for _, part := range strings.Split(device, "/") {
		if IsPCIAddress(part) {
			found = part
		}
	}
	return found
}

// IsPCIAddress reports whether s looks like 0000:3b:00.0; domains may have more digits (VMD, Hyper-V).
func IsPCIAddress(s string) bool {
	n := len(s)
	if n < 12 || s[n-2] != '.' || s[n-5] != ':' || s[n-8] != ':' {
		return false
	}
	return strings.Trim(s, "0123456789abcdef:.") == ""
}
