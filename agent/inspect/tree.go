package inspect

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

// maxAttribute is the most bytes of a file that is read: sysfs attributes have a page, tables a few dozen.
const maxAttribute = 1 << 20

// tree reads attributes below a root: this machine's, or a recording's.
type tree struct{ root string }

func newTree(root string) tree {
	if root == "" {
		root = "/"
	}
	return tree{filepath.Clean(root)}
}

// live reports whether the tree is the machine itself.
func (t tree) live() bool { return t.root == "/" }

func (t tree) path(parts ...string) string {
	return filepath.Join(append([]string{t.root}, parts...)...)
}

func (t tree) bytes(parts ...string) ([]byte, error) {
	f, err := os.Open(t.path(parts...))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxAttribute))
}

// text returns a file's content without the space around it.
func (t tree) text(parts ...string) (string, error) {
	b, err := t.bytes(parts...)
	return strings.ToValidUTF8(strings.TrimSpace(strings.TrimRight(string(b), "\x00")), "?"), err
}

// try is text, and "" for what cannot be read.
func (t tree) try(parts ...string) string {
	s, err := t.text(parts...)
	if err != nil {
		return ""
	}
	return s
}

func (t tree) number(parts ...string) (int64, error) {
	s, err := t.text(parts...)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("%s holds %q, not a number", filepath.Join(parts...), s)
	}
	return n, nil
}

// numberOr is number, and or for what cannot be read.
func (t tree) numberOr(or int64, parts ...string) int64 {
	if n, err := t.number(parts...); err == nil {
		return n
	}
	return or
}

// list returns the names in a folder, sorted; a folder that is not there is empty.
func (t tree) list(parts ...string) ([]string, error) {
	entries, err := os.ReadDir(t.path(parts...))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (t tree) exists(parts ...string) bool {
	_, err := os.Stat(t.path(parts...))
	return err == nil
}

// device resolves a link such as /sys/block/sda to the folder of its device, as a path below the root, or "".
func (t tree) device(parts ...string) string {
	p, err := filepath.EvalSymlinks(t.path(parts...))
	if err != nil {
		return ""
	}
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

// base is the last name that a link leads to, or "".
func (t tree) base(parts ...string) string {
	if d := t.device(parts...); d != "" {
		return filepath.Base(d)
	}
	return ""
}

// plain is an error's text with paths as the machine has them, whatever the root.
func (t tree) plain(err error) string {
	s := err.Error()
	if !t.live() {
		s = strings.ReplaceAll(s, t.root, "")
	}
	return s
}

// pciAddress returns the last PCI address on a device's path, or "".
func pciAddress(device string) string {
	found := ""
	for _, part := range strings.Split(device, "/") {
		if isPCIAddress(part) {
			found = part
		}
	}
	return found
}

// isPCIAddress reports whether s looks like 0000:3b:00.0; domains may have more digits (VMD, Hyper-V).
func isPCIAddress(s string) bool {
	n := len(s)
	if n < 12 || s[n-2] != '.' || s[n-5] != ':' || s[n-8] != ':' {
		return false
	}
	return strings.Trim(s, "0123456789abcdef:.") == ""
}
