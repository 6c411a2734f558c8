package burn

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/agent/sysfs"
)

// The reserve that is left on every node: a thirtieth, and at least 1 GiB.
const (
	reserveLeast = 1 << 30
	reserveShare = 33
)

func reserve(total int64) int64 { return max(reserveLeast, total/reserveShare) }

// ThisMemory returns the nodes of this machine with what may be taken of each: what nobody uses, less the reserve, and no more than a control group allows.
func ThisMemory() ([]MemoryNode, error) {
	files := sysfs.New("")
	available, total, err := available(files)
	if err != nil {
		return nil, err
	}
	left := available - reserve(total)
	names, err := files.List("sys/devices/system/node")
	if err != nil {
		return nil, err
	}
	start := time.Now()
	var out []MemoryNode
	for _, name := range names {
		id, err := strconv.Atoi(strings.TrimPrefix(name, "node"))
		if err != nil || !strings.HasPrefix(name, "node") {
			continue
		}
		info, err := files.Text("sys/devices/system/node", name, "meminfo")
		if err != nil {
			return nil, err
		}
		n := MemoryNode{ID: id, Total: kilobytes(info, "MemTotal:"), Clock: func() time.Duration { return time.Since(start) }, Short: shortage(files, reserve(total)/2)}
		if n.Total == 0 {
			continue // processors without memory of their own
		}
		n.Free = max(0, min(left, kilobytes(info, "MemFree:")+kilobytes(info, "Inactive(file):")-reserve(n.Total)))
		left -= n.Free
		cpus := cpuSet(files.Try("sys/devices/system/node", name, "cpulist"))
		n.Workers = max(1, cpus.Count())
		n.Bind = func() error { return bindTo(cpus) }
		n.Map = func(bytes int64) (*Block, error) { return mapNode(id, bytes) }
		out = append(out, n)
	}
	if len(out) == 0 {
		return nil, errors.New("the kernel shows no memory domains")
	}
	return out, nil
}

// kilobytes returns the bytes of a line of a meminfo, 0 where there is no such line.
func kilobytes(text, key string) int64 {
	_, rest, _ := strings.Cut(text, key)
	f := strings.Fields(rest)
	if len(f) == 0 {
		return 0
	}
	kb, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil || kb < 0 || kb > 1<<50 {
		return 0
	}
	return kb << 10
}

// available is what can be taken without anybody missing it, and what there is.
func available(files sysfs.Tree) (free, total int64, err error) {
	info, err := files.Text("proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	free, total = kilobytes(info, "MemAvailable:"), kilobytes(info, "MemTotal:")
	if limit, used, ok := groupLimit(files); ok && limit < total {
		free, total = min(free, limit-used), limit
	}
	return free, total, nil
}

// groupLimit is the tightest limit of the control groups that this process is in (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst).
func groupLimit(files sysfs.Tree) (limit, used int64, ok bool) {
	for line := range strings.Lines(files.Try("proc/self/cgroup")) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		dir, most, now := "sys/fs/cgroup", "memory.max", "memory.current"
		switch f[1] {
		case "memory":
			dir, most, now = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
		case "":
		default:
			continue
		}
		for at := path.Clean("/" + f[2]); ; at = path.Dir(at) {
			m, err1 := files.Number(dir, at, most)
			n, err2 := files.Number(dir, at, now)
			if err1 == nil && err2 == nil && (!ok || m-n < limit-used) {
				limit, used, ok = m, n, true
			}
			if at == "/" {
				break
			}
		}
	}
	return limit, used, ok
}

// shortage watches, at most once a second, that the machine keeps a reserve: what others take meanwhile is given back by this program, never taken by the
// kernel's killer.
func shortage(files sysfs.Tree, least int64) func() string {
	var mu sync.Mutex
	var last time.Time
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(last) < time.Second {
			return ""
		}
		last = time.Now()
		if free, _, err := available(files); err == nil && free < least {
			return fmt.Sprintf("somebody else needs memory: only %d MiB are left", free>>20)
		}
		return ""
	}
}

// cpuSet reads a list such as 0-3,8.
func cpuSet(list string) *unix.CPUSet {
	var set unix.CPUSet
	for _, part := range strings.Split(strings.TrimSpace(list), ",") {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			to = from
		}
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		for i := a; err1 == nil && err2 == nil && i <= b && i < 1024; i++ {
			set.Set(i)
		}
	}
	return &set
}

// bindTo keeps the goroutine's thread, which ends with it, on a node's processors; a node without any is worked on by all.
func bindTo(cpus *unix.CPUSet) error {
	runtime.LockOSThread()
	if cpus.Count() == 0 {
		return nil
	}
	if err := unix.SchedSetaffinity(0, cpus); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: a control group has none of them
		return fmt.Errorf("sched_setaffinity: %w", err)
	}
	return nil
}

// mpolPreferred takes memory of a node as long as it has some: bound to it, a node that runs out would call the kernel's killer (set_mempolicy(2)).
const mpolPreferred = 1

// mapNode takes memory of a node.
func mapNode(node int, bytes int64) (*Block, error) {
	bytes &^= 2<<20 - 1
	b, err := unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map %d MiB: %w", bytes>>20, err)
	}
	var mask [16]uint64
	mask[node/64%16] = 1 << (node % 64)
	_, _, errno := unix.Syscall6(unix.SYS_MBIND, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), mpolPreferred, uintptr(unsafe.Pointer(&mask[0])), uintptr(len(mask)*64), 0)
	if errno != 0 && errno != unix.ENOSYS && errno != unix.EPERM { // a kernel without nodes, or a container: the threads that touch it first are on the node
		return nil, errors.Join(fmt.Errorf("mbind to node %d: %w", node, errno), unix.Munmap(b))
	}
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // only a wish
	words := unsafe.Slice((*uint64)(unsafe.Pointer(&b[0])), len(b)/8)
	return &Block{Words: words, Bytes: bytes, Settle: rest, Address: func(i int) string { return placeOf(words, i) }, Free: func() error { return unix.Munmap(b) }}, nil
}

// rest leaves memory alone.
func rest(ctx context.Context, pause time.Duration) {
	if pause == 0 {
		return
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// placeOf names a word by its physical address, by which firmware finds the module, where the kernel tells it (Documentation/admin-guide/mm/pagemap.rst).
func placeOf(words []uint64, i int) string {
	at := uintptr(unsafe.Pointer(&words[i]))
	page := uintptr(os.Getpagesize())
	f, err := os.Open("/proc/self/pagemap")
	if err == nil {
		defer f.Close()
		var entry [8]byte
		if _, err = f.ReadAt(entry[:], int64(at/page)*8); err == nil {
			if frame := binary.LittleEndian.Uint64(entry[:]) & (1<<55 - 1); frame != 0 {
				return fmt.Sprintf("physical address %#x", uint64(page)*frame+uint64(at%page))
			}
			err = fs.ErrPermission
		}
	}
	return fmt.Sprintf("byte %d of the block (no physical address: %v)", 8*i, err)
}
