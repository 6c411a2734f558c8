//go:build cgo

package gpu

import (
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/metalctl/metalctl/fleet"
)

// throttleFields are the fields of the nanoseconds that a GPU was held back, by why.
var throttleFields = []struct {
	field  uint32
	reason string
}{{74, "sw-power-cap"}, {76, "sync-boost"}, {269, "sw-thermal-slowdown"}, {270, "hw-thermal-slowdown"}, {271, "hw-power-brake"}}

// sample answers with what a GPU's values are now. What it does not tell is left out: an inspection says why.
func (h *helper) sample(r request) {
	dev := h.handles[r.PCI]
	if dev == nil {
		var ok bool
		if dev, ok = h.handle(r); !ok {
			return
		}
		h.handles[r.PCI] = dev
	}
	var s sample
	enter := func(name, unit string, value float64, ret nvml.Return) {
		if ret == nvml.SUCCESS {
			s.Values = append(s.Values, fleet.Sample{Name: name, Unit: unit, Value: value})
		}
	}
	one := func(name, unit, function string, scale float64, call func() (float64, nvml.Return)) {
		var v float64
		ret := h.try(function, func() (ret nvml.Return) { v, ret = call(); return ret })
		enter(name, unit, v*scale, ret)
	}
	if h.symbol("nvmlDeviceGetTemperatureV") {
		one("temperature", "C", "nvmlDeviceGetTemperatureV", 1, func() (float64, nvml.Return) {
			v, ret := dev.GetTemperatureV().V1()
			return float64(v.Temperature), ret
		})
	} else {
		one("temperature", "C", "nvmlDeviceGetTemperature", 1, wide(func() (uint32, nvml.Return) { return dev.GetTemperature(nvml.TEMPERATURE_GPU) }))
	}
	one("power", "W", "nvmlDeviceGetPowerUsage", 1e-3, wide(dev.GetPowerUsage))
	one("sm-clock", "MHz", "nvmlDeviceGetClockInfo", 1, wide(func() (uint32, nvml.Return) { return dev.GetClockInfo(nvml.CLOCK_SM) }))
	one("pcie-generation", "generation", "nvmlDeviceGetCurrPcieLinkGeneration", 1, wide(dev.GetCurrPcieLinkGeneration))
	one("pcie-width", "lanes", "nvmlDeviceGetCurrPcieLinkWidth", 1, wide(dev.GetCurrPcieLinkWidth))
	for name, kind := range map[string]nvml.MemoryErrorType{"ecc-corrected": nvml.MEMORY_ERROR_TYPE_CORRECTED, "ecc-uncorrected": nvml.MEMORY_ERROR_TYPE_UNCORRECTED} {
		one(name, "errors", "nvmlDeviceGetTotalEccErrors", 1, wide(func() (uint64, nvml.Return) { return dev.GetTotalEccErrors(kind, nvml.VOLATILE_ECC) }))
	}
	const memoryTemperature = 82
	values := []nvml.FieldValue{{FieldId: memoryTemperature}}
	for _, f := range throttleFields {
		values = append(values, nvml.FieldValue{FieldId: f.field})
	}
	if h.try("nvmlDeviceGetFieldValues", func() nvml.Return { return dev.GetFieldValues(values) }) == nvml.SUCCESS {
		for i, v := range values {
			n, ok := fieldValue(v)
			switch {
			case !ok || nvml.Return(v.NvmlReturn) != nvml.SUCCESS:
			case i == 0:
				enter("memory-temperature", "C", float64(n), nvml.SUCCESS)
			default:
				enter("throttled-"+throttleFields[i-1].reason, "ns", float64(n), nvml.SUCCESS)
			}
		}
	}
	if !h.lost {
		h.send(message{Sample: &s})
	}
}

// wide makes a number of any kind one of floating point.
func wide[N uint32 | uint64 | int](call func() (N, nvml.Return)) func() (float64, nvml.Return) {
	return func() (float64, nvml.Return) {
		n, ret := call()
		return float64(n), ret
	}
}
