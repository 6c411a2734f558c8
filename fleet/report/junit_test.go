package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fixtures/reports"
	"github.com/metalctl/metalctl/fleet"
)

func drawJUnit(b *bytes.Buffer, r fleet.BurnReport) error { return JUnit(b, r) }

// counts are what a suite says of itself, and what is in it.
type counts struct{ Tests, Failures, Errors, Skipped int }

func countsOf(r fleet.BurnReport) counts {
	n := counts{Tests: len(r.Checks)}
	for _, c := range r.Checks {
		switch c.Outcome {
		case fleet.Fail:
			n.Failures++
		case fleet.CouldNotTell:
			n.Errors++
		case fleet.Skip:
			n.Skipped++
		}
	}
	if !r.Finished {
		n.Tests, n.Errors = n.Tests+1, n.Errors+1
	}
	return n
}

func TestJUnit(t *testing.T) {
	all := everyReport()
	all["hostile"] = hostile()
	for name, r := range all {
		t.Run(name, func(t *testing.T) {
			b := draw(t, r, drawJUnit)
			var doc struct {
				Tests  int `xml:"tests,attr"`
				Suites []struct {
					Tests    int `xml:"tests,attr"`
					Failures int `xml:"failures,attr"`
					Errors   int `xml:"errors,attr"`
					Skipped  int `xml:"skipped,attr"`
					Cases    []struct {
						Name      string    `xml:"name,attr"`
						Class     string    `xml:"classname,attr"`
						Failure   *struct{} `xml:"failure"`
						Error     *struct{} `xml:"error"`
						Skipped   *struct{} `xml:"skipped"`
						SystemOut string    `xml:"system-out"`
					} `xml:"testcase"`
				} `xml:"testsuite"`
			}
			if err := xml.Unmarshal(b, &doc); err != nil {
				t.Fatal(err)
			}
			if len(doc.Suites) != 1 {
				t.Fatalf("%d suites", len(doc.Suites))
			}
			s, want := doc.Suites[0], countsOf(r)
			if got := (counts{s.Tests, s.Failures, s.Errors, s.Skipped}); got != want || doc.Tests != want.Tests {
				t.Errorf("the suite says %+v, want %+v", got, want)
			}
			var in counts
			names := map[string]bool{}
			for _, c := range s.Cases {
				in.Tests++
				in.Failures += there(c.Failure)
				in.Errors += there(c.Error)
				in.Skipped += there(c.Skipped)
				if there(c.Failure)+there(c.Error)+there(c.Skipped) > 1 {
					t.Errorf("%s has several outcomes", c.Name)
				}
				if names[c.Class+c.Name] && name != "hostile" {
					t.Errorf("two cases are called %s %s", c.Class, c.Name)
				}
				names[c.Class+c.Name] = true
			}
			if in != want {
				t.Errorf("cases are %+v, want %+v", in, want)
			}
			if name == "hot" && !strings.Contains(string(b), "warning: NVLink 7 of GPU 2 recovered 12 times") {
				t.Error("a warning is not in system-out")
			}
			if name == "silent" && !bytes.Contains(b, []byte(`<property name="part.gpu/3.serial" value="1650723040245"></property>`)) {
				t.Error("no serial among the properties")
			}
		})
	}
}

func there(p *struct{}) int {
	if p == nil {
		return 0
	}
	return 1
}

// TestJUnitPeer lets another project's parser read what is written: Debian's python3-junitparser.
func TestJUnitPeer(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := exec.CommandContext(t.Context(), python, "-c", "import junitparser").Run(); err != nil {
		t.Skipf("peer: needs the Debian package python3-junitparser: %v", err)
	}
	const script = `
import sys, json, junitparser
x = junitparser.JUnitXml.fromfile(sys.argv[1])
out = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0, "times": 0.0, "properties": 0, "suites": []}
for suite in x:
    out["suites"].append(suite.name)
    out["properties"] += len(list(suite.properties()))
    for case in suite:
        out["tests"] += 1
        out["times"] += case.time
        assert case.name and case.classname
        for r in case.result:
            key = {junitparser.Failure: "failures", junitparser.Error: "errors", junitparser.Skipped: "skipped"}[type(r)]
            assert r.message, case.name
            out[key] += 1
    said = (suite.tests, suite.failures, suite.errors, suite.skipped)
    suite.update_statistics()
    assert said == (suite.tests, suite.failures, suite.errors, suite.skipped), said
print(json.dumps(out))
`
	all := everyReport()
	all["hostile"] = hostile()
	file := filepath.Join(t.TempDir(), "junit.xml")
	for name, r := range all {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			second := reports.Of(reports.Options{Node: "hgx-002", Hours: 1, Buckets: 8})
			if err := JUnit(&b, r, second); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), python, "-c", script, file).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var got struct {
				counts
				Times      float64
				Properties int
				Suites     []string
			}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			a, b2 := countsOf(r), countsOf(second)
			want := counts{a.Tests + b2.Tests, a.Failures + b2.Failures, a.Errors + b2.Errors, a.Skipped + b2.Skipped}
			if got.counts != want || len(got.Suites) != 2 || got.Suites[1] != "hgx-002" || got.Properties < 80 {
				t.Errorf("got %s, want %+v", out, want)
			}
			if name == "healthy" && (got.Times < 3600 || got.Times > 5*3600) {
				t.Errorf("the cases' times add up to %g s, and both took 5 h", got.Times)
			}
		})
	}
}
