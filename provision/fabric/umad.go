package fabric

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
)

// The kernel's interface for management datagrams, version 5 (Documentation/infiniband/user_mad.rst, include/uapi/rdma/ib_user_mad.h): each datagram has a
// header of 64 bytes, once the index of a partition key was asked for.
const (
	umadHeader      = 64
	umadEnablePKey  = 0x00001b03 // _IO(0x1b, 3)
	umadRegister    = 0xc01c1b01 // _IOWR(0x1b, 1, struct ib_user_mad_reg_req)
	umadVersion     = 5
	umadRequestSize = 28
)

// Device is a port of an HCA of this machine.
type Device struct {
	file    *os.File
	agent   uint32
	timeout time.Duration
}

// DeviceOf names the kernel's device for the port with that GUID, by what sysfs shows below root ("" is /sys): such as umad0.
func DeviceOf(root string, guid fleet.GUID) (string, error) {
	if root == "" {
		root = "/sys"
	}
	class := filepath.Join(root, "class/infiniband_mad")
	if v, err := attribute(class, "abi_version"); err != nil || v != strconv.Itoa(umadVersion) {
		return "", fleet.Errorf(fleet.Unavailable, "MC-FABRIC-PORT", "the kernel's management datagrams have version %q and not %d, or are not there", v, umadVersion).
			WithHint("modprobe ib_umad")
	}
	dirs, err := filepath.Glob(filepath.Join(class, "umad*"))
	if err != nil {
		return "", fmt.Errorf("look for InfiniBand ports: %w", err)
	}
	for _, dir := range dirs {
		hca, err1 := attribute(dir, "ibdev")
		port, err2 := attribute(dir, "port")
		if err1 != nil || err2 != nil {
			continue // it was pulled out meanwhile
		}
		gid, err := attribute(filepath.Join(root, "class/infiniband", hca, "ports", port), "gids/0")
		if err != nil {
			continue
		}
		// The lower half of the first GID is the port's GUID (InfiniBand Architecture 1.4, section 4.1.1).
		hex := strings.ReplaceAll(gid, ":", "")
		if len(hex) == 32 && fleet.GUID("0x"+hex[16:]) == guid {
			return filepath.Base(dir), nil
		}
	}
	return "", fleet.Errorf(fleet.NotFound, "MC-FABRIC-PORT", "no port of this machine has the GUID %s", guid).WithHint("ibstat lists the ports")
}

func attribute(dir, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	return strings.TrimSpace(string(b)), err
}

// OpenDevice opens the port with that GUID. timeout is how long the kernel waits for an answer; that of the station should be longer. It needs root.
func OpenDevice(guid fleet.GUID, timeout time.Duration) (*Device, error) {
	name, err := DeviceOf("", guid)
	if err != nil {
		return nil, err
	}
	path := filepath.Join("/dev/infiniband", name)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fleet.Errorf(fleet.Unavailable, "MC-FABRIC-PORT", "open the InfiniBand port: %w", &fs.PathError{Op: "open", Path: path, Err: err}).
			WithHint("ls -l %s", path)
	}
	d := &Device{file: os.NewFile(uintptr(fd), path), timeout: timeout}
	if err := d.register(fd); err != nil {
		return nil, errors.Join(err, d.file.Close())
	}
	return d, nil
}

// register makes us an agent for directed routes that takes answers only.
func (d *Device) register(fd int) error {
	if err := unix.IoctlSetInt(fd, umadEnablePKey, 0); err != nil {
		return fmt.Errorf("ask for datagrams with partition keys: %w", err)
	}
	req := registration()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), umadRegister, uintptr(unsafe.Pointer(&req[0]))); errno != 0 {
		return fmt.Errorf("register for directed routes: %w", errno)
	}
	d.agent = binary.NativeEndian.Uint32(req[:])
	return nil
}

// registration is a struct ib_user_mad_reg_req: id, four words of methods, queue pair, class and its version.
func registration() (req [umadRequestSize]byte) {
	req[20], req[21], req[22] = 0, classDirected, 1
	return req
}

// envelope puts the kernel's header before a datagram.
func (d *Device) envelope(datagram []byte) []byte {
	b := make([]byte, umadHeader+Size)
	binary.NativeEndian.PutUint32(b[0:], d.agent)
	binary.NativeEndian.PutUint32(b[8:], uint32(d.timeout.Milliseconds()))
	binary.BigEndian.PutUint16(b[28:], permissiveLID)
	copy(b[umadHeader:], datagram)
	return b
}

// open takes a datagram out of the kernel's envelope into buf. One that was not answered comes with its own head only.
func open(envelope, buf []byte) int {
	if len(envelope) < umadHeader {
		return 0
	}
	clear(buf)
	n := copy(buf, envelope[umadHeader:])
	if status := binary.NativeEndian.Uint32(envelope[4:]); status != 0 {
		return min(len(buf), Size)
	}
	return n
}

// Send gives a datagram to the kernel.
func (d *Device) Send(datagram []byte) error {
	_, err := d.file.Write(d.envelope(datagram))
	if errors.Is(err, syscall.EAGAIN) {
		err = nil // no room now: the station asks again
	}
	return err
}

// Receive waits for a datagram.
func (d *Device) Receive(buf []byte, until time.Time) (int, error) {
	if err := d.file.SetReadDeadline(until); err != nil {
		return 0, err
	}
	b := make([]byte, umadHeader+Size)
	n, err := d.file.Read(b)
	if err != nil {
		return 0, err
	}
	return open(b[:n], buf), nil
}

// Close gives the port back.
func (d *Device) Close() error { return d.file.Close() }
