package verdict

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

// alarms are a report's checks of an outcome, or of a worse one that is no pass: code, component, action.
func alarms(r fleet.BurnReport, from fleet.Outcome) (out []string) {
	for _, c := range r.Checks {
		if severity(c.Outcome) >= severity(from) && severity(c.Outcome) > severity(fleet.Pass) && c.Do != "none" {
			out = append(out, fmt.Sprintf("%s %s %s", c.Code, c.Component, c.Do))
		}
	}
	return out
}

// expects is a fault's check on a machine, with its places filled in.
func (f burnFault) expects(b *burned) string {
	inv := b.parts[0].Before
	return strings.NewReplacer("$G", b.gpu(), "$0", strings.TrimPrefix(Component(inv, 0), "gpu/"), "$B", inv.Rails[3].Bridge).Replace(f.want)
}

func (f burnFault) about(k kind) bool { return f.only == "" || strings.Contains(f.only, k.name) }

// TestBurnFaults injects each fault into the burn-in of a node of each kind: one check fails, at the right part, with the right action.
func TestBurnFaults(t *testing.T) {
	for i, f := range slices.Concat(burnFaults, underLoad()) {
		for m, k := range kinds {
			if !f.about(k) || testing.Short() && m != i%len(kinds) && f.only == "" { // one kind each where time is short
				continue
			}
			t.Run(k.name+"/"+f.class+"/"+f.name, func(t *testing.T) {
				n := newNature(uint64(i))
				b := n.healthy(k)
				want := f.expects(b)
				f.does(n, b)
				r := BurnIn(b.input())
				if f.outcome == fleet.Pass {
					if severity(r.Verdict) > severity(fleet.Warn) {
						t.Errorf("verdict %s: %s", r.Verdict, r.Headline)
					}
					return
				}
				if r.Verdict != f.outcome {
					t.Errorf("verdict %s, not %s: %s", r.Verdict, f.outcome, r.Headline)
				}
				got := alarms(r, f.outcome)
				if f.outcome == fleet.Warn && slices.Contains(got, want) {
					got = []string{want} // a healthy node may be warned of, too
				}
				if len(got) != 1 || got[0] != want {
					t.Errorf("alarms %q, not %q", got, want)
				}
				whole(t, r)
			})
		}
	}
}

// whole holds a report against what its readers rely on.
func whole(t *testing.T, r fleet.BurnReport) {
	t.Helper()
	for _, c := range r.Checks {
		_, known := fleet.Codes[c.Code]
		if c.ID == "" || c.Component == "" || c.Words == "" || (c.Outcome == fleet.Fail || c.Outcome == fleet.CouldNotTell) && (!known || next[c.Do] == "") || c.Do == "replace" && c.Replace == "" {
			t.Errorf("not whole: %+v", c)
		}
		if c.Limit != nil && c.Limit.Unit != c.Unit {
			t.Errorf("limit and value in two units: %+v", c)
		}
		if m, ok := fleet.FindMeasured(c.ID); ok && c.Value != nil && m.Unit != c.Unit {
			t.Errorf("another unit than the check's: %+v", c)
		}
	}
	if r.Headline == "" || r.EndedAt.Before(r.BeganAt) {
		t.Errorf("not whole: %+v", r)
	}
}

// TestHealthyNodes burns in nodes of each kind on which nothing is wrong, with the noise that real ones have.
func TestHealthyNodes(t *testing.T) {
	for _, k := range kinds {
		for seed := range uint64(10) {
			r := BurnIn(newNature(seed).healthy(k).input())
			if r.Verdict == fleet.Fail || r.Verdict == fleet.CouldNotTell {
				t.Errorf("%s, seed %d: %s: %s", k.name, seed, r.Verdict, r.Headline)
			}
			whole(t, r)
		}
	}
}
