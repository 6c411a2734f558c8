package inspect

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// readCPUs counts sockets, cores and threads from the topology of every online CPU; names come from /proc/cpuinfo.
func (r *reading) readCPUs(context.Context) {
	names, err := r.fs.List("sys/devices/system/cpu")
	if err != nil || len(names) == 0 {
		r.missingf("cpu", "/sys/devices/system/cpu cannot be read: %v", err)
		return
	}
	info := r.cpuinfo()
	sockets := map[int]*fleet.CPU{}
	cores := map[[2]int64]bool{}
	offline := 0
	for _, name := range names {
		n, err := strconv.Atoi(strings.TrimPrefix(name, "cpu"))
		if err != nil || !strings.HasPrefix(name, "cpu") {
			continue
		}
		dir := "sys/devices/system/cpu/" + name
		if r.fs.NumberOr(1, dir, "online") == 0 {
			offline++ // its topology is gone while it is off
			continue
		}
		socket, err := r.fs.Number(dir, "topology/physical_package_id")
		if err != nil {
			r.missing("cpu", err)
			continue
		}
		core, err := r.fs.Number(dir, "topology/core_id")
		if err != nil {
			r.missing("cpu", err)
			continue
		}
		if socket < 0 {
			socket = 0 // arm64 firmware without a PPTT
		}
		c := sockets[int(socket)]
		if c == nil {
			c = &fleet.CPU{Socket: int(socket), Model: info[n]["model name"], Microcode: info[n]["microcode"]}
			c.MaxMHz = int(r.fs.NumberOr(0, dir, "cpufreq/cpuinfo_max_freq") / 1000)
			sockets[int(socket)] = c
		}
		c.Threads++
		die := r.fs.NumberOr(0, dir, "topology/die_id")
		key := [2]int64{socket<<32 | max(die, 0), core}
		if !cores[key] {
			cores[key] = true
			c.Cores++
		}
	}
	if offline > 0 {
		r.missingf("cpu", "%d CPUs are offline", offline)
	}
	for _, c := range sockets {
		if c.Model == "" {
			c.Model = r.socketModel(c.Socket)
		}
		if c.Model == "" {
			r.missingf(fmt.Sprintf("cpu/%d model", c.Socket), "neither /proc/cpuinfo nor SMBIOS names it")
		}
		r.inv.CPUs = append(r.inv.CPUs, *c)
	}
	slices.SortFunc(r.inv.CPUs, func(a, b fleet.CPU) int { return a.Socket - b.Socket })
}

// socketModel is what SMBIOS says of a socket, for kernels whose cpuinfo names no model (arm64).
func (r *reading) socketModel(socket int) string {
	if r.dmi == nil || socket >= len(r.dmi.ProcessorInformation) {
		return ""
	}
	return r.dmi.ProcessorInformation[socket].ProcessorVersion
}

// cpuinfo returns the fields of /proc/cpuinfo by logical CPU.
func (r *reading) cpuinfo() map[int]map[string]string {
	b, err := r.fs.Bytes("proc/cpuinfo")
	if err != nil {
		r.missing("cpu model", err)
		return nil
	}
	return parseCPUInfo(string(b))
}

func parseCPUInfo(text string) map[int]map[string]string {
	out := map[int]map[string]string{}
	var cur map[string]string
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, sysfs.MaxFile)
	for lines.Scan() {
		k, v, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			continue
		}
		k, v = strings.TrimSpace(k), strings.TrimSpace(v)
		if k == "processor" {
			n, err := strconv.Atoi(v)
			if err != nil {
				continue
			}
			cur = map[string]string{}
			out[n] = cur
		}
		if cur != nil {
			cur[k] = v
		}
	}
	return out
}
