//go:build cgo

package gpu

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/metalctl/metalctl/fleet"
)

// Fields by number; nvml.h has their words.
const (
	fieldRemoteLink = 146
	fieldSpeed      = 164
	fieldVersion    = 166
	fieldBER        = 220
	fieldRecovery   = 230
)

// fields asks all that has no function of its own, in one call.
func (d *device) fields() {
	t := d.temperatures()
	throttled := map[string]int64{}
	var recovery *int
	type field struct {
		id    uint32
		scope uint32
		what  string
		enter func(value int64)
	}
	temperature := func(to **int) func(int64) { return func(n int64) { v := int(n); *to = &v } }
	list := []field{
		{82, 0, "temperature memory", temperature(&t.Memory)},
		{193, 0, "", temperature(&t.ShutdownLimit)}, {194, 0, "", temperature(&t.SlowdownLimit)}, {195, 0, "", temperature(&t.MemoryLimit)},
		{fieldRecovery, 0, "recovery_action", temperature(&recovery)},
	}
	for id, reason := range map[uint32]string{74: "sw-power-cap", 76: "sync-boost", 269: "sw-thermal-slowdown", 270: "hw-thermal-slowdown", 271: "hw-power-brake"} {
		list = append(list, field{id, 0, "throttled_ns", func(n int64) { throttled[reason] = n }})
	}
	slices.SortFunc(list, func(a, b field) int { return int(a.id) - int(b.id) })
	blackwell := !strings.HasPrefix(d.g.ComputeCapability, "8.") && !strings.HasPrefix(d.g.ComputeCapability, "9.") && !strings.HasPrefix(d.g.ComputeCapability, "7.")
	for i := range d.g.NVLinks {
		l := &d.g.NVLinks[i]
		if l.State == fleet.LinkDisabled {
			continue
		}
		scope := uint32(l.Link)
		up := func(what string) string { // a link that is down tells less
			if l.State != fleet.LinkUp {
				return ""
			}
			return what
		}
		list = append(list,
			field{fieldSpeed, scope, up("nvlinks speed"), func(n int64) { l.SpeedGBps = float64(n) / 1000 }},
			field{fieldVersion, scope, up("nvlinks version"), func(n int64) { l.Version = linkVersion(n) }})
		if l.Remote != nil {
			list = append(list, field{fieldRemoteLink, scope, up("nvlinks remote port"), func(n int64) { port := int(n); l.Remote.Port = &port }})
		}
		for _, c := range linkCounters {
			if c.blackwell == blackwell {
				list = append(list, field{c.id, scope, "nvlinks errors", func(n int64) { enterError(l, c.name, n) }})
			}
		}
		if blackwell {
			list = append(list, field{fieldBER, scope, up("nvlinks effective_ber"), func(n int64) { ber := bitErrorRate(n); l.EffectiveBER = &ber }})
		}
	}
	values := make([]nvml.FieldValue, len(list))
	for i, f := range list {
		values[i] = nvml.FieldValue{FieldId: f.id, ScopeId: f.scope}
	}
	if !d.ask("fields", "nvmlDeviceGetFieldValues", func() nvml.Return { return d.dev.GetFieldValues(values) }) {
		return
	}
	missed := map[string]bool{}
	for i, f := range list {
		v := values[i]
		if ret := nvml.Return(v.NvmlReturn); ret != nvml.SUCCESS {
			if f.what != "" && !missed[f.what] {
				missed[f.what] = true
				d.note(f.what, fmt.Sprintf("field %d", f.id), ret)
			}
			continue
		}
		n, ok := fieldValue(v)
		if !ok {
			d.miss(f.what, "field %d has a value of unknown type %d", f.id, v.ValueType)
			continue
		}
		f.enter(n)
	}
	if recovery != nil {
		d.g.Recovery = oneOf(*recovery, "none", "reset", "reboot", "drain-p2p", "drain-and-reset", "recover-imex")
	}
	if len(throttled) > 0 {
		d.g.ThrottledNS = throttled
	}
	if t.SlowdownLimit == nil { // before Hopper: temperatures, not distances
		for _, th := range []struct {
			to   **int
			kind nvml.TemperatureThresholds
		}{{&t.Shutdown, nvml.TEMPERATURE_THRESHOLD_SHUTDOWN}, {&t.Slowdown, nvml.TEMPERATURE_THRESHOLD_SLOWDOWN}, {&t.MemoryMax, nvml.TEMPERATURE_THRESHOLD_MEM_MAX}} {
			d.ask("temperature limits", "nvmlDeviceGetTemperatureThreshold", func() nvml.Return {
				n, ret := d.dev.GetTemperatureThreshold(th.kind)
				return celsius(th.to, int(n), ret)
			})
		}
	}
}

// fieldValue is a field's number; false for a type that no integer is in.
func fieldValue(v nvml.FieldValue) (int64, bool) {
	u := binary.NativeEndian.Uint64(v.Value[:])
	switch nvml.ValueType(v.ValueType) {
	case nvml.VALUE_TYPE_UNSIGNED_INT:
		return int64(uint32(u)), true
	case nvml.VALUE_TYPE_SIGNED_INT:
		return int64(int32(u)), true
	case nvml.VALUE_TYPE_UNSIGNED_LONG, nvml.VALUE_TYPE_UNSIGNED_LONG_LONG, nvml.VALUE_TYPE_SIGNED_LONG_LONG:
		return int64(u), true
	case nvml.VALUE_TYPE_UNSIGNED_SHORT:
		return int64(uint16(u)), true
	}
	return 0, false
}
