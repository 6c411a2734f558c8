package inspect

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// readNUMA reads every memory domain with its row of distances.
func (r *reading) readNUMA(context.Context) {
	const dir = "sys/devices/system/node"
	names, err := r.fs.List(dir)
	if err != nil {
		r.missing("numa", err)
		return
	}
	for _, name := range names {
		id, err := strconv.Atoi(strings.TrimPrefix(name, "node"))
		if err != nil || !strings.HasPrefix(name, "node") {
			continue
		}
		what := fmt.Sprintf("numa/%d", id)
		n := fleet.NUMANode{ID: id, Distances: []int{}}
		if n.CPUs, err = r.fs.Text(dir, name, "cpulist"); err != nil {
			r.missing(what+" cpus", err)
		}
		if n.MemoryBytes, err = r.nodeMemory(dir, name); err != nil {
			r.missing(what+" memory", err)
		}
		row, err := r.fs.Text(dir, name, "distance")
		if err != nil {
			r.missing(what+" distances", err)
		}
		for _, f := range strings.Fields(row) {
			d, err := strconv.Atoi(f)
			if err != nil {
				r.missingf(what+" distances", "%q is not a row of numbers", row)
				n.Distances = []int{}
				break
			}
			n.Distances = append(n.Distances, d)
		}
		r.inv.NUMANodes = append(r.inv.NUMANodes, n)
	}
	if len(r.inv.NUMANodes) == 0 {
		r.missingf("numa", "the kernel shows no memory domains (/%s)", dir)
	}
	slices.SortFunc(r.inv.NUMANodes, func(a, b fleet.NUMANode) int { return a.ID - b.ID })
}

// nodeMemory reads "Node 0 MemTotal: 131072 kB".
func (r *reading) nodeMemory(dir, name string) (int64, error) {
	text, err := r.fs.Text(dir, name, "meminfo")
	if err != nil {
		return 0, err
	}
	return kilobytes(text, "MemTotal:")
}

// kilobytes returns the bytes of the line of a meminfo that holds key.
func kilobytes(text, key string) (int64, error) {
	for line := range strings.Lines(text) {
		_, rest, ok := strings.Cut(line, key)
		if !ok {
			continue
		}
		f := strings.Fields(rest)
		if len(f) == 2 && f[1] == "kB" {
			kb, err := strconv.ParseInt(f[0], 10, 64)
			if err == nil && kb >= 0 && kb < 1<<50 {
				return kb << 10, nil
			}
		}
		return 0, fmt.Errorf("%q is not an amount in kB", strings.TrimSpace(line))
	}
	return 0, fmt.Errorf("there is no %s", strings.TrimSuffix(key, ":"))
}
