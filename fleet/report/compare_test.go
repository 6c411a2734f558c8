package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/reports"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/topology"
)

func of(sick string, seed uint64) fleet.BurnReport {
	return reports.Of(reports.Options{Hours: 2, Sick: sick, Seed: seed, Buckets: 64})
}

// said is a comparison in a few words.
func said(c Comparison) (out []string) {
	out = append(out, c.Verdict)
	for _, x := range c.Checks {
		out = append(out, fmt.Sprintf("%s %s %s>%s %t", x.Component, x.ID, x.Was, x.Is, x.Worse))
	}
	for _, v := range c.Values {
		out = append(out, fmt.Sprintf("%s %s %s", v.Component, v.ID, v.Change))
	}
	for _, p := range c.Parts {
		out = append(out, fmt.Sprintf("%s %s %s>%s", p.Component, p.What, p.Was, p.Is))
	}
	for _, l := range c.Limits {
		out = append(out, fmt.Sprintf("limit %s %s", l.Check, l.Kind))
	}
	return out
}

func TestCompare(t *testing.T) {
	value := func(r *fleet.BurnReport, id, component string, f func(float64) float64) {
		for i := range r.Checks {
			if c := &r.Checks[i]; c.ID == id && (c.Component == component || component == "") {
				v := f(*c.Value)
				c.Value = &v
			}
		}
	}
	times := func(x float64) func(float64) float64 { return func(v float64) float64 { return v * x } }
	for name, c := range map[string]struct {
		was, is string
		change  func(r *fleet.BurnReport)
		want    []string
	}{
		"the same":          {"", "", nil, []string{"same"}},
		"noise":             {"", "", func(r *fleet.BurnReport) { value(r, "gpu-bf16", "gpu/4", times(0.985)) }, []string{"same"}},
		"one is slower":     {"", "", func(r *fleet.BurnReport) { value(r, "gpu-bf16", "gpu/4", times(0.93)) }, []string{"regress", "gpu/4 gpu-bf16 worse"}},
		"one is faster":     {"", "", func(r *fleet.BurnReport) { value(r, "disk-read", "disk/nvme3n1", times(1.3)) }, []string{"improve", "disk/nvme3n1 disk-read better"}},
		"slower latency":    {"", "", func(r *fleet.BurnReport) { value(r, "disk-read-latency", "disk/nvme3n1", times(1.4)) }, []string{"regress", "disk/nvme3n1 disk-read-latency worse"}},
		"wrong data":        {"", "", func(r *fleet.BurnReport) { value(r, "gpu-mismatches", "gpu/1", func(float64) float64 { return 1 }) }, []string{"regress", "gpu/1 gpu-mismatches worse"}},
		"neither":           {"", "", func(r *fleet.BurnReport) { value(r, "gpu-power-load", "gpu/1", times(0.8)) }, []string{"same", "gpu/1 gpu-power-load other"}},
		"fails now":         {"", reports.Silent, nil, []string{"regress", "gpu/3 gpu-mismatches pass>fail true", "gpu/3 gpu-memory-bandwidth pass>warn true", "gpu/3 gpu-memory-bandwidth worse", "gpu/3 gpu-mismatches worse"}},
		"is well again":     {reports.Silent, "", nil, []string{"improve", "gpu/3 gpu-memory-bandwidth warn>pass false", "gpu/3 gpu-mismatches fail>pass false", "gpu/3 gpu-memory-bandwidth better", "gpu/3 gpu-mismatches better"}},
		"was not looked at": {"", "", func(r *fleet.BurnReport) { r.Checks = r.Checks[1:] }, []string{"regress", "core/0 cpu-mismatches pass> true"}},
		"another GPU": {"", "", func(r *fleet.BurnReport) {
			for i := range r.Machine.Parts {
				if p := &r.Machine.Parts[i]; p.Component == "gpu/3" {
					p.Serial, p.Firmware = "1999", "97.00"
				}
			}
			r.Machine.Driver = "580.1"
			r.Machine.Parts = r.Machine.Parts[1:]
		}, []string{"same", "cpu/0 part Intel(R) Xeon(R) Platinum 8480C>", "gpu/3 firmware 96.00.A8.00.01>97.00", "gpu/3 serial 1650723040245>1999", "node driver 570.133.20>580.1"}},
		"another limit": {"", "", func(r *fleet.BurnReport) {
			for i := range r.Checks {
				if c := &r.Checks[i]; c.Limit != nil && (c.ID == "disk-read" || c.ID == "gpu-bf16") {
					l := *c.Limit
					l.Value--
					c.Limit = &l
				}
			}
		}, []string{"same", "limit disk-read disk"}},
	} {
		t.Run(name, func(t *testing.T) {
			was, is := of(c.was, 0), of(c.is, 0)
			if c.change != nil {
				c.change(&is)
			}
			got := Compare(was, is)
			if d := cmp.Diff(c.want, said(got)); d != "" {
				t.Error(d)
			}
			if got.Different() != (len(c.want) > 1) {
				t.Errorf("different: %t", got.Different())
			}
		})
	}
}

// TestCompareHealthyRuns finds nothing in two healthy runs of one machine, whose values differ by noise alone.
func TestCompareHealthyRuns(t *testing.T) {
	for seed := range uint64(20) {
		if got := said(Compare(of("", 0), of("", seed+1))); len(got) > 1 {
			t.Errorf("seed %d: %q", seed, got)
		}
	}
}

func TestCompareNodes(t *testing.T) {
	was, is := of("", 0), of("", 1)
	is.Node, is.Machine.UUID, is.Machine.Serial, is.Fixture, is.Finished = "hgx-002", "other", "other", "", false
	for i := range is.Machine.Parts {
		is.Machine.Parts[i].Serial = fmt.Sprint("other", i)
	}
	got := Compare(was, is)
	if got.SameMachine || len(got.Parts) > 0 || len(got.Caveats) != 2 || got.Verdict != Same {
		t.Errorf("%q, %q", said(got), got.Caveats)
	}
}

func TestCompareText(t *testing.T) {
	was, is := of("", 0), of(reports.Silent, 0)
	is.BeganAt = is.BeganAt.Add(24 * time.Hour)
	for i := range is.Checks {
		if c := &is.Checks[i]; c.ID == "gpu-int8" {
			v := *c.Value * 0.8
			c.Value = &v
		}
	}
	var b bytes.Buffer
	if err := Compare(was, is).Text(&b, topology.TextOptions{Unicode: true, Width: 120}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Worse: hgx-001 A512938X3B06541, 2026-11-21 06:00:00Z (fail) after 2026-11-20 06:00:00Z (pass)\n",
		"  gpu/3 gpu-mismatches: fail, was pass  MC-GPU-XID\n",
		"  8 of kind GPU, in the median: gpu-int8: ",
		"-20.0 %  worse, noise ",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	j, err := json.Marshal(Compare(was, is))
	if err != nil || !bytes.Contains(j, []byte(`"verdict":"regress"`)) {
		t.Errorf("%v: %s", err, j)
	}
}
