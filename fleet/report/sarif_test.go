package report

import (
	"bytes"
	"encoding/json"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/reports"
	"github.com/metalctl/metalctl/fleet"
)

func drawSARIF(b *bytes.Buffer, r fleet.BurnReport) error { return SARIF(b, r) }

func sarif(t *testing.T, r fleet.BurnReport) sarifRun {
	t.Helper()
	var l sarifLog
	d := json.NewDecoder(bytes.NewReader(draw(t, r, drawSARIF)))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		t.Fatal(err)
	}
	if l.Version != "2.1.0" || len(l.Runs) != 1 {
		t.Fatalf("version %s, %d runs", l.Version, len(l.Runs))
	}
	return l.Runs[0]
}

// TestSARIF holds what is written to what GitHub's code scanning asks for beyond the schema; the schema itself is test/peers' part.
func TestSARIF(t *testing.T) {
	all := everyReport()
	all["hostile"] = hostile()
	for name, r := range all {
		t.Run(name, func(t *testing.T) {
			run := sarif(t, r)
			want := 0
			for _, c := range r.Checks {
				if c.Outcome != fleet.Pass && c.Outcome != fleet.Skip {
					want++
				}
			}
			if len(run.Results) != want {
				t.Errorf("%d results, want %d", len(run.Results), want)
			}
			prints := map[string]bool{}
			for _, res := range run.Results {
				if run.Tool.Driver.Rules[res.RuleIndex].ID != res.RuleID {
					t.Errorf("rule %d is not %s", res.RuleIndex, res.RuleID)
				}
				p := res.Locations[0].Physical
				uri, err := url.Parse(p.Artifact.URI)
				if err != nil || uri.IsAbs() || uri.Host != "" || strings.HasPrefix(uri.Path, "/") || path.Clean(uri.Path) != uri.Path || p.Region.StartLine < 1 {
					t.Errorf("no place in a repository: %+v, %v", p, err)
				}
				print := res.Fingerprints["primaryLocationLineHash"]
				if prints[print] && name != "hostile" {
					t.Errorf("two results have fingerprint %s", print)
				}
				prints[print] = true
				if res.Message.Text == "" || res.Locations[0].Logical[0].Kind == "" {
					t.Errorf("%+v", res)
				}
			}
			for _, rule := range run.Tool.Driver.Rules {
				if rule.Help.Text == "" || rule.ShortDescription.Text == "" {
					t.Errorf("rule %s has no help", rule.ID)
				}
			}
			if ok := run.Invocations[0].ExecutionSuccessful; ok != (name == "healthy" || name == "silent" || name == "hot" || name == "hostile") {
				t.Errorf("successful: %t", ok)
			}
		})
	}
}

func TestSARIFSaysWhich(t *testing.T) {
	run := sarif(t, reports.Of(reports.Options{Hours: 1, Sick: reports.Hot, Buckets: 16}))
	var got []string
	for _, res := range run.Results {
		l := res.Locations[0].Logical[0]
		serial, _ := res.Properties["serial"].(string)
		got = append(got, strings.Join([]string{res.Level, res.RuleID, l.FullyQualifiedName, l.Kind, serial}, " "))
	}
	want := []string{
		"error MC-GPU-SLOWDOWN hgx-001/gpu/6 gpu 1650723040296",
		"error MC-GPU-SLOWDOWN hgx-001/gpu/6 gpu 1650723040296",
		"error MC-GPU-HOT hgx-001/gpu/6 gpu 1650723040296",
		"warning MC-DISK-IO hgx-001/disk/nvme2n1 disk S6CKNT0W500129",
		"warning MC-NVLINK-ERRORS hgx-001/gpu/2/nvlink/7 nvlink 1650723040228",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestSARIFFingerprints are the same over runs, and others where the part was replaced.
func TestSARIFFingerprints(t *testing.T) {
	first := reports.Of(reports.Options{Hours: 1, Sick: reports.Silent, Buckets: 16})
	prints := func(r fleet.BurnReport) (out []string) {
		for _, res := range sarif(t, r).Results {
			out = append(out, res.Fingerprints["primaryLocationLineHash"])
		}
		return out
	}
	later := reports.Of(reports.Options{Hours: 2, Sick: reports.Silent, Seed: 7, Buckets: 16})
	later.BeganAt, later.Node = later.BeganAt.Add(24*time.Hour), "renamed"
	if d := cmp.Diff(prints(first), prints(later)); d != "" {
		t.Errorf("the same faults in a later run: %s", d)
	}
	for i, p := range later.Machine.Parts {
		if p.Component == "gpu/3" {
			later.Machine.Parts[i].Serial = "another"
		}
	}
	for i, p := range prints(later) {
		if p == prints(first)[i] {
			t.Errorf("result %d of another GPU in the same place has the old fingerprint", i)
		}
	}
}
