package images

import (
	"bytes"
	"io"
	"path"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Format says how the bytes of an image's file become the contents of a disk.
type Format string

// The formats that can be written. The compressed ones contain a raw image.
const (
	Raw     Format = "raw"
	RawZstd Format = "raw.zst"
	RawGzip Format = "raw.gz"
	RawXZ   Format = "raw.xz"
	QCOW2   Format = "qcow2"
)

var formats = [...]Format{Raw, RawZstd, RawGzip, RawXZ, QCOW2}

func (f Format) known() bool {
	for _, g := range formats {
		if f == g {
			return true
		}
	}
	return false
}

func formatNames() []string {
	var names []string
	for _, f := range formats {
		names = append(names, string(f))
	}
	return names
}

// SniffLen is how many bytes of a file's head Sniff looks at.
const SniffLen = 64 << 10

type magic struct {
	name   string
	offset int
	bytes  string
	format Format // empty: recognised so that it can be refused by name
}

// Order matters: the first match wins, and an MBR's 55 AA says only that nothing better was found.
var magics = [...]magic{
	{"qcow2", 0, "QFI\xfb", QCOW2},
	{"zstd", 0, "\x28\xb5\x2f\xfd", RawZstd},
	{"gzip", 0, "\x1f\x8b\x08", RawGzip},
	{"xz", 0, "\xfd7zXZ\x00", RawXZ},
	{"VMDK", 0, "KDMV", ""},
	{"VMDK descriptor", 0, "# Disk DescriptorFile", ""},
	{"VHDX", 0, "vhdxfile", ""},
	{"VHD", 0, "conectix", ""},
	{"VDI", 0x40, "\x7f\x10\xda\xbe", ""},
	{"bzip2", 0, "BZh", ""},
	{"lz4", 0, "\x04\x22\x4d\x18", ""},
	{"lzip", 0, "LZIP", ""},
	{"zip", 0, "PK\x03\x04", ""},
	{"squashfs", 0, "hsqs", ""},
	{"cpio", 0, "070701", ""},
	{"ELF program", 0, "\x7fELF", ""},
	{"LUKS", 0, "LUKS\xba\xbe", ""},
	{"LVM", 512, "LABELONE", ""},
	{"GPT with 512-byte sectors", 512, "EFI PART", Raw},
	{"GPT with 4096-byte sectors", 4096, "EFI PART", Raw},
	{"tar", 257, "ustar", ""},
	{"MBR", 510, "\x55\xaa", Raw},
}

// Sniff names the format of a file by its head (SniffLen bytes, or the whole file where that is shorter).
// What is recognised as something else, and what cannot be a whole disk, is refused with MC-IMAGE-FORMAT.
func Sniff(head []byte) (Format, error) {
	// A skippable frame (RFC 8878, 3.1.2) may come before the first one of zstd: any of sixteen magics.
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}) {
		return RawZstd, nil
	}
	for _, m := range magics {
		if len(head) < m.offset+len(m.bytes) || string(head[m.offset:m.offset+len(m.bytes)]) != m.bytes {
			continue
		}
		if m.format == "" {
			return "", fleet.Errorf(fleet.Invalid, "MC-IMAGE-FORMAT", "byte %d: this is %s, which cannot be written to a disk", m.offset, m.name).
				WithHint("qemu-img convert -O qcow2 -c FILE NEW.qcow2 makes one of %s", strings.Join(formatNames(), ", "))
		}
		return m.format, nil
	}
	if text := bytes.TrimLeft(head, " \t\r\n\ufeff"); len(text) > 0 && text[0] == '<' {
		return "", fleet.Errorf(fleet.Invalid, "MC-IMAGE-FORMAT", "byte 0: this is a web page, not an image").
			WithHint("open the address in a browser: it probably asks for a login or names the real file")
	}
	return "", fleet.Errorf(fleet.Invalid, "MC-IMAGE-FORMAT", "byte 510: no partition table and no known format").
		WithHint("an image holds a whole disk with a partition table; make one of %s", strings.Join(formatNames(), ", "))
}

// claim returns the formats that a file's name allows; nil where the name claims nothing. ".img" claims nothing: both raw and qcow2
// files are published under it.
func claim(name string) []Format {
	switch strings.ToLower(path.Ext(name)) {
	case ".raw":
		return []Format{Raw}
	case ".zst", ".zstd":
		return []Format{RawZstd}
	case ".gz":
		return []Format{RawGzip}
	case ".xz":
		return []Format{RawXZ}
	case ".qcow2", ".qcow":
		return []Format{QCOW2}
	}
	return nil
}

// checkName refuses a file whose name says another format than its contents.
func checkName(name string, got Format) error {
	claimed := claim(name)
	if len(claimed) == 0 {
		return nil
	}
	for _, f := range claimed {
		if f == got {
			return nil
		}
	}
	return fleet.Errorf(fleet.Invalid, "MC-IMAGE-FORMAT", "%s: the name says %s, the contents are %s", name, claimed[0], got).
		WithHint("rename the file to what it is, or fetch it again")
}

func readHead(r io.Reader) ([]byte, error) {
	head := make([]byte, SniffLen)
	n, err := io.ReadFull(r, head)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return head[:n], err
}
