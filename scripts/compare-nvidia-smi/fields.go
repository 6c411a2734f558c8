package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// field is one of nvidia-smi's and what of ours must be equal to it.
type field struct {
	path   string
	or     []string // names that other drivers have for it
	normal func(string) string
	ours   func(fleet.GPU) string
	near   func(ours, theirs string) bool // nil: equal
}

func plain(s string) string { return strings.TrimSpace(s) }
func lower(s string) string { return strings.ToLower(plain(s)) }

// first is the number of "81559 MiB" or "700.00 W", without zeros behind the point.
func first(s string) string {
	f := strings.Fields(s)
	if len(f) == 0 {
		return ""
	}
	n, err := strconv.ParseFloat(strings.TrimSuffix(f[0], "x"), 64)
	if err != nil {
		return s
	}
	return number(n)
}

func number(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// onOff and yesNo are words for switches.
func onOff(s string) string {
	return map[string]string{"enabled": "on", "disabled": "off"}[lower(s)]
}

func yesNo(s string) string { return map[string]string{"yes": "true", "no": "false"}[lower(s)] }

// within is near enough for what moves between two questions.
func within(most float64) func(string, string) bool {
	return func(a, b string) bool {
		x, err1 := strconv.ParseFloat(a, 64)
		y, err2 := strconv.ParseFloat(b, 64)
		return err1 == nil && err2 == nil && math.Abs(x-y) <= most
	}
}

// ids turns 0x233010DE into 10de:2330.
func ids(s string) string {
	s = strings.TrimPrefix(lower(s), "0x")
	if len(s) != 8 {
		return s
	}
	return s[4:] + ":" + s[:4]
}

// words turns "Drain and Reset" into drain-and-reset.
func words(s string) string { return strings.ReplaceAll(lower(s), " ", "-") }

func mib(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return fmt.Sprint(bytes >> 20)
}

func pointer[T int | int64 | bool](p *T) string {
	if p == nil {
		return ""
	}
	return fmt.Sprint(*p)
}

// of takes a part of a GPU that may not be there.
func of[T any](part func(fleet.GPU) *T, text func(T) string) func(fleet.GPU) string {
	return func(g fleet.GPU) string {
		if p := part(g); p != nil {
			return text(*p)
		}
		return ""
	}
}

func mig(g fleet.GPU) *fleet.Pending       { return g.MIG }
func ecc(g fleet.GPU) *fleet.ECC           { return g.ECC }
func rows(g fleet.GPU) *fleet.RemappedRows { return g.RemappedRows }
func pcie(g fleet.GPU) *fleet.PCIeLink     { return g.PCIe }
func power(g fleet.GPU) *fleet.GPUPower    { return g.Power }
func clocks(g fleet.GPU) *fleet.GPUClocks  { return g.Clocks }
func heat(g fleet.GPU) *fleet.Temperatures { return g.Temperatures }
func fabric(g fleet.GPU) *fleet.GPUFabric  { return g.Fabric }
func watts(milliwatts int64) string        { return number(float64(milliwatts) / 1000) }
func inforom(key string) func(fleet.GPU) string {
	return func(g fleet.GPU) string { return g.InfoROM[key] }
}

func count(n func(fleet.ECC) int64) func(fleet.GPU) string {
	return of(ecc, func(e fleet.ECC) string { return fmt.Sprint(n(e)) })
}

func reason(name string) func(fleet.GPU) string {
	return func(g fleet.GPU) string {
		if g.Index < 0 {
			return ""
		}
		for _, r := range g.ClockReasons {
			if r == name {
				return "active"
			}
		}
		return "not active"
	}
}

var fields = []field{
	{path: "product_name", normal: plain, ours: func(g fleet.GPU) string { return g.Model }},
	{path: "uuid", normal: plain, ours: func(g fleet.GPU) string { return g.UUID }},
	{path: "serial", normal: plain, ours: func(g fleet.GPU) string { return g.Serial }},
	{path: "vbios_version", normal: plain, ours: func(g fleet.GPU) string { return g.VBIOS }},
	{path: "board_id", normal: lower, ours: func(g fleet.GPU) string { return g.Board }},
	{path: "board_part_number", normal: plain, ours: func(g fleet.GPU) string { return g.Part }},
	{path: "platformInfo/module_id", or: []string{"gpu_module_id"}, normal: plain, ours: func(g fleet.GPU) string { return fmt.Sprint(g.ModuleID) }},
	{path: "inforom_version/img_version", normal: plain, ours: inforom("image")},
	{path: "inforom_version/oem_object", normal: plain, ours: inforom("oem")},
	{path: "inforom_version/ecc_object", normal: plain, ours: inforom("ecc")},
	{path: "inforom_version/pwr_object", normal: plain, ours: inforom("power")},
	{path: "gsp_firmware_version", normal: plain, ours: func(g fleet.GPU) string { return g.GSP }},
	{path: "persistence_mode", normal: onOff, ours: func(g fleet.GPU) string { return g.Persistence }},
	{path: "compute_mode", normal: func(s string) string { return strings.ReplaceAll(lower(s), "_", "-") }, ours: func(g fleet.GPU) string { return g.ComputeMode }},
	{path: "gpu_virtualization_mode/virtualization_mode", normal: func(s string) string { return strings.ReplaceAll(lower(s), "-", "") }, ours: func(g fleet.GPU) string { return strings.ReplaceAll(g.Virtualization, "-", "") }},
	{path: "mig_mode/current_mig", normal: onOff, ours: of(mig, func(p fleet.Pending) string { return p.Now })},
	{path: "mig_mode/pending_mig", normal: onOff, ours: of(mig, func(p fleet.Pending) string { return p.Next })},
	{path: "gpu_recovery_action", normal: words, ours: func(g fleet.GPU) string { return g.Recovery }},
	{path: "pci/pci_device_id", normal: ids, ours: func(g fleet.GPU) string { return g.PCIDevice }},
	{path: "pci/pci_sub_system_id", normal: ids, ours: func(g fleet.GPU) string { return g.PCISubsystem }},
	{path: "pci/pci_gpu_link_info/pcie_gen/max_link_gen", normal: first, ours: of(pcie, func(l fleet.PCIeLink) string { return fmt.Sprint(l.MaxGeneration) })},
	{path: "pci/pci_gpu_link_info/pcie_gen/current_link_gen", normal: first, near: within(5), ours: of(pcie, func(l fleet.PCIeLink) string { return fmt.Sprint(l.Generation) })},
	{path: "pci/pci_gpu_link_info/link_widths/max_link_width", normal: first, ours: of(pcie, func(l fleet.PCIeLink) string { return fmt.Sprint(l.MaxWidth) })},
	{path: "pci/pci_gpu_link_info/link_widths/current_link_width", normal: first, ours: of(pcie, func(l fleet.PCIeLink) string { return fmt.Sprint(l.Width) })},
	{path: "pci/replay_counter", normal: first, ours: of(pcie, func(l fleet.PCIeLink) string { return fmt.Sprint(l.Replays) })},
	{path: "fb_memory_usage/total", normal: first, ours: func(g fleet.GPU) string { return mib(g.MemoryBytes) }},
	{path: "bar1_memory_usage/total", normal: first, ours: func(g fleet.GPU) string { return mib(g.BAR1Bytes) }},
	{path: "ecc_mode/current_ecc", normal: onOff, ours: of(ecc, func(e fleet.ECC) string { return e.Mode.Now })},
	{path: "ecc_mode/pending_ecc", normal: onOff, ours: of(ecc, func(e fleet.ECC) string { return e.Mode.Next })},
	{path: "ecc_errors/volatile/sram_correctable", normal: first, ours: count(func(e fleet.ECC) int64 { return e.Volatile.SRAMCorrected })},
	{path: "ecc_errors/volatile/dram_correctable", normal: first, ours: count(func(e fleet.ECC) int64 { return e.Volatile.DRAMCorrected })},
	{path: "ecc_errors/volatile/dram_uncorrectable", normal: first, ours: count(func(e fleet.ECC) int64 { return e.Volatile.DRAMUncorrected })},
	{path: "ecc_errors/aggregate/sram_correctable", normal: first, ours: count(func(e fleet.ECC) int64 { return e.Aggregate.SRAMCorrected })},
	{path: "ecc_errors/aggregate/dram_correctable", normal: first, ours: count(func(e fleet.ECC) int64 { return e.Aggregate.DRAMCorrected })},
	{path: "ecc_errors/aggregate/dram_uncorrectable", normal: first, ours: count(func(e fleet.ECC) int64 { return e.Aggregate.DRAMUncorrected })},
	{path: "ecc_errors/aggregate/sram_threshold_exceeded", normal: yesNo, ours: of(ecc, func(e fleet.ECC) string { return pointer(e.SRAMThreshold) })},
	{path: "remapped_rows/remapped_row_corr", normal: first, ours: of(rows, func(r fleet.RemappedRows) string { return fmt.Sprint(r.Correctable) })},
	{path: "remapped_rows/remapped_row_unc", normal: first, ours: of(rows, func(r fleet.RemappedRows) string { return fmt.Sprint(r.Uncorrectable) })},
	{path: "remapped_rows/remapped_row_pending", normal: yesNo, ours: of(rows, func(r fleet.RemappedRows) string { return fmt.Sprint(r.Pending) })},
	{path: "remapped_rows/remapped_row_failure", normal: yesNo, ours: of(rows, func(r fleet.RemappedRows) string { return fmt.Sprint(r.Failure) })},
	{path: "remapped_rows/row_remapper_histogram/row_remapper_histogram_max", normal: first, ours: of(rows, func(r fleet.RemappedRows) string { return fmt.Sprint(r.Banks["max"]) })},
	{path: "remapped_rows/row_remapper_histogram/row_remapper_histogram_none", normal: first, ours: of(rows, func(r fleet.RemappedRows) string { return fmt.Sprint(r.Banks["none"]) })},
	{path: "temperature/gpu_temp", normal: first, near: within(8), ours: of(heat, func(t fleet.Temperatures) string { return pointer(t.GPU) })},
	{path: "temperature/gpu_temp_tlimit", normal: first, near: within(8), ours: of(heat, func(t fleet.Temperatures) string { return pointer(t.Margin) })},
	{path: "temperature/memory_temp", normal: first, near: within(8), ours: of(heat, func(t fleet.Temperatures) string { return pointer(t.Memory) })},
	{path: "temperature/gpu_temp_max_tlimit_threshold", normal: first, ours: of(heat, func(t fleet.Temperatures) string { return pointer(t.ShutdownLimit) })},
	{path: "temperature/gpu_temp_slow_tlimit_threshold", normal: first, ours: of(heat, func(t fleet.Temperatures) string { return pointer(t.SlowdownLimit) })},
	{path: "temperature/gpu_temp_max_threshold", normal: first, ours: of(heat, func(t fleet.Temperatures) string { return pointer(t.Shutdown) })},
	{path: "temperature/gpu_temp_slow_threshold", normal: first, ours: of(heat, func(t fleet.Temperatures) string { return pointer(t.Slowdown) })},
	{path: "gpu_power_readings/instant_power_draw", or: []string{"gpu_power_readings/power_draw"}, normal: first, near: within(60), ours: of(power, func(p fleet.GPUPower) string { return watts(p.Draw) })},
	{path: "gpu_power_readings/current_power_limit", normal: first, ours: of(power, func(p fleet.GPUPower) string { return watts(p.Limit) })},
	{path: "gpu_power_readings/default_power_limit", normal: first, ours: of(power, func(p fleet.GPUPower) string { return watts(p.Default) })},
	{path: "gpu_power_readings/min_power_limit", normal: first, ours: of(power, func(p fleet.GPUPower) string { return watts(p.MinLimit) })},
	{path: "gpu_power_readings/max_power_limit", normal: first, ours: of(power, func(p fleet.GPUPower) string { return watts(p.MaxLimit) })},
	{path: "max_clocks/sm_clock", normal: first, ours: of(clocks, func(c fleet.GPUClocks) string { return fmt.Sprint(c.MaxSM) })},
	{path: "max_clocks/mem_clock", normal: first, ours: of(clocks, func(c fleet.GPUClocks) string { return fmt.Sprint(c.MaxMemory) })},
	{path: "clocks_event_reasons/clocks_event_reason_hw_slowdown", normal: lower, ours: reason("hw-slowdown")},
	{path: "clocks_event_reasons/clocks_event_reason_hw_thermal_slowdown", normal: lower, ours: reason("hw-thermal-slowdown")},
	{path: "clocks_event_reasons/clocks_event_reason_hw_power_brake_slowdown", normal: lower, ours: reason("hw-power-brake")},
	{path: "clocks_event_reasons/clocks_event_reason_sw_thermal_slowdown", normal: lower, ours: reason("sw-thermal-slowdown")},
	{path: "fabric/state", normal: words, ours: of(fabric, func(f fleet.GPUFabric) string {
		if f.State == "unsupported" {
			return "" // nvidia-smi prints N/A
		}
		return f.State
	})},
	{path: "fabric/status", normal: words, ours: of(fabric, func(f fleet.GPUFabric) string { return f.Status })},
}
