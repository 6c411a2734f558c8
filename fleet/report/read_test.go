package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/reports"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/topology"
)

func encode(t testing.TB, r fleet.BurnReport) []byte {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadsWhatIsWritten(t *testing.T) {
	for name, want := range everyReport() {
		got, err := Read(encode(t, want))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	good := string(encode(t, reports.Of(reports.Options{Hours: 1, Sick: reports.Silent, Buckets: 4})))
	change := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%s is not in the report", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, c := range map[string]struct{ doc, field, words string }{
		"nothing":              {"", "line 1, column 1", "the document ends here"},
		"cut off":              {good[:400], "line 1, column 401", "the document ends here"},
		"no JSON":              {"\n\n  burn-in: passed", "line 3, column 4", "invalid character"},
		"something behind":     {good + "{}", "line 1", "something follows"},
		"misspelt key":         {change(`"finished"`, `"finnished"`), "line 1", `unknown field "finnished"`},
		"wrong type":           {change(`"finished":true`, `"finished":"yes"`), "finished", "is a string and should be bool"},
		"wrong type far in":    {change(`"round":1`, `"round":"one"`), "stages.round", "is a string and should be int"},
		"newer":                {change(`"version":1`, `"version":2`), "version", "newer than this program"},
		"no version":           {change(`"version":1,`, ``), "version", "is missing"},
		"unknown outcome":      {change(`"outcome":"pass"`, `"outcome":"passed"`), "checks[0].outcome", `"passed" is none of`},
		"verdict is too good":  {change(`"verdict":"fail"`, `"verdict":"pass"`), "verdict", "is pass, and a check is fail"},
		"stopped and passed":   {strings.Replace(change(`"finished":true`, `"finished":false`), `"verdict":"fail"`, `"verdict":"pass"`, 1), "verdict", "no pass"},
		"ends before it began": {change(`"ended_at":"2026-11-20T07:00:00Z"`, `"ended_at":"2026-11-19T07:00:00Z"`), "ended_at", "before began_at"},
		"slipped unit":         {change(`"unit":"MB/s"`, `"unit":"GB/s"`), ".unit", `"GB/s", and disk-read is in "MB/s"`},
		"a series that limps":  {change(`"min":[`, `"min":[1,`), "series[0]", "have 4, 5 and 4 entries"},
		"too large a number":   {change(`"round":1`, `"round":1e999`), "stages.round", "is a number 1e999"},
		"null":                 {"null", "version", "is missing"},
		"list":                 {"[]", "line 1", "is a array"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Read([]byte(c.doc))
			var e *fleet.Error
			if !errors.As(err, &e) || e.Kind != fleet.Invalid || e.Code != "MC-BURN-REPORT" || e.Hint == "" {
				t.Fatalf("got %v", err)
			}
			for _, f := range e.Fields {
				if strings.Contains(f.Field, c.field) && strings.Contains(f.Message, c.words) {
					return
				}
			}
			t.Errorf("got %v, want %s: %s", err, c.field, c.words)
		})
	}
}

// FuzzRead draws whatever can be read, and reads what it would write.
func FuzzRead(f *testing.F) {
	for _, r := range []fleet.BurnReport{reports.Of(reports.Options{Hours: 1, Sick: reports.Hot, Buckets: 2}), reports.Of(reports.Options{Hours: 1, Sick: reports.Platform, Buckets: 1})} {
		r.Checks, r.Series, r.Machine.Parts = append(r.Checks[:6:6], r.Checks[len(r.Checks)-2:]...), r.Series[:2], r.Machine.Parts[30:40]
		f.Add(encode(f, r))
	}
	f.Add([]byte(`{"version":1,"profile":"p","verdict":"warn","began_at":"2026-01-01T00:00:00Z","ended_at":"2026-01-01T00:00:00Z","series":[{"name":"t","component":"gpu/1","bucket_seconds":1e-300,"mean":[1,null],"min":[1,null],"max":[1,null]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Read(b)
		if err != nil {
			if len(b) > 0 && fleet.KindOf(err) != fleet.Invalid {
				t.Fatal(err)
			}
			return
		}
		again, err := Read(encode(t, r))
		if err != nil {
			t.Fatalf("what was read and written is refused: %v", err)
		}
		if !bytes.Equal(encode(t, r), encode(t, again)) {
			t.Error("reading and writing changes a report")
		}
		for _, write := range []func(io.Writer, ...fleet.BurnReport) error{JUnit, SARIF} {
			if err := write(io.Discard, r); err != nil {
				t.Error(err)
			}
		}
		if err := HTML(io.Discard, r); err != nil {
			t.Error(err)
		}
		if err := Text(io.Discard, r, topology.TextOptions{Width: 80}); err != nil {
			t.Error(err)
		}
		if c := Compare(r, r); len(c.Checks)+len(c.Values)+len(c.Parts)+len(c.Limits) > 0 {
			t.Errorf("a report differs from itself: %+v", c)
		}
	})
}
