package peers

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/joshdk/go-junit"
	"github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif"
	"github.com/xeipuuv/gojsonschema"

	"github.com/metalctl/metalctl/fixtures/reports"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/report"
)

func madeUp() map[string]fleet.BurnReport {
	out := map[string]fleet.BurnReport{}
	for name, sick := range map[string]string{"healthy": reports.Healthy, "silent": reports.Silent, "hot": reports.Hot, "platform": reports.Platform} {
		out[name] = reports.Of(reports.Options{Hours: 2, Sick: sick, Buckets: 8})
	}
	return out
}

// sarifSchema is the JSON Schema of SARIF 2.1.0, which the library keeps as a constant of its own.
func sarifSchema(t *testing.T) *gojsonschema.Schema {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/owenrumney/go-sarif/v3").Output()
	if err != nil {
		t.Fatal(err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "pkg/report/v210/sarif/schema.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	text, err := strconv.Unquote(f.Decls[0].(*ast.GenDecl).Specs[0].(*ast.ValueSpec).Values[0].(*ast.BasicLit).Value)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := gojsonschema.NewSchema(gojsonschema.NewStringLoader(text))
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// refusals are what the schema has against a document.
func refusals(t *testing.T, schema *gojsonschema.Schema, b []byte) []gojsonschema.ResultError {
	t.Helper()
	result, err := schema.Validate(gojsonschema.NewBytesLoader(b))
	if err != nil {
		t.Fatal(err)
	}
	return result.Errors()
}

// TestSARIF holds what is written to SARIF's schema, and reads it with the library.
func TestSARIF(t *testing.T) {
	schema := sarifSchema(t)
	for name, r := range madeUp() {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := report.SARIF(&b, r, r); err != nil {
				t.Fatal(err)
			}
			for _, e := range refusals(t, schema, b.Bytes()) {
				t.Error(e)
			}
			got, err := sarif.FromBytes(b.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			want := 0
			for _, c := range r.Checks {
				if c.Outcome == fleet.Fail || c.Outcome == fleet.Warn || c.Outcome == fleet.CouldNotTell {
					want++
				}
			}
			if len(got.Runs) != 2 || len(got.Runs[0].Results) != want {
				t.Fatalf("%d runs, want 2 of %d results", len(got.Runs), want)
			}
			for _, res := range got.Runs[0].Results {
				if l := res.Locations[0].LogicalLocations[0]; l.FullyQualifiedName == nil || l.Kind == nil || res.Message.Text == nil {
					t.Errorf("a result without place or words: %+v", res)
				}
			}
		})
	}
}

// TestSARIFSchemaBites shows that the schema of the test above refuses what is none.
func TestSARIFSchemaBites(t *testing.T) {
	schema := sarifSchema(t)
	var b bytes.Buffer
	if err := report.SARIF(&b, reports.Of(reports.Options{Hours: 1, Sick: reports.Hot, Buckets: 1})); err != nil {
		t.Fatal(err)
	}
	for old, bad := range map[string]string{`"level": "error"`: `"level": "fatal"`, `"version": "2.1.0"`: `"version": "2.2"`, `"ruleIndex": 0`: `"ruleIndex": -2`, `"startLine": 1`: `"startLine": 0`, `"ruleId"`: `"ruleID2"`} {
		if len(refusals(t, schema, bytes.Replace(b.Bytes(), []byte(old), []byte(bad), 1))) == 0 {
			t.Errorf("%s is taken", bad)
		}
	}
}

// TestJUnit lets another project's parser read what is written.
func TestJUnit(t *testing.T) {
	for name, r := range madeUp() {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := report.JUnit(&b, r); err != nil {
				t.Fatal(err)
			}
			suites, err := junit.IngestReader(&b)
			if err != nil {
				t.Fatal(err)
			}
			if len(suites) != 1 || suites[0].Name != "hgx-001" {
				t.Fatalf("got %d suites", len(suites))
			}
			count := map[junit.Status]int{}
			for _, c := range suites[0].Tests {
				count[c.Status]++
			}
			want := map[junit.Status]int{}
			for _, c := range r.Checks {
				want[map[fleet.Outcome]junit.Status{fleet.Pass: junit.StatusPassed, fleet.Warn: junit.StatusPassed, fleet.Fail: junit.StatusFailed, fleet.CouldNotTell: junit.StatusError, fleet.Skip: junit.StatusSkipped}[c.Outcome]]++
			}
			if !r.Finished {
				want[junit.StatusError]++
			}
			for status, n := range want {
				if count[status] != n {
					t.Errorf("%d are %s, want %d", count[status], status, n)
				}
			}
		})
	}
}
