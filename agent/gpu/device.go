//go:build cgo

package gpu

import (
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/metalctl/metalctl/fleet"
)

// device is one GPU while it is read. After each part the parent gets the whole picture: a call that hangs costs only what comes after it.
type device struct {
	*helper
	dev nvml.Device
	g   *fleet.GPU
}

// gpu reads one GPU.
func (h *helper) gpu(r request) {
	dev, ok := h.handle(r)
	if !ok {
		return
	}
	d := &device{h, dev, &fleet.GPU{Vendor: "nvidia", NUMANode: -1, PCIAddress: r.PCI}}
	for _, read := range []func(){d.identity, d.firmware, d.memory, d.modes, d.errors, d.pcie, d.clocks, d.power, d.links, d.fields, d.fabric, d.users} {
		read()
		if d.lost || d.err != nil {
			break
		}
		d.send(message{GPU: d.g})
	}
}

// text reads a string.
func (d *device) text(to *string, what, function string, call func() (string, nvml.Return)) {
	d.ask(what, function, func() nvml.Return {
		s, ret := call()
		if ret == nvml.SUCCESS {
			*to = clean(s)
		}
		return ret
	})
}

// number reads a number of any of NVML's kinds.
func number[N int | uint32 | uint64, T int | int64](d *device, to *T, what, function string, call func() (N, nvml.Return)) bool {
	return d.ask(what, function, func() nvml.Return {
		n, ret := call()
		if ret == nvml.SUCCESS {
			*to = T(n)
		}
		return ret
	})
}

func (d *device) identity() {
	number(d, &d.g.Index, "index", "nvmlDeviceGetIndex", d.dev.GetIndex)
	d.ask("pci", d.newest("nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo_v2", "nvmlDeviceGetPciInfo"), func() nvml.Return {
		p, ret := d.dev.GetPciInfo()
		if ret != nvml.SUCCESS {
			return ret
		}
		if d.g.PCIAddress == "" {
			d.g.PCIAddress = fmt.Sprintf("%04x:%02x:%02x.0", p.Domain, p.Bus, p.Device)
		}
		if p.PciDeviceId != 0 {
			d.g.PCIDevice = fmt.Sprintf("%04x:%04x", p.PciDeviceId&0xffff, p.PciDeviceId>>16)
		}
		if p.PciSubSystemId != 0 {
			d.g.PCISubsystem = fmt.Sprintf("%04x:%04x", p.PciSubSystemId&0xffff, p.PciSubSystemId>>16)
		}
		return ret
	})
	d.text(&d.g.Model, "model", "nvmlDeviceGetName", d.dev.GetName)
	d.text(&d.g.UUID, "uuid", "nvmlDeviceGetUUID", d.dev.GetUUID)
	d.text(&d.g.Serial, "serial", "nvmlDeviceGetSerial", d.dev.GetSerial)
	d.text(&d.g.Part, "part", "nvmlDeviceGetBoardPartNumber", d.dev.GetBoardPartNumber)
	var board int64
	if number(d, &board, "board", "nvmlDeviceGetBoardId", d.dev.GetBoardId) {
		d.g.Board = fmt.Sprintf("0x%x", board)
	}
	number(d, &d.g.ModuleID, "module_id", "nvmlDeviceGetModuleId", d.dev.GetModuleId)
	d.ask("compute_capability", "nvmlDeviceGetCudaComputeCapability", func() nvml.Return {
		major, minor, ret := d.dev.GetCudaComputeCapability()
		if ret == nvml.SUCCESS {
			d.g.ComputeCapability = fmt.Sprintf("%d.%d", major, minor)
		}
		return ret
	})
}

func (d *device) firmware() {
	d.text(&d.g.VBIOS, "vbios", "nvmlDeviceGetVbiosVersion", d.dev.GetVbiosVersion)
	versions := map[string]string{}
	enter := func(name, function string, call func() (string, nvml.Return)) {
		var s string
		if d.text(&s, "inforom."+name, function, call); s != "" {
			versions[name] = s
		}
	}
	enter("image", "nvmlDeviceGetInforomImageVersion", d.dev.GetInforomImageVersion)
	for _, o := range []struct {
		name string
		id   nvml.InforomObject
	}{{"oem", nvml.INFOROM_OEM}, {"ecc", nvml.INFOROM_ECC}, {"power", nvml.INFOROM_POWER}} {
		enter(o.name, "nvmlDeviceGetInforomVersion", func() (string, nvml.Return) { return d.dev.GetInforomVersion(o.id) })
	}
	if len(versions) > 0 {
		d.g.InfoROM = versions
	}
	switch ret := d.try("nvmlDeviceValidateInforom", d.dev.ValidateInforom); ret {
	case nvml.SUCCESS, nvml.ERROR_CORRUPTED_INFOROM:
		valid := ret == nvml.SUCCESS
		d.g.InfoROMValid = &valid
	default:
		d.note("inforom_valid", "nvmlDeviceValidateInforom", ret)
	}
	enabled := false
	if d.ask("gsp", "nvmlDeviceGetGspFirmwareMode", func() (ret nvml.Return) {
		enabled, _, ret = d.dev.GetGspFirmwareMode()
		return ret
	}) {
		if !enabled {
			d.g.GSP = "disabled"
		} else {
			d.text(&d.g.GSP, "gsp", "nvmlDeviceGetGspFirmwareVersion", d.dev.GetGspFirmwareVersion)
		}
	}
}

func (d *device) memory() {
	// Version 2 tells what the driver keeps for itself from what somebody uses.
	if d.symbol("nvmlDeviceGetMemoryInfo_v2") {
		d.ask("memory", "nvmlDeviceGetMemoryInfo_v2", func() nvml.Return {
			m, ret := d.dev.GetMemoryInfo_v2()
			if ret == nvml.SUCCESS {
				used := int64(m.Used)
				d.g.MemoryBytes, d.g.MemoryUsedBytes = int64(m.Total), &used
			}
			return ret
		})
	} else {
		d.ask("memory", "nvmlDeviceGetMemoryInfo", func() nvml.Return {
			m, ret := d.dev.GetMemoryInfo()
			if ret == nvml.SUCCESS {
				d.g.MemoryBytes = int64(m.Total)
			}
			return ret
		})
		d.miss("memory used", "the driver is too old for it: its library has no nvmlDeviceGetMemoryInfo_v2")
	}
	d.ask("bar1", "nvmlDeviceGetBAR1MemoryInfo", func() nvml.Return {
		m, ret := d.dev.GetBAR1MemoryInfo()
		d.g.BAR1Bytes = int64(m.Bar1Total)
		return ret
	})
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func (d *device) modes() {
	d.ask("persistence", "nvmlDeviceGetPersistenceMode", func() nvml.Return {
		m, ret := d.dev.GetPersistenceMode()
		if ret == nvml.SUCCESS {
			d.g.Persistence = onOff(m == nvml.FEATURE_ENABLED)
		}
		return ret
	})
	d.ask("compute_mode", "nvmlDeviceGetComputeMode", func() nvml.Return {
		m, ret := d.dev.GetComputeMode()
		if ret == nvml.SUCCESS {
			d.g.ComputeMode = computeMode(m)
		}
		return ret
	})
	d.ask("virtualization", "nvmlDeviceGetVirtualizationMode", func() nvml.Return {
		m, ret := d.dev.GetVirtualizationMode()
		if ret == nvml.SUCCESS {
			d.g.Virtualization = oneOf(int(m), "none", "passthrough", "vgpu", "host-vgpu", "host-vsga")
		}
		return ret
	})
	d.ask("mig", "nvmlDeviceGetMigMode", func() nvml.Return {
		now, next, ret := d.dev.GetMigMode()
		if ret == nvml.SUCCESS {
			d.g.MIG = &fleet.Pending{Now: onOff(now == nvml.DEVICE_MIG_ENABLE), Next: onOff(next == nvml.DEVICE_MIG_ENABLE)}
		}
		return ret
	})
}

func computeMode(m nvml.ComputeMode) string {
	return oneOf(int(m), "default", "exclusive-thread", "prohibited", "exclusive-process")
}

func oneOf(n int, words ...string) string {
	if n >= 0 && n < len(words) {
		return words[n]
	}
	return fmt.Sprintf("unknown (%d)", n)
}

func (d *device) errors() {
	ecc := &fleet.ECC{}
	known := d.ask("ecc", "nvmlDeviceGetEccMode", func() nvml.Return {
		now, next, ret := d.dev.GetEccMode()
		ecc.Mode = fleet.Pending{Now: onOff(now == nvml.FEATURE_ENABLED), Next: onOff(next == nvml.FEATURE_ENABLED)}
		return ret
	})
	if known && ecc.Mode.Now == "on" {
		sram := d.sram(ecc)
		for _, c := range []struct {
			name    string
			counter nvml.EccCounterType
			to      *fleet.ECCCounts
		}{{"volatile", nvml.VOLATILE_ECC, &ecc.Volatile}, {"aggregate", nvml.AGGREGATE_ECC, &ecc.Aggregate}} {
			d.counts(c.name, c.counter, c.to, sram)
		}
	}
	if known {
		d.g.ECC = ecc
	}
	d.ask("remapped_rows", "nvmlDeviceGetRemappedRows", func() nvml.Return {
		correctable, uncorrectable, pending, failure, ret := d.dev.GetRemappedRows()
		if ret == nvml.SUCCESS {
			d.g.RemappedRows = &fleet.RemappedRows{Correctable: int64(correctable), Uncorrectable: int64(uncorrectable), Pending: pending, Failure: failure}
		}
		return ret
	})
	if d.g.RemappedRows != nil {
		d.ask("remapped_rows banks", "nvmlDeviceGetRowRemapperHistogram", func() nvml.Return {
			b, ret := d.dev.GetRowRemapperHistogram()
			if ret == nvml.SUCCESS {
				d.g.RemappedRows.Banks = map[string]int64{"max": int64(b.Max), "high": int64(b.High), "partial": int64(b.Partial), "low": int64(b.Low), "none": int64(b.None)}
			}
			return ret
		})
	}
}

// sram reads the SRAM's own account, which has the driver's mark that it is worn out; false where the driver is too old for it.
func (d *device) sram(ecc *fleet.ECC) bool {
	return d.ask("ecc sram_threshold_exceeded", "nvmlDeviceGetSramEccErrorStatus", func() nvml.Return {
		s, ret := d.dev.GetSramEccErrorStatus()
		if ret == nvml.SUCCESS {
			over := s.BThresholdExceeded != 0
			ecc.SRAMThreshold = &over
			ecc.Volatile.SRAMCorrected, ecc.Volatile.SRAMUncorrected = int64(s.VolatileCor), int64(s.VolatileUncParity+s.VolatileUncSecDed)
			ecc.Aggregate.SRAMCorrected, ecc.Aggregate.SRAMUncorrected = int64(s.AggregateCor), int64(s.AggregateUncParity+s.AggregateUncSecDed)
		}
		return ret
	})
}

func (d *device) counts(name string, counter nvml.EccCounterType, to *fleet.ECCCounts, sram bool) {
	for _, e := range []struct {
		words             string
		kind              nvml.MemoryErrorType
		total, dram, sram *int64
	}{
		{"corrected", nvml.MEMORY_ERROR_TYPE_CORRECTED, &to.Corrected, &to.DRAMCorrected, &to.SRAMCorrected},
		{"uncorrected", nvml.MEMORY_ERROR_TYPE_UNCORRECTED, &to.Uncorrected, &to.DRAMUncorrected, &to.SRAMUncorrected},
	} {
		what := "ecc " + name + " " + e.words
		number(d, e.total, what, "nvmlDeviceGetTotalEccErrors", func() (uint64, nvml.Return) { return d.dev.GetTotalEccErrors(e.kind, counter) })
		number(d, e.dram, what+" dram", "nvmlDeviceGetMemoryErrorCounter", func() (uint64, nvml.Return) {
			return d.dev.GetMemoryErrorCounter(e.kind, counter, nvml.MEMORY_LOCATION_DRAM)
		})
		if !sram {
			number(d, e.sram, what+" sram", "nvmlDeviceGetMemoryErrorCounter", func() (uint64, nvml.Return) {
				return d.dev.GetMemoryErrorCounter(e.kind, counter, nvml.MEMORY_LOCATION_SRAM)
			})
		}
	}
}

func (d *device) pcie() {
	l := &fleet.PCIeLink{}
	known := number(d, &l.Generation, "pcie", "nvmlDeviceGetCurrPcieLinkGeneration", d.dev.GetCurrPcieLinkGeneration)
	known = number(d, &l.Width, "pcie", "nvmlDeviceGetCurrPcieLinkWidth", d.dev.GetCurrPcieLinkWidth) && known
	known = number(d, &l.MaxGeneration, "pcie", "nvmlDeviceGetMaxPcieLinkGeneration", d.dev.GetMaxPcieLinkGeneration) && known
	known = number(d, &l.MaxWidth, "pcie", "nvmlDeviceGetMaxPcieLinkWidth", d.dev.GetMaxPcieLinkWidth) && known
	if known {
		number(d, &l.Replays, "pcie replays", "nvmlDeviceGetPcieReplayCounter", d.dev.GetPcieReplayCounter)
		d.g.PCIe = l
	}
}

func (d *device) clocks() {
	c := &fleet.GPUClocks{}
	clock := func(to *int, what, function string, kind nvml.ClockType, call func(nvml.ClockType) (uint32, nvml.Return)) bool {
		return number(d, to, what, function, func() (uint32, nvml.Return) { return call(kind) })
	}
	known := clock(&c.SM, "clocks sm", "nvmlDeviceGetClockInfo", nvml.CLOCK_SM, d.dev.GetClockInfo)
	known = clock(&c.Memory, "clocks memory", "nvmlDeviceGetClockInfo", nvml.CLOCK_MEM, d.dev.GetClockInfo) || known
	known = clock(&c.MaxSM, "clocks max_sm", "nvmlDeviceGetMaxClockInfo", nvml.CLOCK_SM, d.dev.GetMaxClockInfo) || known
	known = clock(&c.MaxMemory, "clocks max_memory", "nvmlDeviceGetMaxClockInfo", nvml.CLOCK_MEM, d.dev.GetMaxClockInfo) || known
	if known {
		// Application clocks are gone from newer GPUs: that there are none is no gap.
		for _, a := range []struct {
			to   *int
			kind nvml.ClockType
		}{{&c.AppSM, nvml.CLOCK_SM}, {&c.AppMemory, nvml.CLOCK_MEM}} {
			d.try("nvmlDeviceGetApplicationsClock", func() nvml.Return {
				// NVML names no other way, and fleets of A100 set these
				n, ret := d.dev.GetApplicationsClock(a.kind)
				if ret == nvml.SUCCESS {
					*a.to = int(n)
				}
				return ret
			})
		}
		d.g.Clocks = c
	}
	reasons := "nvmlDeviceGetCurrentClocksEventReasons"
	call := d.dev.GetCurrentClocksEventReasons
	if !d.symbol(reasons) { // the old name, before driver 535
		// for those drivers
		reasons, call = "nvmlDeviceGetCurrentClocksThrottleReasons", d.dev.GetCurrentClocksThrottleReasons
	}
	d.ask("clock_reasons", reasons, func() nvml.Return {
		mask, ret := call()
		if ret == nvml.SUCCESS {
			d.g.ClockReasons = clockReasons(mask)
		}
		return ret
	})
}

func (d *device) power() {
	p := &fleet.GPUPower{}
	known := number(d, &p.Draw, "power draw", "nvmlDeviceGetPowerUsage", d.dev.GetPowerUsage)
	known = number(d, &p.Limit, "power limit", "nvmlDeviceGetEnforcedPowerLimit", d.dev.GetEnforcedPowerLimit) || known
	known = number(d, &p.Default, "power default", "nvmlDeviceGetPowerManagementDefaultLimit", d.dev.GetPowerManagementDefaultLimit) || known
	known = d.ask("power limits", "nvmlDeviceGetPowerManagementLimitConstraints", func() nvml.Return {
		low, high, ret := d.dev.GetPowerManagementLimitConstraints()
		if ret == nvml.SUCCESS {
			p.MinLimit, p.MaxLimit = int64(low), int64(high)
		}
		return ret
	}) || known
	if known {
		d.g.Power = p
	}
	t := d.temperatures()
	if d.symbol("nvmlDeviceGetTemperatureV") {
		d.ask("temperature gpu", "nvmlDeviceGetTemperatureV", func() nvml.Return {
			v, ret := d.dev.GetTemperatureV().V1()
			return celsius(&t.GPU, int(v.Temperature), ret)
		})
	} else {
		d.ask("temperature gpu", "nvmlDeviceGetTemperature", func() nvml.Return {
			// for drivers before 565
			n, ret := d.dev.GetTemperature(nvml.TEMPERATURE_GPU)
			return celsius(&t.GPU, int(n), ret)
		})
	}
	d.ask("temperature margin", "nvmlDeviceGetMarginTemperature", func() nvml.Return {
		v, ret := d.dev.GetMarginTemperature()
		return celsius(&t.Margin, int(v.MarginTemperature), ret)
	})
}

func (d *device) temperatures() *fleet.Temperatures {
	if d.g.Temperatures == nil {
		d.g.Temperatures = &fleet.Temperatures{}
	}
	return d.g.Temperatures
}

func celsius(to **int, n int, ret nvml.Return) nvml.Return {
	if ret == nvml.SUCCESS {
		*to = &n
	}
	return ret
}

// users reads who holds the GPU's memory.
func (d *device) users() {
	var list []fleet.GPUProcess
	for _, k := range []struct {
		kind, name string
		call       func() ([]nvml.ProcessInfo, nvml.Return)
	}{
		{"compute", "nvmlDeviceGetComputeRunningProcesses", d.dev.GetComputeRunningProcesses},
		{"graphics", "nvmlDeviceGetGraphicsRunningProcesses", d.dev.GetGraphicsRunningProcesses},
		{"mps", "nvmlDeviceGetMPSComputeRunningProcesses", d.dev.GetMPSComputeRunningProcesses},
	} {
		d.ask("processes "+k.kind, d.newest(k.name+"_v3", k.name+"_v2", k.name), func() nvml.Return {
			found, ret := k.call()
			for _, p := range found {
				memory := int64(p.UsedGpuMemory)
				if p.UsedGpuMemory > 1<<60 { // all ones: not known
					memory = 0
				}
				list = append(list, fleet.GPUProcess{PID: int(p.Pid), Kind: k.kind, MemoryBytes: memory})
			}
			return ret
		})
	}
	names := map[int]string{}
	for i, p := range list {
		if _, known := names[p.PID]; !known {
			names[p.PID] = ""
			d.ask("processes name", "nvmlSystemGetProcessName", func() nvml.Return {
				s, ret := d.lib.SystemGetProcessName(p.PID)
				if ret == nvml.SUCCESS {
					names[p.PID] = clean(s)
				}
				return ret
			})
		}
		list[i].Name = names[p.PID]
	}
	d.g.Processes = list
}
