package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// burnFault is one misfortune under load: what it does to a healthy node's burn-in, and the one check that tells of it: outcome, code, component, action.
// $G is the GPU that suffers, by module id, and $S its serial.
type burnFault struct {
	class, name string
	does        func(n nature, b *burned)
	outcome     fleet.Outcome
	want        string
	only        string // kinds that it is about; "" all
}

// from changes all readings from the end of stage i on; those before it stay as they were.
func (b *burned) from(i int, do func(inv *fleet.Inventory)) {
	for k := i; k < len(b.parts); k++ {
		if k > i {
			do(b.parts[k].Before)
		}
		do(b.parts[k].After)
	}
}

// scale multiplies what was measured of a component; "" is all of the check.
func (b *burned) scale(check, component string, by float64) {
	for i := range b.parts {
		for k := range b.parts[i].Measured {
			if m := &b.parts[i].Measured[k]; m.Check == check && (component == "" || m.Component == component) {
				m.Value *= by
			}
		}
	}
}

// set sets what was measured in the first part that measured it.
func (b *burned) set(check, component string, value float64, details ...string) {
	for i := range b.parts {
		for k := range b.parts[i].Measured {
			if m := &b.parts[i].Measured[k]; m.Check == check && m.Component == component {
				m.Value, m.Details = value, details
				return
			}
		}
	}
	panic("nobody measured " + check + " of " + component)
}

func (b *burned) gpu() string { return Component(b.parts[0].Before, 3) }

func (b *burned) pairs(gpu string, do func(pair string)) {
	for o := range 8 {
		if other := Component(b.parts[0].Before, o); other != gpu {
			do(gpu + "/peer/" + strings.TrimPrefix(other, "gpu/"))
			do(other + "/peer/" + strings.TrimPrefix(gpu, "gpu/"))
		}
	}
}

func (b *burned) kernel(stage int, k fleet.KernelFinding) {
	k.Count = max(1, k.Count)
	b.parts[stage].Kernel = append(b.parts[stage].Kernel, k)
}

// xid lets the driver say it of GPU i in a stage.
func (b *burned) xid(stage, i, code int) {
	g := b.parts[0].Before.GPUs[i]
	b.kernel(stage, fleet.KernelFinding{Kind: "xid", Code: code, Component: Component(b.parts[0].Before, i), Line: fmt.Sprintf("NVRM: Xid (PCI:%s): %d, pid=1", strings.TrimSuffix(g.PCIAddress, ".0"), code)})
}

// unmeasure takes away what a stage measured of a part, and says why.
func (b *burned) unmeasure(stage int, part, cause, words string) {
	p := &b.parts[stage]
	p.Measured = slices.DeleteFunc(slices.Clone(p.Measured), func(m fleet.Measured) bool {
		if !slices.Contains(roots(m.Component), part) {
			return false
		}
		p.Untold = append(p.Untold, fleet.Untold{Check: m.Check, Component: m.Component, Cause: cause, Words: words})
		return true
	})
}

// platform takes away all that stages measured of GPUs: the software does not let them.
func (b *burned) platform(cause, words string) {
	for i := 1; i < len(b.parts); i++ {
		p := &b.parts[i]
		p.Measured = nil
		for _, s := range burnProfile.Stages[i].Stress {
			p.Untold = append(p.Untold, fleet.Untold{Check: s, Component: "node", Cause: cause, Words: words})
		}
	}
}

// worse makes a part slower by between low and high of what it measured.
func worse(check string, low, high float64) func(n nature, b *burned) {
	return func(n nature, b *burned) { b.scale(check, b.gpu(), 1-low-(high-low)*n.Float64()) }
}

// grows lets a counter of the third GPU's inventory grow in the third stage.
func grows(do func(g *fleet.GPU)) func(n nature, b *burned) {
	return func(_ nature, b *burned) { b.from(2, func(inv *fleet.Inventory) { do(&inv.GPUs[3]) }) }
}

// portGrows lets a counter of a rail's port grow by so many an hour of the third stage, between low and high.
func portGrows(counter string, low, high float64) func(n nature, b *burned) {
	return func(n nature, b *burned) {
		c := max(1, n.events((low+(high-low)*n.Float64())*0.25))
		b.from(2, func(inv *fleet.Inventory) {
			p := &inv.HCAs[3].Ports[0]
			if p.Counters == nil {
				p.Counters = map[string]int64{}
			}
			p.Counters[counter] += c
		})
	}
}

func linkGrows(link int, counter string, by int64) func(n nature, b *burned) {
	return grows(func(g *fleet.GPU) {
		l := &g.NVLinks[link]
		if l.Errors == nil {
			l.Errors = map[string]int64{}
		}
		l.Errors[counter] += by
	})
}

const (
	olderLinks = "dgx-a100 hgx-h100 hgx-h200"
	newerLinks = "hgx-b200"
)

var burnFaults = []burnFault{
	{"wrong data", "a GPU computes wrongly, once in 1 to 1,000 words", func(n nature, b *burned) {
		b.set("gpu-mismatches", b.gpu(), float64(1+n.IntN(1000)), "int32 pass 7 SM 61 tile 12: 2 words differ")
	}, fleet.Fail, "MC-BURN-DATA $G retest", ""},
	{"wrong data", "a word of HBM is read other than it was written", func(_ nature, b *burned) { b.set("gpu-memory-mismatches", b.gpu(), 1) }, fleet.Fail, "MC-BURN-DATA $G reset", ""},
	{"wrong data", "wrong words of HBM, and wrong results from them", func(_ nature, b *burned) {
		b.set("gpu-memory-mismatches", b.gpu(), 3)
		b.set("gpu-mismatches", b.gpu(), 90)
	}, fleet.Fail, "MC-BURN-DATA $G reset", ""},
	{"wrong data", "a word arrives wrongly from the host", func(_ nature, b *burned) { b.set("gpu-copy-mismatches", b.gpu(), 1) }, fleet.Fail, "MC-BURN-DATA $G retest", ""},
	{"wrong data", "copies to and from one GPU arrive wrongly", func(n nature, b *burned) {
		b.pairs(b.gpu(), func(pair string) { b.set("gpu-peer-mismatches", pair, float64(1+n.IntN(9))) })
	}, fleet.Fail, "MC-BURN-DATA $G/peer reset", ""},
	{"wrong data", "copies between two GPUs arrive wrongly", func(_ nature, b *burned) {
		b.set("gpu-peer-mismatches", Component(b.parts[0].Before, 3)+"/peer/"+strings.TrimPrefix(Component(b.parts[0].Before, 0), "gpu/"), 7)
	}, fleet.Fail, "MC-BURN-DATA $G/peer/$0 retest", ""},
	{"wrong data", "a core computes wrongly", func(_ nature, b *burned) { b.set("cpu-mismatches", "core/14", 1) }, fleet.Fail, "MC-BURN-DATA core/14 retest", ""},
	{"wrong data", "memory of a NUMA node is read other than it was written", func(_ nature, b *burned) { b.set("memory-mismatches", "numa/1", 1) }, fleet.Fail, "MC-BURN-DATA numa/1 retest", ""},
	{"wrong data", "a drive returns other blocks than were written", func(_ nature, b *burned) { b.set("disk-mismatches", "disk/nvme2n1", 1) }, fleet.Fail, "MC-BURN-DATA disk/nvme2n1 retest", ""},
	{"wrong data", "a drive refuses I/O", func(_ nature, b *burned) { b.set("disk-io-errors", "disk/nvme2n1", 2) }, fleet.Fail, "MC-BURN-DISK disk/nvme2n1 retest", ""},

	{"slow parts", "tensor cores 10 to 40 % slower", worse("gpu-bf16", 0.10, 0.40), fleet.Fail, "MC-BURN-SLOW $G retest", ""},
	{"slow parts", "double precision 10 to 40 % slower", worse("gpu-fp64", 0.10, 0.40), fleet.Fail, "MC-BURN-SLOW $G retest", ""},
	{"slow parts", "HBM 7 to 40 % slower", worse("gpu-memory-bandwidth", 0.07, 0.40), fleet.Fail, "MC-BURN-SLOW $G retest", ""},
	{"slow parts", "copies from the host 15 to 60 % slower", worse("gpu-h2d", 0.15, 0.60), fleet.Fail, "MC-BURN-SLOW $G retest", ""},
	{"slow parts", "copies to and from one GPU 7 to 50 % slower", func(n nature, b *burned) {
		by := 0.93 - 0.43*n.Float64()
		b.pairs(b.gpu(), func(pair string) { b.scale("gpu-peer", pair, by) })
	}, fleet.Fail, "MC-BURN-SLOW $G/peer reset", ""},
	{"slow parts", "low clocks, and all rates that follow from them", func(n nature, b *burned) {
		by := 0.85 - 0.3*n.Float64()
		for _, c := range []string{"gpu-sm-clock-load", "gpu-bf16", "gpu-int8", "gpu-fp32", "gpu-fp64", "gpu-int32"} {
			b.scale(c, b.gpu(), by)
		}
	}, fleet.Fail, "MC-BURN-SLOW $G retest", ""},
	{"slow parts", "a rail's bandwidth 8 to 60 % lower", func(n nature, b *burned) {
		b.scale("hca-bandwidth", "hca/"+b.parts[0].Before.HCAs[3].Name, 0.92-0.52*n.Float64())
	}, fleet.Fail, "MC-BURN-SLOW hca/mlx5_3 retest", ""},
	{"slow parts", "a drive reads 35 to 80 % slower", func(n nature, b *burned) { b.scale("disk-read", "disk/nvme2n1", 0.65-0.45*n.Float64()) }, fleet.Fail, "MC-BURN-SLOW disk/nvme2n1 retest", ""},
	{"slow parts", "a drive answers 4 to 50 times as late", func(n nature, b *burned) { b.scale("disk-read-latency", "disk/nvme2n1", 4+46*n.Float64()) }, fleet.Fail, "MC-BURN-SLOW disk/nvme2n1 retest", ""},
	{"slow parts", "a GPU 30 to 40 K hotter than the others", func(n nature, b *burned) {
		hotter := 30 + 10*n.Float64()
		for i := range b.parts {
			for k := range b.parts[i].Measured {
				if m := &b.parts[i].Measured[k]; m.Check == "gpu-temperature-max" && m.Component == b.gpu() {
					m.Value += hotter
				}
			}
		}
	}, fleet.Fail, "MC-BURN-HOT $G retest", ""},
	{"slow parts", "a PCIe link of a lower generation under load", func(_ nature, b *burned) {
		b.set("gpu-pcie-generation-load", b.gpu(), 3)
		b.scale("gpu-h2d", b.gpu(), 0.25)
		b.scale("gpu-d2h", b.gpu(), 0.25)
	}, fleet.Fail, "MC-PCIE-SPEED $G reseat", ""},
	{"slightly slow parts", "tensor cores 6 to 8 % slower", worse("gpu-bf16", 0.06, 0.08), fleet.Warn, "MC-BURN-SLOW $G retest", ""},
	{"slightly slow parts", "HBM 3.5 to 5 % slower", worse("gpu-memory-bandwidth", 0.035, 0.05), fleet.Warn, "MC-BURN-SLOW $G retest", ""},

	{"counters", "errors of HBM that could not be corrected", grows(func(g *fleet.GPU) { g.ECC.Volatile.Uncorrected++ }), fleet.Fail, "MC-GPU-ECC $G reset", ""},
	{"counters", "a row of HBM is replaced after an error", grows(func(g *fleet.GPU) { g.RemappedRows.Uncorrectable++ }), fleet.Fail, "MC-BURN-ECC $G reset", ""},
	{"counters", "200 to 1,000 corrected errors of HBM an hour", func(n nature, b *burned) {
		c := n.events(50 + 200*n.Float64())
		b.from(2, func(inv *fleet.Inventory) { inv.GPUs[3].ECC.Volatile.Corrected += c })
	}, fleet.Fail, "MC-BURN-ECC $G reset", ""},
	{"counters", "an NVLink recovers", linkGrows(7, "recovery", 1), fleet.Fail, "MC-BURN-NVLINK $G/nvlink/7 reset", olderLinks},
	{"counters", "an NVLink replays 6 to 60 times", func(n nature, b *burned) { linkGrows(7, "replay", int64(6+n.IntN(55)))(n, b) }, fleet.Fail, "MC-BURN-NVLINK $G/nvlink/7 reset", olderLinks},
	{"counters", "an NVLink loses packets", linkGrows(7, "local-integrity", 1), fleet.Fail, "MC-BURN-NVLINK $G/nvlink/7 reset", newerLinks},
	{"counters", "an NVLink recovers 6 to 60 times", func(n nature, b *burned) { linkGrows(7, "recovery-ok", int64(6+n.IntN(55)))(n, b) }, fleet.Fail, "MC-BURN-NVLINK $G/nvlink/7 reset", newerLinks},
	{"counters", "three GPUs' links to one NVSwitch recover", func(_ nature, b *burned) {
		b.from(2, func(inv *fleet.Inventory) {
			for i := range 3 {
				for l := range inv.GPUs[i].NVLinks {
					if chip, _, _ := Wired("hgx-hopper", inv.GPUs[i].ModuleID, l); chip == 2 {
						inv.GPUs[i].NVLinks[l].Errors = map[string]int64{"recovery": 1}
						break
					}
				}
			}
		})
	}, fleet.Fail, "MC-BURN-NVLINK nvswitch/2 cold-cycle", hopperOnly},
	{"counters", "a GPU's PCIe link replays 3,000 to 30,000 times an hour", func(n nature, b *burned) {
		c := n.events(0.6 * (3000 + 27000*n.Float64()))
		b.from(2, func(inv *fleet.Inventory) { inv.GPUs[3].PCIe.Replays += c })
	}, fleet.Fail, "MC-BURN-PCIE $G reseat", ""},
	{"counters", "a link of InfiniBand is lost", portGrows("link_downed", 0, 0), fleet.Fail, "MC-BURN-HCA hca/mlx5_3/port/1 cable", ""},
	{"counters", "a link of InfiniBand is lost, with all that comes with it", func(n nature, b *burned) {
		portGrows("link_downed", 0, 0)(n, b)
		portGrows("symbol_error", 900, 9000)(n, b)
		portGrows("link_error_recovery", 4000, 9000)(n, b)
		b.scale("hca-bandwidth", "hca/mlx5_3", 0.7)
	}, fleet.Fail, "MC-BURN-HCA hca/mlx5_3/port/1 cable", ""},
	{"counters", "1,000 to 9,000 symbol errors of InfiniBand an hour", portGrows("symbol_error", 1000, 9000), fleet.Fail, "MC-BURN-HCA hca/mlx5_3/port/1 cable", ""},
	{"counters", "an error of a memory module that could not be corrected", func(_ nature, b *burned) {
		b.kernel(0, fleet.KernelFinding{Kind: "edac", Component: "dimm/A6", Severity: "fatal", Line: "EDAC MC0: 1 UE memory read error on A6"})
		b.from(0, func(inv *fleet.Inventory) { *inv.Memory.DIMMs[5].Uncorrected++ })
		b.set("memory-mismatches", "numa/0", 8)
	}, fleet.Fail, "MC-DIMM-ERRORS dimm/A6 replace", ""},
	{"counters", "a memory module corrects 10 to 100 errors", func(n nature, b *burned) {
		c := int64(10 + n.IntN(90))
		b.from(0, func(inv *fleet.Inventory) { *inv.Memory.DIMMs[5].Corrected += c })
	}, fleet.Fail, "MC-BURN-DIMM dimm/A6 replace", ""},
	{"counters", "a drive could not read its medium", func(_ nature, b *burned) {
		b.from(0, func(inv *fleet.Inventory) { inv.Disks[2].Smart.MediaErrors++ })
		b.set("disk-io-errors", "disk/nvme2n1", 1)
		b.scale("disk-read", "disk/nvme2n1", 0.5)
	}, fleet.Fail, "MC-NVME-ERRORS disk/nvme2n1 replace", ""},

	{"heat and power", "slowed down by heat, hotter and slower", func(n nature, b *burned) {
		b.from(2, func(inv *fleet.Inventory) { inv.GPUs[3].ThrottledNS["hw-thermal-slowdown"] += int64(90e9) })
		by := 0.8 - 0.3*n.Float64()
		for _, c := range []string{"gpu-sm-clock-load", "gpu-bf16", "gpu-int8", "gpu-fp32"} {
			b.scale(c, b.gpu(), by)
		}
		b.scale("gpu-temperature-max", b.gpu(), 1.45)
	}, fleet.Fail, "MC-BURN-THROTTLED $G reseat", ""},
	{"heat and power", "the driver slows it down because of heat, for most of the time", func(_ nature, b *burned) {
		b.from(2, func(inv *fleet.Inventory) { inv.GPUs[3].ThrottledNS["sw-thermal-slowdown"] += int64(600e9) })
	}, fleet.Fail, "MC-BURN-THROTTLED $G reseat", ""},
	{"heat and power", "the power brake slows all GPUs", func(_ nature, b *burned) {
		b.from(2, func(inv *fleet.Inventory) {
			for i := range inv.GPUs {
				inv.GPUs[i].ThrottledNS["hw-power-brake"] += int64(5e9)
			}
		})
		b.scale("gpu-sm-clock-load", "", 0.7)
	}, fleet.Fail, "MC-BURN-THROTTLED system/power reseat", ""},
	{"heat and power", "the power brake slows one GPU", grows(func(g *fleet.GPU) { g.ThrottledNS["hw-power-brake"] += int64(5e9) }), fleet.Fail, "MC-BURN-THROTTLED $G cold-cycle", ""},

	{"lost parts", "a GPU falls off the bus", func(_ nature, b *burned) {
		b.xid(2, 3, 79)
		b.from(2, func(inv *fleet.Inventory) { blind(&inv.GPUs[3], fleet.GPULostBus+": GPU is lost") })
		for i := 2; i < len(b.parts); i++ {
			b.unmeasure(i, b.gpu(), "no-device", "cuDeviceGet: no such device")
		}
	}, fleet.Fail, "MC-GPU-LOST $G cold-cycle", ""},
	{"lost parts", "a GPU's system processor does not answer, and its load crashes", func(_ nature, b *burned) {
		b.xid(2, 3, 119)
		b.from(2, func(inv *fleet.Inventory) { inv.GPUs[3].Recovery = "reset" })
		b.unmeasure(2, b.gpu(), "crashed", "the child ended: signal: aborted")
	}, fleet.Fail, "MC-GPU-XID $G reset", ""},
	{"lost parts", "a load hangs, and nobody says why", func(_ nature, b *burned) { b.unmeasure(1, b.gpu(), "hung", "no answer in 60 s") }, fleet.CouldNotTell, "MC-BURN-UNTOLD $G retest", ""},
	{"lost parts", "a load does not say in time what it found", func(_ nature, b *burned) {
		b.unmeasure(1, b.gpu(), "aborted", "it was stopped, and did not say in time what it had found")
	}, fleet.CouldNotTell, "MC-BURN-UNTOLD $G retest", ""},
	{"lost parts", "a rail's HCA is gone after the load", func(_ nature, b *burned) {
		b.from(0, func(inv *fleet.Inventory) {
			a := inv.HCAs[3].PCIAddress
			inv.PCI = slices.DeleteFunc(inv.PCI, func(p fleet.PCI) bool { return p.Address == a })
			inv.HCAs = slices.Delete(inv.HCAs, 3, 4)
			inv.Rails[3].HCA, inv.Rails[3].Distance = "", ""
			inv.NICs = slices.Delete(inv.NICs, 3, 4)
		})
		b.unmeasure(0, "hca/mlx5_3", "no-device", "no such device")
	}, fleet.Fail, "MC-HCA-MISSING rail/3 reseat", ""},

	{"messages of the driver", "an exception on one GPU", func(_ nature, b *burned) { b.xid(2, 3, 13) }, fleet.Fail, "MC-GPU-XID $G retest", ""},
	{"messages of the driver", "a page fault on one GPU, and its load crashes", func(_ nature, b *burned) {
		b.xid(2, 3, 31)
		b.unmeasure(2, b.gpu(), "crashed", "cuCtxSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS")
	}, fleet.Fail, "MC-GPU-XID $G retest", ""},
	{"messages of the driver", "a contained memory error, after which a row waits to be replaced", func(_ nature, b *burned) {
		b.xid(1, 3, 94)
		b.xid(1, 3, 63)
		b.from(1, func(inv *fleet.Inventory) {
			inv.GPUs[3].RemappedRows.Pending, inv.GPUs[3].RemappedRows.Uncorrectable, inv.GPUs[3].Recovery = true, 1, "reset"
			inv.GPUs[3].ECC.Volatile.Uncorrected++
		})
		b.set("gpu-memory-mismatches", b.gpu(), 2)
	}, fleet.Fail, "MC-GPU-REMAP-PENDING $G reset", ""},
	{"messages of the driver", "an NVLink's error, by its number only", func(_ nature, b *burned) {
		b.kernel(3, fleet.KernelFinding{Kind: "xid", Code: 74, Component: b.gpu() + "/nvlink/7", Line: "NVRM: Xid (PCI:0000:5d:00): 74, NVLink: fatal error detected on link 7"})
	}, fleet.Fail, "MC-GPU-XID $G/nvlink/7 reset", olderLinks},
	{"messages of the driver", "the driver asks for a restart of the node", func(_ nature, b *burned) {
		b.xid(1, 3, 154)
		b.from(1, func(inv *fleet.Inventory) { inv.GPUs[3].Recovery = "reboot" })
	}, fleet.Fail, "MC-GPU-RECOVERY $G reboot", ""},
	{"messages of the driver", "a fatal machine check", func(_ nature, b *burned) {
		b.kernel(0, fleet.KernelFinding{Kind: "mce", Severity: "fatal", Component: "cpu/1/bank/7", Line: "mce: [Hardware Error]: CPU 60: Machine Check: 0 Bank 7: be00000000800400"})
	}, fleet.Fail, "MC-CPU-ERROR cpu/1/bank/7 replace", ""},

	{"platform", "the fabric never gets ready", func(_ nature, b *burned) { b.platform("fabric-not-ready", "cuInit: 802, system not yet initialized") }, fleet.CouldNotTell, "MC-BURN-PLATFORM platform reboot", ""},
	{"platform", "driver and fabric manager are of different versions", func(_ nature, b *burned) {
		b.platform("driver-mismatch", "the driver is 570.124.06 and the fabric manager 570.86.15")
	}, fleet.CouldNotTell, "MC-BURN-PLATFORM platform update", ""},
	{"platform", "there is no CUDA library", func(_ nature, b *burned) { b.platform("no-library", "libcuda.so.1 is not there") }, fleet.CouldNotTell, "MC-BURN-PLATFORM platform update", ""},
	{"platform", "all GPUs report the same exception", func(_ nature, b *burned) {
		for i := range 8 {
			b.xid(2, i, 31)
			b.unmeasure(2, Component(b.parts[0].Before, i), "crashed", "cuCtxSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS")
		}
	}, fleet.CouldNotTell, "MC-BURN-PLATFORM platform update", ""},
	{"platform", "all GPUs compute otherwise than before", func(_ nature, b *burned) {
		for i := range 8 {
			b.set("gpu-mismatches", Component(b.parts[0].Before, i), 1000)
		}
	}, fleet.CouldNotTell, "MC-BURN-PLATFORM platform update", ""},
	{"platform", "a stressor measured nothing and said nothing", func(_ nature, b *burned) { b.parts[1].Measured = nil }, fleet.CouldNotTell, "MC-BURN-UNTOLD node retest", ""},
	{"platform", "a stressor left one GPU out and said nothing", func(_ nature, b *burned) {
		p := &b.parts[1]
		p.Measured = slices.DeleteFunc(p.Measured, func(m fleet.Measured) bool { return m.Component == b.gpu() })
	}, fleet.CouldNotTell, "MC-BURN-UNTOLD $G retest", ""},
}

// burnOutcomes are those faults of the inventories' matrix that a burn-in judges in its own way: counters are judged by what was added, and what
// lies in the node's software is no part's fault.
var burnOutcomes = map[string]burnFault{
	"no driver":                       {outcome: fleet.CouldNotTell, want: "MC-INVENTORY-UNREAD platform retest"},
	"the driver tells of no NVLinks":  {outcome: fleet.CouldNotTell, want: "MC-INVENTORY-UNREAD platform retest"},
	"the fabric manager does not run": {outcome: fleet.CouldNotTell, want: "MC-FABRIC-MANAGER platform reboot"},
	"no GPU joins the fabric":         {outcome: fleet.CouldNotTell, want: "MC-FABRIC-STATE platform reboot"},
	"an NVLink counted errors":        {outcome: fleet.Warn, want: "MC-BURN-NVLINK $G/nvlink/2 retest", only: olderLinks},
	"a rail counted symbol errors":    {outcome: fleet.Pass},
	"a module that corrects":          {outcome: fleet.Fail, want: "MC-BURN-DIMM dimm/A6 replace"},
}

// underLoad are the faults of the inventories' matrix as burn-ins meet them: they happen while the second stage runs.
func underLoad() (out []burnFault) {
	for _, f := range faults {
		x := burnFault{class: "what an inventory shows", name: f.name, only: f.only, outcome: fleet.Pass}
		if len(f.want) > 0 {
			w := strings.Fields(f.want[0])
			x.outcome, x.want = fleet.Fail, w[0]+" "+w[1]+" "+w[3]
			if w[2] == "warning" {
				x.outcome = fleet.Warn
			}
		}
		if o, ok := burnOutcomes[f.name]; ok {
			x.outcome, x.want, x.only = o.outcome, o.want, cmp.Or(o.only, f.only)
		}
		x.does = func(_ nature, b *burned) {
			b.from(1, func(inv *fleet.Inventory) {
				said := len(inv.KernelFindings)
				f.does(b.kind, inv)
				b.parts[1].Kernel = append(b.parts[1].Kernel, inv.KernelFindings[min(said, len(inv.KernelFindings)):]...)
			})
			b.parts[1].Kernel = mergeFindings(nil, b.parts[1].Kernel)
			b.unmeasureGone()
		}
		out = append(out, x)
	}
	return out
}

// unmeasureGone: of what is not there any more nothing is measured.
func (b *burned) unmeasureGone() {
	before := Parts(b.parts[0].Before)
	for i := 1; i < len(b.parts); i++ {
		after := Parts(b.parts[i].After)
		for _, p := range before {
			lost := !slices.ContainsFunc(after, func(o fleet.BurnedPart) bool { return o.Component == p.Component && o.Serial == p.Serial })
			if lost && p.Serial != "" && !strings.Contains(p.Component, "dimm/") {
				b.unmeasure(i, p.Component, "no-device", "it is not there any more")
			}
		}
	}
}
