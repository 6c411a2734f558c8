package fleet

import (
	"math"
	"strings"
	"testing"
)

// TestLimits: a limit must be one of a check that there is, in its unit, from somewhere.
func TestLimits(t *testing.T) {
	good := Limit{Check: "gpu-memory-bandwidth", Value: 3500, Unit: "GB/s", Source: "measured here", Date: "2026-11-22"}
	for _, c := range []struct {
		name string
		does func(l *Limit)
		want string // "FIELD MESSAGE" begins so; "" is none
	}{
		{"a good one", func(*Limit) {}, ""},
		{"without a date", func(l *Limit) { l.Date = "" }, ""},
		{"how fast a counter may grow", func(l *Limit) { l.Check, l.Unit = "dimm-corrected-rate", "errors/h" }, ""},
		{"no such check", func(l *Limit) { l.Check = "gpu-charm" }, "limits[0].check is none of"},
		{"wrong data has no limit", func(l *Limit) { l.Check, l.Unit = "gpu-mismatches", "words" }, "limits[0].check is none of"},
		{"another unit", func(l *Limit) { l.Unit = "MB/s" }, "limits[0].unit is not GB/s"},
		{"from nowhere", func(l *Limit) { l.Source = " " }, "limits[0].source is missing"},
		{"no date", func(l *Limit) { l.Date = "yesterday" }, "limits[0].date is no date"},
		{"no number", func(l *Limit) { l.Value = math.NaN() }, "limits[0].value is no number"},
		{"more than all", func(l *Limit) { l.Check, l.Unit, l.Value = "gpu-memory-tested", "percent", 101 }, "limits[0].value is more than 100"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := good
			c.does(&l)
			p := BurnProfile{Name: "site", Rounds: 1, Stages: []BurnStage{{Name: "one", Stress: []string{StressCPU}, Seconds: 60}}, Limits: []Limit{l}}
			got := ""
			for _, f := range p.Validate() {
				got += f.Field + " " + f.Message
			}
			if (got == "") != (c.want == "") || !strings.HasPrefix(got, c.want) {
				t.Errorf("%q, not %q", got, c.want)
			}
		})
	}
}

// TestSlippedUnits finds the slip that a well-known tool ships: the least bandwidth of an H200 is 2,333 there, in the unit in which its siblings are millions.
func TestSlippedUnits(t *testing.T) {
	class := func(name string, value float64) Class {
		return Class{Name: name, Expect: ClassExpect{Limits: []Limit{{Check: "gpu-memory-bandwidth", Value: value, Unit: "GB/s", Source: "DCGM"}}}}
	}
	a100, h100, b200 := class("a100", 1173), class("h100", 1905), class("b200", 4072.5)
	for _, c := range []struct {
		name   string
		value  float64
		others []Class
		slips  bool
	}{
		{"among its siblings", 2333, []Class{a100, h100, b200}, false},
		{"a thousandth of its siblings", 2.333, []Class{a100, h100, b200}, true},
		{"a thousand times its siblings", 2333000, []Class{a100, h100, b200}, true},
		{"without siblings nothing tells", 2.333, nil, false},
		{"one sibling is near", 2.333, []Class{a100, class("cpu", 2)}, false},
		{"itself is no sibling", 2.333, []Class{class("h200", 2333)}, false},
	} {
		if got := len(SlippedUnits(class("h200", c.value), c.others)) > 0; got != c.slips {
			t.Errorf("%s: slips %t", c.name, got)
		}
	}
}

// TestStagesLoadGPUsInOneWay: two loads would share the GPUs, and the rates of neither would mean anything.
func TestStagesLoadGPUsInOneWay(t *testing.T) {
	for _, c := range []struct {
		stress []string
		good   bool
	}{{[]string{StressGPUTensor, StressCPU, StressMemory}, true}, {[]string{StressGPUTensor, StressGPUCompute}, false}} {
		p := BurnProfile{Name: "site", Rounds: 1, Stages: []BurnStage{{Name: "one", Stress: c.stress, Seconds: 60}}}
		if got := p.Validate(); (len(got) == 0) != c.good {
			t.Errorf("%v: %v", c.stress, got)
		}
	}
}
