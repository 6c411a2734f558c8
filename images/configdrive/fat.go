package configdrive

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

// The FAT volume is written once and whole, so this is a layout, not a file system: boot sector, two FATs, root directory, then every
// directory and file as one consecutive run of clusters (Microsoft FAT specification 1.03).
const (
	sectorBytes    = 512
	clusterSectors = 4
	clusterBytes   = sectorBytes * clusterSectors
	rootEntries    = 512
	dirEntryBytes  = 32
	fat12Clusters  = 4085 // from this count on the volume is FAT16
	minVolumeBytes = 1 << 20
	// fatDate is 1980-01-01, the first day a FAT can name: the same content always makes the same bytes.
	fatDate = 1<<5 | 1
)

type entry struct {
	name     string
	data     []byte
	children []*entry // a directory, where data is nil
}

func (e *entry) dir() bool { return e.data == nil }

// tree makes directories of slash-separated names; the order is that of files, so it is up to the caller to be deterministic.
func tree(files []file) *entry {
	root := &entry{}
	for _, f := range files {
		at := root
		parts := strings.Split(f.name, "/")
		for _, part := range parts[:len(parts)-1] {
			at = at.child(part)
		}
		data := f.data
		if data == nil {
			data = []byte{}
		}
		at.children = append(at.children, &entry{name: parts[len(parts)-1], data: data})
	}
	return root
}

func (e *entry) child(name string) *entry {
	for _, c := range e.children {
		if c.name == name && c.dir() {
			return c
		}
	}
	c := &entry{name: name}
	e.children = append(e.children, c)
	return c
}

// records is how many directory records e needs in its parent: long-name pieces of 13 units and the short name.
func (e *entry) records() int { return (len(utf16.Encode([]rune(e.name)))+12)/13 + 1 }

func (e *entry) sizeBytes() int {
	if !e.dir() {
		return len(e.data)
	}
	n := 2 // . and ..
	for _, c := range e.children {
		n += c.records()
	}
	return n * dirEntryBytes
}

// volumeBytes is the size of the volume for root, a multiple of 64 KiB.
func volumeBytes(root *entry) int {
	clusters := 0
	var count func(e *entry)
	count = func(e *entry) {
		for _, c := range e.children {
			clusters += (c.sizeBytes() + clusterBytes - 1) / clusterBytes
			count(c)
		}
	}
	count(root)
	n := clusters*clusterBytes + 2*2*clusters + 64<<10
	return max((n+65535)/65536*65536, minVolumeBytes)
}

// formatFAT lays root out as a volume with label and id.
func formatFAT(root *entry, label string, id uint32) ([]byte, error) {
	img := make([]byte, volumeBytes(root))
	sectors := len(img) / sectorBytes
	const rootSectors = rootEntries * dirEntryBytes / sectorBytes
	// The table is sized for 16 bits an entry, which is enough for 12, too.
	fatSectors := (sectors/clusterSectors*2 + 2*2 + sectorBytes - 1) / sectorBytes
	firstData := 1 + 2*fatSectors + rootSectors
	clusters := (sectors - firstData) / clusterSectors
	v := &volume{img: img, data: img[firstData*sectorBytes:], clusters: clusters, wide: clusters >= fat12Clusters, next: 2}
	v.fat = make([]byte, fatSectors*sectorBytes)
	v.set(0, 0xff8)
	v.set(1, 0xfff)

	le := binary.LittleEndian
	copy(img, "\xeb\x3c\x90METALCTL")
	le.PutUint16(img[11:], sectorBytes)
	img[13] = clusterSectors
	le.PutUint16(img[14:], 1)
	img[16] = 2
	le.PutUint16(img[17:], rootEntries)
	if sectors < 1<<16 {
		le.PutUint16(img[19:], uint16(sectors))
	} else {
		le.PutUint32(img[32:], uint32(sectors))
	}
	img[21] = 0xf8
	le.PutUint16(img[22:], uint16(fatSectors))
	le.PutUint16(img[24:], 63)
	le.PutUint16(img[26:], 255)
	img[36], img[38] = 0x80, 0x29
	le.PutUint32(img[39:], id)
	copy(img[43:54], padded(label, 11))
	kind := "FAT12   "
	if v.wide {
		kind = "FAT16   "
	}
	copy(img[54:], kind)
	img[510], img[511] = 0x55, 0xaa

	rootDir := img[(1+2*fatSectors)*sectorBytes : firstData*sectorBytes]
	volumeLabel := rootDir[:dirEntryBytes]
	copy(volumeLabel, padded(label, 11))
	volumeLabel[11] = 0x08
	le.PutUint16(volumeLabel[24:], fatDate)
	if err := v.fill(root, rootDir[dirEntryBytes:], 0); err != nil {
		return nil, err
	}
	copy(img[sectorBytes:], v.fat)
	copy(img[(1+fatSectors)*sectorBytes:], v.fat)
	return img, nil
}

func padded(s string, n int) string { return (s + strings.Repeat(" ", n))[:n] }

type volume struct {
	img, fat, data []byte
	clusters, next int
	wide           bool // FAT16
}

// set writes the FAT entry of cluster c; the value's upper bits are extended for FAT16.
func (v *volume) set(c, value int) {
	if v.wide {
		if value >= 0xff7 {
			value |= 0xf000
		}
		binary.LittleEndian.PutUint16(v.fat[2*c:], uint16(value))
		return
	}
	at := c + c/2
	old := binary.LittleEndian.Uint16(v.fat[at:])
	if c%2 == 0 {
		old = old&0xf000 | uint16(value)&0xfff
	} else {
		old = old&0x000f | uint16(value)<<4
	}
	binary.LittleEndian.PutUint16(v.fat[at:], old)
}

// alloc takes the clusters for n bytes; 0 for none.
func (v *volume) alloc(n int) (first int, room []byte, err error) {
	count := (n + clusterBytes - 1) / clusterBytes
	if count == 0 {
		return 0, nil, nil
	}
	if v.next+count > v.clusters+2 {
		return 0, nil, fmt.Errorf("the volume is too small for %d bytes", n)
	}
	first = v.next
	for c := first; c < first+count-1; c++ {
		if v.wide {
			binary.LittleEndian.PutUint16(v.fat[2*c:], uint16(c+1))
		} else {
			v.set(c, c+1)
		}
	}
	v.set(first+count-1, 0xfff)
	v.next += count
	return first, v.data[(first-2)*clusterBytes:][:count*clusterBytes], nil
}

// fill writes the records of dir's children into out and their contents behind; self is dir's own cluster.
func (v *volume) fill(dir *entry, out []byte, self int) error {
	for i, c := range dir.children {
		first, room, err := v.alloc(c.sizeBytes())
		if err != nil {
			return err
		}
		short := fmt.Sprintf("F%07d   ", i) // never shown: the long name always comes before it
		need := c.records() * dirEntryBytes
		if need > len(out) {
			return fmt.Errorf("too many files in one directory")
		}
		putLongName(out, c.name, short)
		rec := out[need-dirEntryBytes : need]
		copy(rec, short)
		size := uint32(len(c.data))
		rec[11] = 0x20
		if c.dir() {
			rec[11], size = 0x10, 0
		}
		putRecord(rec, first, size)
		out = out[need:]
		if !c.dir() {
			copy(room, c.data)
			continue
		}
		copy(room, padded(".", 11))
		room[11] = 0x10
		putRecord(room, first, 0)
		copy(room[dirEntryBytes:], padded("..", 11))
		room[dirEntryBytes+11] = 0x10
		putRecord(room[dirEntryBytes:], self, 0)
		if err := v.fill(c, room[2*dirEntryBytes:], first); err != nil {
			return err
		}
	}
	return nil
}

func putRecord(rec []byte, cluster int, size uint32) {
	le := binary.LittleEndian
	le.PutUint16(rec[16:], fatDate)
	le.PutUint16(rec[18:], fatDate)
	le.PutUint16(rec[24:], fatDate)
	le.PutUint16(rec[26:], uint16(cluster))
	le.PutUint32(rec[28:], size)
}

// putLongName writes the long name's pieces, last one first, bound to the short name by its checksum.
func putLongName(out []byte, name, short string) {
	var sum byte
	for i := range 11 {
		sum = sum>>1 | sum<<7
		sum += short[i]
	}
	units := utf16.Encode([]rune(name))
	pieces := (len(units) + 12) / 13
	for p := range pieces {
		rec := out[(pieces-1-p)*dirEntryBytes:][:dirEntryBytes]
		rec[0] = byte(p + 1)
		if p == pieces-1 {
			rec[0] |= 0x40
		}
		rec[11], rec[13] = 0x0f, sum
		for k := range 13 {
			at := 1 + 2*k
			switch {
			case k >= 11:
				at = 28 + 2*(k-11)
			case k >= 5:
				at = 14 + 2*(k-5)
			}
			u := uint16(0xffff)
			switch i := p*13 + k; {
			case i < len(units):
				u = units[i]
			case i == len(units):
				u = 0
			}
			binary.LittleEndian.PutUint16(rec[at:], u)
		}
	}
}
