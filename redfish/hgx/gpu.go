package hgx

import (
	"context"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// noLimit is what the controller writes where there is no limit (DGX H100 capture).
const noLimit = 65535

// gpus reads GPUs, their memory and their ends of the NVLinks.
func (w *walk) gpus(ctx context.Context, system object, processors []object) {
	memory := map[string]object{}
	if at := system.link("Memory"); at != "" {
		ms, err := w.members(ctx, at)
		w.missing("memory", err)
		for _, m := range ms {
			memory[m.link()] = m
		}
	}
	w.ports, w.peers = map[string]fleet.BoardPort{}, map[string]string{}
	for _, p := range processors {
		if h := p.str("Status", "Health"); h != "" && h != "OK" {
			w.board.Health[part(p.link())] = h
		}
		if p.str("ProcessorType") != "GPU" {
			continue
		}
		g := gpuOf(p)
		for _, l := range p.list("Links", "Memory") {
			memoryOf(&g, memory[l.link()])
		}
		if at := p.link("MemorySummary", "Metrics"); at != "" {
			m, err := w.get(ctx, at)
			w.missing(g.Name+" memory metrics", err)
			if err == nil {
				g.Corrected, g.Uncorrected = m.count("LifeTime", "CorrectableECCErrorCount"), m.count("LifeTime", "UncorrectableECCErrorCount")
			}
		}
		if at := p.link("EnvironmentMetrics"); at != "" {
			m, err := w.get(ctx, at)
			w.missing(g.Name+" environment", err)
			if err == nil {
				g.PowerLimitWatts = powerLimit(m)
			}
		}
		if at := p.link("Ports"); at != "" {
			w.missing(g.Name+" ports", w.portsOf(ctx, g.Name, at))
		}
		w.board.Powered = w.board.Powered || g.State == "Enabled"
		w.board.GPUs = append(w.board.GPUs, g)
	}
}

func gpuOf(p object) fleet.BoardGPU {
	g := fleet.BoardGPU{Name: part(p.link()), Serial: p.str("SerialNumber"), UUID: p.str("UUID"), Model: p.str("Model"), Part: p.str("PartNumber"), VBIOS: p.str("FirmwareVersion"),
		State: p.str("Status", "State"), Health: p.str("Status", "Health")}
	g.Number = lastNumber(g.Name)
	if n := p.count("MemorySummary", "TotalMemorySizeMiB"); n != nil && *n < 1<<40 {
		g.MemoryBytes = *n << 20
	}
	if p.at("SystemInterface", "PCIe") != nil {
		l := &fleet.PCIeLink{Generation: generation(p.str("SystemInterface", "PCIe", "PCIeType")), MaxGeneration: generation(p.str("SystemInterface", "PCIe", "MaxPCIeType"))}
		if n := p.count("SystemInterface", "PCIe", "LanesInUse"); n != nil && *n <= 32 {
			l.Width = int(*n)
		}
		if n := p.count("SystemInterface", "PCIe", "MaxLanes"); n != nil && *n <= 32 {
			l.MaxWidth = int(*n)
		}
		g.PCIe = l
	}
	return g
}

func memoryOf(g *fleet.BoardGPU, m object) {
	g.RemapFailed, g.RemapPending = m.maybe("Oem", "Nvidia", "RowRemappingFailed"), m.maybe("Oem", "Nvidia", "RowRemappingPending")
}

func powerLimit(m object) *int {
	n := m.count("PowerLimitWatts", "SetPoint")
	if n == nil || *n == 0 || *n >= noLimit {
		return nil
	}
	w := int(*n)
	return &w
}

func generation(s string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(s, "Gen"))
	if err != nil || n < 1 || n > 9 {
		return 0
	}
	return n
}

// lastNumber is the number that a name ends in, -1 where it ends in none.
func lastNumber(name string) int {
	i := len(name)
	for i > 0 && name[i-1] >= '0' && name[i-1] <= '9' {
		i--
	}
	n, err := strconv.Atoi(name[i:])
	if err != nil || n > 1<<16 {
		return -1
	}
	return n
}
