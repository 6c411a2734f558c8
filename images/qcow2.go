package images

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc64"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

// Limits of what a qcow2 file may make us allocate.
const (
	maxL1Bytes     = 32 << 20 // QEMU's own limit
	maxQCOW2Runs   = 16 << 20
	maxVirtualSize = 1 << 50
)

const (
	qcow2Magic     = 0x514649fb
	incompatDirty  = 1 << 0 // refcounts may be stale, which a reader does not care about
	incompatZip    = 1 << 3
	offsetMask     = 0x00fffffffffffe00 // bits 9 to 55 of L1 and L2 entries
	l2Compressed   = 1 << 62
	l2Zero         = 1
	sectorBytes    = 512
	compressedZstd = 1
)

// qcow2Header is what a reader needs of the header (QEMU docs/interop/qcow2.txt).
type qcow2Header struct {
	version     uint32
	clusterBits uint32
	size        int64
	l1Entries   int64
	l1Offset    int64
	zstd        bool
}

func (h qcow2Header) cluster() int64 { return 1 << h.clusterBits }

func badQCOW2(code, format string, args ...any) *fleet.Error {
	return fleet.Errorf(fleet.Invalid, code, "qcow2: "+format, args...)
}

const flattenHint = "qemu-img convert -O qcow2 -c FILE NEW.qcow2 makes a self-contained copy"

// parseQCOW2Header reads the header from the first bytes of a file of fileSize bytes and refuses whatever a reader of this one file cannot
// give the right bytes for.
func parseQCOW2Header(b []byte, fileSize int64) (qcow2Header, error) {
	var h qcow2Header
	if len(b) < 72 {
		return h, badQCOW2("MC-IMAGE-TRUNCATED", "byte %d: the file ends inside the header", len(b)).WithHint("fetch or upload the file again")
	}
	be := binary.BigEndian
	if be.Uint32(b) != qcow2Magic {
		return h, badQCOW2("MC-IMAGE-FORMAT", "byte 0: no qcow2 magic")
	}
	h.version = be.Uint32(b[4:])
	if h.version != 2 && h.version != 3 {
		return h, badQCOW2("MC-IMAGE-FORMAT", "byte 4: version %d is not known (2 and 3 are)", h.version).WithHint(flattenHint)
	}
	if at, n := be.Uint64(b[8:]), int(min(be.Uint32(b[16:]), 1023)); at != 0 {
		name := "(name not readable)"
		if at <= uint64(len(b)-min(n, len(b))) {
			name = fmt.Sprintf("%q", b[at:int(at)+n])
		}
		return h, badQCOW2("MC-IMAGE-BACKING", "byte 8: the file is only a difference to the backing file %s", name).WithHint(flattenHint)
	}
	h.clusterBits = be.Uint32(b[20:])
	if h.clusterBits < 9 || h.clusterBits > 21 {
		return h, badQCOW2("MC-IMAGE-DAMAGED", "byte 20: cluster size 2^%d is outside 2^9 to 2^21", h.clusterBits)
	}
	size := be.Uint64(b[24:])
	if size == 0 || size > maxVirtualSize {
		return h, badQCOW2("MC-IMAGE-DAMAGED", "byte 24: a disk of %d bytes", size)
	}
	h.size = int64(size)
	if crypt := be.Uint32(b[32:]); crypt != 0 {
		return h, badQCOW2("MC-IMAGE-ENCRYPTED", "byte 32: the contents are encrypted (method %d)", crypt).WithHint("decrypt it first: qemu-img convert with --object secret")
	}
	if h.version == 3 {
		if len(b) < 104 {
			return h, badQCOW2("MC-IMAGE-TRUNCATED", "byte %d: the file ends inside the header", len(b))
		}
		if err := h.features(b); err != nil {
			return h, err
		}
	}
	h.l1Entries, h.l1Offset = int64(be.Uint32(b[36:])), int64(be.Uint64(b[40:]))
	covered := h.cluster() / 8 * h.cluster() // disk bytes behind one L1 entry
	if need := (h.size + covered - 1) / covered; h.l1Entries < need || h.l1Entries*8 > maxL1Bytes {
		return h, badQCOW2("MC-IMAGE-DAMAGED", "byte 36: %d level-1 entries for a disk that needs %d", h.l1Entries, need)
	}
	if h.l1Offset <= 0 || h.l1Offset%h.cluster() != 0 || h.l1Offset > fileSize-h.l1Entries*8 {
		return h, badQCOW2("MC-IMAGE-TRUNCATED", "byte 40: the level-1 table at %d is not inside the file of %d bytes", h.l1Offset, fileSize).
			WithHint("fetch or upload the file again")
	}
	return h, nil
}

// features reads the fields that version 3 added.
func (h *qcow2Header) features(b []byte) error {
	be := binary.BigEndian
	incompat, headerLen := be.Uint64(b[72:]), be.Uint32(b[100:])
	switch {
	case incompat&(1<<1) != 0:
		return badQCOW2("MC-IMAGE-DAMAGED", "byte 72: the file is marked corrupt").WithHint("qemu-img check -r all FILE")
	case incompat&(1<<2) != 0:
		return badQCOW2("MC-IMAGE-BACKING", "byte 72: the contents are in an external data file").WithHint(flattenHint)
	case incompat&(1<<4) != 0:
		return badQCOW2("MC-IMAGE-FORMAT", "byte 72: subclusters (extended L2 entries) are not supported").WithHint("qemu-img convert -O qcow2 -o extended_l2=off FILE NEW.qcow2")
	case incompat&^uint64(incompatDirty|incompatZip) != 0:
		return badQCOW2("MC-IMAGE-FORMAT", "byte 72: unknown features %#x", incompat).WithHint(flattenHint)
	}
	if headerLen < 104 {
		return badQCOW2("MC-IMAGE-DAMAGED", "byte 100: a header of %d bytes", headerLen)
	}
	if headerLen >= 112 && len(b) >= 105 {
		switch b[104] {
		case 0:
		case compressedZstd:
			h.zstd = true
		default:
			return badQCOW2("MC-IMAGE-FORMAT", "byte 104: unknown compression %d", b[104]).WithHint(flattenHint)
		}
	}
	return nil
}

type runKind uint8

const (
	runData runKind = iota
	runPacked
	runTable // metadata that was read ahead, compared when the one pass comes by
)

// run maps file bytes to disk bytes.
type run struct {
	host, guest int64
	n           int64 // file bytes; for runData disk bytes, too
	sum         uint64
	kind        runKind
}

// qcow2Map is the whole mapping of a file.
type qcow2Map struct {
	qcow2Header
	runs []run // by host
	size int64 // of the file
}

var crcTable = crc64.MakeTable(crc64.ECMA)

// readQCOW2 reads header and tables by ranges. read returns exactly n bytes from off.
func readQCOW2(ctx context.Context, fileSize int64, read func(ctx context.Context, off, n int64) ([]byte, error)) (*qcow2Map, error) {
	head, err := read(ctx, 0, min(fileSize, 4096))
	if err != nil {
		return nil, fmt.Errorf("qcow2 header: %w", err)
	}
	h, err := parseQCOW2Header(head, fileSize)
	if err != nil {
		return nil, err
	}
	m := &qcow2Map{qcow2Header: h, size: fileSize}
	m.table(0, head)
	l1, err := read(ctx, h.l1Offset, h.l1Entries*8)
	if err != nil {
		return nil, fmt.Errorf("qcow2 level-1 table: %w", err)
	}
	m.table(h.l1Offset, l1)
	perTable := h.cluster() / 8
	seen := map[int64]bool{}
	for i := range h.l1Entries {
		at := int64(binary.BigEndian.Uint64(l1[i*8:]) & offsetMask)
		guest := i * perTable * h.cluster()
		if at == 0 || guest >= h.size {
			continue
		}
		if at%h.cluster() != 0 || at > fileSize-h.cluster() {
			return nil, badQCOW2("MC-IMAGE-TRUNCATED", "byte %d: the level-2 table at %d is not inside the file of %d bytes", h.l1Offset+i*8, at, fileSize).
				WithHint("fetch or upload the file again")
		}
		if seen[at] {
			return nil, badQCOW2("MC-IMAGE-DAMAGED", "byte %d: the level-2 table at %d is used twice", h.l1Offset+i*8, at).WithHint("qemu-img check -r all FILE")
		}
		seen[at] = true
		l2, err := read(ctx, at, h.cluster())
		if err != nil {
			return nil, fmt.Errorf("qcow2 level-2 table: %w", err)
		}
		m.table(at, l2)
		if err := m.addClusters(l2, at, guest); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(m.runs, func(a, b run) int { return cmp.Or(cmp.Compare(a.host, b.host), cmp.Compare(a.guest, b.guest)) })
	return m, nil
}

func (m *qcow2Map) table(at int64, b []byte) {
	m.runs = append(m.runs, run{host: at, guest: -1, n: int64(len(b)), sum: crc64.Checksum(b, crcTable), kind: runTable})
}

func (m *qcow2Map) addClusters(l2 []byte, tableAt, guest int64) error {
	for i := 0; i < len(l2) && guest < m.qcow2Header.size; i, guest = i+8, guest+m.cluster() {
		entry := binary.BigEndian.Uint64(l2[i:])
		if entry&l2Compressed != 0 {
			shift := 62 - (m.clusterBits - 8)
			host := int64(entry & (1<<shift - 1))
			sectors := int64(entry&(l2Compressed-1)>>shift) + 1
			n := sectors*sectorBytes - host%sectorBytes
			// The length is in sectors and may reach beyond the file's end, the data does not.
			n = min(n, m.size-host)
			if host <= 0 || n <= 0 {
				return m.outside(tableAt+int64(i), host)
			}
			if err := m.add(run{host: host, guest: guest, n: n, kind: runPacked}); err != nil {
				return err
			}
			continue
		}
		host := int64(entry & offsetMask)
		if host == 0 || m.version == 3 && entry&l2Zero != 0 {
			continue
		}
		n := min(m.cluster(), m.qcow2Header.size-guest)
		if host%m.cluster() != 0 || host > m.size-n {
			return m.outside(tableAt+int64(i), host)
		}
		if last := m.last(); last != nil && last.kind == runData && last.host+last.n == host && last.guest+last.n == guest && last.n+n <= BlockBytes {
			last.n += n
			continue
		}
		if err := m.add(run{host: host, guest: guest, n: n, kind: runData}); err != nil {
			return err
		}
	}
	return nil
}

func (m *qcow2Map) last() *run {
	if len(m.runs) == 0 {
		return nil
	}
	return &m.runs[len(m.runs)-1]
}

func (m *qcow2Map) add(r run) error {
	if len(m.runs) >= maxQCOW2Runs {
		return badQCOW2("MC-IMAGE-FORMAT", "more than %d pieces: too fragmented to be streamed", maxQCOW2Runs).WithHint(flattenHint)
	}
	m.runs = append(m.runs, r)
	return nil
}

func (m *qcow2Map) outside(entryAt, host int64) error {
	return badQCOW2("MC-IMAGE-TRUNCATED", "byte %d: the cluster at %d is not inside the file of %d bytes", entryAt, host, m.size).
		WithHint("fetch or upload the file again")
}

// guestBytes is how long the disk's contents of a packed cluster at guest are.
func (m *qcow2Map) guestBytes(guest int64) int64 { return min(m.cluster(), m.qcow2Header.size-guest) }

// holes calls fn for every stretch of the disk that no run covers: these read as zeros.
func (m *qcow2Map) holes(fn func(off, n int64) error) error {
	type span struct{ from, to int64 }
	spans := make([]span, 0, len(m.runs))
	for _, r := range m.runs {
		switch r.kind {
		case runData:
			spans = append(spans, span{r.guest, r.guest + r.n})
		case runPacked:
			spans = append(spans, span{r.guest, r.guest + m.guestBytes(r.guest)})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	at := int64(0)
	for _, s := range append(spans, span{m.qcow2Header.size, m.qcow2Header.size}) {
		if s.from > at {
			if err := fn(at, s.from-at); err != nil {
				return err
			}
		}
		at = s.to
	}
	return nil
}

// checkTable compares metadata as the pass sees it with what was read ahead.
func (r run) checkTable(b []byte) error {
	if crc64.Checksum(b, crcTable) != r.sum {
		return fleet.Errorf(fleet.Conflict, "MC-IMAGE-DIGEST", "qcow2: the tables at byte %d changed while the file was read", r.host).
			WithHint("make sure that nobody replaces the file while it is served, then retry")
	}
	return nil
}

// byGuest returns the runs that hold contents in the disk's order.
func (m *qcow2Map) byGuest() []run {
	var runs []run
	for _, r := range m.runs {
		if r.kind != runTable {
			runs = append(runs, r)
		}
	}
	slices.SortFunc(runs, func(a, b run) int { return cmp.Compare(a.guest, b.guest) })
	return runs
}
