package fleet

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
)

// Limit bounds one measured value for all parts of its kind in a class. Every limit says where it is from: a number whose origin nobody knows is kept
// for ever, however wrong (DCGM's least bandwidth of an H200 lacks three digits, so that the check cannot fail).
type Limit struct {
	Check  string  `json:"check"` // one of LimitChecks
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"` // that of the check, repeated so that a reader and the check of units see the same
	Source string  `json:"source"`
}

// LimitCheck is a value that a class may bound.
type LimitCheck struct {
	Name, Unit string
	// Least is true where the limit is the least value, false where it is the most.
	Least bool
	Doc   string
}

// LimitChecks are all that there are.
var LimitChecks = []LimitCheck{
	{"dimm-corrected-errors", "errors", false, "errors that a memory module corrected since boot"},
	{"gpu-corrected-errors", "errors", false, "memory errors that a GPU corrected since its driver was loaded"},
	{"gpu-max-sm-clock", "MHz", true, "the highest clock that a GPU offers"},
	{"gpu-memory-used", "MiB", false, "memory that is taken while nobody uses the GPU"},
	{"gpu-pcie-replays", "replays", false, "packets that a GPU's PCIe link sent again"},
	{"gpu-power-limit", "W", true, "the power that a GPU may draw"},
	{"gpu-remapped-rows", "rows", false, "rows of HBM that were replaced after errors that could not be corrected"},
	{"gpu-temperature-margin", "C", true, "how far a GPU is from slowing down"},
	{"hca-temperature", "C", false, "the ASIC's temperature"},
	{"nvlink-effective-ber", "errors/bit", false, "bit error rate of an NVLink after correction"},
	{"nvme-media-errors", "errors", false, "reads and writes that a drive could not do"},
	{"nvme-used", "percent", false, "the part of a drive's life that is used up, by its own account"},
}

// Limit returns the class's limit for a check, or nil.
func (e ClassExpect) Limit(check string) *Limit {
	for i := range e.Limits {
		if e.Limits[i].Check == check {
			return &e.Limits[i]
		}
	}
	return nil
}

func (e ClassExpect) validate() []FieldError {
	var f faults
	for field, n := range map[string]int64{"cpus": int64(e.CPUs), "numa_nodes": int64(e.NUMANodes), "memory_bytes": e.MemoryBytes, "disks": int64(e.Disks), "nics": int64(e.NICs),
		"nvme": int64(e.NVMe.Count), "nvme.size_bytes": e.NVMe.SizeBytes, "gpus": int64(e.GPUs.Count), "gpus.memory_bytes": e.GPUs.MemoryBytes, "gpus.nvlinks_up": int64(e.GPUs.NVLinksUp),
		"infiniband": int64(e.InfiniBand.Count), "nvswitches": int64(e.NVSwitches), "dimms.count": int64(e.DIMMs.Count), "dimms.size_bytes": e.DIMMs.SizeBytes,
		"topology.nvme_per_rail": int64(e.Topology.NVMePerRail), "baseboard.nvlinks": int64(e.Baseboard.NVLinks), "baseboard.retimers": int64(e.Baseboard.Retimers),
		"baseboard.roots_of_trust": int64(e.Baseboard.RootsOfTrust)} {
		f.check(n >= 0, "expect."+field, "is negative")
	}
	for item, version := range e.Firmware.Board {
		_, err := path.Match(item, "")
		f.check(err == nil && item != "" && version != "", "expect.firmware.board", "needs items such as HGX_FW_PCIeRetimer_*, each with a version")
	}
	f.check(e.GPUs.NVLinkGBps >= 0, "expect.gpus.nvlink_gbps", "is negative")
	f.check(e.InfiniBand.RateGbps >= 0, "expect.infiniband.rate_gbps", "is negative")
	for field, p := range map[string]ExpectPCIe{"gpus": e.GPUs.PCIe, "infiniband": e.InfiniBand.PCIe, "nvme": e.NVMe.PCIe} {
		f.check(p.Generation >= 0 && p.Generation <= 8, "expect."+field+".pcie.generation", "is none")
		f.check(slices.Contains([]int{0, 1, 2, 4, 8, 16, 32}, p.Width), "expect."+field+".pcie.width", "is none of 1, 2, 4, 8, 16, 32 lanes")
	}
	one := func(field, value string, of ...string) {
		f.check(value == "" || slices.Contains(of, value), "expect."+field, "is none of "+strings.Join(of, ", "))
	}
	one("acs", e.ACS, "on", "off")
	one("gpus.confidential_compute", e.GPUs.Confidential, "on", "off")
	one("infiniband.bluefield", e.InfiniBand.BlueField, "nic", "dpu")
	one("infiniband.link_layer", e.InfiniBand.LinkLayer, "InfiniBand", "Ethernet")
	one("topology.rail", e.Topology.Rail, Distances...)
	one("topology.wiring", e.Topology.Wiring, Wirings...)
	f.check(e.GPUs.Count == 0 || e.Topology.GPUNUMANodes == nil || len(e.Topology.GPUNUMANodes) == e.GPUs.Count, "expect.topology.gpu_numa_nodes", "has another length than there are GPUs")
	seen := map[string]bool{}
	for i, l := range e.Limits {
		at := fmt.Sprintf("expect.limits[%d]", i)
		k := slices.IndexFunc(LimitChecks, func(c LimitCheck) bool { return c.Name == l.Check })
		if k < 0 {
			f.check(false, at+".check", "is none of "+limitNames())
			continue
		}
		f.check(l.Unit == LimitChecks[k].Unit, at+".unit", "is not "+LimitChecks[k].Unit)
		f.check(strings.TrimSpace(l.Source) != "", at+".source", "is missing: say where the number is from")
		f.check(!math.IsNaN(l.Value) && !math.IsInf(l.Value, 0) && l.Value >= 0, at+".value", "is no number from 0 on")
		f.check(!seen[l.Check], at+".check", "stands there twice")
		seen[l.Check] = true
	}
	return f
}

// Wirings are the tables of NVLinks by module id that the program knows.
var Wirings = []string{"hgx-hopper"}

func limitNames() string {
	var names []string
	for _, c := range LimitChecks {
		names = append(names, c.Name)
	}
	return strings.Join(names, ", ")
}

// SlippedUnits lists the limits of a class that are about a thousand or a million times what all other classes with that limit say: that is a unit that
// was taken for another, and a check that cannot fail.
func SlippedUnits(c Class, others []Class) []FieldError {
	var f faults
	for i, l := range c.Expect.Limits {
		siblings, slipped := 0, ""
		for _, o := range others {
			s := o.Expect.Limit(l.Check)
			if o.Name == c.Name || s == nil || s.Value <= 0 || l.Value <= 0 {
				continue
			}
			siblings++
			if decades := math.Abs(math.Log10(l.Value / s.Value)); math.Abs(decades-3) < 0.4 || math.Abs(decades-6) < 0.4 {
				slipped = fmt.Sprintf("%g %s of class %s", s.Value, s.Unit, o.Name)
			} else {
				siblings = math.MinInt32 // one that is near is enough
			}
		}
		f.check(siblings <= 0 || slipped == "", fmt.Sprintf("expect.limits[%d].value", i), fmt.Sprintf("%g is a thousand times off the %s: another unit, it seems", l.Value, slipped))
	}
	return f
}
