package gpu

import (
	"math"

	"github.com/metalctl/metalctl/fleet"
)

// clockReasons names the bits of NVML's mask of clock event reasons (nvmlClocksEventReasons).
func clockReasons(mask uint64) []string {
	var out []string
	for _, r := range []struct {
		bit  uint64
		name string
	}{{0x1, "idle"}, {0x2, "application-clocks"}, {0x4, "sw-power-cap"}, {0x8, "hw-slowdown"}, {0x10, "sync-boost"}, {0x20, "sw-thermal-slowdown"},
		{0x40, "hw-thermal-slowdown"}, {0x80, "hw-power-brake"}, {0x100, "display-clocks"}} {
		if mask&r.bit != 0 {
			out = append(out, r.name)
		}
	}
	if mask&^0x1ff != 0 {
		out = append(out, "unknown")
	}
	return out
}

// fabricHealth names what is wrong by NVML's health mask (nvmlGpuFabricInfo_v2_t): fields of two bits, of which 1 is true and 2 false, and a word of four.
func fabricHealth(mask uint32) []string {
	var out []string
	for _, f := range []struct {
		shift uint
		name  string
	}{{0, "degraded-bandwidth"}, {2, "route-recovery"}, {4, "route-unhealthy"}, {6, "access-timeout-recovery"}} {
		if mask>>f.shift&3 == 1 {
			out = append(out, f.name)
		}
	}
	config := []string{"", "", "incorrect-system-guid", "incorrect-chassis-serial", "no-partition", "too-few-nvlinks", "incompatible-gpu-firmware", "invalid-location", "invalid-gpu-state"}
	if n := int(mask >> 8 & 0xf); n >= len(config) {
		out = append(out, "incorrect-configuration")
	} else if config[n] != "" {
		out = append(out, config[n])
	}
	return out
}

// linkVersion is NVLink's by NVML's number (nvmlNvlinkVersion_t).
func linkVersion(n int64) string {
	versions := []string{"", "1.0", "2.0", "2.2", "3.0", "3.1", "4.0", "5.0", "6.0"}
	if n < 0 || n >= int64(len(versions)) {
		return "unknown"
	}
	return versions[n]
}

// linkCounters are the error counters of a link; Blackwell has its own.
var linkCounters = []struct {
	id        uint32
	name      string
	blackwell bool
}{
	{161, "replay", false}, {162, "recovery", false}, {163, "crc", false},
	{206, "malformed", true}, {207, "overrun", true}, {208, "rcv", true}, {209, "rcv-remote", true}, {210, "rcv-general", true}, {211, "local-integrity", true},
	{212, "xmit-discards", true}, {213, "recovery-ok", true}, {214, "recovery-failed", true}, {215, "recovery-events", true}, {219, "effective", true},
	{221, "symbol", true},
}

func enterError(l *fleet.NVLink, name string, n int64) {
	if n == 0 {
		return
	}
	if l.Errors == nil {
		l.Errors = map[string]int64{}
	}
	l.Errors[name] = n
}

// bitErrorRate unpacks NVML's: bits 0 to 7 the negative exponent of ten, 8 to 11 the mantissa. 15e-255 is none.
func bitErrorRate(n int64) float64 {
	mantissa, exponent := n>>8&0xf, n&0xff
	if exponent == 0xff {
		return 0
	}
	return float64(mantissa) * math.Pow10(-int(exponent))
}
