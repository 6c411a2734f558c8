package inspect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/agent/kmsg"
	"github.com/metalctl/metalctl/fleet"
)

// kernelLog is where a recording keeps the records that /dev/kmsg gave.
const kernelLog = "kmsg"

// maxRecords bounds a log: rings hold some hundred thousand lines at most.
const maxRecords = 1 << 20

// readKernelLog looks for hardware trouble in the kernel's log since boot. A ring that has wrapped says so: what it lost cannot be told.
func (r *reading) readKernelLog(ctx context.Context) {
	r.inv.KernelFindings = r.kernelFindings(ctx)
	if r.sim != nil {
		r.inv.KernelFindings = append(r.inv.KernelFindings, r.sim.kernelFindings(ctx)...)
		r.takeMissing(r.sim)
	}
	for i := range r.inv.KernelFindings {
		k := &r.inv.KernelFindings[i]
		k.Component = r.component(k.Component)
	}
}

func (r *reading) kernelFindings(ctx context.Context) []fleet.KernelFinding {
	f := kmsg.Findings{Boot: r.bootTime()}
	first := true
	var kept bytes.Buffer // of a recording: findings only, as other lines may tell what is nobody's business
	each := func(record string) {
		k, ok := kmsg.Parse(record)
		if !ok {
			return
		}
		if first && k.Sequence > 0 {
			r.missingf("kernel_findings", "the kernel's log has lost its first %d records", k.Sequence)
		}
		head, _, _ := strings.Cut(record, ";")
		switch line, _, _ := strings.Cut(record, "\n"); {
		case f.Add(k):
			kept.WriteString(line + "\n")
		case first: // its number says what was lost
			kept.WriteString(head + ";(only what tells of hardware trouble was recorded)\n")
		}
		first = false
	}
	var err error
	if r.fs.Live() {
		err = liveRecords(ctx, each)
	} else {
		var text string
		text, err = r.fs.Aside().Text(kernelLog)
		for line := range strings.Lines(text) {
			each(line)
		}
	}
	if err == nil {
		r.fs.Keep(kernelLog, kept.Bytes())
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && !r.fs.Live() {
			err = errors.New("the recording has no kernel log (" + kernelLog + ")")
		}
		r.missing("kernel_findings", err)
	}
	return f.List()
}

// bootTime is when the kernel started, to the second; zero where nobody tells.
func (r *reading) bootTime() time.Time {
	up, _, _ := strings.Cut(r.fs.Try("proc/uptime"), " ")
	seconds, err := strconv.ParseFloat(up, 64)
	if err != nil || seconds < 0 || seconds > 1e10 {
		return time.Time{}
	}
	return r.inv.TakenAt.Add(-time.Duration(seconds * float64(time.Second))).Truncate(time.Second)
}

// socket turns the number of a thread, with what may follow, into the processor's name: cpu/1/bank/7. It is what is replaced.
func (r *reading) socket(thread string) string {
	number, rest, more := strings.Cut(thread, "/")
	if more {
		rest = "/" + rest
	}
	socket, err := r.fs.Number("sys/devices/system/cpu/cpu"+number, "topology/physical_package_id")
	if err != nil || socket < 0 {
		return "thread/" + thread
	}
	return fmt.Sprintf("cpu/%d", socket) + rest
}

// component turns pci/ADDRESS or a thread, with what may follow, into the part's own name where the machine has one.
func (r *reading) component(c string) string {
	if thread, ok := strings.CutPrefix(c, "thread/"); ok {
		return r.socket(thread)
	}
	address, isPCI := strings.CutPrefix(c, "pci/")
	if !isPCI {
		return c
	}
	address, rest, more := strings.Cut(address, "/")
	if more {
		rest = "/" + rest
	}
	for _, g := range r.inv.GPUs {
		if g.PCIAddress == address {
			n := g.ModuleID
			if n == 0 {
				n = g.Index
			}
			if n >= 0 {
				return fmt.Sprintf("gpu/%d", n) + rest
			}
		}
	}
	for i, s := range r.inv.NVSwitches {
		if s.PCIAddress == address {
			return fmt.Sprintf("nvswitch/%d", i) + rest
		}
	}
	for _, h := range r.inv.HCAs {
		if h.PCIAddress == address {
			return "hca/" + h.Name + rest
		}
	}
	for _, d := range r.inv.Disks {
		if d.PCIAddress == address && d.Transport == "nvme" {
			return "disk/" + d.Name + rest
		}
	}
	return c
}

// liveRecords reads what the kernel has now, and does not wait for more.
func liveRecords(ctx context.Context, each func(string)) error {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/kmsg: %w", err)
	}
	f := os.NewFile(uintptr(fd), "/dev/kmsg")
	defer f.Close()
	b := make([]byte, 8192) // one read is one record, at most CONSOLE_EXT_LOG_MAX long
	for range maxRecords {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Read(fd, b)
		switch {
		case errors.Is(err, unix.EAGAIN), err == nil && n == 0:
			return nil
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR):
			continue // the ring overtook the reader, which goes on with the oldest it has
		case err != nil && !errors.Is(err, io.EOF):
			return fmt.Errorf("read /dev/kmsg: %w", err)
		}
		each(string(b[:n]))
	}
	return nil
}
