package fleet

import (
	"fmt"
	"math"
)

// Limit bounds one measured value for all parts of its kind in a class. Every limit says where it is from: a number whose origin nobody knows is kept
// for ever, however wrong (DCGM's least bandwidth of an H200 lacks three digits, so that the check cannot fail).
type Limit struct {
	Check  string  `json:"check"` // one of LimitChecks
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"` // that of the check, repeated so that a reader and the check of units see the same
	Source string  `json:"source"`
}

// LimitCheck is a value that a class may bound.
type LimitCheck struct {
	Name, Unit string
	// Least is true where the limit is the least value, false where it is the most.
	Least bool
	Doc   string
}

// LimitChecks are all that there are: what inventories tell, how fast counters may grow under load, and what a burn-in measures.
var LimitChecks = append([]LimitCheck{
	{"dimm-corrected-errors", "errors", false, "errors that a memory module corrected since boot"},
	{"gpu-corrected-errors", "errors", false, "memory errors that a GPU corrected since its driver was loaded"},
	{"gpu-max-sm-clock", "MHz", true, "the highest clock that a GPU offers"},
	{"gpu-memory-used", "MiB", false, "memory that is taken while nobody uses the GPU"},
	{"gpu-pcie-replays", "replays", false, "packets that a GPU's PCIe link sent again"},
	{"gpu-power-limit", "W", true, "the power that a GPU may draw"},
	{"gpu-remapped-rows", "rows", false, "rows of HBM that were replaced after errors that could not be corrected"},
	{"gpu-temperature-margin", "C", true, "how far a GPU is from slowing down"},
	{"hca-temperature", "C", false, "the ASIC's temperature"},
	{"nvlink-effective-ber", "errors/bit", false, "bit error rate of an NVLink after correction"},
	{"nvme-media-errors", "errors", false, "reads and writes that a drive could not do"},
	{"nvme-used", "percent", false, "the part of a drive's life that is used up, by its own account"},

	{"dimm-corrected-rate", "errors/h", false, "errors that a memory module corrects in an hour of burn-in"},
	{"gpu-corrected-rate", "errors/h", false, "memory errors that a GPU corrects in an hour of burn-in"},
	{"gpu-pcie-replay-rate", "replays/h", false, "packets that a GPU's PCIe link sends again in an hour of burn-in"},
	{"hca-symbol-error-rate", "errors/h", false, "symbol errors of a port in an hour of burn-in"},
	{"nvlink-replay-rate", "errors/h", false, "replays of an NVLink in an hour of burn-in"},
	{"pcie-corrected-rate", "errors/h", false, "errors that a PCIe link corrects in an hour of burn-in"},
}, measuredLimits()...)

// measuredLimits are limits of what a burn-in measures; what must be zero has none.
func measuredLimits() (out []LimitCheck) {
	for _, c := range MeasuredChecks {
		if c.Judge != "zero" {
			out = append(out, LimitCheck{c.Name, c.Unit, LeastPasses(c), c.Doc})
		}
	}
	return out
}

// LeastPasses reports whether a limit of a measured check is the least value that passes; otherwise it is the most.
func LeastPasses(c MeasuredCheck) bool {
	return c.Judge == "more" || c.Judge == "none" && c.Name != "gpu-kernel-load"
}

// Limit returns the class's limit for a check, or nil.
func (e ClassExpect) Limit(check string) *Limit {
	for i := range e.Limits {
		if e.Limits[i].Check == check {
			return &e.Limits[i]
		}
	}
	return nil
}

// SlippedUnits lists the limits of a class that are about a thousand or a million times what all other classes with that limit say: that is a unit that
// was taken for another, and a check that cannot fail.
func SlippedUnits(c Class, others []Class) []FieldError {
	var f faults
	for i, l := range c.Expect.Limits {
		siblings, slipped := 0, ""
		for _, o := range others {
			s := o.Expect.Limit(l.Check)
			if o.Name == c.Name || s == nil || s.Value <= 0 || l.Value <= 0 {
				continue
			}
			siblings++
			if decades := math.Abs(math.Log10(l.Value / s.Value)); math.Abs(decades-3) < 0.4 || math.Abs(decades-6) < 0.4 {
				slipped = fmt.Sprintf("%g %s of class %s", s.Value, s.Unit, o.Name)
			} else {
				siblings = math.MinInt32 // one that is near is enough
			}
		}
		f.check(siblings <= 0 || slipped == "", fmt.Sprintf("expect.limits[%d].value", i), fmt.Sprintf("%g is a thousand times off the %s: another unit, it seems", l.Value, slipped))
	}
	return f
}
