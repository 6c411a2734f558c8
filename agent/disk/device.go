// Package disk writes images to disks and erases them, and proves by reading back that it did.
package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
)

// Device is one disk: a block device, or a plain file of a simulated machine.
type Device struct {
	// Path is what is opened: /dev/nvme0n1, or a file.
	Path string `json:"path"`
	// Serial identifies the disk across boots; nothing is erased without it.
	Serial string `json:"serial,omitempty"`
	Model  string `json:"model,omitempty"`
	// WWN is the world-wide name as the kernel prints it (eui.…, naa.…, uuid.…).
	WWN string `json:"wwn,omitempty"`
	// Transport is nvme, sata, sas, usb, virtio, loop or file; empty: not known.
	Transport string `json:"transport,omitempty"`
	// Subsystem is the NVMe subsystem's NQN: two paths to one disk share it.
	Subsystem string `json:"subsystem,omitempty"`
	SizeBytes int64  `json:"size_bytes"`
	// LogicalBlock is the sector size in bytes, 512 or 4096.
	LogicalBlock int  `json:"logical_block"`
	Rotational   bool `json:"rotational,omitempty"`
	ReadOnly     bool `json:"read_only,omitempty"`
	Removable    bool `json:"removable,omitempty"`
	// Mounted names what uses the disk or a partition of it (a mount point, a device on top); empty: nothing does.
	Mounted string `json:"mounted,omitempty"`
	// Place is where a person finds the drive: its slot, else its PCI address; empty: not known.
	Place string `json:"place,omitempty"`
	// BootMedium marks what this agent was booted from.
	BootMedium bool `json:"boot_medium,omitempty"`
}

func (d Device) String() string {
	if d.Serial == "" {
		return d.Path
	}
	return d.Path + " (" + d.Serial + ")"
}

// Stat reads what the system at root (normally "/") tells of the disk at path. A plain file has the transport "file" and no serial.
func Stat(root, path string) (Device, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Device{}, fmt.Errorf("look at disk: %w", err)
	}
	if info.Mode().IsRegular() {
		return Device{Path: path, Transport: "file", SizeBytes: info.Size(), LogicalBlock: 512}, nil
	}
	if info.Mode().Type()&(fs.ModeDevice|fs.ModeCharDevice) != fs.ModeDevice {
		return Device{}, fleet.Errorf(fleet.Invalid, "MC-DISK-KIND", "%s is neither a block device nor a plain file", path)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Device{}, fmt.Errorf("look at disk: %w", err)
	}
	return fromSysfs(root, path, filepath.Base(real))
}

// List returns the whole disks that the system at root knows, by path; not the ram, loop, optical and device-mapper ones.
func List(root string) ([]Device, error) {
	entries, err := os.ReadDir(filepath.Join(root, "sys/block"))
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var out []Device
	for _, e := range entries {
		name := e.Name()
		if skipName(name) {
			continue
		}
		d, err := fromSysfs(root, "/dev/"+name, name)
		if err != nil {
			return nil, err
		}
		if d.SizeBytes > 0 { // an empty card reader
			out = append(out, d)
		}
	}
	return out, nil
}

func skipName(name string) bool {
	for _, prefix := range []string{"ram", "loop", "sr", "fd", "dm-", "md", "zram", "nbd"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	// A path of a multipath NVMe namespace (nvme0c0n1) is reached through its head (nvme0n1).
	rest, ok := strings.CutPrefix(name, "nvme")
	return ok && strings.Contains(rest, "c")
}

func fromSysfs(root, path, name string) (Device, error) {
	dir := filepath.Join(root, "sys/class/block", name)
	if _, err := os.Stat(dir); err != nil {
		dir = filepath.Join(root, "sys/block", name)
	}
	read := func(file string) string {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(strings.Trim(string(b), "\x00\n "))
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		return Device{}, fleet.Errorf(fleet.Invalid, "MC-DISK-KIND", "%s is a partition, not a whole disk", path)
	}
	sectors, err := strconv.ParseInt(read("size"), 10, 64)
	if err != nil {
		return Device{}, fmt.Errorf("size of %s: %w", path, err)
	}
	d := Device{Path: path, SizeBytes: sectors * 512, LogicalBlock: 512, Model: read("device/model"), Serial: read("device/serial"), WWN: read("wwid")}
	if d.Serial == "" {
		d.Serial = read("serial") // virtio-blk
	}
	if d.Serial == "" {
		d.Serial = vpdSerial(filepath.Join(dir, "device/vpd_pg80"))
	}
	if d.WWN == "" {
		d.WWN = read("device/wwid")
	}
	d.Subsystem = read("device/subsysnqn")
	if n, err := strconv.Atoi(read("queue/logical_block_size")); err == nil && n >= 512 {
		d.LogicalBlock = n
	}
	d.Rotational, d.ReadOnly, d.Removable = read("queue/rotational") == "1", read("ro") == "1", read("removable") == "1"
	d.Transport = transport(dir, name)
	d.Mounted, err = inUse(root, dir, name)
	return d, err
}

// vpdSerial reads the SCSI unit serial number page: four bytes of header, then text.
func vpdSerial(file string) string {
	b, err := os.ReadFile(file)
	if err != nil || len(b) < 5 || b[1] != 0x80 {
		return ""
	}
	return strings.TrimSpace(strings.Trim(string(b[4:]), "\x00"))
}

func transport(dir, name string) string {
	target, err := filepath.EvalSymlinks(dir)
	if err != nil {
		target = dir
	}
	switch {
	case strings.HasPrefix(name, "nvme"):
		return "nvme"
	case strings.HasPrefix(name, "vd"):
		return "virtio"
	case strings.HasPrefix(name, "loop"):
		return "loop"
	case strings.Contains(target, "/usb"):
		return "usb"
	case strings.Contains(target, "/ata"):
		return "sata"
	case strings.Contains(target, "/end_device-"), strings.Contains(target, "/sas"):
		return "sas"
	case strings.Contains(target, "/virtio"):
		return "virtio"
	}
	return ""
}

// inUse names a mount, a swap area or a device on top of the disk or of one of its partitions.
func inUse(root, dir, name string) (string, error) {
	numbers := map[string]bool{}
	holder := ""
	look := func(dir string) {
		if b, err := os.ReadFile(filepath.Join(dir, "dev")); err == nil {
			numbers[strings.TrimSpace(string(b))] = true
		}
		if entries, err := os.ReadDir(filepath.Join(dir, "holders")); err == nil && len(entries) > 0 {
			holder = entries[0].Name()
		}
	}
	look(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("partitions of %s: %w", name, err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), name) {
			look(filepath.Join(dir, e.Name()))
		}
	}
	if holder != "" {
		return holder, nil
	}
	b, err := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && root != "/" {
			return "", nil // a recording without it
		}
		return "", fmt.Errorf("what is mounted: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && numbers[f[2]] {
			return f[4], nil
		}
	}
	return "", nil
}

// handle is an open disk. All its reads and writes go past the page cache where the disk can do that.
type handle struct {
	f     *os.File
	dev   Device
	size  int64
	block bool
	align int64
	// edge serialises writes that are not aligned: two of them may share a block.
	edge sync.Mutex
}

// open opens the disk for this process alone and checks that its size is the one that was looked at.
func open(dev Device, flags int) (*handle, error) {
	var st unix.Stat_t
	if err := unix.Stat(dev.Path, &st); err != nil {
		return nil, fmt.Errorf("open %s: %w", dev.Path, err)
	}
	h := &handle{dev: dev, block: st.Mode&unix.S_IFMT == unix.S_IFBLK, align: int64(max(dev.LogicalBlock, 512))}
	if h.block {
		flags |= unix.O_EXCL // the kernel refuses what is mounted or held
	}
	f, err := os.OpenFile(dev.Path, flags|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EINVAL) { // a file system without direct I/O
		f, err = os.OpenFile(dev.Path, flags|unix.O_CLOEXEC, 0)
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, fleet.Errorf(fleet.Refused, "MC-DISK-BUSY", "%s is in use (mounted, swap, or part of another device)", dev).
			WithHint("metalctl node show NODE lists its disks; unmount it first")
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", dev, err)
	}
	h.f = f
	if h.size, err = f.Seek(0, 2); err == nil && h.block {
		if n, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET); err == nil {
			h.align = int64(n)
		}
	} else if h.align < 4096 && h.size%4096 == 0 {
		h.align = 4096 // what every file system's direct I/O is content with
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("size of %s: %w", dev, err)
	}
	if dev.SizeBytes > 0 && h.size != dev.SizeBytes {
		_ = f.Close()
		return nil, fleet.Errorf(fleet.Conflict, "MC-DISK-CHANGED", "%s has %d bytes now, it had %d: not touched", dev, h.size, dev.SizeBytes).
			WithHint("metalctl node inspect NODE")
	}
	return h, nil
}

// sector is the unit in which the partition table counts.
func (h *handle) sector() int64 { return int64(max(h.dev.LogicalBlock, 512)) }

func (h *handle) close() error { return h.f.Close() }

// flush makes what was written durable.
func (h *handle) flush() error {
	if err := h.f.Sync(); err != nil {
		return fmt.Errorf("flush %s: %w", h.dev, err)
	}
	return nil
}
