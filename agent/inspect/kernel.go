package inspect

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/metalctl/metalctl/agent/kmsg"
	"github.com/metalctl/metalctl/fleet"
)

// kernelLog is where a recording keeps the records that /dev/kmsg gave.
const kernelLog = "kmsg"

// readKernelLog looks for hardware trouble in the kernel's log since boot. A ring that has wrapped says so: what it lost cannot be told.
func (r *reading) readKernelLog(ctx context.Context) {
	r.inv.KernelFindings = r.kernelFindings(ctx)
	if r.sim != nil {
		r.inv.KernelFindings = append(r.inv.KernelFindings, r.sim.kernelFindings(ctx)...)
		r.takeMissing(r.sim)
	}
	for i := range r.inv.KernelFindings {
		k := &r.inv.KernelFindings[i]
		k.Component = kmsg.Component(r.inv, k.Component, r.socket)
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
		err = eachLive(ctx, each)
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

// socket tells in which socket a thread of the processors is.
func (r *reading) socket(thread string) (int64, bool) {
	n, err := r.fs.Number("sys/devices/system/cpu/cpu"+thread, "topology/physical_package_id")
	return n, err == nil && n >= 0
}

func eachLive(ctx context.Context, each func(string)) error {
	l, err := kmsg.Open(kmsg.Device)
	if err != nil {
		return err
	}
	defer l.Close()
	return l.Each(ctx, each)
}
