package disk

import (
	"errors"
	"fmt"
	"os"
)

// signature is what a system would recognise a disk's contents by; off is from the disk's beginning, or, where negative, from its end.
type signature struct {
	name  string
	off   int64
	bytes string
}

var signatures = [...]signature{
	{"MBR", 510, "\x55\xaa"},
	{"GPT", 512, "EFI PART"},
	{"GPT (4096-byte sectors)", 4096, "EFI PART"},
	{"GPT backup", -512, "EFI PART"},
	{"GPT backup (4096-byte sectors)", -4096, "EFI PART"},
	{"ext2/3/4", 1080, "\x53\xef"},
	{"xfs", 0, "XFSB"},
	{"btrfs", 65600, "_BHRfS_M"},
	{"f2fs", 1024, "\x10\x20\xf5\xf2"},
	{"squashfs", 0, "hsqs"},
	{"erofs", 1024, "\xe2\xe1\xf5\xe0"},
	{"iso9660", 32769, "CD001"},
	{"ntfs", 3, "NTFS    "},
	{"exfat", 3, "EXFAT   "},
	{"vfat", 54, "FAT1"},
	{"vfat", 82, "FAT32"},
	{"swap", 4086, "SWAPSPACE2"},
	{"LUKS", 0, "LUKS\xba\xbe"},
	{"LUKS2 second header", 16384, "SKUL\xba\xbe"},
	{"LVM", 0, "LABELONE"},
	{"LVM", 512, "LABELONE"},
	{"LVM", 1024, "LABELONE"},
	{"LVM", 1536, "LABELONE"},
	{"bcache or bcachefs", 4120, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
	{"Linux RAID 1.1", 0, "\xfc\x4e\x2b\xa9"},
	{"Linux RAID 1.2", 4096, "\xfc\x4e\x2b\xa9"},
	{"Intel RAID", -1024, "Intel Raid ISM Cfg Sig. "},
	{"DDF RAID", -512, "\xde\x11\xde\x11"},
	{"ZFS", 131072, "\x0c\xb1\xba\x00\x00\x00\x00\x00"},
	{"ZFS", 135168, "\x0c\xb1\xba\x00\x00\x00\x00\x00"},
	{"VMFS", 1048576, "\x0d\xd0\x01\xc0"},
	{"Ceph BlueStore", 0, "bluestore block device"},
}

// Signatures names the partition tables, file systems and volume managers that the disk's two ends show; empty for a clean disk.
func Signatures(dev Device) (names []string, err error) {
	h, err := open(dev, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("look for signatures: %w", err)
	}
	defer func() { err = errors.Join(err, h.close()) }()
	return h.signatures()
}

const signatureSpan = 2 << 20

func (h *handle) signatures() ([]string, error) {
	n := min(signatureSpan, h.size)
	head, tail := AlignedBytes(int(n)), AlignedBytes(int(n))
	if _, err := h.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("look for signatures: %w", err)
	}
	if _, err := h.ReadAt(tail, h.size-n); err != nil {
		return nil, fmt.Errorf("look for signatures: %w", err)
	}
	return findSignatures(head, tail, h.size), nil
}

func findSignatures(head, tail []byte, size int64) []string {
	var names []string
	add := func(name string) {
		for _, n := range names {
			if n == name {
				return
			}
		}
		names = append(names, name)
	}
	match := func(b []byte, off int64, want string) bool {
		return off >= 0 && off+int64(len(want)) <= int64(len(b)) && string(b[off:off+int64(len(want))]) == want
	}
	for _, s := range signatures {
		if s.off >= 0 && match(head, s.off, s.bytes) || s.off < 0 && match(tail, int64(len(tail))+s.off, s.bytes) {
			add(s.name)
		}
	}
	// Linux RAID 1.0 stands 8 KiB before the end at a multiple of 4 KiB, 0.90 in the last 64 KiB block (md(4)).
	start := size - int64(len(tail))
	for name, at := range map[string]int64{"Linux RAID 1.0": (size - 8192) &^ 4095, "Linux RAID 0.90": size&^65535 - 65536} {
		if match(tail, at-start, "\xfc\x4e\x2b\xa9") {
			add(name)
		}
	}
	return names
}
