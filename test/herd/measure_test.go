package herd

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// usage is what the server's process has used so far, as the kernel counts.
type usage struct {
	at      time.Time
	cpu     time.Duration
	rss     int64 // bytes now
	peak    int64 // bytes at most
	written int64 // bytes given to the disk
}

// tick is the unit of /proc/PID/stat: USER_HZ is 100 on every Linux architecture that Go runs on.
const tick = 10 * time.Millisecond

func (f *farm) usage() usage {
	f.t.Helper()
	pid := f.cmd.Process.Pid
	u := usage{at: time.Now()}
	stat := f.proc(pid, "stat")
	// The command's name stands in parentheses and may hold anything; utime and stime are fields 14 and 15 (proc(5)).
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	u.cpu = time.Duration(f.number(fields[11])+f.number(fields[12])) * tick
	for s := bufio.NewScanner(strings.NewReader(f.proc(pid, "status"))); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		value = strings.TrimSpace(strings.TrimSuffix(value, "kB"))
		switch name {
		case "VmRSS":
			u.rss = f.number(value) << 10
		case "VmHWM":
			u.peak = f.number(value) << 10
		}
	}
	for s := bufio.NewScanner(strings.NewReader(f.proc(pid, "io"))); s.Scan(); {
		if value, ok := strings.CutPrefix(s.Text(), "write_bytes: "); ok {
			u.written = f.number(value)
		}
	}
	return u
}

func (f *farm) proc(pid int, name string) string {
	f.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(b)
}

func (f *farm) number(s string) int64 {
	f.t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}
