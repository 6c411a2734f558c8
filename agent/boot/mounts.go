package boot

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountPoint is one file system that every Linux userland expects.
type mountPoint struct {
	source, target, kind string
	flags                uintptr
	data                 string
	optional             bool
}

const (
	noExec = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	noDev  = unix.MS_NOSUID | unix.MS_NODEV
)

// earlyMounts are mounted before anything is looked at.
var earlyMounts = []mountPoint{
	{"proc", "/proc", "proc", noExec, "", false},
	{"sysfs", "/sys", "sysfs", noExec, "", false},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755", false},
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,ptmxmode=0666", true},
	{"tmpfs", "/dev/shm", "tmpfs", noDev, "mode=1777", true},
	{"tmpfs", "/run", "tmpfs", noDev, "mode=0755", false},
	{"tmpfs", "/tmp", "tmpfs", noDev, "mode=1777", false},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", noExec, "", true},
	{"securityfs", "/sys/kernel/security", "securityfs", noExec, "", true},
}

// lateMounts need modules.
var lateMounts = []mountPoint{
	{"efivarfs", "/sys/firmware/efi/efivars", "efivarfs", noExec, "", true},
	{"pstore", "/sys/fs/pstore", "pstore", noExec, "", true},
}

// mountAll mounts points in order. One that is mounted already is fine, an optional one may be refused.
func mountAll(points []mountPoint, mount func(source, target, kind string, flags uintptr, data string) error) error {
	for _, p := range points {
		if err := os.MkdirAll(p.target, 0o755); err != nil {
			if p.optional {
				continue
			}
			return fmt.Errorf("make %s: %w", p.target, err)
		}
		err := mount(p.source, p.target, p.kind, p.flags, p.data)
		if err != nil && !errors.Is(err, unix.EBUSY) && !p.optional {
			return fmt.Errorf("mount %s on %s: %w", p.kind, p.target, err)
		}
	}
	return nil
}
