package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"os"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

// What bbolt 1.5 writes (go.etcd.io/bbolt/internal/common): pages of one size, each with a head of 16 bytes (id, type, count, overflow) and then its elements.
const (
	pageHead    = 16
	metaLen     = 64
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	branchPage, leafPage, metaPage, freelistPage = 0x01, 0x02, 0x04, 0x10

	noFreelist = ^uint64(0)
	// maxDepth is deeper than any tree of a file that fits on a disk.
	maxDepth = 40
)

var native = binary.NativeEndian

// boltMeta is one of a file's two first pages: what a commit writes last.
type boltMeta struct {
	pageSize, root, freelist, pages, txid uint64
}

// pager proves a file of bbolt, page by page: bbolt itself believes what it maps, and panics, dies by SIGBUS or runs in circles where that is wrong.
type pager struct {
	f     io.ReaderAt
	meta  boltMeta
	seen  []uint64             // a bit for each page
	bufs  [maxDepth + 1][]byte // the page that is being read, at each depth of the tree
	bolts map[string]bool
	// newest is the highest revision of a record or event; revision is what the store says of itself.
	newest, revision uint64
	// event is the newest event's id; sequence is what its bucket says.
	event, sequence uint64
}

// metaAt reads a meta page; ok is false where it is none. bbolt takes one whose head is damaged, and heals it.
func metaAt(f io.ReaderAt, id, size uint64) (m boltMeta, ok, head bool) {
	b := make([]byte, pageHead+metaLen)
	if _, err := f.ReadAt(b, int64(id*size)); err != nil {
		return boltMeta{}, false, false
	}
	head = native.Uint64(b) == id && native.Uint16(b[8:]) == metaPage
	b = b[pageHead:]
	h := fnv.New64a()
	h.Write(b[:metaLen-8]) //nolint:errcheck // a hash never fails
	m = boltMeta{pageSize: uint64(native.Uint32(b[8:])), root: native.Uint64(b[16:]), freelist: native.Uint64(b[32:]), pages: native.Uint64(b[40:]), txid: native.Uint64(b[48:])}
	ok = native.Uint32(b) == boltMagic && native.Uint32(b[4:]) == boltVersion && native.Uint64(b[56:]) == h.Sum64() && m.pageSize >= 512 && m.pageSize <= 64<<10 && m.pageSize&(m.pageSize-1) == 0
	return m, ok, ok && head
}

// provePages reads every page that belongs to the newest whole commit of a file, and every record and event on them against its checksum. half says that one of
// the two meta pages is damaged, so that the commit before the last may be what is left. An empty file is one that bbolt has still to make.
func provePages(f *os.File) (half bool, err error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return false, err
	}
	first, ok0, head0 := metaAt(f, 0, 0)
	size := uint64(os.Getpagesize())
	if ok0 {
		size = first.pageSize
	}
	second, ok1, head1 := metaAt(f, 1, size)
	p := &pager{f: f, meta: first, bolts: map[string]bool{}}
	switch {
	case !ok0 && !ok1:
		return false, errors.New("neither of its two first pages is one of a store")
	case ok1 && (!ok0 || second.txid > first.txid):
		p.meta = second
	}
	if have := uint64(info.Size()); p.meta.pages > have/p.meta.pageSize || p.meta.pages < 4 {
		return false, fmt.Errorf("it has %d bytes, and its %d pages need %d: it was cut off", have, p.meta.pages, p.meta.pages*p.meta.pageSize)
	}
	p.seen = make([]uint64, p.meta.pages/64+1)
	if err := p.tree(p.meta.root, 0, nil, nil, p.rootItem); err != nil {
		return false, err
	}
	if err := p.freelist(); err != nil {
		return false, err
	}
	return !head0 || !head1, p.whole()
}

// whole is what no single page tells.
func (p *pager) whole() error {
	for _, name := range [][]byte{bucketMeta, bucketRecords, bucketEvents} {
		if len(p.bolts) > 0 && !p.bolts[string(name)] {
			return fmt.Errorf("it has no %s", name)
		}
	}
	if p.newest > p.revision {
		return fmt.Errorf("it is at revision %d, and has a record of revision %d", p.revision, p.newest)
	}
	if p.event != p.sequence {
		return fmt.Errorf("the newest event is %d, and %d were counted", p.event, p.sequence)
	}
	return nil
}

// page reads a page with what overflows from it, and marks it as used. The next page of that depth takes its place.
func (p *pager) page(id uint64, depth int) ([]byte, error) {
	if id < 2 || id >= p.meta.pages {
		return nil, fmt.Errorf("there is no page %d", id)
	}
	if p.bufs[depth] == nil {
		p.bufs[depth] = make([]byte, p.meta.pageSize)
	}
	b := p.bufs[depth]
	if _, err := p.f.ReadAt(b, int64(id*p.meta.pageSize)); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	over := uint64(native.Uint32(b[12:]))
	if native.Uint64(b) != id || over >= p.meta.pages-id {
		return nil, fmt.Errorf("page %d is damaged: its head is not its own", id)
	}
	for i := id; i <= id+over; i++ {
		if p.seen[i/64]&(1<<(i%64)) != 0 {
			return nil, fmt.Errorf("page %d is damaged: it is used twice", i)
		}
		p.seen[i/64] |= 1 << (i % 64)
	}
	if over == 0 {
		return b, nil
	}
	b = make([]byte, (over+1)*p.meta.pageSize)
	if _, err := p.f.ReadAt(b, int64(id*p.meta.pageSize)); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	return b, nil
}

// item is told each element of a tree's leaves.
type item func(flags uint32, key, value []byte) error

// tree proves the pages of one bucket. All keys are from low on and before high, where those are not nil.
func (p *pager) tree(id uint64, depth int, low, high []byte, do item) error {
	if depth > maxDepth {
		return fmt.Errorf("page %d is damaged: the tree has no end", id)
	}
	b, err := p.page(id, depth)
	if err != nil {
		return err
	}
	if kind := native.Uint16(b[8:]); kind == leafPage {
		return damaged(id, leaf(b, low, high, do))
	} else if kind != branchPage {
		return damaged(id, fmt.Errorf("it is of no known kind (%#x)", kind))
	}
	all, err := elements(b, low, high, func(e []byte) (uint32, uint32, uint32) {
		return native.Uint32(e), native.Uint32(e[4:]), native.Uint32(e[4:])
	})
	if err == nil && len(all) == 0 {
		err = errors.New("it leads nowhere")
	}
	if err != nil {
		return damaged(id, err)
	}
	for i, e := range all {
		to := high
		if i+1 < len(all) {
			to = all[i+1].key
		}
		if err := p.tree(native.Uint64(e.head[8:]), depth+1, e.key, to, do); err != nil {
			return err
		}
	}
	return nil
}

func damaged(id uint64, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("page %d is damaged: %w", id, err)
}

const elementLen = 16

// elements goes over the elements of a page, whose keys ascend, and which lie behind one another in their order. one returns how many bytes belong to the
// element, of which the first are its key.
func elements(b, low, high []byte, one func(e []byte) (pos, keyLen, bytes uint32)) ([]element, error) {
	n := int(native.Uint16(b[10:]))
	next := pageHead + n*elementLen
	if next > len(b) {
		return nil, fmt.Errorf("it has no room for %d elements", n)
	}
	all := make([]element, n)
	for i := range n {
		at := pageHead + i*elementLen
		e := b[at : at+elementLen]
		pos, keyLen, size := one(e)
		if uint64(at)+uint64(pos) != uint64(next) || uint64(size) > uint64(len(b)-next) || keyLen > size {
			return nil, fmt.Errorf("element %d of %d is not where it must be", i, n)
		}
		k := b[next : next+int(keyLen)]
		if len(k) == 0 || len(k) > maxKey {
			return nil, fmt.Errorf("a key has %d bytes", len(k))
		}
		if i > 0 && bytes.Compare(all[i-1].key, k) >= 0 || low != nil && bytes.Compare(k, low) < 0 || high != nil && bytes.Compare(k, high) >= 0 {
			return nil, fmt.Errorf("the key %q is out of order", k)
		}
		all[i] = element{e, k, b[next+int(keyLen) : next+int(size)]}
		next += int(size)
	}
	return all, nil
}

// element is one of a page: its head, and what it leads to.
type element struct{ head, key, value []byte }

// leaf proves a leaf page, which may be one within a value.
func leaf(b, low, high []byte, do item) error {
	all, err := elements(b, low, high, func(e []byte) (uint32, uint32, uint32) {
		key, value := native.Uint32(e[8:]), native.Uint32(e[12:])
		if value > math.MaxUint32-key {
			return 0, 0, math.MaxUint32
		}
		return native.Uint32(e[4:]), key, key + value
	})
	for _, e := range all {
		if err == nil {
			err = do(native.Uint32(e.head), e.key, e.value)
		}
	}
	return err
}

const bucketFlag = 1

// rootItem is told the buckets. A small one lies within its value.
func (p *pager) rootItem(flags uint32, name, value []byte) error {
	do := map[string]item{string(bucketMeta): p.metaItem, string(bucketRecords): p.recordItem, string(bucketEvents): p.eventItem}[string(name)]
	if flags != bucketFlag || len(value) < 16 || do == nil {
		return fmt.Errorf("%q is no part of a store", name)
	}
	p.bolts[string(name)] = true
	if bytes.Equal(name, bucketEvents) {
		p.sequence = native.Uint64(value[8:])
	}
	if root := native.Uint64(value); root != 0 {
		return p.tree(root, maxDepth/4, nil, nil, do) // the root may be deep itself, in theory
	}
	inline := value[16:]
	if len(inline) < pageHead || native.Uint16(inline[8:]) != leafPage {
		return fmt.Errorf("%q has no page", name)
	}
	return leaf(inline, nil, nil, do)
}

func (p *pager) metaItem(flags uint32, key, value []byte) error {
	if flags != 0 {
		return fmt.Errorf("%q is of no known kind", key)
	}
	if bytes.Equal(key, metaRevision) && len(value) == 8 {
		p.revision = binary.BigEndian.Uint64(value)
	}
	return nil
}

func (p *pager) recordItem(flags uint32, key, value []byte) error {
	r, err := decodeRecord(key, value)
	if flags != 0 && err == nil {
		err = errors.New("is of no known kind")
	}
	if kind := r.Key.Kind(); err == nil && len(value) == recordHead+len(kind)+len(r.Data) && kind != fleet.KindSecret && !json.Valid(r.Data) { // without checksum
		err = errors.New("does not decode")
	}
	if err != nil {
		return fmt.Errorf("record %s: %w", key, err)
	}
	p.newest = max(p.newest, uint64(r.Revision))
	return nil
}

func (p *pager) eventItem(flags uint32, key, value []byte) error {
	body, summed, err := cutSum(key, value)
	if err == nil && (flags != 0 || len(key) != 8 || len(body) < 8 || !summed && !json.Valid(body[8:])) {
		err = errors.New("does not decode")
	}
	if err != nil {
		return fmt.Errorf("event %x: %w", key, err)
	}
	id := binary.BigEndian.Uint64(key)
	if p.event != 0 && id != p.event+1 {
		return fmt.Errorf("event %d follows event %d", id, p.event)
	}
	p.event, p.newest = id, max(p.newest, binary.BigEndian.Uint64(body))
	return nil
}

// freelist proves the list of pages that nobody uses: a page on it that is used would be written over.
func (p *pager) freelist() error {
	if p.meta.freelist == noFreelist {
		return nil
	}
	id := p.meta.freelist
	b, err := p.page(id, 0)
	if err != nil {
		return err
	}
	n, at := uint64(native.Uint16(b[10:])), pageHead
	if n == 0xFFFF {
		n, at = native.Uint64(b[pageHead:]), pageHead+8
	}
	if native.Uint16(b[8:]) != freelistPage || n > uint64(len(b)-at)/8 {
		return damaged(id, errors.New("it is no list of free pages"))
	}
	free := make([]uint64, n)
	for i := range free {
		free[i] = native.Uint64(b[at+8*i:])
	}
	if !slices.IsSorted(free) {
		return damaged(id, errors.New("the free pages are out of order"))
	}
	for _, f := range free {
		if f < 2 || f >= p.meta.pages || p.seen[f/64]&(1<<(f%64)) != 0 {
			return damaged(id, fmt.Errorf("page %d is listed as free, and is not", f))
		}
		p.seen[f/64] |= 1 << (f % 64)
	}
	for i := uint64(2); i < p.meta.pages; i++ {
		if p.seen[i/64]&(1<<(i%64)) == 0 {
			return fmt.Errorf("page %d is neither used nor free: what led to it is lost", i)
		}
	}
	return nil
}
