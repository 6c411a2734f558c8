package fleet

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Limit bounds one measured value for all parts of its kind in a class. Every limit says where it is from: a number whose origin nobody knows is kept
// for ever, however wrong (DCGM's least bandwidth of an H200 lacks three digits, so that the check cannot fail).
type Limit struct {
	Check  string  `json:"check"` // one of LimitChecks
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"` // that of the check, repeated so that a reader and the check of units see the same
	Source string  `json:"source"`
	// Date is when the number was measured or published, such as 2026-11-22; "" is unknown.
	Date string `json:"date,omitempty"`
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

// checkLimits holds the limits of a class or profile against the checks that there are.
func checkLimits(f *faults, field string, limits []Limit) {
	most := map[string]float64{"percent": 100, "errors/bit": 1, "C": 200}
	seen := map[string]bool{}
	for i, l := range limits {
		at := fmt.Sprintf("%s[%d]", field, i)
		k := slices.IndexFunc(LimitChecks, func(c LimitCheck) bool { return c.Name == l.Check })
		if k < 0 {
			f.check(false, at+".check", "is none of "+limitNames())
			continue
		}
		unit := LimitChecks[k].Unit
		f.check(l.Unit == unit, at+".unit", "is not "+unit)
		f.check(strings.TrimSpace(l.Source) != "", at+".source", "is missing: say where the number is from")
		f.check(!math.IsNaN(l.Value) && !math.IsInf(l.Value, 0) && l.Value >= 0, at+".value", "is no number from 0 on")
		f.check(most[unit] == 0 || l.Value <= most[unit], at+".value", fmt.Sprintf("is more than %g %s", most[unit], unit))
		f.check(!seen[l.Check], at+".check", "stands there twice")
		seen[l.Check] = true
		_, err := time.Parse(time.DateOnly, l.Date)
		f.check(l.Date == "" || err == nil, at+".date", "is no date such as 2026-11-22")
	}
}

func limitNames() string {
	var names []string
	for _, c := range LimitChecks {
		names = append(names, c.Name)
	}
	return strings.Join(names, ", ")
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
