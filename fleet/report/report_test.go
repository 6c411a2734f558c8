package report

import (
	"bytes"
	"testing"

	"github.com/metalctl/metalctl/fixtures/reports"
	"github.com/metalctl/metalctl/fleet"
)

// everyReport are made-up ones of each sickness, short enough to be drawn often.
func everyReport() map[string]fleet.BurnReport {
	out := map[string]fleet.BurnReport{}
	for _, sick := range []string{reports.Healthy, reports.Silent, reports.Hot, reports.Platform} {
		o := reports.Options{Hours: 4, Sick: sick, Buckets: 256}
		name := sick
		if name == reports.Healthy {
			name = "healthy"
		}
		out[name] = reports.Of(o)
	}
	return out
}

// hostile is a report whose every text was written by an enemy.
func hostile() fleet.BurnReport {
	const evil = "</script><script src=//evil>\" onload='x' ]]> --> &lt; \x00\x1b[31m\xff\xfe\uFFFE\u202E {{.}} <svg onload=x> javascript:x"
	r := reports.Of(reports.Options{Hours: 1, Sick: reports.Hot, Buckets: 16})
	r.Node, r.Profile, r.Class, r.Program, r.Headline, r.Stopped, r.Fixture = evil, evil, evil, evil, evil, evil, evil
	r.Machine.Vendor, r.Machine.Model, r.Machine.Serial, r.Machine.UUID, r.Machine.BIOS, r.Machine.Kernel, r.Machine.Driver = evil, evil, evil, evil, evil, evil, evil
	for i := range r.Machine.Parts {
		p := &r.Machine.Parts[i]
		p.Model, p.Serial, p.Firmware = evil, evil, evil
	}
	for i := range r.Machine.Topology {
		r.Machine.Topology[i].Distance, r.Machine.Topology[i].Bridge = evil, evil
	}
	for i := range r.Checks {
		c := &r.Checks[i]
		if c.Outcome == fleet.Pass && i%40 != 0 {
			continue
		}
		c.ID, c.Component, c.Words, c.Code, c.Do, c.Replace, c.Engine, c.Stage, c.Unit, c.Evidence = evil, "gpu/"+evil, evil, evil, evil, evil, evil, evil, evil, []string{evil, evil}
		if c.Limit != nil {
			c.Limit.Against, c.Limit.Source, c.Limit.Unit = evil, evil, evil
		}
	}
	for i := range r.Series {
		if i%3 == 0 {
			r.Series[i].Name, r.Series[i].Component, r.Series[i].Unit = evil, evil, evil
		}
	}
	for i := range r.Stages {
		s := &r.Stages[i]
		s.Stage, s.Stopped = evil, evil
		for k := range s.Ran {
			s.Ran[k].Engine, s.Ran[k].Stress, s.Ran[k].Version = evil, evil, evil
		}
	}
	for i := range r.Kernel {
		k := &r.Kernel[i]
		k.Kind, k.Component, k.Severity, k.Unit, k.Line = evil, evil, evil, evil, evil
	}
	return r
}

// draw writes a report twice and wants the same bytes.
func draw(t *testing.T, r fleet.BurnReport, f func(b *bytes.Buffer, r fleet.BurnReport) error) []byte {
	t.Helper()
	var first, second bytes.Buffer
	for _, b := range []*bytes.Buffer{&first, &second} {
		if err := f(b, r); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same report is drawn in two ways")
	}
	return first.Bytes()
}

func TestComponents(t *testing.T) {
	for _, c := range []struct{ component, family, kind, owner, called string }{
		{"gpu/3", "gpu", "gpu", "gpu/3", "GPU 3"},
		{"gpu/3/nvlink/7", "gpu", "nvlink", "gpu/3", "NVLink 7 of GPU 3"},
		{"gpu/3/peer/5", "gpu", "peer", "gpu/3", "GPU 3 to GPU 5"},
		{"hca/mlx5_4/port/1", "hca", "port", "hca/mlx5_4", "port 1 of HCA mlx5_4"},
		{"cpu/1/bank/7", "cpu", "bank", "cpu/1", "bank 7 of CPU 1"},
		{"dimm/A1", "dimm", "dimm", "dimm/A1", "DIMM A1"},
		{"node", "node", "node", "node", "node"},
		{"", "", "", "", ""},
	} {
		got := struct{ component, family, kind, owner, called string }{c.component, family(c.component), kind(c.component), owner(c.component), called(c.component)}
		if got != c {
			t.Errorf("got %+v, want %+v", got, c)
		}
	}
}

func TestNumber(t *testing.T) {
	for want, v := range map[string]float64{"0": 0, "184": 184, "-3": -3, "1755": 1755, "4180": 4180.4, "702.3": 702.31, "60.4": 60.40000001, "0.012": 0.012, "1e-12": 1e-12, "2.5e+20": 2.5e20, "1234567": 1234567, "-0.5": -0.5} {
		if got := number(v); got != want {
			t.Errorf("%g is written %s, want %s", v, got, want)
		}
	}
}

func TestActions(t *testing.T) {
	say := func(sick string) (out []string) {
		r := reports.Of(reports.Options{Hours: 1, Sick: sick, Buckets: 16})
		for _, a := range actions(&r) {
			out = append(out, string(a.Outcome)+" "+a.Do+" "+a.What)
		}
		return out
	}
	for sick, want := range map[string][]string{
		reports.Healthy:  nil,
		reports.Silent:   {"fail replace GPU 3 in slot SXM3, serial 1650723040245"},
		reports.Hot:      {"fail reseat GPU 6 in slot SXM6, serial 1650723040296", "warn retest disk nvme2n1 (serial S6CKNT0W500129)", "warn retest GPU 2 (serial 1650723040228)"},
		reports.Platform: {"error update the machine"},
	} {
		if got := say(sick); len(got) != len(want) {
			t.Errorf("%q: got %q, want %q", sick, got, want)
		} else {
			for i := range got {
				if got[i] != want[i] {
					t.Errorf("%q: got %q, want %q", sick, got[i], want[i])
				}
			}
		}
	}
}
