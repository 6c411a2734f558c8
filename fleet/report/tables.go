package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// table is values side by side: a row for each check, a column for each part of one kind.
type table struct {
	Title string
	Heads []string
	Rows  []tableRow
	// Zeros are the checks of which all passed with 0: they need no rows.
	Zeros string
}

type tableRow struct {
	Name, Doc, Unit, Limit string
	Cells                  []cell
}

type cell struct {
	Text    string
	Outcome fleet.Outcome
	// Off is how far it is from the median of its fellows, in percent, where that is worth to be said.
	Off string
}

// maxColumns is how many parts stand side by side at most: more are in the list of all checks.
const maxColumns = 16

// sideBySide are the values of parts that have fellows.
func sideBySide(r *fleet.BurnReport) (out []table) {
	columns := map[string][]string{}
	for _, c := range r.Checks {
		if k := kind(c.Component); c.Value != nil && owner(c.Component) == c.Component && k != c.Component && !slices.Contains(columns[k], c.Component) {
			columns[k] = append(columns[k], c.Component)
		}
	}
	kinds := make([]string, 0, len(columns))
	for k, v := range columns {
		if len(v) >= 2 && len(v) <= maxColumns {
			slices.SortFunc(v, fleet.CompareNatural)
			kinds = append(kinds, k)
		}
	}
	slices.SortFunc(kinds, func(a, b string) int { return cmp.Or(familyRank(a)-familyRank(b), cmp.Compare(a, b)) })
	for _, k := range kinds {
		t := table{Title: kindWord(k)}
		for _, c := range columns[k] {
			t.Heads = append(t.Heads, short(c))
		}
		var zeros []string
		for _, id := range idsOf(r, k) {
			row := rowOf(r, id, columns[k])
			if slices.ContainsFunc(row.Cells, func(c cell) bool { return c.Text != "0" || c.Outcome != fleet.Pass }) {
				t.Rows = append(t.Rows, row)
			} else {
				zeros = append(zeros, id)
			}
		}
		t.Zeros = list(zeros)
		out = append(out, t)
	}
	if t, ok := pairs(r); ok {
		out = append(out, t)
	}
	return out
}

// short is a component's name below the name of its kind: nvme2n1, but GPU 3.
func short(component string) string {
	if family(component) == "gpu" {
		return called(component)
	}
	return component[strings.LastIndex(component, "/")+1:]
}

// idsOf are the checks with values of a kind of part, in the order in which they stand.
func idsOf(r *fleet.BurnReport, k string) (ids []string) {
	for _, c := range r.Checks {
		if c.Value != nil && kind(c.Component) == k && !slices.Contains(ids, c.ID) {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func rowOf(r *fleet.BurnReport, id string, components []string) tableRow {
	row := tableRow{Name: id, Cells: make([]cell, len(components))}
	if m, ok := fleet.FindMeasured(id); ok {
		row.Doc = m.Doc
	}
	newest := make([]*fleet.Check, len(components))
	var values []float64
	for i := range r.Checks {
		c := &r.Checks[i]
		k := slices.Index(components, c.Component)
		if c.ID != id || k < 0 || c.Value == nil {
			continue
		}
		// Of several rounds the worst is shown, and the newest of those.
		if n := newest[k]; n == nil || rank(c.Outcome) <= rank(n.Outcome) {
			newest[k] = c
		}
	}
	for _, c := range newest {
		if c != nil {
			values = append(values, *c.Value)
		}
	}
	middle := quantile(values, 0.5)
	for k, c := range newest {
		if c == nil {
			continue
		}
		row.Unit, row.Limit = unitWord(c.Unit), cmp.Or(row.Limit, limitShort(c.Limit))
		row.Cells[k] = cell{Text: number(*c.Value), Outcome: c.Outcome}
		if off := 100 * (*c.Value/middle - 1); middle != 0 && c.Outcome != fleet.Pass && math.Abs(off) >= 0.5 && len(values) > 2 {
			row.Cells[k].Off = fmt.Sprintf("%+.0f %%", off)
		}
	}
	return row
}

func limitShort(l *fleet.CheckLimit) string {
	if l == nil {
		return ""
	}
	return bound(l)
}

// pairs is the matrix of what GPUs did to each other.
func pairs(r *fleet.BurnReport) (table, bool) {
	const id = "gpu-peer"
	var numbers []int
	find := map[string]*fleet.Check{}
	limit, unit := "", ""
	for i := range r.Checks {
		c := &r.Checks[i]
		s := strings.Split(c.Component, "/")
		if c.ID != id || len(s) != 4 || c.Value == nil {
			continue
		}
		find[c.Component] = c
		limit, unit = cmp.Or(limit, limitShort(c.Limit)), unitWord(c.Unit)
		for _, x := range []string{s[1], s[3]} {
			if n, err := strconv.Atoi(x); err == nil && !slices.Contains(numbers, n) {
				numbers = append(numbers, n)
			}
		}
	}
	if len(numbers) < 2 || len(numbers) > maxColumns {
		return table{}, false
	}
	slices.Sort(numbers)
	t := table{Title: "GPU to GPU, " + strings.Trim("in "+unit+", "+limit, ", ")}
	for _, to := range numbers {
		t.Heads = append(t.Heads, fmt.Sprintf("to %d", to))
	}
	for _, from := range numbers {
		row := tableRow{Name: fmt.Sprintf("GPU %d", from)}
		for _, to := range numbers {
			x := cell{Text: "–"}
			if c := find[fmt.Sprintf("gpu/%d/peer/%d", from, to)]; c != nil {
				x = cell{Text: number(*c.Value), Outcome: c.Outcome}
			}
			row.Cells = append(row.Cells, x)
		}
		t.Rows = append(t.Rows, row)
	}
	return t, true
}

// usedLimit is a limit that checks of one kind of part were held against.
type usedLimit struct {
	Check, Kind, Bound, Against, Source string
	N                                   int
}

func usedLimits(r *fleet.BurnReport) (out []usedLimit) {
	for _, c := range r.Checks {
		if c.Limit == nil {
			continue
		}
		u := usedLimit{Check: c.ID, Kind: kindWord(kind(c.Component)), Bound: bound(c.Limit), Against: c.Limit.Against, Source: c.Limit.Source}
		i := slices.IndexFunc(out, func(x usedLimit) bool { x.N = 0; return x == u })
		if i < 0 {
			i = len(out)
			out = append(out, u)
		}
		out[i].N++
	}
	return out
}

// stageSum is what one stage of the profile came to over all rounds.
type stageSum struct {
	Name, Engines, Stress, Stopped string
	Runs                           int
	Ran, Planned                   string
}

func stageSums(r *fleet.BurnReport) (out []stageSum) {
	ran, planned := map[string]float64{}, map[string]float64{}
	engines, stress := map[string][]string{}, map[string][]string{}
	for _, s := range r.Stages {
		i := slices.IndexFunc(out, func(x stageSum) bool { return x.Name == s.Stage })
		if i < 0 {
			i = len(out)
			out = append(out, stageSum{Name: s.Stage})
		}
		out[i].Runs++
		if s.Stopped != "" {
			out[i].Stopped = fmt.Sprintf("round %d: %s", s.Round, s.Stopped)
		}
		ran[s.Stage] += max(0, s.EndedAt.Sub(s.BeganAt).Seconds())
		planned[s.Stage] += float64(s.Planned)
		for _, x := range s.Ran {
			if e := strings.TrimSpace(x.Engine + " " + x.Version); !slices.Contains(engines[s.Stage], e) {
				engines[s.Stage] = append(engines[s.Stage], e)
			}
			if !slices.Contains(stress[s.Stage], x.Stress) {
				stress[s.Stage] = append(stress[s.Stage], x.Stress)
			}
		}
	}
	for _, x := range r.Restarts {
		if i := slices.IndexFunc(out, func(s stageSum) bool { return s.Name == x.Stage }); i >= 0 {
			out[i].Stopped = strings.TrimPrefix(fmt.Sprintf("%s; round %d: the machine went down", out[i].Stopped, x.Round), "; ")
		}
	}
	for i := range out {
		n := out[i].Name
		out[i].Ran, out[i].Planned, out[i].Engines, out[i].Stress = span(ran[n]), span(planned[n]), strings.Join(engines[n], ", "), strings.Join(stress[n], ", ")
	}
	return out
}

// partGroup is equal parts together: an RMA clerk looks for serials, an operator for the firmware that is another.
type partGroup struct {
	Kind  string
	Parts []fleet.BurnedPart
}

func partGroups(r *fleet.BurnReport) (out []partGroup) {
	for _, p := range r.Machine.Parts {
		f := family(p.Component)
		i := slices.IndexFunc(out, func(g partGroup) bool { return g.Kind == f })
		if i < 0 {
			i = len(out)
			out = append(out, partGroup{Kind: f})
		}
		out[i].Parts = append(out[i].Parts, p)
	}
	slices.SortStableFunc(out, func(a, b partGroup) int { return familyRank(a.Kind) - familyRank(b.Kind) })
	for i := range out {
		slices.SortStableFunc(out[i].Parts, func(a, b fleet.BurnedPart) int { return fleet.CompareNatural(a.Component, b.Component) })
	}
	return out
}
