// Package efi writes the boot entries that let a machine start what was written to its disk.
package efi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
)

// Entry is what one of our boot entries says.
type Entry struct {
	Label string `json:"label"`
	// PartitionGUID is the ESP's unique GUID in the byte order of the disk.
	PartitionGUID [16]byte `json:"partition_guid"`
	// Number counts partitions from 1; StartLBA and SizeLBA are in the disk's sectors.
	Number   uint32 `json:"number"`
	StartLBA uint64 `json:"start_lba"`
	SizeLBA  uint64 `json:"size_lba"`
	// Path is the loader on that partition, with backslashes.
	Path string `json:"path"`
}

// LoadOption is one Boot#### variable (UEFI 2.10, 3.1.3).
type LoadOption struct {
	Attributes uint32
	Label      string
	// HD is the hard drive node of the path, where it has one with a GPT signature.
	HD *HardDrive
	// Path is the file node's text, "" where there is none.
	Path string
	// DevicePath is the whole list as it stands.
	DevicePath []byte
	// Data is what follows: optional data for the loader.
	Data []byte
}

// HardDrive is a Hard Drive Media Device Path with a GPT signature (UEFI 2.10, 10.3.5.1).
type HardDrive struct {
	Number            uint32
	StartLBA, SizeLBA uint64
	GUID              [16]byte
}

const (
	optionActive = 1
	nodeMedia    = 4
	subHardDrive = 1
	subFile      = 4
	nodeEnd      = 0x7f
	hdNodeBytes  = 42
)

// LabelPrefix begins the label of every entry of ours; by it we know later which entries we may remove. Optional data would be a surer mark, but
// shim takes it for the name of its second stage and systemd's stub for the kernel's command line.
const LabelPrefix = "metalctl: "

// Marshal renders the entry as a load option; LabelPrefix comes before its label.
func (e Entry) Marshal() ([]byte, error) {
	if e.Label == "" || strings.ContainsRune(e.Label, 0) {
		return nil, fmt.Errorf("boot entry label %q is empty or has a NUL", e.Label)
	}
	if !strings.HasPrefix(e.Path, `\`) || strings.ContainsRune(e.Path, 0) || strings.Contains(e.Path, "/") {
		return nil, fmt.Errorf("boot entry path %q is not a path with backslashes", e.Path)
	}
	if e.Number == 0 || e.StartLBA == 0 || e.SizeLBA == 0 || e.PartitionGUID == ([16]byte{}) {
		return nil, errors.New("boot entry without a partition")
	}
	le := binary.LittleEndian
	hd := make([]byte, hdNodeBytes)
	hd[0], hd[1], hd[2] = nodeMedia, subHardDrive, hdNodeBytes
	le.PutUint32(hd[4:], e.Number)
	le.PutUint64(hd[8:], e.StartLBA)
	le.PutUint64(hd[16:], e.SizeLBA)
	copy(hd[24:], e.PartitionGUID[:])
	hd[40], hd[41] = 2, 2 // GPT, signature is a GUID
	path := utf16z(e.Path)
	file := append([]byte{nodeMedia, subFile, 0, 0}, path...)
	le.PutUint16(file[2:], uint16(len(file)))
	list := append(append(hd, file...), nodeEnd, 0xff, 4, 0)
	b := le.AppendUint32(nil, optionActive)
	b = le.AppendUint16(b, uint16(len(list)))
	b = append(b, utf16z(LabelPrefix+e.Label)...)
	return append(b, list...), nil
}

func utf16z(s string) []byte {
	var b []byte
	for _, u := range append(utf16.Encode([]rune(s)), 0) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// ParseLoadOption reads a Boot#### variable's data.
func ParseLoadOption(b []byte) (LoadOption, error) {
	var o LoadOption
	if len(b) < 8 {
		return o, fmt.Errorf("a load option of %d bytes", len(b))
	}
	le := binary.LittleEndian
	o.Attributes = le.Uint32(b)
	pathBytes := int(le.Uint16(b[4:]))
	label, n, ok := cutUTF16(b[6:])
	if !ok {
		return o, errors.New("byte 6: the label does not end")
	}
	o.Label = label
	rest := b[6+n:]
	if pathBytes > len(rest) {
		return o, fmt.Errorf("byte 4: a device path of %d bytes where %d are left", pathBytes, len(rest))
	}
	o.DevicePath, o.Data = bytes.Clone(rest[:pathBytes]), bytes.Clone(rest[pathBytes:])
	return o, o.walk()
}

// walk looks at the nodes of the device path.
func (o *LoadOption) walk() error {
	le := binary.LittleEndian
	for at := 0; at < len(o.DevicePath); {
		node := o.DevicePath[at:]
		if len(node) < 4 {
			return fmt.Errorf("device path byte %d: half a node", at)
		}
		n := int(le.Uint16(node[2:]))
		if n < 4 || n > len(node) {
			return fmt.Errorf("device path byte %d: a node of %d bytes where %d are left", at, n, len(node))
		}
		node = node[:n]
		switch {
		case node[0] == nodeEnd && node[1] == 0xff:
			return nil // further instances of a path are alternatives
		case node[0] == nodeMedia && node[1] == subHardDrive && n == hdNodeBytes && node[41] == 2:
			o.HD = &HardDrive{le.Uint32(node[4:]), le.Uint64(node[8:]), le.Uint64(node[16:]), [16]byte(node[24:40])}
		case node[0] == nodeMedia && node[1] == subFile:
			if s, _, ok := cutUTF16(node[4:]); ok {
				o.Path = s
			}
		}
		at += n
	}
	return nil
}

// Ours reports whether this program made the entry.
func (o LoadOption) Ours() bool { return strings.HasPrefix(o.Label, LabelPrefix) }

func cutUTF16(b []byte) (s string, n int, ok bool) {
	var units []uint16
	for i := 0; i+1 < len(b); i += 2 {
		u := binary.LittleEndian.Uint16(b[i:])
		if u == 0 {
			return string(utf16.Decode(units)), i + 2, true
		}
		units = append(units, u)
	}
	return "", 0, false
}
