package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Command is one NVMe admin command (NVM Express Base 2.0, section 5).
type Command struct {
	Opcode       uint8
	NSID         uint32
	CDW10, CDW11 uint32
	// Data is read into or written from, by the opcode's two lowest bits.
	Data []byte
	// Result, where not nil, gets dword 0 of the drive's completion.
	Result *uint32
	// Timeout is what the kernel waits for the drive; 0: its default of 60 s, too short for a Format.
	Timeout time.Duration
}

// Admin sends admin commands to the controller of one namespace.
type Admin interface {
	// Admin sends c and waits; a Status as error is the drive's own answer.
	Admin(ctx context.Context, c Command) error
	// NSID is the namespace that the disk is.
	NSID() uint32
}

// Status is the drive's refusal: status code type and code, without the do-not-retry bit.
type Status uint16

func (s Status) Error() string {
	if text, ok := statusText[s]; ok {
		return fmt.Sprintf("NVMe status %#x: %s", uint16(s), text)
	}
	return fmt.Sprintf("NVMe status %#x", uint16(s))
}

var statusText = map[Status]string{0x01: "invalid opcode", 0x02: "invalid field", 0x06: "internal error", 0x07: "aborted", 0x0b: "invalid namespace",
	0x15: "operation denied (locked?)", 0x1c: "sanitize failed", 0x1d: "sanitize in progress", 0x20: "namespace is write protected", 0x10a: "invalid format"}

const (
	opIdentify = 0x06
	opLogPage  = 0x02
	opFormat   = 0x80
	opSanitize = 0x84

	nsidAll = 0xffffffff
)

// ioctlAdmin is the kernel's passthrough (linux/nvme_ioctl.h).
type ioctlAdmin struct {
	f    *os.File
	nsid uint32
}

// adminCmd is struct nvme_admin_cmd, 72 bytes.
type adminCmd struct {
	opcode, flags         uint8
	_                     uint16
	nsid, cdw2, cdw3      uint32
	metadata, addr        uint64
	metadataLen, dataLen  uint32
	cdw10, cdw11, cdw12   uint32
	cdw13, cdw14, cdw15   uint32
	timeoutMillis, result uint32
}

const (
	nvmeIoctlID     = 0x4e40
	nvmeIoctlAdmin  = 0xc0484e41
	nvmeIoctlRescan = 0x4e46
)

// Controllers lists the NVMe controllers on PCIe that the system at root knows, by name.
func Controllers(root string) ([]Device, error) {
	dir := filepath.Join(root, "sys/class/nvme")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list NVMe controllers: %w", err)
	}
	var out []Device
	for _, e := range entries {
		read := func(file string) string {
			b, err := os.ReadFile(filepath.Join(dir, e.Name(), file))
			if err != nil {
				return ""
			}
			return strings.TrimSpace(string(b))
		}
		if d := (Device{Path: "/dev/" + e.Name(), Serial: read("serial"), Model: read("model"), Transport: "nvme"}); d.Serial != "" && read("transport") == "pcie" {
			if address := read("address"); address != "" {
				d.Place = "PCI " + address
			}
			out = append(out, d)
		}
	}
	return out, nil
}

// OpenController opens the admin queue of an NVMe controller by its own device, such as /dev/nvme0, which is there without any namespace; the caller closes it.
func OpenController(dev Device) (Admin, func() error, error) {
	f, err := os.Open(dev.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("open NVMe controller: %w", err)
	}
	return &ioctlAdmin{f, 0}, f.Close, nil
}

// Rescan makes the kernel look again at the namespaces of a controller that OpenController opens.
func Rescan(dev Device) error {
	f, err := os.Open(dev.Path)
	if err != nil {
		return fmt.Errorf("open NVMe controller: %w", err)
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), nvmeIoctlRescan, 0)
	if errno != 0 {
		return errors.Join(fmt.Errorf("look again at the namespaces of %s: %w", dev, errno), f.Close())
	}
	return f.Close()
}

// OpenAdmin opens the admin queue behind an NVMe namespace; the caller closes it.
func OpenAdmin(dev Device) (Admin, func() error, error) {
	if dev.Transport != "nvme" {
		return nil, nil, fmt.Errorf("%s is not an NVMe namespace", dev)
	}
	f, err := os.Open(dev.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("open NVMe admin queue: %w", err)
	}
	id, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), nvmeIoctlID, 0)
	if errno != 0 {
		return nil, nil, errors.Join(fmt.Errorf("namespace id of %s: %w", dev, errno), f.Close())
	}
	return &ioctlAdmin{f, uint32(id)}, f.Close, nil
}

func (a *ioctlAdmin) NSID() uint32 { return a.nsid }

// Admin cannot be interrupted while the drive works: ctx is only looked at before.
func (a *ioctlAdmin) Admin(ctx context.Context, c Command) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	cmd := adminCmd{opcode: c.Opcode, nsid: c.NSID, cdw10: c.CDW10, cdw11: c.CDW11, timeoutMillis: uint32(c.Timeout.Milliseconds())}
	if len(c.Data) > 0 {
		cmd.addr, cmd.dataLen = uint64(uintptr(unsafe.Pointer(&c.Data[0]))), uint32(len(c.Data))
	}
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, a.f.Fd(), nvmeIoctlAdmin, uintptr(unsafe.Pointer(&cmd)))
	runtime.KeepAlive(c.Data)
	if errno != 0 {
		return fmt.Errorf("NVMe command %#x: %w", c.Opcode, errno)
	}
	if r != 0 {
		return Status(r & 0x7ff)
	}
	if c.Result != nil {
		*c.Result = cmd.result
	}
	return nil
}

// controller is what Identify says that matters for erasing.
type controller struct {
	Serial, Model, Firmware      string
	Format, NamespaceManagement  bool
	FormatAll, EraseAll, Crypto  bool // FNA
	SanCrypto, SanBlock, SanOver bool // SANICAP
	NoDeallocateInhibited        bool
	Unallocated                  uint64 // UNVMCAP: bytes in no namespace, at most what 64 bits hold; 0 without namespace management
}

func identifyController(ctx context.Context, a Admin) (controller, error) {
	b := AlignedBytes(4096)
	if err := a.Admin(ctx, Command{Opcode: opIdentify, CDW10: 1, Data: b}); err != nil {
		return controller{}, fmt.Errorf("identify controller: %w", err)
	}
	return parseController(b), nil
}

func parseController(b []byte) controller {
	le := binary.LittleEndian
	text := func(from, to int) string { return strings.TrimSpace(strings.Trim(string(b[from:to]), "\x00")) }
	oacs, fna, sanicap := le.Uint16(b[256:]), b[524], le.Uint32(b[328:])
	unallocated := le.Uint64(b[296:])
	if le.Uint64(b[304:]) != 0 {
		unallocated = 1<<64 - 1
	}
	return controller{
		Unallocated: unallocated,
		Serial:      text(4, 24), Model: text(24, 64), Firmware: text(64, 72),
		Format: oacs&2 != 0, NamespaceManagement: oacs&8 != 0,
		FormatAll: fna&1 != 0, EraseAll: fna&2 != 0, Crypto: fna&4 != 0,
		SanCrypto: sanicap&1 != 0, SanBlock: sanicap&2 != 0, SanOver: sanicap&4 != 0, NoDeallocateInhibited: sanicap&(1<<29) != 0,
	}
}

// namespaces returns the active and the allocated namespace ids; without namespace management they are the same.
func namespaces(ctx context.Context, a Admin, c controller) (active, allocated []uint32, err error) {
	list := func(cns uint32) ([]uint32, error) {
		b := AlignedBytes(4096)
		if err := a.Admin(ctx, Command{Opcode: opIdentify, CDW10: cns, Data: b}); err != nil {
			return nil, fmt.Errorf("list namespaces: %w", err)
		}
		var ids []uint32
		for ; len(b) >= 4; b = b[4:] {
			id := binary.LittleEndian.Uint32(b)
			if id == 0 {
				break
			}
			ids = append(ids, id)
		}
		return ids, nil
	}
	if active, err = list(identifyActive); err != nil {
		return nil, nil, err
	}
	if !c.NamespaceManagement {
		return active, active, nil
	}
	allocated, err = list(identifyAllocated)
	return active, allocated, err
}

// formatOf returns the namespace's present LBA format, as Format's CDW10 wants it, so that the sector size stays.
func formatOf(ctx context.Context, a Admin) (uint32, error) {
	b := AlignedBytes(4096)
	if err := a.Admin(ctx, Command{Opcode: opIdentify, NSID: a.NSID(), CDW10: identifyNamespace, Data: b}); err != nil {
		return 0, fmt.Errorf("identify namespace: %w", err)
	}
	flbas := uint32(b[26])
	return flbas&0xf | flbas>>5&3<<12 | flbas>>4&1<<4, nil // format, its upper bits, and how metadata travels
}

// sanitizeLog is log page 0x81.
type sanitizeLog struct {
	raw      []byte
	progress uint16
	state    uint8
	command  uint32 // CDW10 of the most recent sanitize
	estimate [3]uint32
}

const (
	sanNever   = 0
	sanDone    = 1
	sanRunning = 2
	sanFailed  = 3
	sanDoneDe  = 4 // and deallocated
)

func readSanitizeLog(ctx context.Context, a Admin) (sanitizeLog, error) {
	b := AlignedBytes(512)
	if err := a.Admin(ctx, Command{Opcode: opLogPage, NSID: nsidAll, CDW10: 0x81 | (512/4-1)<<16, Data: b}); err != nil {
		return sanitizeLog{}, fmt.Errorf("sanitize status log: %w", err)
	}
	return parseSanitizeLog(b), nil
}

func parseSanitizeLog(b []byte) sanitizeLog {
	le := binary.LittleEndian
	return sanitizeLog{raw: b[:32], progress: le.Uint16(b), state: uint8(le.Uint16(b[2:]) & 7), command: le.Uint32(b[4:]),
		estimate: [3]uint32{le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint32(b[16:])}}
}
