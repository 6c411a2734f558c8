package boot

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sweepEvery is how often orphans are looked for. A child of ours is waited for at once by whoever started it, so that a
// zombie that two sweeps see is an orphan that fell to PID 1.
const sweepEvery = 5 * time.Second

// reap collects orphans until ctx ends.
func reap(ctx context.Context, proc string, self int, wait func(pid int)) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var before map[int]bool
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			before = sweep(proc, self, before, wait)
		}
	}
}

// sweep waits for the zombies of this sweep and the one before, and returns those that are new.
func sweep(proc string, self int, before map[int]bool, wait func(pid int)) map[int]bool {
	now := map[int]bool{}
	for _, pid := range zombies(proc, self) {
		if before[pid] {
			wait(pid)
		} else {
			now[pid] = true
		}
	}
	return now
}

func wait4(pid int) {
	// An error means that somebody else was first.
	_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
}

// zombies lists the dead children of self (proc_pid_stat(5): pid, name in parentheses, state, parent).
func zombies(proc string, self int) (pids []int) {
	dirs, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "stat"))
	if err != nil {
		return nil
	}
	for _, file := range dirs {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) < 2 || fields[0] != "Z" || fields[1] != strconv.Itoa(self) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
