package ramdisk

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

// espFile is one file of the EFI system partition; folders come from its path.
type espFile struct {
	path string
	data []byte
}

const (
	fatSector     = 512
	fatRootSlots  = 512
	fatDate       = 0x5021 // 2020-01-01: the same input gives the same bytes
	fatMinCluster = 4085   // fewer clusters would be FAT12 (Microsoft's FAT specification, section 3.5)
	fatMaxCluster = 65524
)

// node is a folder or a file while the partition is laid out.
type node struct {
	name    string
	dir     bool
	data    []byte
	kids    []*node
	cluster int // first cluster; 0 for the root and empty files
}

func (n *node) child(name string) *node {
	for _, k := range n.kids {
		if k.name == name {
			return k
		}
	}
	return nil
}

// writeFAT16 returns a FAT16 file system with files in the order given, each in consecutive clusters, and where each
// file's data begins. Clusters are as large as fits, so that firmware walks short chains over slow media.
func writeFAT16(label string, serial uint32, files []espFile) (img []byte, offsets map[string]int64, err error) {
	root := &node{dir: true}
	var total int64
	for _, f := range files {
		if err := place(root, f); err != nil {
			return nil, nil, err
		}
		total += int64(len(f.data))
	}
	perCluster := 8
	for ; perCluster > 1 && total/int64(perCluster*fatSector) < fatMinCluster+64; perCluster /= 2 {
	}
	size := perCluster * fatSector
	next := 2
	assign(root, size, &next)
	clusters := max(next-2+16, fatMinCluster+16)
	if clusters > fatMaxCluster {
		return nil, nil, fmt.Errorf("%d bytes do not fit a FAT16 partition", total)
	}
	fatSectors := (2*(clusters+2) + fatSector - 1) / fatSector
	dataStart := 1 + 2*fatSectors + fatRootSlots*32/fatSector
	sectors := dataStart + clusters*perCluster
	img = make([]byte, sectors*fatSector)
	bootSector(img, label, serial, perCluster, fatSectors, sectors)

	fat := make([]byte, fatSectors*fatSector)
	le := binary.LittleEndian
	le.PutUint16(fat[0:], 0xfff8)
	le.PutUint16(fat[2:], 0xffff)
	offsets = map[string]int64{}
	at := func(cluster int) int { return (dataStart + (cluster-2)*perCluster) * fatSector }
	var write func(n, parent *node, path string)
	write = func(n, parent *node, path string) {
		content := n.data
		if n.dir {
			content = directory(n, parent, label)
		}
		if n == root {
			copy(img[(1+2*fatSectors)*fatSector:], content)
		} else if n.cluster != 0 {
			copy(img[at(n.cluster):], content)
			offsets[path] = int64(at(n.cluster))
			last := n.cluster + clustersOf(n, size) - 1
			for c := n.cluster; c < last; c++ {
				le.PutUint16(fat[2*c:], uint16(c+1))
			}
			le.PutUint16(fat[2*last:], 0xffff)
		}
		for _, k := range n.kids {
			write(k, n, strings.TrimPrefix(path+"/"+k.name, "/"))
		}
	}
	write(root, nil, "")
	copy(img[fatSector:], fat)
	copy(img[(1+fatSectors)*fatSector:], fat)
	return img, offsets, nil
}

func place(root *node, f espFile) error {
	n := root
	parts := strings.Split(f.path, "/")
	for i, name := range parts {
		if name == "" || len(name) > 255 {
			return fmt.Errorf("%q is not a path", f.path)
		}
		k := n.child(name)
		if k == nil {
			k = &node{name: name, dir: i < len(parts)-1}
			n.kids = append(n.kids, k)
		}
		if i == len(parts)-1 {
			k.data = f.data
		}
		n = k
	}
	return nil
}

// slots counts the 32-byte slots of a folder's entries.
func slots(n *node) int {
	count := 2 // "." and "..", or the label
	for _, k := range n.kids {
		count++
		if _, plain := shortName(k.name); !plain {
			count += (len(utf16.Encode([]rune(k.name))) + 12) / 13
		}
	}
	return count
}

func clustersOf(n *node, size int) int {
	bytes := len(n.data)
	if n.dir {
		bytes = slots(n) * 32
	}
	return (bytes + size - 1) / size
}

// assign gives every node its first cluster: folders first, so that what firmware reads to find a file lies together.
func assign(root *node, size int, next *int) {
	var files []*node
	queue := []*node{root}
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		for _, k := range n.kids {
			if k.dir {
				queue = append(queue, k)
			} else {
				files = append(files, k)
			}
		}
		if n != root {
			n.cluster = *next
			*next += clustersOf(n, size)
		}
	}
	for _, f := range files {
		if len(f.data) > 0 {
			f.cluster = *next
			*next += clustersOf(f, size)
		}
	}
}

func bootSector(img []byte, label string, serial uint32, perCluster, fatSectors, sectors int) {
	le := binary.LittleEndian
	copy(img, "\xeb\x3c\x90METALCTL")
	le.PutUint16(img[11:], fatSector)
	img[13] = byte(perCluster)
	le.PutUint16(img[14:], 1) // reserved sectors
	img[16] = 2               // file allocation tables
	le.PutUint16(img[17:], fatRootSlots)
	if sectors < 1<<16 {
		le.PutUint16(img[19:], uint16(sectors))
	} else {
		le.PutUint32(img[32:], uint32(sectors))
	}
	img[21] = 0xf8
	le.PutUint16(img[22:], uint16(fatSectors))
	le.PutUint16(img[24:], 32) // sectors per track, heads: what firmware expects of a disk without geometry
	le.PutUint16(img[26:], 64)
	img[36] = 0x80
	img[38] = 0x29
	le.PutUint32(img[39:], serial)
	copy(img[43:54], fmt.Sprintf("%-11s", label))
	copy(img[54:62], "FAT16   ")
	img[510], img[511] = 0x55, 0xaa
}

// directory returns a folder's entries; long names get VFAT slots.
func directory(n, parent *node, label string) []byte {
	var out []byte
	if parent == nil {
		out = append(out, slot(fmt.Sprintf("%-11s", label), 0x08, 0, 0)...)
	} else {
		out = append(out, slot(".          ", 0x10, n.cluster, 0)...)
		out = append(out, slot("..         ", 0x10, parent.cluster, 0)...)
	}
	for i, k := range n.kids {
		short, plain := shortName(k.name)
		if !plain {
			stem := strings.TrimRight(short[:6], " ")
			short = fmt.Sprintf("%-8s%s", fmt.Sprintf("%s~%d", stem, i%9+1), short[8:])
			out = append(out, longSlots(k.name, short)...)
		}
		attr := byte(0x20)
		if k.dir {
			attr = 0x10
		}
		out = append(out, slot(short, attr, k.cluster, len(k.data))...)
	}
	return out
}

func slot(name string, attr byte, cluster, size int) []byte {
	b := make([]byte, 32)
	copy(b, name[:11])
	b[11] = attr
	le := binary.LittleEndian
	le.PutUint16(b[16:], fatDate)
	le.PutUint16(b[18:], fatDate)
	le.PutUint16(b[24:], fatDate)
	le.PutUint16(b[26:], uint16(cluster))
	le.PutUint32(b[28:], uint32(size))
	return b
}

// shortName returns the 8.3 form padded to 11 bytes, and whether it says all that name does.
func shortName(name string) (short string, plain bool) {
	stem, ext, _ := strings.Cut(name, ".")
	plain = name == strings.ToUpper(name) && len(stem) <= 8 && len(ext) <= 3 && !strings.Contains(ext, ".")
	clean := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r == '.' || r > 0x7e || r <= ' ' {
				return -1
			}
			return r
		}, strings.ToUpper(s))
	}
	return fmt.Sprintf("%-8.8s%-3.3s", clean(stem), clean(ext)), plain
}

// longSlots returns the VFAT slots of name, last part first, bound to short by its checksum.
func longSlots(name, short string) []byte {
	var sum byte
	for i := range 11 {
		sum = sum>>1 | sum<<7
		sum += short[i]
	}
	units := utf16.Encode([]rune(name))
	parts := (len(units) + 12) / 13
	padded := append(units, 0)
	for len(padded) < parts*13 {
		padded = append(padded, 0xffff)
	}
	var out []byte
	for p := parts; p >= 1; p-- {
		b := make([]byte, 32)
		b[0] = byte(p)
		if p == parts {
			b[0] |= 0x40
		}
		b[11], b[13] = 0x0f, sum
		for i := range 13 {
			at := 1 + 2*i
			if i >= 11 {
				at = 28 + 2*(i-11)
			} else if i >= 5 {
				at = 14 + 2*(i-5)
			}
			binary.LittleEndian.PutUint16(b[at:], padded[(p-1)*13+i])
		}
		out = append(out, b...)
	}
	return out
}
