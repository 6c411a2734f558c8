package verdict

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// fault is one misfortune of a machine: what it does to an inventory, and the only differences that follow, "CODE component severity do", in which $G is
// the GPU at index 3, $L its serial, and so on. Words are parts of the first difference's sentence.
type fault struct {
	name  string
	does  func(k kind, inv *fleet.Inventory)
	want  []string
	words string
	only  string // kinds that it is about; "" all
}

// third is the GPU that suffers in most faults.
func third(inv *fleet.Inventory) *fleet.GPU { return &inv.GPUs[3] }

func dropGPU(inv *fleet.Inventory, i int) {
	g := inv.GPUs[i]
	inv.GPUs = slices.Delete(inv.GPUs, i, i+1)
	inv.PCI = slices.DeleteFunc(inv.PCI, func(p fleet.PCI) bool { return p.Address == g.PCIAddress })
	for k := range inv.GPUs {
		delete(inv.GPUs[k].P2P, fmt.Sprint(g.Index))
	}
	for k := range inv.HCAs { // nothing tells any more that it is a rail's
		if inv.HCAs[k].Rail != nil && *inv.HCAs[k].Rail == i {
			inv.HCAs[k].Role, inv.HCAs[k].Rail = fleet.HCAStorage, nil
		}
	}
	inv.Rails = slices.DeleteFunc(inv.Rails, func(r fleet.Rail) bool { return r.GPU == g.PCIAddress })
}

func blind(g *fleet.GPU, lost string) {
	*g = fleet.GPU{Index: g.Index, Vendor: g.Vendor, PCIAddress: g.PCIAddress, PCIDevice: g.PCIDevice, NUMANode: g.NUMANode, Lost: lost}
}

func onGPU(do func(g *fleet.GPU)) func(kind, *fleet.Inventory) {
	return func(_ kind, inv *fleet.Inventory) { do(third(inv)) }
}

func onPort(do func(h *fleet.HCA, p *fleet.HCAPort)) func(kind, *fleet.Inventory) {
	return func(_ kind, inv *fleet.Inventory) { do(&inv.HCAs[3], &inv.HCAs[3].Ports[0]) }
}

func pciOf(inv *fleet.Inventory, address string) *fleet.PCI {
	i := slices.IndexFunc(inv.PCI, func(p fleet.PCI) bool { return p.Address == address })
	return &inv.PCI[i]
}

func said(kindOf string, code int, component string) func(kind, *fleet.Inventory) {
	return func(_ kind, inv *fleet.Inventory) {
		at := component
		if at == "gpu" {
			at = third(inv).PCIAddress
		}
		inv.KernelFindings = append(inv.KernelFindings, fleet.KernelFinding{Kind: kindOf, Code: code, Component: at, Count: 1, Line: "NVRM: Xid"})
	}
}

func both(fs ...func(kind, *fleet.Inventory)) func(kind, *fleet.Inventory) {
	return func(k kind, inv *fleet.Inventory) {
		for _, f := range fs {
			f(k, inv)
		}
	}
}

const hopperOnly = "hgx-h100 hgx-h200"

var faults = []fault{
	{name: "a GPU is missing", does: func(_ kind, inv *fleet.Inventory) { dropGPU(inv, 3) }, want: []string{"MC-GPU-MISSING $G critical cold-cycle"}, words: "is missing: PCI does not show it"},
	{name: "a GPU is missing, and the kernel said that it fell off", does: func(k kind, inv *fleet.Inventory) { said("xid", 79, "gpu")(k, inv); dropGPU(inv, 3) }, want: []string{"MC-GPU-MISSING $G critical cold-cycle"}},
	{name: "a GPU is lost", does: func(k kind, inv *fleet.Inventory) {
		said("xid", 79, "gpu")(k, inv)
		blind(third(inv), fleet.GPULostBus+": nvmlDeviceGetHandleByPciBusId_v2: GPU is lost")
	}, want: []string{"MC-GPU-LOST $G critical cold-cycle"}, words: "fell off the bus"},
	{name: "a GPU hangs", does: onGPU(func(g *fleet.GPU) { blind(g, fleet.GPULostHung+": no answer in nvmlDeviceGetEccMode within 10s") }), want: []string{"MC-GPU-HUNG $G critical reboot"}, words: "does not answer its driver in time"},
	{name: "PCI shows a GPU and the driver does not", does: onGPU(func(g *fleet.GPU) {
		blind(g, fleet.GPULostUnknown+": PCI shows it, the driver does not have it")
		g.Index = -1
	}), want: []string{"MC-GPU-UNSEEN $G critical cold-cycle"}, words: "is on PCI, but the driver does not show it"},
	{name: "no driver", does: func(_ kind, inv *fleet.Inventory) {
		inv.GPUDriver = nil
		for i := range inv.GPUs {
			blind(&inv.GPUs[i], "")
			inv.GPUs[i].Index = -1
		}
		inv.Missing = append(inv.Missing, fleet.Missing{What: "gpus", Why: "libnvidia-ml.so.1 is not there"})
	}, want: []string{"MC-INVENTORY-UNREAD gpus critical retest"}, words: ""},
	{name: "a row could not be remapped", does: onGPU(func(g *fleet.GPU) {
		g.RemappedRows.Failure, g.RemappedRows.Uncorrectable = true, 9
		g.ECC.Volatile.Uncorrected = 1
	}), want: []string{"MC-GPU-REMAP-FAILED $G critical replace"}, words: "could not be replaced by a spare one"},
	{name: "a row waits to be remapped, with all its signs", does: both(onGPU(func(g *fleet.GPU) {
		g.RemappedRows.Pending = true
		g.ECC.Volatile.Uncorrected = 2
		g.Recovery = "reset"
	}), said("xid", 48, "gpu"), said("xid", 63, "gpu"), said("xid", 94, "gpu")), want: []string{"MC-GPU-REMAP-PENDING $G critical reset"}, words: "the driver asks for: reset"},
	{name: "too many rows were remapped", does: onGPU(func(g *fleet.GPU) { g.RemappedRows.Uncorrectable = 513 }), want: []string{"MC-GPU-LIMIT $G critical replace"}, words: "more than 512 (DCGM)"},
	{name: "banks without spare rows", does: onGPU(func(g *fleet.GPU) { g.RemappedRows.Banks["none"] = 1 }), want: []string{"MC-GPU-REMAP-SPENT $G warning retest"}},
	{name: "errors of memory that could not be corrected", does: both(onGPU(func(g *fleet.GPU) { g.ECC.Volatile.Uncorrected, g.ECC.Volatile.DRAMUncorrected = 1, 1 }), said("xid", 171, "gpu")), want: []string{"MC-GPU-ECC $G critical reset"}, words: "could not be corrected since the driver was loaded"},
	{name: "SRAM errors over the threshold", does: both(onGPU(func(g *fleet.GPU) { g.ECC.SRAMThreshold = ref(true); g.ECC.Volatile.SRAMUncorrected = 4 }), said("xid", 172, "gpu")), want: []string{"MC-GPU-SRAM $G critical replace"}, words: "the driver's own threshold"},
	{name: "SRAM errors of the past", does: onGPU(func(g *fleet.GPU) { g.ECC.Aggregate.SRAMUncorrected = 1 }), want: []string{"MC-GPU-ECC $G warning retest"}},
	{name: "a damaged InfoROM", does: onGPU(func(g *fleet.GPU) { g.InfoROMValid = ref(false) }), want: []string{"MC-GPU-INFOROM $G critical replace"}, words: "checksum does not fit"},
	{name: "the driver asks for a reset", does: both(onGPU(func(g *fleet.GPU) { g.Recovery = "reset" }), said("xid", 154, "gpu")), want: []string{"MC-GPU-RECOVERY $G critical reset"}},
	{name: "the driver asks for a restart, after a GSP error", does: both(onGPU(func(g *fleet.GPU) { g.Recovery = "reboot" }), said("xid", 119, "gpu")), want: []string{"MC-GPU-XID $G critical reboot"}, words: "the driver asks for: reboot"},
	{name: "an XID of the GSP", does: both(said("xid", 119, "gpu"), said("xid", 120, "gpu")), want: []string{"MC-GPU-XID $G critical reset"}, words: "XID 119 and XID 120"},
	{name: "an XID that means nothing", does: said("xid", 37, "gpu"), want: nil},
	{name: "an XID that should never be seen", does: said("xid", 57, "gpu"), want: []string{"MC-GPU-XID $G critical retest"}},
	{name: "ECC is off", does: onGPU(func(g *fleet.GPU) { g.ECC.Mode = fleet.Pending{Now: "off", Next: "off"} }), want: []string{"MC-GPU-ECC-MODE $G critical configure"}},
	{name: "ECC will be off", does: onGPU(func(g *fleet.GPU) { g.ECC.Mode.Next = "off" }), want: []string{"MC-GPU-ECC-MODE $G critical reset"}},
	{name: "MIG was left on", does: onGPU(func(g *fleet.GPU) { g.MIG = &fleet.Pending{Now: "on", Next: "on"} }), want: []string{"MC-GPU-MIG $G critical configure"}, words: "it was left so"},
	{name: "a process was left", does: onGPU(func(g *fleet.GPU) {
		g.Processes = []fleet.GPUProcess{{PID: 77, Name: "python", Kind: "compute"}}
		g.MemoryUsedBytes = ref(int64(9 << 30))
	}), want: []string{"MC-GPU-RESIDUE $G critical reboot"}, words: "77 python"},
	{name: "memory is taken", does: onGPU(func(g *fleet.GPU) { g.MemoryUsedBytes = ref(int64(9 << 30)) }), want: []string{"MC-GPU-RESIDUE $G critical reset"}, words: "9216 MiB"},
	{name: "a compute mode was left", does: onGPU(func(g *fleet.GPU) { g.ComputeMode = "exclusive-process" }), want: []string{"MC-GPU-COMPUTE-MODE $G warning configure"}},
	{name: "confidential computing is on", does: onGPU(func(g *fleet.GPU) { g.Confidential = "on" }), want: []string{"MC-GPU-CONFIDENTIAL $G critical configure"}},
	{name: "hot and slowed down", does: onGPU(func(g *fleet.GPU) {
		g.ClockReasons = []string{"hw-slowdown", "hw-thermal-slowdown"}
		g.Temperatures.Margin = ref(-2)
	}), want: []string{"MC-GPU-SLOWDOWN $G critical reseat"}, words: "too hot"},
	{name: "slowed down by its hardware", does: onGPU(func(g *fleet.GPU) { g.ClockReasons = []string{"hw-slowdown"} }), want: []string{"MC-GPU-SLOWDOWN $G critical cold-cycle"}},
	{name: "all GPUs braked", does: func(_ kind, inv *fleet.Inventory) {
		for i := range inv.GPUs {
			inv.GPUs[i].ClockReasons = []string{"hw-slowdown", "hw-power-brake-slowdown"}
		}
	}, want: []string{"MC-GPU-SLOWDOWN system/power critical reseat"}, words: "look at the power supplies"},
	{name: "too hot at rest", does: onGPU(func(g *fleet.GPU) { g.Temperatures.Margin = ref(0) }), want: []string{"MC-GPU-HOT $G critical reseat"}},
	{name: "its power is limited", does: onGPU(func(g *fleet.GPU) { g.Power.Limit = 300000 }), want: []string{"MC-GPU-POWER-LIMIT $G critical configure"}, words: "300 W only, by default 700 W"},
	{name: "many PCIe replays", does: onGPU(func(g *fleet.GPU) { g.PCIe.Replays = 81 }), want: []string{"MC-GPU-LIMIT $G critical retest"}, words: "(test)"},
	{name: "another model", does: onGPU(func(g *fleet.GPU) { g.Model, g.PCIDevice = "NVIDIA H20", "10de:2329" }), want: []string{"MC-GPU-MODEL $G critical replace"}},
	{name: "less memory", does: onGPU(func(g *fleet.GPU) { g.MemoryBytes -= 1 << 30 }), want: []string{"MC-GPU-MEMORY $G critical replace"}},
	{name: "an NVLink is down", does: both(onGPU(func(g *fleet.GPU) { g.NVLinks[11].State = fleet.LinkDown; g.P2P["1"] = "broken" }), said("xid", 74, "gpu"), said("nvlink", 0, "gpu")), want: []string{"MC-NVLINK-DOWN $G/nvlink/11 critical reset"}, words: "NVLink 11 of"},
	{name: "four NVLinks are down", does: onGPU(func(g *fleet.GPU) {
		for _, l := range []int{1, 4, 5, 8} {
			g.NVLinks[l].State, g.NVLinks[l].SpeedGBps = fleet.LinkDown, 0
		}
	}), want: []string{"MC-NVLINK-DOWN $G/nvlink critical reset"}, words: "NVLink 1, 4, 5 and 8 of"},
	{name: "all NVLinks of a GPU are down", does: onGPU(func(g *fleet.GPU) {
		for l := range g.NVLinks {
			g.NVLinks[l].State = fleet.LinkDown
		}
	}), want: []string{"MC-NVLINK-DOWN $G/nvlink critical reset"}, words: "NVLinks are down"},
	{name: "an NVLink is disabled", does: onGPU(func(g *fleet.GPU) { g.NVLinks[0].State = fleet.LinkDisabled }), want: []string{"MC-NVLINK-DOWN $G/nvlink/0 critical configure"}},
	{name: "an NVLink is slow", does: onGPU(func(g *fleet.GPU) { g.NVLinks[2].SpeedGBps /= 2 }), want: []string{"MC-NVLINK-SLOW $G/nvlink/2 critical reset"}},
	{name: "an NVLink counted errors", does: onGPU(func(g *fleet.GPU) { g.NVLinks[2].Errors = map[string]int64{"replay": 4} }), want: []string{"MC-NVLINK-ERRORS $G/nvlink/2 warning retest"}, words: "replay 4"},
	{name: "an NVLink's bit errors", does: onGPU(func(g *fleet.GPU) { g.NVLinks[2].EffectiveBER = ref(1e-9) }), want: []string{"MC-NVLINK-ERRORS $G/nvlink/2 critical reset"}},
	{name: "an NVLink leads to another port", does: onGPU(func(g *fleet.GPU) { g.NVLinks[7].Remote.Port = ref(9) }), want: []string{"MC-NVLINK-WIRING $G/nvlink/7 critical reseat"}, words: "port 9, by the board's wiring to NVSwitch", only: hopperOnly},
	{name: "two NVLinks are exchanged", does: onGPU(func(g *fleet.GPU) {
		g.NVLinks[0].Remote, g.NVLinks[9].Remote = g.NVLinks[9].Remote, g.NVLinks[0].Remote
	}), want: []string{"MC-NVLINK-WIRING $G/nvlink critical reseat"}, words: "NVLinks 0 and 9", only: hopperOnly},
	{name: "the driver tells of no NVLinks", does: func(_ kind, inv *fleet.Inventory) {
		for i := range inv.GPUs {
			inv.GPUs[i].NVLinks = nil
		}
	}, want: []string{"MC-INVENTORY-UNREAD gpus critical retest"}},
	{name: "an NVSwitch is missing", does: func(k kind, inv *fleet.Inventory) {
		gone := inv.NVSwitches[1].PCIAddress
		inv.NVSwitches = slices.Delete(inv.NVSwitches, 1, 2)
		for i := range inv.GPUs {
			inv.GPUs[i].Fabric.State = map[bool]string{true: "unsupported", false: "in-progress"}[k.name == "dgx-a100"]
			for l := range inv.GPUs[i].NVLinks {
				if n := &inv.GPUs[i].NVLinks[l]; n.Remote.PCIAddress == gone {
					n.State, n.Remote = fleet.LinkDown, nil
				}
			}
		}
	}, want: []string{"MC-NVSWITCH-MISSING nvswitches critical cold-cycle"}, words: "follow from it", only: "dgx-a100 hgx-h100 hgx-h200"},
	{name: "all links to one NVSwitch are down", does: func(_ kind, inv *fleet.Inventory) {
		dark := inv.NVSwitches[2].PCIAddress
		for i := range inv.GPUs {
			for l := range inv.GPUs[i].NVLinks {
				if n := &inv.GPUs[i].NVLinks[l]; n.Remote.PCIAddress == dark {
					n.State = fleet.LinkDown
				}
			}
		}
	}, want: []string{"MC-NVSWITCH-LINKS nvswitch/2 critical cold-cycle"}, words: "all 40 links to NVSwitch 2 are down, of 8 GPUs", only: hopperOnly},
	{name: "a fatal SXid", does: func(_ kind, inv *fleet.Inventory) {
		inv.KernelFindings = []fleet.KernelFinding{{Kind: "sxid", Code: 22003, Severity: "fatal", Component: inv.NVSwitches[1].PCIAddress, Count: 1}}
	}, want: []string{"MC-NVSWITCH-SXID nvswitch/1 critical reset"}, words: "micro-controller, fatal", only: "dgx-a100 hgx-h100 hgx-h200"},
	{name: "a harmless SXid", does: func(_ kind, inv *fleet.Inventory) {
		inv.KernelFindings = []fleet.KernelFinding{{Kind: "sxid", Code: 20001, Component: "0000:05:00.0", Count: 3}}
	}},
	{name: "the fabric manager does not run", does: func(k kind, inv *fleet.Inventory) {
		inv.GPUDriver.FabricManager = "failed"
		for i := range inv.GPUs {
			inv.GPUs[i].Fabric.State = "not-started"
			for p := range inv.GPUs[i].P2P {
				inv.GPUs[i].P2P[p] = "not supported"
			}
			for l := range inv.GPUs[i].NVLinks {
				inv.GPUs[i].NVLinks[l].State = fleet.LinkDown
			}
		}
	}, want: []string{"MC-FABRIC-MANAGER fabric critical reboot"}},
	{name: "no GPU joins the fabric", does: func(_ kind, inv *fleet.Inventory) {
		for i := range inv.GPUs {
			inv.GPUs[i].Fabric = &fleet.GPUFabric{State: "in-progress"}
		}
	}, want: []string{"MC-FABRIC-STATE fabric critical reboot"}},
	{name: "one GPU does not join the fabric", does: onGPU(func(g *fleet.GPU) { g.Fabric = &fleet.GPUFabric{State: "in-progress"} }), want: []string{"MC-FABRIC-STATE $G/fabric critical reset"}},
	{name: "a GPU is unhealthy in the fabric", does: onGPU(func(g *fleet.GPU) {
		g.Fabric = &fleet.GPUFabric{State: "completed", Unhealthy: []string{"degraded-bandwidth"}}
	}), want: []string{"MC-FABRIC-HEALTH $G/fabric critical reset"}},
	{name: "a GPU reaches none of the others", does: func(_ kind, inv *fleet.Inventory) {
		for p := range third(inv).P2P {
			third(inv).P2P[p] = "chipset not supported"
		}
		for i := range inv.GPUs {
			if i != 3 {
				inv.GPUs[i].P2P["3"] = "chipset not supported"
			}
		}
	}, want: []string{"MC-GPU-PEER $G/peer critical reset"}},
	{name: "a GPU has half its lanes", does: func(k kind, inv *fleet.Inventory) {
		g := third(inv)
		p := pciOf(inv, g.PCIAddress)
		p.Width, g.PCIe.Width, pciOf(inv, p.Parent).Width = 8, 8, 8
		inv.KernelFindings = []fleet.KernelFinding{{Kind: "pcie-bandwidth", Component: g.PCIAddress, Count: 1, Line: "limited"}}
	}, want: []string{"MC-PCIE-WIDTH $G critical reseat"}, words: "8 of 16 lanes"},
	{name: "a GPU's slot is of an older generation", does: func(k kind, inv *fleet.Inventory) {
		p := pciOf(inv, third(inv).PCIAddress)
		up := pciOf(inv, p.Parent)
		up.MaxSpeed, up.Speed = genSpeed(3), genSpeed(1)
	}, want: []string{"MC-PCIE-SPEED $G critical reseat"}},
	{name: "an HCA's link is slow", does: func(k kind, inv *fleet.Inventory) {
		p := pciOf(inv, inv.HCAs[3].PCIAddress)
		p.Speed, pciOf(inv, p.Parent).Speed = genSpeed(3), genSpeed(3)
	}, want: []string{"MC-PCIE-SPEED hca/mlx5_3 critical reseat"}},
	{name: "a switch's uplink is narrow", does: func(k kind, inv *fleet.Inventory) {
		r := inv.Rails[3]
		up := pciOf(inv, r.Bridge)
		up.Width, pciOf(inv, up.Parent).Width = 4, 4
	}, want: []string{"MC-PCIE-WIDTH pci/$B critical reseat"}},
	{name: "fatal PCIe errors", does: func(k kind, inv *fleet.Inventory) {
		p := pciOf(inv, third(inv).PCIAddress)
		p.AER = map[string]int64{"fatal/DLP": 1, "correctable/RxErr": 7}
		pciOf(inv, p.Parent).AER = map[string]int64{"fatal/SDES": 1}
		inv.KernelFindings = []fleet.KernelFinding{{Kind: "aer", Component: p.Address, Severity: "fatal", Count: 1}, {Kind: "aer", Component: p.Parent, Severity: "fatal", Count: 1}}
	}, want: []string{"MC-PCIE-AER $G critical reseat"}, words: "fatal PCIe errors: DLP 1"},
	{name: "corrected PCIe errors", does: func(k kind, inv *fleet.Inventory) {
		pciOf(inv, third(inv).PCIAddress).AER = map[string]int64{"correctable/RxErr": 7}
	}},
	{name: "ACS is on", does: func(k kind, inv *fleet.Inventory) {
		for i := range inv.PCI {
			if bridge(&inv.PCI[i]) {
				inv.PCI[i].ACS = []string{"source-validation", "request-redirect"}
			}
		}
	}, want: []string{"MC-PCIE-ACS pci critical configure"}, words: "class"},
	{name: "a rail's port is down", does: onPort(func(_ *fleet.HCA, p *fleet.HCAPort) { p.State, p.PhysicalState, p.RateGbps = "DOWN", "Polling", 10 }), want: []string{"MC-HCA-PORT hca/mlx5_3/port/1 critical cable"}, words: "rail 3) is not up: DOWN, Polling"},
	{name: "a rail is slow", does: onPort(func(_ *fleet.HCA, p *fleet.HCAPort) { p.RateGbps /= 2 }), want: []string{"MC-HCA-RATE hca/mlx5_3/port/1 critical cable"}},
	{name: "no rail is up", does: func(_ kind, inv *fleet.Inventory) {
		for i := range 8 {
			inv.HCAs[i].Ports[0].State = "INIT"
		}
	}, want: []string{"MC-HCA-PORT infiniband critical cable"}, words: "no subnet manager"},
	{name: "a rail speaks Ethernet", does: onPort(func(_ *fleet.HCA, p *fleet.HCAPort) { p.LinkLayer = "Ethernet" }), want: []string{"MC-HCA-MODE hca/mlx5_3/port/1 critical configure"}},
	{name: "a rail is still in a partition", does: onPort(func(_ *fleet.HCA, p *fleet.HCAPort) { p.PKeys = []string{"0x7fff", "0x8012"} }), want: []string{"MC-HCA-PKEY hca/mlx5_3/port/1 critical configure"}, words: "partition 0x8012"},
	{name: "a rail counted symbol errors", does: onPort(func(_ *fleet.HCA, p *fleet.HCAPort) {
		p.Counters = map[string]int64{"symbol_error": 5, "port_xmit_data": 9}
	}), want: []string{"MC-HCA-ERRORS hca/mlx5_3/port/1 warning retest"}},
	{name: "somebody holds an HCA open", does: onPort(func(h *fleet.HCA, _ *fleet.HCAPort) { h.Resources["ctx"] = 1 }), want: []string{"MC-HCA-RESIDUE hca/mlx5_3 warning reboot"}},
	{name: "an HCA is hot", does: onPort(func(h *fleet.HCA, _ *fleet.HCAPort) { h.TemperatureC = ref(110) }), want: []string{"MC-HCA-HOT hca/mlx5_3 critical reseat"}},
	{name: "an HCA is missing", does: func(_ kind, inv *fleet.Inventory) {
		a := inv.HCAs[3].PCIAddress
		inv.PCI = slices.DeleteFunc(inv.PCI, func(p fleet.PCI) bool { return p.Address == a })
		inv.HCAs = slices.Delete(inv.HCAs, 3, 4)
		inv.Rails[3].HCA, inv.Rails[3].Distance = "", ""
		inv.NICs = slices.Delete(inv.NICs, 3, 4)
	}, want: []string{"MC-HCA-MISSING rail/3 critical reseat"}},
	{name: "an HCA of another firmware", does: onPort(func(h *fleet.HCA, _ *fleet.HCAPort) { h.Firmware = "28.38.1000" }), want: []string{"MC-FIRMWARE-BASELINE hca/mlx5_3 critical update"}},
	{name: "all GPUs of another VBIOS", does: func(_ kind, inv *fleet.Inventory) {
		for i := range inv.GPUs {
			inv.GPUs[i].VBIOS = "96.00.99.00.01"
		}
	}, want: []string{"MC-FIRMWARE-BASELINE gpus critical update"}, words: "all 8: VBIOS is 96.00.99.00.01"},
	{name: "another BIOS", does: func(_ kind, inv *fleet.Inventory) { inv.System.BIOS = "2.0" }, want: []string{"MC-FIRMWARE-BASELINE system/bios critical update"}},
	{name: "two kinds of microcode", does: func(_ kind, inv *fleet.Inventory) { inv.CPUs[1].Microcode = "0x1" }, want: []string{"MC-FIRMWARE-MIXED cpus warning update"}},
	{name: "a GPU on another NUMA node", does: onGPU(func(g *fleet.GPU) { g.NUMANode = 6 }), want: []string{"MC-TOPOLOGY-NUMA $G critical configure"}},
	{name: "a rail that is far", does: func(_ kind, inv *fleet.Inventory) { inv.Rails[3].Distance = "SYS" }, want: []string{"MC-TOPOLOGY-RAIL rail/3 critical cable"}},
	{name: "a drive warns", does: func(_ kind, inv *fleet.Inventory) {
		inv.Disks[2].Smart.CriticalWarning = []string{"degraded", "spare-low"}
		inv.Disks[2].Smart.SparePercent = 1
	}, want: []string{"MC-NVME-WARNING disk/nvme2n1 critical replace"}, words: "serial S5H9NS2"},
	{name: "a drive without spare blocks", does: func(_ kind, inv *fleet.Inventory) { inv.Disks[2].Smart.SparePercent = 9 }, want: []string{"MC-NVME-SPARE disk/nvme2n1 critical replace"}},
	{name: "a drive with errors", does: func(_ kind, inv *fleet.Inventory) { inv.Disks[2].Smart.MediaErrors = 1 }, want: []string{"MC-NVME-ERRORS disk/nvme2n1 critical replace"}},
	{name: "a worn drive", does: func(_ kind, inv *fleet.Inventory) { inv.Disks[2].Smart.UsedPercent = 81 }, want: []string{"MC-NVME-WORN disk/nvme2n1 critical replace"}},
	{name: "a drive is gone", does: func(_ kind, inv *fleet.Inventory) {
		inv.Disks = slices.Delete(inv.Disks, 2, 3)
		inv.Rails[2].NVMe = nil
	}, want: []string{"MC-CLASS-NVME nvme critical reseat"}},
	{name: "a drive has two lanes", does: func(_ kind, inv *fleet.Inventory) { pciOf(inv, inv.Disks[2].PCIAddress).Width = 2 }, want: []string{"MC-PCIE-WIDTH disk/nvme2n1 critical reseat"}},
	{name: "a module with errors", does: func(_ kind, inv *fleet.Inventory) {
		inv.Memory.DIMMs[5].Uncorrected = ref(int64(1))
		inv.KernelFindings = []fleet.KernelFinding{{Kind: "edac", Component: "dimm/A6", Severity: "fatal", Count: 1}, {Kind: "mce", Severity: "fatal", Count: 1}}
	}, want: []string{"MC-DIMM-ERRORS dimm/A6 critical replace"}},
	{name: "a module that corrects", does: func(_ kind, inv *fleet.Inventory) { inv.Memory.DIMMs[5].Corrected = ref(int64(12)) }, want: []string{"MC-DIMM-ERRORS dimm/A6 warning retest"}},
	{name: "a module is not seen", does: func(_ kind, inv *fleet.Inventory) {
		inv.Memory.DIMMs[5] = fleet.DIMM{Locator: "A6"}
		inv.Memory.TotalBytes -= 256 << 30
	}, want: []string{"MC-DIMM-MISSING dimm/A6 critical reseat"}},
	{name: "a module is slow", does: func(_ kind, inv *fleet.Inventory) { inv.Memory.DIMMs[5].SpeedMTs = 4400 }, want: []string{"MC-DIMM-KIND dimm/A6 critical replace"}},
	{name: "another division into NUMA nodes", does: func(_ kind, inv *fleet.Inventory) {
		inv.NUMANodes = inv.NUMANodes[:1]
		for i := range inv.GPUs {
			inv.GPUs[i].NUMANode = 0
		}
	}, want: []string{"MC-CLASS-NUMA numa_nodes critical reseat"}},
	{name: "a machine check", does: func(_ kind, inv *fleet.Inventory) {
		inv.KernelFindings = []fleet.KernelFinding{{Kind: "mce", Severity: "fatal", Count: 1, Line: "mce: bank 7"}}
	}, want: []string{"MC-CPU-ERROR system critical replace"}},
}

// judged are the differences of a fault as the table writes them.
func judged(ds []fleet.Difference) []string {
	var out []string
	for _, d := range ds {
		out = append(out, fmt.Sprintf("%s %s %s %s", d.Code, d.Component, d.Severity, d.Do))
	}
	return out
}

// TestFaultMatrix injects each fault into each kind of machine: exactly the differences of the table follow, at the right part, and nothing else.
func TestFaultMatrix(t *testing.T) {
	for _, k := range kinds {
		for _, f := range faults {
			if f.only != "" && !strings.Contains(f.only, k.name) {
				continue
			}
			t.Run(k.name+"/"+f.name, func(t *testing.T) {
				inv := machine(k)
				place := strings.NewReplacer("$G", fmt.Sprintf("gpu/%d", k.modules[3]), "$B", inv.Rails[3].Bridge)
				f.does(k, &inv)
				got := Judge(inv, classOf(k))
				var want []string
				for _, w := range f.want {
					want = append(want, place.Replace(w))
				}
				g := judged(got)
				slices.Sort(g)
				slices.Sort(want)
				if d := cmp.Diff(want, g); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
				for _, d := range got {
					if _, ok := fleet.Codes[d.Code]; !ok || d.Words == "" || d.Do == "" || d.Against == "" || (d.Severity == fleet.Critical) != (d.Blocks == fleet.BlocksAllocate) {
						t.Errorf("not whole: %+v", d)
					}
				}
				if len(got) > 0 && !strings.Contains(got[0].Words, f.words) {
					t.Errorf("the words %q do not contain %q", got[0].Words, f.words)
				}
			})
		}
	}
}
