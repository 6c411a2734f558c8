package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf16"
)

// Limits of what a volume may make us read.
const (
	maxDirBytes  = 2 << 20 // what 65,536 records take, FAT's own limit
	maxFileBytes = 256 << 20
)

// fatVolume reads a FAT12, FAT16 or FAT32 volume (Microsoft FAT specification 1.03): the ESP of a disk that was just written, without any
// driver of the kernel.
type fatVolume struct {
	r             io.ReaderAt
	size          int64
	sector        int64
	cluster       int64
	fatAt, rootAt int64 // bytes
	rootBytes     int64 // FAT12 and FAT16
	dataAt        int64
	clusters      uint32
	bits          int
	rootCluster   uint32 // FAT32
}

func openFAT(r io.ReaderAt, size int64) (*fatVolume, error) {
	b := make([]byte, 512)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read boot sector: %w", err)
	}
	le := binary.LittleEndian
	v := &fatVolume{r: r, size: size, sector: int64(le.Uint16(b[11:])), cluster: int64(b[13])}
	if b[510] != 0x55 || b[511] != 0xaa {
		return nil, errors.New("byte 510: no boot sector signature")
	}
	switch v.sector {
	case 512, 1024, 2048, 4096:
	default:
		return nil, fmt.Errorf("byte 11: sectors of %d bytes", v.sector)
	}
	if v.cluster == 0 || v.cluster&(v.cluster-1) != 0 {
		return nil, fmt.Errorf("byte 13: clusters of %d sectors", v.cluster)
	}
	v.cluster *= v.sector
	reserved, fats, rootEntries := int64(le.Uint16(b[14:])), int64(b[16]), int64(le.Uint16(b[17:]))
	total := int64(le.Uint16(b[19:]))
	if total == 0 {
		total = int64(le.Uint32(b[32:]))
	}
	fatSectors := int64(le.Uint16(b[22:]))
	if fatSectors == 0 {
		fatSectors = int64(le.Uint32(b[36:]))
		v.rootCluster = le.Uint32(b[44:])
	}
	if reserved == 0 || fats == 0 || fats > 4 || fatSectors == 0 {
		return nil, errors.New("byte 14: no file allocation table")
	}
	v.fatAt = reserved * v.sector
	v.rootAt = v.fatAt + fats*fatSectors*v.sector
	v.rootBytes = (rootEntries*32 + v.sector - 1) / v.sector * v.sector
	v.dataAt = v.rootAt + v.rootBytes
	if total*v.sector > size || v.dataAt >= total*v.sector {
		return nil, fmt.Errorf("byte 19: a volume of %d sectors in %d bytes", total, size)
	}
	v.clusters = uint32((total*v.sector - v.dataAt) / v.cluster)
	switch {
	case v.clusters < 4085:
		v.bits = 12
	case v.clusters < 65525:
		v.bits = 16
	default:
		v.bits = 32
	}
	if (int64(v.clusters)+2)*int64(v.bits)/8 > fatSectors*v.sector {
		return nil, fmt.Errorf("byte 22: the table is too short for %d clusters", v.clusters)
	}
	return v, nil
}

// next returns the cluster after c, or 0 at the chain's end.
func (v *fatVolume) next(c uint32) (uint32, error) {
	var b [4]byte
	var n, end uint32
	switch v.bits {
	case 12:
		if _, err := v.r.ReadAt(b[:2], v.fatAt+int64(c)+int64(c)/2); err != nil {
			return 0, err
		}
		n, end = uint32(binary.LittleEndian.Uint16(b[:])), 0xff8
		if c%2 == 1 {
			n >>= 4
		}
		n &= 0xfff
	case 16:
		if _, err := v.r.ReadAt(b[:2], v.fatAt+2*int64(c)); err != nil {
			return 0, err
		}
		n, end = uint32(binary.LittleEndian.Uint16(b[:])), 0xfff8
	default:
		if _, err := v.r.ReadAt(b[:], v.fatAt+4*int64(c)); err != nil {
			return 0, err
		}
		n, end = binary.LittleEndian.Uint32(b[:])&0x0fffffff, 0x0ffffff8
	}
	if n >= end {
		return 0, nil
	}
	return n, nil
}

// chain reads the clusters from first on, at most limit bytes; more is an error.
func (v *fatVolume) chain(first uint32, limit int64) ([]byte, error) {
	var out []byte
	for c := first; c != 0; {
		if c < 2 || c-2 >= v.clusters {
			return nil, fmt.Errorf("cluster %d is not on the volume", c)
		}
		if int64(len(out)) >= limit {
			return nil, fmt.Errorf("a chain of more than %d bytes", limit)
		}
		buf := make([]byte, v.cluster)
		if _, err := v.r.ReadAt(buf, v.dataAt+int64(c-2)*v.cluster); err != nil {
			return nil, err
		}
		out = append(out, buf...)
		var err error
		if c, err = v.next(c); err != nil {
			return nil, err
		}
	}
	return out, nil
}

type fatEntry struct {
	name    string
	short   string
	dir     bool
	cluster uint32
	size    int64
}

// readDir reads the directory at cluster; 0 is the root.
func (v *fatVolume) readDir(cluster uint32) ([]fatEntry, error) {
	var b []byte
	var err error
	switch {
	case cluster == 0 && v.bits != 32:
		b = make([]byte, v.rootBytes)
		_, err = v.r.ReadAt(b, v.rootAt)
	case cluster == 0:
		b, err = v.chain(v.rootCluster, maxDirBytes)
	default:
		b, err = v.chain(cluster, maxDirBytes)
	}
	if err != nil {
		return nil, err
	}
	return parseDir(b), nil
}

func parseDir(b []byte) []fatEntry {
	var out []fatEntry
	var long []uint16
	for ; len(b) >= 32 && b[0] != 0; b = b[32:] {
		rec := b[:32]
		switch {
		case rec[0] == 0xe5:
			long = nil
		case rec[11]&0x3f == 0x0f:
			piece := make([]uint16, 0, 13)
			for k := range 13 {
				at := 1 + 2*k
				switch {
				case k >= 11:
					at = 28 + 2*(k-11)
				case k >= 5:
					at = 14 + 2*(k-5)
				}
				piece = append(piece, binary.LittleEndian.Uint16(rec[at:]))
			}
			long = append(piece, long...)
		case rec[11]&0x08 != 0: // the volume's label
			long = nil
		default:
			e := fatEntry{short: shortName(rec), dir: rec[11]&0x10 != 0, size: int64(binary.LittleEndian.Uint32(rec[28:])),
				cluster: uint32(binary.LittleEndian.Uint16(rec[20:]))<<16 | uint32(binary.LittleEndian.Uint16(rec[26:]))}
			e.name = e.short
			if s := untilNul(long); s != "" {
				e.name = s
			}
			long = nil
			out = append(out, e)
		}
	}
	return out
}

func untilNul(units []uint16) string {
	for i, u := range units {
		if u == 0 {
			units = units[:i]
			break
		}
	}
	return string(utf16.Decode(units))
}

// shortName reads 8.3; Windows NT's bits in byte 12 say what was lower case.
func shortName(rec []byte) string {
	base, ext := strings.TrimRight(string(rec[:8]), " "), strings.TrimRight(string(rec[8:11]), " ")
	if rec[12]&0x08 != 0 {
		base = strings.ToLower(base)
	}
	if rec[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if ext != "" {
		return base + "." + ext
	}
	return base
}

// lookup finds path, with / or \ between its parts; case does not count. fs.ErrNotExist where there is nothing.
func (v *fatVolume) lookup(path string) (fatEntry, error) {
	at := fatEntry{dir: true}
	for part := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '/' || r == '\\' }) {
		if !at.dir {
			return at, fs.ErrNotExist
		}
		entries, err := v.readDir(at.cluster)
		if err != nil {
			return at, err
		}
		found := false
		for _, e := range entries {
			if strings.EqualFold(e.name, part) || strings.EqualFold(e.short, part) {
				at, found = e, true
				break
			}
		}
		if !found {
			return at, fs.ErrNotExist
		}
	}
	return at, nil
}

// readFile returns the contents of the file at path, at most limit bytes.
func (v *fatVolume) readFile(path string, limit int64) ([]byte, error) {
	e, err := v.lookup(path)
	switch {
	case err != nil:
		return nil, err
	case e.dir:
		return nil, fs.ErrNotExist
	case e.size > min(limit, maxFileBytes):
		return nil, fmt.Errorf("%s has %d bytes, more than %d", path, e.size, limit)
	case e.size == 0:
		return nil, nil
	}
	b, err := v.chain(e.cluster, e.size)
	if err != nil {
		return nil, err
	}
	if int64(len(b)) < e.size {
		return nil, fmt.Errorf("%s ends after %d of %d bytes", path, len(b), e.size)
	}
	return b[:e.size], nil
}
