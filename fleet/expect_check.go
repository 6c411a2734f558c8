package fleet

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// ExpectWords are the few words that keys of a ClassExpect take. Wirings are tables of NVLinks by module id that the program knows.
var ExpectWords = map[string][]string{
	"acs": {"on", "off"}, "gpus.confidential_compute": {"on", "off"}, "infiniband.bluefield": {"nic", "dpu"}, "infiniband.link_layer": {"InfiniBand", "Ethernet"},
	"topology.rail": Distances, "topology.wiring": {"hgx-hopper"},
}

var pciDevice = regexp.MustCompile(`^[0-9a-fA-F]{4}:[0-9a-fA-F]{4}$`)

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
	for field, p := range map[string]ExpectPCIe{"gpus": e.GPUs.PCIe, "infiniband": e.InfiniBand.PCIe, "nvme": e.NVMe.PCIe} {
		f.check(p.Generation >= 0 && p.Generation <= 8, "expect."+field+".pcie.generation", "is none")
		f.check(slices.Contains([]int{0, 1, 2, 4, 8, 16, 32}, p.Width), "expect."+field+".pcie.width", "is none of 1, 2, 4, 8, 16, 32 lanes")
	}
	for field, value := range map[string]string{"acs": e.ACS, "gpus.confidential_compute": e.GPUs.Confidential, "infiniband.bluefield": e.InfiniBand.BlueField,
		"infiniband.link_layer": e.InfiniBand.LinkLayer, "topology.rail": e.Topology.Rail, "topology.wiring": e.Topology.Wiring} {
		f.check(value == "" || slices.Contains(ExpectWords[field], value), "expect."+field, "is none of "+strings.Join(ExpectWords[field], ", "))
	}
	f.check(e.GPUs.PCIDevice == "" || pciDevice.MatchString(e.GPUs.PCIDevice), "expect.gpus.pci_device", "is not vendor:device, 4 hex digits each")
	e.units(&f)
	e.contradictions(&f)
	checkLimits(&f, "expect.limits", e.Limits)
	return f
}

// units finds numbers that are of another unit than the key says: a class with them would find every node, or none, wrong.
func (e ClassExpect) units(f *faults) {
	for field, b := range map[string]struct {
		got, least int64
	}{"memory_bytes": {e.MemoryBytes, 64 << 20}, "gpus.memory_bytes": {e.GPUs.MemoryBytes, 64 << 20}, "dimms.size_bytes": {e.DIMMs.SizeBytes, 64 << 20}, "nvme.size_bytes": {e.NVMe.SizeBytes, 16 << 20}} {
		f.check(b.got <= 0 || b.got >= b.least, "expect."+field, fmt.Sprintf("is %d bytes: another unit, it seems", b.got))
	}
	within := func(field string, got, least, most float64, unit string) {
		f.check(got == 0 || got >= least && got <= most, "expect."+field, fmt.Sprintf("is %g, and %g to %g are possible: it is in %s", got, least, most, unit))
	}
	within("gpus.nvlink_gbps", e.GPUs.NVLinkGBps, 1, 200, "gigabytes a second, one way (26.562 on Hopper, 53.125 on Blackwell)")
	within("infiniband.rate_gbps", e.InfiniBand.RateGbps, 1, 10000, "gigabits a second")
	within("dimms.speed_mts", float64(e.DIMMs.SpeedMTs), 100, 50000, "megatransfers a second")
}

// contradictions finds what cannot be true of one machine.
func (e ClassExpect) contradictions(f *faults) {
	t := e.Topology
	f.check(e.Disks == 0 || e.NVMe.Count <= e.Disks, "expect.nvme", fmt.Sprintf("are %d of %d disks", e.NVMe.Count, e.Disks))
	if sum := int64(e.DIMMs.Count) * e.DIMMs.SizeBytes; sum > 0 && e.MemoryBytes > 0 {
		f.check(e.MemoryBytes >= sum-sum/16 && e.MemoryBytes <= sum+sum/16, "expect.memory_bytes", fmt.Sprintf("is %d, and %d modules of %d bytes make %d", e.MemoryBytes, e.DIMMs.Count, e.DIMMs.SizeBytes, sum))
	}
	f.check(e.GPUs.Count == 0 || t.GPUNUMANodes == nil || len(t.GPUNUMANodes) == e.GPUs.Count, "expect.topology.gpu_numa_nodes", fmt.Sprintf("places %d GPUs, and there are %d", len(t.GPUNUMANodes), e.GPUs.Count))
	for i, n := range t.GPUNUMANodes {
		f.check(n >= 0 && (e.NUMANodes == 0 || n < e.NUMANodes), fmt.Sprintf("expect.topology.gpu_numa_nodes[%d]", i), fmt.Sprintf("is NUMA node %d, and there are %d, from 0", n, e.NUMANodes))
	}
	f.check(e.NVMe.Count == 0 || t.NVMePerRail*e.GPUs.Count <= e.NVMe.Count, "expect.topology.nvme_per_rail", fmt.Sprintf("takes %d drives for %d GPUs, and there are %d", t.NVMePerRail*e.GPUs.Count, e.GPUs.Count, e.NVMe.Count))
	either := func(n int, of int) bool { return n == 0 || n == of }
	f.check(t.Wiring != "hgx-hopper" || either(e.GPUs.Count, 8) && either(e.NVSwitches, 4) && e.GPUs.NVLinksUp <= 18, "expect.topology.wiring", "is that of eight GPUs, each with 18 NVLinks, and four NVSwitches")
}
