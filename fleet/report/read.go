package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Read reads the JSON of a report strictly: an unknown key, a wrong type, text after the document and what no judge would write are errors of kind Invalid
// that name the place, all of them at once where the document can be read at all.
func Read(b []byte) (fleet.BurnReport, error) {
	var r fleet.BurnReport
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return fleet.BurnReport{}, refused(place(b, d, err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fleet.BurnReport{}, refused(fleet.FieldError{Field: at(b, d.InputOffset()), Message: "something follows the report"})
	}
	if r.Version > fleet.BurnReportVersion {
		return fleet.BurnReport{}, refused(fleet.FieldError{Field: "version", Message: fmt.Sprintf("%d is newer than this program, which reads up to %d", r.Version, fleet.BurnReportVersion)})
	}
	f := faults{}
	f.report(&r)
	if len(f) > 0 {
		return fleet.BurnReport{}, refused(f...)
	}
	return r, nil
}

func refused(f ...fleet.FieldError) error {
	e := fleet.Errorf(fleet.Invalid, "MC-BURN-REPORT", "this is no burn-in report that can be read").WithHint("metalctl burnin report NODE -o json, or metalctl agent burn --json FILE, writes one")
	e.Fields = f
	return e
}

// place says where a document could not be decoded.
func place(b []byte, d *json.Decoder, err error) fleet.FieldError {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fleet.FieldError{Field: at(b, syntax.Offset), Message: syntax.Error()}
	case errors.As(err, &kind):
		return fleet.FieldError{Field: strings.Trim(at(b, kind.Offset)+" "+kind.Field, " "), Message: "is a " + kind.Value + " and should be " + kind.Type.String()}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fleet.FieldError{Field: at(b, int64(len(b))), Message: "the document ends here"}
	}
	return fleet.FieldError{Field: at(b, d.InputOffset()), Message: strings.TrimPrefix(err.Error(), "json: ")}
}

// at is a place in a document as line and column.
func at(b []byte, offset int64) string {
	head := b[:min(max(offset, 0), int64(len(b)))]
	return fmt.Sprintf("line %d, column %d", bytes.Count(head, []byte("\n"))+1, len(head)-bytes.LastIndexByte(head, '\n'))
}

// faults are what is wrong with a report, at most maxFaults of them.
type faults []fleet.FieldError

const maxFaults = 20

func (f *faults) check(ok bool, field, format string, args ...any) {
	if !ok && len(*f) < maxFaults {
		*f = append(*f, fleet.FieldError{Field: field, Message: fmt.Sprintf(format, args...)})
	}
}

func (f *faults) report(r *fleet.BurnReport) {
	f.check(r.Version >= 1, "version", "is missing")
	f.check(r.Profile != "", "profile", "is missing")
	f.check(!r.BeganAt.IsZero(), "began_at", "is missing")
	f.check(!r.EndedAt.Before(r.BeganAt), "ended_at", "is before began_at")
	f.check(slices.Contains(outcomes, r.Verdict), "verdict", "%q is none of %v", r.Verdict, outcomes)
	f.check(r.Finished || r.Verdict != fleet.Pass, "verdict", "a burn-in that did not finish is no pass")
	worst := fleet.Skip
	for i, c := range r.Checks {
		f.judgement(fmt.Sprintf("checks[%d]", i), c)
		if rank(c.Outcome) < rank(worst) {
			worst = c.Outcome
		}
	}
	f.check(rank(r.Verdict) <= rank(worst) || !slices.Contains(outcomes, r.Verdict), "verdict", "is %s, and a check is %s", r.Verdict, worst)
	for i, s := range r.Series {
		f.curve(fmt.Sprintf("series[%d]", i), s)
	}
	for i, s := range r.Stages {
		field := fmt.Sprintf("stages[%d]", i)
		f.check(s.Stage != "", field+".stage", "is missing")
		f.check(s.Round >= 1, field+".round", "rounds count from 1")
		f.check(!s.EndedAt.Before(s.BeganAt), field+".ended_at", "is before began_at")
	}
	for i, x := range r.Restarts {
		field := fmt.Sprintf("restarts[%d]", i)
		f.check(x.Stage != "", field+".stage", "is missing")
		f.check(x.Round >= 1, field+".round", "rounds count from 1")
	}
	for i, p := range r.Machine.Parts {
		f.check(p.Component != "", fmt.Sprintf("machine.parts[%d].component", i), "is missing")
	}
}

func (f *faults) judgement(field string, c fleet.Check) {
	f.check(c.ID != "", field+".id", "is missing")
	f.check(c.Component != "", field+".component", "is missing")
	f.check(slices.Contains(outcomes, c.Outcome), field+".outcome", "%q is none of %v", c.Outcome, outcomes)
	if m, ok := fleet.FindMeasured(c.ID); ok && c.Value != nil {
		f.check(c.Unit == m.Unit, field+".unit", "%q, and %s is in %q", c.Unit, c.ID, m.Unit)
	}
	if c.Limit != nil {
		f.check(c.Limit.Unit == c.Unit, field+".limit.unit", "%q, and the value is in %q", c.Limit.Unit, c.Unit)
	}
}

func (f *faults) curve(field string, s fleet.Series) {
	f.check(s.Name != "", field+".name", "is missing")
	f.check(s.Component != "", field+".component", "is missing")
	f.check(s.Bucket > 0 && !math.IsInf(s.Bucket, 0), field+".bucket_seconds", "%g is no length", s.Bucket)
	f.check(len(s.Min) == len(s.Mean) && len(s.Max) == len(s.Mean), field, "mean, min and max have %d, %d and %d entries", len(s.Mean), len(s.Min), len(s.Max))
	if len(s.Min) != len(s.Mean) || len(s.Max) != len(s.Mean) {
		return
	}
	for i := range s.Mean {
		there := s.Mean[i] != nil
		f.check((s.Min[i] != nil) == there && (s.Max[i] != nil) == there, fmt.Sprintf("%s.mean[%d]", field, i), "a bucket without samples has null in mean, min and max")
	}
}
