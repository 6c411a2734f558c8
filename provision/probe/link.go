package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
)

// link hears and sends whole frames at one network interface.
type link struct {
	name  string
	index int
	mac   [6]byte
	file  *os.File
	raw   syscall.RawConn
	// closed is set before the file is closed.
	closed atomic.Bool
}

// namespaces is where `ip netns` keeps the names.
const namespaces = "/run/netns"

// openLinks opens interfaces in a network namespace: one by its path, or by a name that `ip netns` gave it; "" is this process's own.
func openLinks(namespace string, names []string) (out []*link, err error) {
	all := func() error {
		for _, n := range names {
			l, err := openLink(n)
			if err != nil {
				closeLinks(out)
				return err
			}
			out = append(out, l)
		}
		return nil
	}
	if namespace == "" {
		return out, all()
	}
	if !filepath.IsAbs(namespace) {
		namespace = filepath.Join(namespaces, namespace)
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread is in another namespace from here on and ends with this goroutine.
		runtime.LockOSThread()
		done <- func() error {
			ns, err := os.Open(namespace)
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter the network namespace %s: %w", namespace, err)
			}
			return all()
		}()
	}()
	err = <-done
	return out, err
}

func closeLinks(all []*link) {
	for _, l := range all {
		l.closed.Store(true)
		_ = l.file.Close() // nothing is lost by it
	}
}

func openLink(name string) (*link, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	if len(ifi.HardwareAddr) != 6 {
		return nil, fmt.Errorf("open %s: it is no Ethernet interface", name)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s for whole frames: %w", name, err)
	}
	l := &link{name: name, index: ifi.Index, mac: [6]byte(ifi.HardwareAddr), file: os.NewFile(uintptr(fd), name)}
	if err := l.set(fd); err != nil {
		return nil, errors.Join(fmt.Errorf("listen at %s: %w", name, err), l.file.Close())
	}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("listen at %s: %w", name, err), l.file.Close())
	}
	return l, nil
}

// set prepares the socket: only frames of ours, with whatever tag they have, also where the card would drop that.
func (l *link) set(fd int) error {
	// The kernel has taken the outer tag off by then; a second one is the type of what is left (linux/filter.h).
	const protocol = 0xfffff000 // SKF_AD_OFF + SKF_AD_PROTOCOL
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: protocol},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: etherType, Jt: 2},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: dot1Q, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: dot1ad, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: maxFrame},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: (*unix.SockFilter)(unsafe.Pointer(&code[0]))}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return err
	}
	// Cards drop tags that nobody asked for, unless they are promiscuous.
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(l.index), Type: unix.PACKET_MR_PROMISC}); err != nil {
		return err
	}
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: l.index})
}

func bigEndian(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// maxFrame is more than any frame of ours has.
const maxFrame = 256

// errDown: the interface is switched off or has no carrier.
var errDown = errors.New("the link is down")

// send sends one frame, or loses it where the link is busy.
func (l *link) send(b []byte) error {
	var err error
	werr := l.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, 0, &unix.SockaddrLinklayer{Ifindex: l.index, Halen: 6})
		return true
	})
	switch {
	case werr != nil:
		return fmt.Errorf("send at %s: %w", l.name, werr)
	case errors.Is(err, unix.ENETDOWN):
		return errDown
	case err == nil, errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EINTR):
		return nil
	}
	return fmt.Errorf("send at %s: %w", l.name, err)
}

// next waits for a frame that others sent, and returns its outer tag and what it says. It returns os.ErrClosed once the link is closed.
func (l *link) next() (fleet.FrameTag, []byte, error) {
	b, control := make([]byte, maxFrame), make([]byte, 128)
	for {
		var n, c int
		var from unix.Sockaddr
		var err error
		rerr := l.raw.Read(func(fd uintptr) bool {
			n, c, _, from, err = unix.Recvmsg(int(fd), b, control, 0)
			return !errors.Is(err, unix.EAGAIN)
		})
		switch {
		case l.closed.Load():
			return 0, nil, os.ErrClosed
		case rerr != nil:
			return 0, nil, fmt.Errorf("listen at %s: %w", l.name, rerr)
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN):
			continue
		case err != nil:
			return 0, nil, fmt.Errorf("listen at %s: %w", l.name, err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); !ok || ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		tag, payload, ours := untag(b[:n])
		if !ours {
			continue
		}
		if outer, has := tagTaken(control[:c]); has {
			tag = outer
		}
		return tag, payload, nil
	}
}

// tagTaken is the tag that the kernel took off a frame (struct tpacket_auxdata of linux/if_packet.h).
func tagTaken(control []byte) (fleet.FrameTag, bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 20 && binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_VLAN_VALID != 0 {
			return fleet.FrameTag(binary.NativeEndian.Uint16(m.Data[16:]) & 0xfff), true
		}
	}
	return 0, false
}
