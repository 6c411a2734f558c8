package fleet

import "slices"

// MeasuredCheck is a value that a stressor or a sampler measures.
type MeasuredCheck struct {
	Name, Unit string
	// Part is the kind of component: cpu, core, numa, dimm, disk, hca, gpu, peer (gpu/A/peer/B).
	Part string
	// Judge is how it is judged before any limit: zero (any other value is wrong data), more (more is better, fellows are compared), less, none.
	Judge string
	Doc   string
}

// MeasuredChecks are all that there are.
var MeasuredChecks = []MeasuredCheck{
	{"cpu-mismatches", "results", "core", "zero", "results of a core that differ from those of the others"},
	{"cpu-rate", "passes/s", "core", "more", "how fast a core computes"},
	{"disk-mismatches", "blocks", "disk", "zero", "blocks that were read other than they were written"},
	{"disk-io-errors", "errors", "disk", "zero", "reads and writes that the drive refused"},
	{"disk-read", "MB/s", "disk", "more", "sequential reading"},
	{"disk-write", "MB/s", "disk", "more", "sequential writing"},
	{"disk-read-latency", "us", "disk", "less", "99th percentile of random 4 KiB reads, one at a time"},
	{"disk-write-latency", "us", "disk", "less", "99th percentile of random 4 KiB writes, one at a time"},
	{"disk-leftovers", "extents", "disk", "less", "extents with our own patterns that a run cut short had left, and that were zeroed before this one"},
	{"gpu-mismatches", "words", "gpu", "zero", "words of a result that differ from those of the other GPUs, or of an earlier pass"},
	{"gpu-memory-mismatches", "words", "gpu", "zero", "words of HBM that were read other than they were written"},
	{"gpu-copy-mismatches", "words", "gpu", "zero", "words that arrived other than they were sent between host and GPU"},
	{"gpu-memory-tested", "percent", "gpu", "none", "part of the memory that patterns were written to"},
	{"gpu-memory-bandwidth", "GB/s", "gpu", "more", "reading and writing HBM"},
	{"gpu-int32", "TOP/s", "gpu", "more", "32 bit integer multiply-add"},
	{"gpu-fp32", "TFLOP/s", "gpu", "more", "single precision, no tensor cores"},
	{"gpu-fp64", "TFLOP/s", "gpu", "more", "double precision, no tensor cores"},
	{"gpu-bf16", "TFLOP/s", "gpu", "more", "bfloat16 on tensor cores"},
	{"gpu-int8", "TOP/s", "gpu", "more", "8 bit integers on tensor cores"},
	{"gpu-h2d", "GB/s", "gpu", "more", "copying from pinned host memory to the GPU"},
	{"gpu-d2h", "GB/s", "gpu", "more", "copying from the GPU to pinned host memory"},
	{"gpu-peer", "GB/s", "peer", "more", "copying to another GPU"},
	{"gpu-peer-mismatches", "words", "peer", "zero", "words that arrived other than they were sent between GPUs"},
	{"gpu-kernel-load", "s", "gpu", "none", "compiling the kernels just in time"},
	{"gpu-temperature-max", "C", "gpu", "less", "the highest temperature under load"},
	{"gpu-memory-temperature-max", "C", "gpu", "less", "the highest temperature of HBM under load"},
	{"gpu-power-load", "W", "gpu", "none", "mean power under load"},
	{"gpu-sm-clock-load", "MHz", "gpu", "more", "mean SM clock under load"},
	{"gpu-pcie-generation-load", "generation", "gpu", "none", "lowest generation of the PCIe link under load"},
	{"gpu-pcie-width-load", "lanes", "gpu", "none", "narrowest PCIe link under load"},
	{"memory-mismatches", "words", "numa", "zero", "words of memory that were read other than they were written"},
	{"memory-tested", "percent", "numa", "none", "part of a NUMA node's memory that patterns were written to"},
	{"memory-bandwidth", "GB/s", "numa", "more", "triad over all cores of a NUMA node, in its own memory"},
	{"hca-bandwidth", "Gb/s", "hca", "more", "RDMA writes over a port's loopback or to its pair"},
	{"hca-mismatches", "words", "hca", "zero", "words that arrived other than they were sent"},
	{"nic-bandwidth", "Gb/s", "hca", "more", "sending between network ports"},
}

// FindMeasured returns the declaration of a measured check.
func FindMeasured(name string) (MeasuredCheck, bool) {
	i := slices.IndexFunc(MeasuredChecks, func(c MeasuredCheck) bool { return c.Name == name })
	if i < 0 {
		return MeasuredCheck{}, false
	}
	return MeasuredChecks[i], true
}
