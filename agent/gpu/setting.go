//go:build cgo

package gpu

import (
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/metalctl/metalctl/fleet"
)

// idleBytes is what the driver itself may hold of a GPU that nobody uses, beyond its reserve: nvidia-smi shows one to some MiB.
const idleBytes = 64 << 20

// cleaner puts one GPU back. After each setting the parent gets the whole picture.
type cleaner struct {
	*device
	out  *fleet.GPUCleaned
	want fleet.CleanGPUs
}

func (h *helper) clean(r request) {
	dev, ok := h.handle(r)
	if !ok {
		return
	}
	c := &cleaner{&device{h, dev, &fleet.GPU{PCIAddress: r.PCI}}, &fleet.GPUCleaned{PCIAddress: r.PCI, Index: -1, Settings: []fleet.GPUSetting{}}, *r.Clean}
	c.identity()
	c.out.Index, c.out.ModuleID, c.out.Serial = c.g.Index, c.g.ModuleID, c.g.Serial
	for _, do := range []func(){c.mig, c.ecc, c.compute, c.persistence, c.clocks, c.power, c.idle} {
		do()
		if c.lost || c.err != nil {
			return
		}
		c.send(message{Cleaned: c.out})
	}
	c.out.Whole = true
	c.send(message{Cleaned: c.out})
}

func (c *cleaner) fault(format string, args ...any) {
	c.out.Faults = append(c.out.Faults, clean(fmt.Sprintf(format, args...)))
}

// setting reads one, changes it where it is not as asked, and reads it back.
func (c *cleaner) setting(name, asked, getter string, get func() (string, nvml.Return), setter string, set func() nvml.Return) {
	if asked == fleet.CleanKeep {
		return
	}
	s := fleet.GPUSetting{Name: name, Asked: asked}
	defer func() { c.out.Settings = append(c.out.Settings, s) }()
	read := func(to *string) (ret nvml.Return) {
		return c.try(getter, func() nvml.Return {
			*to, ret = get()
			return ret
		})
	}
	switch ret := read(&s.Before); ret {
	case nvml.SUCCESS:
	case nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_FUNCTION_NOT_FOUND:
		s.Before, s.Said = "", "there is no such setting ("+words(ret)+")"
		return
	default:
		s.Before = ""
		c.fault("%s cannot be read (%s: %s)", name, getter, words(ret))
		return
	}
	if s.Before == asked {
		s.After = s.Before
		return
	}
	s.Said = words(c.try(setter, set))
	if ret := read(&s.After); ret != nvml.SUCCESS {
		s.After = ""
		c.fault("%s cannot be read back (%s: %s)", name, getter, words(ret))
		return
	}
	if s.After != asked {
		c.fault("%s is %s, and was to be %s (%s: %s)", name, s.After, asked, setter, s.Said)
	}
}

// pending is a setting that may act at the next reset only.
func pending(now, next bool) string {
	if now == next {
		return onOff(now)
	}
	return onOff(now) + ", " + onOff(next) + " after the next reset"
}

func enabled(word string) nvml.EnableState {
	if word == "on" {
		return nvml.FEATURE_ENABLED
	}
	return nvml.FEATURE_DISABLED
}

func (c *cleaner) mig() {
	c.setting("MIG", c.want.MIG, "nvmlDeviceGetMigMode", func() (string, nvml.Return) {
		now, next, ret := c.dev.GetMigMode()
		return pending(now == nvml.DEVICE_MIG_ENABLE, next == nvml.DEVICE_MIG_ENABLE), ret
	}, "nvmlDeviceSetMigMode", func() nvml.Return {
		_, ret := c.dev.SetMigMode(int(enabled(c.want.MIG)))
		return ret
	})
}

func (c *cleaner) ecc() {
	c.setting("ECC", c.want.ECC, "nvmlDeviceGetEccMode", func() (string, nvml.Return) {
		now, next, ret := c.dev.GetEccMode()
		return pending(now == nvml.FEATURE_ENABLED, next == nvml.FEATURE_ENABLED), ret
	}, "nvmlDeviceSetEccMode", func() nvml.Return { return c.dev.SetEccMode(enabled(c.want.ECC)) })
}

func (c *cleaner) compute() {
	c.setting("compute mode", "default", "nvmlDeviceGetComputeMode", func() (string, nvml.Return) {
		m, ret := c.dev.GetComputeMode()
		return computeMode(m), ret
	}, "nvmlDeviceSetComputeMode", func() nvml.Return { return c.dev.SetComputeMode(nvml.COMPUTEMODE_DEFAULT) })
}

func (c *cleaner) persistence() {
	c.setting("persistence", c.want.Persistence, "nvmlDeviceGetPersistenceMode", func() (string, nvml.Return) {
		m, ret := c.dev.GetPersistenceMode()
		return onOff(m == nvml.FEATURE_ENABLED), ret
	}, "nvmlDeviceSetPersistenceMode", func() nvml.Return { return c.dev.SetPersistenceMode(enabled(c.want.Persistence)) })
}

// clocks: application clocks go back to the driver's defaults; locked ones can be reset and not be read, so that they always are.
func (c *cleaner) clocks() {
	for _, k := range []struct {
		name string
		kind nvml.ClockType
	}{{"SM", nvml.CLOCK_SM}, {"memory", nvml.CLOCK_MEM}} {
		var standard uint32
		if c.try("nvmlDeviceGetDefaultApplicationsClock", func() (ret nvml.Return) {
			standard, ret = c.dev.GetDefaultApplicationsClock(k.kind)
			return ret
		}) != nvml.SUCCESS {
			continue // newer GPUs have no application clocks
		}
		c.setting(k.name+" application clock", fmt.Sprintf("%d MHz", standard), "nvmlDeviceGetApplicationsClock", func() (string, nvml.Return) {
			n, ret := c.dev.GetApplicationsClock(k.kind)
			return fmt.Sprintf("%d MHz", n), ret
		}, "nvmlDeviceResetApplicationsClocks", c.dev.ResetApplicationsClocks)
	}
	for _, k := range []struct {
		name, function string
		reset          func() nvml.Return
	}{{"locked SM clock", "nvmlDeviceResetGpuLockedClocks", c.dev.ResetGpuLockedClocks}, {"locked memory clock", "nvmlDeviceResetMemoryLockedClocks", c.dev.ResetMemoryLockedClocks}} {
		ret := c.try(k.function, k.reset)
		c.out.Settings = append(c.out.Settings, fleet.GPUSetting{Name: k.name, Asked: "none", Said: words(ret)})
		if ret != nvml.SUCCESS && ret != nvml.ERROR_NOT_SUPPORTED && ret != nvml.ERROR_FUNCTION_NOT_FOUND {
			c.fault("%s cannot be reset (%s: %s)", k.name, k.function, words(ret))
		}
	}
}

func (c *cleaner) power() {
	var standard uint32
	if ret := c.try("nvmlDeviceGetPowerManagementDefaultLimit", func() (ret nvml.Return) {
		standard, ret = c.dev.GetPowerManagementDefaultLimit()
		return ret
	}); ret != nvml.SUCCESS {
		if ret != nvml.ERROR_NOT_SUPPORTED {
			c.fault("the default power limit cannot be read (%s)", words(ret))
		}
		return
	}
	c.setting("power limit", fmt.Sprintf("%d mW", standard), "nvmlDeviceGetPowerManagementLimit", func() (string, nvml.Return) {
		n, ret := c.dev.GetPowerManagementLimit()
		return fmt.Sprintf("%d mW", n), ret
	}, "nvmlDeviceSetPowerManagementLimit", func() nvml.Return { return c.dev.SetPowerManagementLimit(standard) })
}

// idle looks for who uses the GPU. What cannot be told is a fault: nobody then knows that nothing is left.
func (c *cleaner) idle() {
	for _, k := range []struct {
		name string
		call func() ([]nvml.ProcessInfo, nvml.Return)
	}{
		{"nvmlDeviceGetComputeRunningProcesses", c.dev.GetComputeRunningProcesses},
		{"nvmlDeviceGetGraphicsRunningProcesses", c.dev.GetGraphicsRunningProcesses},
		{"nvmlDeviceGetMPSComputeRunningProcesses", c.dev.GetMPSComputeRunningProcesses},
	} {
		var found []nvml.ProcessInfo
		function := c.newest(k.name+"_v3", k.name+"_v2", k.name)
		switch ret := c.try(function, func() (ret nvml.Return) { found, ret = k.call(); return ret }); ret {
		case nvml.SUCCESS:
		case nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_FUNCTION_NOT_FOUND:
			if k.name != "nvmlDeviceGetComputeRunningProcesses" { // a GPU without graphics or MPS has no such users
				continue
			}
			fallthrough
		default:
			c.fault("who uses it cannot be read (%s: %s)", function, words(ret))
		}
		for _, p := range found {
			c.fault("process %d uses it", p.Pid)
		}
	}
	switch ret := c.try("nvmlDeviceGetMemoryInfo_v2", func() nvml.Return {
		m, ret := c.dev.GetMemoryInfo_v2()
		if ret == nvml.SUCCESS {
			used := int64(m.Used)
			c.out.MemoryUsedBytes = &used
		}
		return ret
	}); {
	case ret != nvml.SUCCESS:
		c.fault("the memory in use cannot be read (nvmlDeviceGetMemoryInfo_v2: %s)", words(ret))
	case *c.out.MemoryUsedBytes > idleBytes:
		c.fault("%d bytes of its memory are in use", *c.out.MemoryUsedBytes)
	}
}
