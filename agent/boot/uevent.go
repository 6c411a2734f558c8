package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// uevents listens to the kernel's announcements of devices (NETLINK_KOBJECT_UEVENT).
type uevents struct{ f *os.File }

func listenUevents() (*uevents, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("open uevent socket: %w", err)
	}
	// A rack of disks announces hundreds of devices at once; the default buffer would drop some.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind uevent socket: %w", err), unix.Close(fd))
	}
	return &uevents{os.NewFile(uintptr(fd), "uevents")}, nil
}

// run calls added with the modalias of each device that appears, and lost when announcements were dropped, until ctx ends.
func (u *uevents) run(ctx context.Context, added func(alias string), lost func()) error {
	stop := context.AfterFunc(ctx, func() { _ = u.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 16<<10)
	for {
		n, err := u.f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			lost()
			continue
		case err != nil:
			return fmt.Errorf("read uevents: %w", err)
		}
		if alias := addedAlias(buf[:n]); alias != "" {
			added(alias)
		}
	}
}

// addedAlias returns MODALIAS of an "add" or "change" event, or "".
func addedAlias(event []byte) string {
	var add bool
	var alias string
	for _, kv := range bytes.Split(event, []byte{0}) {
		if v, ok := bytes.CutPrefix(kv, []byte("ACTION=")); ok {
			add = string(v) == "add" || string(v) == "change"
		}
		if v, ok := bytes.CutPrefix(kv, []byte("MODALIAS=")); ok {
			alias = string(v)
		}
	}
	if !add {
		return ""
	}
	return alias
}
