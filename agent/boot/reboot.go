package boot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Reboot restarts the machine in an orderly way: other processes end, everything is on disk, file systems are unmounted.
// It returns only with an error, or when ctx ended before anything was stopped.
func Reboot(ctx context.Context) error { return end(ctx, unix.LINUX_REBOOT_CMD_RESTART) }

// PowerOff is Reboot that leaves the machine off.
func PowerOff(ctx context.Context) error { return end(ctx, unix.LINUX_REBOOT_CMD_POWER_OFF) }

// stopWait is how long other processes have to end by themselves.
const stopWait = 5 * time.Second

func end(ctx context.Context, command int) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("only PID 1 ends a machine, and this is %d", os.Getpid())
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	stopOthers(ctx)
	unix.Sync()
	if mounts, err := os.ReadFile("/proc/self/mounts"); err == nil {
		for _, target := range unmountOrder(string(mounts)) {
			if unix.Unmount(target, 0) != nil {
				// Still in use: readers can go on, and nothing more is written.
				_ = unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
			}
		}
	}
	unix.Sync()
	if err := unix.Reboot(command); err != nil {
		return fmt.Errorf("end the machine: %w", err)
	}
	return nil
}

// stopOthers asks every other process to end, and kills those that do not.
func stopOthers(ctx context.Context) {
	if unix.Kill(-1, unix.SIGTERM) != nil { // ESRCH: there is nobody
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stopWait)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for len(programs("/proc")) > 0 {
		select {
		case <-ctx.Done():
			_ = unix.Kill(-1, unix.SIGKILL)
			return
		case <-tick.C:
		}
	}
}

// programs lists the processes that are neither us, nor the kernel's, nor dead.
func programs(proc string) (pids []int) {
	dirs, err := filepath.Glob(filepath.Join(proc, "[0-9]*"))
	if err != nil {
		return nil
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == 1 {
			continue
		}
		if cmd, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil && len(cmd) > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// kernelFileSystems need no unmounting.
var kernelFileSystems = map[string]bool{
	"proc": true, "sysfs": true, "devtmpfs": true, "devpts": true, "tmpfs": true, "rootfs": true, "ramfs": true, "cgroup2": true,
	"securityfs": true, "efivarfs": true, "pstore": true, "debugfs": true,
}

// unmountOrder returns the mount points that hold data, the last mounted first.
func unmountOrder(mounts string) (targets []string) {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) >= 3 && !kernelFileSystems[f[2]] {
			targets = append([]string{unescape.Replace(f[1])}, targets...)
		}
	}
	return targets
}
