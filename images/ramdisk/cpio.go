package ramdisk

import (
	"bytes"
	"fmt"
	"path"
	"sort"
	"strings"
)

// entry is one thing in the initramfs.
type entry struct {
	name  string // without a leading slash
	mode  uint32 // type and permissions, as in stat(2)
	data  []byte // content, or the target of a link
	major uint32 // of a device
	minor uint32
}

const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
	typeChar = 0o020000
)

// archive collects entries and writes them as one newc cpio, sorted, so that the same content gives the same bytes.
type archive struct{ entries map[string]entry }

func newArchive() *archive { return &archive{entries: map[string]entry{}} }

// add puts e and the folders above it into the archive; the last entry of a name wins.
func (a *archive) add(e entry) {
	for dir := path.Dir(e.name); dir != "."; dir = path.Dir(dir) {
		if _, ok := a.entries[dir]; !ok {
			a.entries[dir] = entry{name: dir, mode: typeDir | 0o755}
		}
	}
	a.entries[e.name] = e
}

func (a *archive) file(name string, mode uint32, data []byte) {
	a.add(entry{name: strings.TrimPrefix(name, "/"), mode: typeFile | mode, data: data})
}

// size is the sum of the contents in bytes.
func (a *archive) size() (n int64) {
	for _, e := range a.entries {
		n += int64(len(e.data))
	}
	return n
}

// bytes returns the archive in the "newc" form (Documentation/driver-api/early-userspace/buffer-format.rst).
// Inode numbers begin at first, so that several archives of one initramfs do not collide as hard links.
func (a *archive) bytes(first int) []byte {
	names := make([]string, 0, len(a.entries))
	for name := range a.entries {
		names = append(names, name)
	}
	sort.Strings(names)
	var b bytes.Buffer
	for i, name := range names {
		writeEntry(&b, a.entries[name], first+i)
	}
	writeEntry(&b, entry{name: "TRAILER!!!"}, 0)
	return b.Bytes()
}

func writeEntry(b *bytes.Buffer, e entry, inode int) {
	links := 1
	if e.mode&0o170000 == typeDir {
		links = 2
	}
	fmt.Fprintf(b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		inode, e.mode, 0, 0, links, 0, len(e.data), 0, 0, e.major, e.minor, len(e.name)+1, 0)
	b.WriteString(e.name)
	b.WriteByte(0)
	pad4(b)
	b.Write(e.data)
	pad4(b)
}

func pad4(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}
