package rdma

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

// maxFile is the most that is read of any file: attributes have a page, the largest EEPROM 1 KiB, vital product data 32 KiB.
const maxFile = 64 << 10

// tree reads attributes below a root.
type tree struct{ root string }

func newTree(root string) tree {
	if root == "" {
		root = "/"
	}
	return tree{filepath.Clean(root)}
}

func (t tree) isLive() bool { return t.root == "/" }

func (t tree) path(parts ...string) string {
	return filepath.Join(append([]string{t.root}, parts...)...)
}

func (t tree) bytes(parts ...string) ([]byte, error) {
	f, err := os.Open(t.path(parts...))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

func (t tree) text(parts ...string) (string, error) {
	b, err := t.bytes(parts...)
	return strings.ToValidUTF8(strings.TrimSpace(string(b)), "?"), err
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
		return 0, fmt.Errorf("%s holds %.40q, not a number", filepath.Join(parts...), s)
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

// target resolves a link to the folder that it leads to, or "".
func (t tree) target(parts ...string) string {
	p, err := filepath.EvalSymlinks(t.path(parts...))
	if err != nil {
		return ""
	}
	return p
}

// plain is an error's text with paths as the machine has them.
func (t tree) plain(err error) string {
	if t.isLive() {
		return err.Error()
	}
	return strings.ReplaceAll(err.Error(), t.root, "")
}
