package herd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"crypto/tls"
)

// usage is what the server's process has used so far, as the kernel counts.
type usage struct {
	at      time.Time
	cpu     time.Duration
	rss     int64 // bytes now
	peak    int64 // bytes at most
	own     int64 // bytes now that are not mapped of a file
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
		case "RssAnon":
			u.own = f.number(value) << 10
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

// descriptors is how many files and sockets the server has open.
func (f *farm) descriptors() int {
	f.t.Helper()
	d, err := os.Open(fmt.Sprintf("/proc/%d/fd", f.cmd.Process.Pid))
	if err != nil {
		f.t.Fatal(err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		f.t.Fatal(err)
	}
	return len(names)
}

// metric reads one number from the server's metrics.
func (f *farm) metric(name string) float64 {
	f.t.Helper()
	v, ok := f.metrics()[name]
	if !ok {
		f.t.Fatalf("the server has no metric %s", name)
	}
	return v
}

// metrics reads those of the server's metrics that have no labels.
func (f *farm) metrics() map[string]float64 {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/metrics", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	token, err := os.ReadFile(f.dir + "/data/admin.token")
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}} // a number of our own process
	resp, err := c.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(b)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || strings.HasPrefix(name, "#") || strings.Contains(name, "{") {
			continue
		}
		if all[name], err = strconv.ParseFloat(value, 64); err != nil {
			f.t.Fatal(err)
		}
	}
	return all
}

// needBench skips what only measures.
func needBench(t *testing.T) {
	t.Helper()
	if os.Getenv("METALCTL_BENCH") != "1" {
		t.Skip("bench: set METALCTL_BENCH=1 to measure")
	}
}

const mib = 1 << 20
