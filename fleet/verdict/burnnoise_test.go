package verdict

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// noiseSources says where each figure of a healthy node's noise is from. None was chosen by what the judge makes of it.
const noiseSources = `- Silicon: under a power limit the best and the worst of some hundred identical GPUs differ by 8 % in speed (P. Sinha et al., Not All GPUs Are Created Equal, SC 2022). Six standard deviations lie
  between the extremes of so many, so that one is 1.3 %. Clocks follow it; power differs by 3 %; the same GPU repeats itself within 0.3 % (our assumptions).
- Fixed clocks: bandwidth of HBM and NVLink differs by 0.3 %, copies over PCIe, which depend on the NUMA node, by 1 % (our assumptions).
- Nodes: all GPUs of a node share its air (3 K between places of a room) and its supply (0.5 %); every second place on a board is 8 K warmer (our assumptions).
- HBM: one GPU in 100 corrects errors, 0.1 an hour (our assumption, above what the literature saw on whole machines).
- Memory modules: 8 % correct errors in a year, 0.7 % in a month (B. Schroeder et al., DRAM Errors in the Wild, SIGMETRICS 2009); those correct 5 a day (our assumption).
- PCIe: one link in 20 sends packets again, 2 an hour (our assumption; DCGM's budget is 1,843).
- NVLink: one link in 500 replays or recovers, 0.05 an hour (our assumption; Imbue's scripts call fewer than five harmless).
- InfiniBand: one port in ten has symbol errors, 5 an hour (our assumption; NVSentinel calls 120 fatal).
- Drives of one model differ by 2 %, their latencies by 8 %; cores and NUMA nodes by 1 %, rails by 0.3 % (our assumptions).
- History: counters have counted before the burn-in: symbol errors and lost links from cabling, corrected errors, replays, seconds at the power limit.

All of it is drawn anew for each node from a seed. No real fleet was measured yet: the rates below are those of a model. Faults that it misses are the
faintest: a rate of errors that one stage shows and the others dilute, and a part a few percent slower among fellows that happen to spread widely.
`

// nature makes healthy nodes and their burn-ins with the noise that real ones have, by noiseSources.
type nature struct{ *rand.Rand }

func (n nature) normal(mean, relative float64) float64 { return mean * (1 + relative*n.NormFloat64()) }

// events draws from a Poisson distribution.
func (n nature) events(mean float64) int64 {
	if mean > 50 {
		return int64(math.Max(0, math.Round(mean+math.Sqrt(mean)*n.NormFloat64())))
	}
	k, p, limit := int64(0), 1.0, math.Exp(-mean)
	for p *= n.Float64(); p > limit; p *= n.Float64() {
		k++
	}
	return k
}

func (n nature) chance(p float64) bool { return n.Float64() < p }

// burnProfile is a handover's: 36 minutes in four stages, once.
var burnProfile = fleet.BurnProfile{Name: "handover", Rounds: 1, Stages: []fleet.BurnStage{
	{Name: "host", Stress: []string{fleet.StressCPU, fleet.StressMemory, fleet.StressDisks, fleet.StressNetwork}, Seconds: 360},
	{Name: "hbm", Stress: []string{fleet.StressGPUMemory}, Seconds: 600},
	{Name: "compute", Stress: []string{fleet.StressGPUCompute, fleet.StressGPUTensor}, Seconds: 900},
	{Name: "copy", Stress: []string{fleet.StressGPUCopy}, Seconds: 300},
}}

// burned is a node with what is its own: how good its parts are and how often its counters move.
type burned struct {
	kind  kind
	parts []fleet.BurnPart
}

func (b *burned) input() BurnInput {
	return BurnInput{Node: "hgx001", Parts: b.parts, Profile: burnProfile, Class: classOf(b.kind), Finished: true, Now: b.parts[len(b.parts)-1].EndedAt}
}

var burnStart = time.Date(2026, 11, 2, 8, 0, 0, 0, time.UTC)

// healthy makes the burn-in of a node on which nothing is wrong.
func (n nature) healthy(k kind) *burned {
	b := &burned{kind: k}
	inv := machine(k)
	n.history(&inv)
	type gpu struct{ silicon, watts, corrected, replays float64 }
	air, supply := 3*n.NormFloat64(), 1+0.005*n.NormFloat64()
	gpus := make([]gpu, len(inv.GPUs))
	for i := range gpus {
		gpus[i] = gpu{silicon: n.normal(1, 0.013), watts: n.normal(1, 0.03)}
		if n.chance(0.01) {
			gpus[i].corrected = 0.1
		}
		if n.chance(0.05) {
			gpus[i].replays = 2
		}
	}
	links, ports, dimms := map[[2]int]float64{}, map[int]float64{}, map[int]float64{}
	for i, g := range inv.GPUs {
		for l := range g.NVLinks {
			if n.chance(0.002) {
				links[[2]int{i, l}] = 0.05
			}
		}
	}
	for i := range inv.HCAs {
		if inv.HCAs[i].Role == fleet.HCARail && n.chance(0.1) {
			ports[i] = 5
		}
	}
	for i := range inv.Memory.DIMMs {
		if n.chance(0.007) {
			dimms[i] = 5.0 / 24
		}
	}
	at := burnStart
	for r := range max(1, burnProfile.Rounds) {
		for _, s := range burnProfile.Stages {
			hours := float64(s.Seconds) / 3600
			before := clone(inv)
			for i := range inv.GPUs {
				g := &inv.GPUs[i]
				g.ECC.Volatile.Corrected += n.events(gpus[i].corrected * hours)
				g.PCIe.Replays += n.events(gpus[i].replays * hours)
				for l := range g.NVLinks {
					if c := n.events(links[[2]int{i, l}] * hours); c > 0 {
						name := "replay"
						if k.name == "hgx-b200" {
							name = "recovery-ok"
						}
						g.NVLinks[l].Errors = map[string]int64{name: g.NVLinks[l].Errors[name] + c}
					}
				}
				g.ThrottledNS["sw-power-cap"] += int64(hours * 3.6e12 * n.Float64())
			}
			for i, rate := range ports {
				p := &inv.HCAs[i].Ports[0]
				if c := n.events(rate * hours); c > 0 {
					p.Counters = map[string]int64{"symbol_error": p.Counters["symbol_error"] + c}
				}
			}
			for i, rate := range dimms {
				*inv.Memory.DIMMs[i].Corrected += n.events(rate * hours)
			}
			p := fleet.BurnPart{Version: 1, Profile: burnProfile.Name, Stage: s.Name, Round: r + 1, BeganAt: at, EndedAt: at.Add(time.Duration(s.Seconds) * time.Second), Planned: s.Seconds, Fixture: "noise", Before: before, After: clone(inv)}
			at = p.EndedAt.Add(20 * time.Second)
			m := func(check, component string, value float64) {
				c, _ := fleet.FindMeasured(check)
				p.Measured = append(p.Measured, fleet.Measured{Check: check, Component: component, Value: value, Unit: c.Unit, N: 20})
			}
			for i := range inv.GPUs {
				name, q := Component(&inv, i), gpus[i]
				speed := func(v float64) float64 { return n.normal(v*q.silicon*supply, 0.003) }
				rear := 8 * float64(inv.GPUs[i].ModuleID%2)
				switch s.Name {
				case "hbm":
					m("gpu-memory-mismatches", name, 0)
					m("gpu-memory-tested", name, n.normal(96, 0.002))
					m("gpu-memory-bandwidth", name, n.normal(3900, 0.003))
				case "compute":
					m("gpu-mismatches", name, 0)
					m("gpu-bf16", name, speed(540))
					m("gpu-int8", name, speed(1080))
					m("gpu-fp32", name, speed(48))
					m("gpu-fp64", name, speed(24))
					m("gpu-int32", name, speed(24))
					m("gpu-sm-clock-load", name, speed(1620))
					m("gpu-power-load", name, n.normal(680*q.watts, 0.005))
					m("gpu-temperature-max", name, math.Round(62+air+rear+60*(q.watts-1)+n.NormFloat64()))
					m("gpu-memory-temperature-max", name, math.Round(74+air+rear+60*(q.watts-1)+n.NormFloat64()))
					m("gpu-pcie-generation-load", name, float64(k.gen))
					m("gpu-pcie-width-load", name, 16)
				case "copy":
					m("gpu-copy-mismatches", name, 0)
					m("gpu-h2d", name, n.normal(54, 0.01))
					m("gpu-d2h", name, n.normal(54, 0.01))
					for o := range inv.GPUs {
						if o != i {
							pair := fmt.Sprintf("%s/peer/%d", name, inv.GPUs[o].ModuleID)
							m("gpu-peer", pair, n.normal(370, 0.003))
							m("gpu-peer-mismatches", pair, 0)
						}
					}
				}
			}
			if s.Name == "host" {
				for c := range 16 {
					m("cpu-mismatches", fmt.Sprintf("core/%d", c*7), 0)
					m("cpu-rate", fmt.Sprintf("core/%d", c*7), n.normal(100, 0.01))
				}
				for _, d := range inv.NUMANodes {
					m("memory-mismatches", fmt.Sprintf("numa/%d", d.ID), 0)
					m("memory-bandwidth", fmt.Sprintf("numa/%d", d.ID), n.normal(220, 0.01))
				}
				for _, d := range inv.Disks {
					name := "disk/" + d.Name
					m("disk-mismatches", name, 0)
					m("disk-io-errors", name, 0)
					m("disk-read", name, n.normal(6800, 0.02))
					m("disk-write", name, n.normal(4000, 0.02))
					m("disk-read-latency", name, n.normal(110, 0.08))
					m("disk-write-latency", name, n.normal(30, 0.08))
				}
				for _, h := range railHCAs(&inv) {
					m("hca-bandwidth", "hca/"+h.Name, n.normal(392, 0.003))
				}
			}
			b.parts = append(b.parts, p)
		}
	}
	return b
}

// history gives counters what they had before: a burn-in must not judge that.
func (n nature) history(inv *fleet.Inventory) {
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		g.ThrottledNS = map[string]int64{"sw-power-cap": int64(1e12 * n.Float64()), "sw-thermal-slowdown": 0, "hw-thermal-slowdown": 0, "hw-power-brake": 0}
		if n.chance(0.05) {
			g.ECC.Volatile.Corrected = n.events(3)
		}
		g.PCIe.Replays = n.events(1)
		for l := range g.NVLinks {
			if g.NVLinks[l].SpeedGBps > 50 { // NVLink 5
				g.NVLinks[l].EffectiveBER = ref(0.0)
			}
		}
		if n.chance(0.02) {
			g.NVLinks[n.IntN(len(g.NVLinks))].Errors = map[string]int64{"crc": 1 + n.events(2)}
		}
	}
	for i := range inv.HCAs {
		if inv.HCAs[i].Role == fleet.HCARail && n.chance(0.3) {
			inv.HCAs[i].Ports[0].Counters = map[string]int64{"symbol_error": n.events(40), "link_downed": 1, "port_xmit_data": 1 << 40}
		}
	}
	for i := range inv.Memory.DIMMs {
		if n.chance(0.02) {
			inv.Memory.DIMMs[i].Corrected = ref(1 + n.events(4))
		}
	}
}

// clone copies an inventory with all that moves or that a fault changes.
func clone(inv fleet.Inventory) *fleet.Inventory {
	inv.PCI, inv.CPUs, inv.NUMANodes, inv.NVSwitches, inv.NICs, inv.Rails = slices.Clone(inv.PCI), slices.Clone(inv.CPUs), slices.Clone(inv.NUMANodes), slices.Clone(inv.NVSwitches), slices.Clone(inv.NICs), slices.Clone(inv.Rails)
	inv.KernelFindings, inv.Missing = slices.Clone(inv.KernelFindings), slices.Clone(inv.Missing)
	inv.GPUs, inv.HCAs, inv.Disks, inv.Memory.DIMMs = slices.Clone(inv.GPUs), slices.Clone(inv.HCAs), slices.Clone(inv.Disks), slices.Clone(inv.Memory.DIMMs)
	inv.GPUDriver = own(inv.GPUDriver)
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		g.ECC, g.PCIe, g.RemappedRows, g.Temperatures, g.Power, g.Clocks, g.MIG, g.Fabric = own(g.ECC), own(g.PCIe), own(g.RemappedRows), own(g.Temperatures), own(g.Power), own(g.Clocks), own(g.MIG), own(g.Fabric)
		g.ThrottledNS, g.P2P = maps.Clone(g.ThrottledNS), maps.Clone(g.P2P)
		if g.RemappedRows != nil {
			g.RemappedRows.Banks = maps.Clone(g.RemappedRows.Banks)
		}
		g.NVLinks = slices.Clone(g.NVLinks)
		for l := range g.NVLinks {
			g.NVLinks[l].Errors, g.NVLinks[l].Remote = maps.Clone(g.NVLinks[l].Errors), own(g.NVLinks[l].Remote)
		}
	}
	for i := range inv.HCAs {
		h := &inv.HCAs[i]
		h.Resources, h.Ports = maps.Clone(h.Resources), slices.Clone(h.Ports)
		for p := range h.Ports {
			h.Ports[p].Counters = maps.Clone(h.Ports[p].Counters)
		}
	}
	for i := range inv.Disks {
		inv.Disks[i].Smart = own(inv.Disks[i].Smart)
	}
	for i := range inv.Memory.DIMMs {
		d := &inv.Memory.DIMMs[i]
		d.Corrected, d.Uncorrected = own(d.Corrected), own(d.Uncorrected)
	}
	return &inv
}

func own[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

func newNature(seed uint64) nature { return nature{rand.New(rand.NewPCG(seed, 20261122))} }
