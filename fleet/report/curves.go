package report

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// columns is into how many steps of time a run is cut for drawing: more than a screen shows helps nobody, and 72 hours are drawn as fast as one.
const columns = 480

// A line differs that is farFromFellows times as far from the middle of all as most are, and by the part farFromLevel of what they tend to: eight well parts
// are rarely as far apart (three and a half standard deviations), and a smaller difference is none that anybody would act on.
const (
	farFromFellows = 5
	farFromLevel   = 0.08
)

// group is one value of all parts of one kind over time: what is drawn into one plot.
type group struct {
	name, family, unit string
	from               time.Time
	seconds            float64 // of the whole
	lines              []line
}

// line is one component's part of a group.
type line struct {
	component string
	points    []point
	// differs: it goes another way than its fellows. sick: a check of the component failed.
	differs, sick bool
	// median and most are over all columns.
	median, most float64
}

// point is what was sampled in one column; at is its middle in seconds from the beginning.
type point struct {
	column         int
	at             float64
	mean, min, max float64
	n              int
}

// groups gathers series: those of GPUs first, others as they come.
func groups(r *fleet.BurnReport) []group {
	from, to := r.BeganAt, r.EndedAt
	length := 0.0
	for _, s := range r.Series {
		if s.Start.Before(from) {
			from = s.Start
		}
	}
	for _, s := range r.Series {
		length = max(length, s.Start.Sub(from).Seconds()+s.Bucket*float64(len(s.Mean)))
	}
	length = max(length, to.Sub(from).Seconds())
	if !(length > 0) || math.IsInf(length, 0) {
		return nil
	}
	var out []group
	for _, s := range r.Series {
		f := family(s.Component)
		g := slices.IndexFunc(out, func(g group) bool { return g.name == s.Name && g.family == f && g.unit == s.Unit })
		if g < 0 {
			g = len(out)
			out = append(out, group{name: s.Name, family: f, unit: s.Unit, from: from, seconds: length})
		}
		out[g].add(s)
	}
	out = slices.DeleteFunc(out, func(g group) bool {
		return !slices.ContainsFunc(g.lines, func(l line) bool { return len(l.points) > 0 })
	})
	slices.SortStableFunc(out, func(a, b group) int { return familyRank(a.family) - familyRank(b.family) })
	for i := range out {
		out[i].finish(r)
	}
	return out
}

// families in the order in which people ask for them.
var families = []string{"gpu", "hca", "disk", "numa", "dimm", "cpu", "core", "nic"}

func familyRank(f string) int {
	if i := slices.Index(families, f); i >= 0 {
		return i
	}
	return len(families)
}

// add puts a series' buckets into columns: stages may come as series of their own.
func (g *group) add(s fleet.Series) {
	i := slices.IndexFunc(g.lines, func(l line) bool { return l.component == s.Component })
	if i < 0 {
		i = len(g.lines)
		g.lines = append(g.lines, line{component: s.Component})
	}
	l := &g.lines[i]
	start := s.Start.Sub(g.from).Seconds()
	for k := range min(len(s.Mean), len(s.Min), len(s.Max)) {
		if s.Mean[k] == nil || s.Min[k] == nil || s.Max[k] == nil || !finite(*s.Mean[k]) || !finite(*s.Min[k]) || !finite(*s.Max[k]) {
			continue
		}
		at := start + (float64(k)+0.5)*s.Bucket
		column := min(max(int(at/g.seconds*columns), 0), columns-1)
		last := len(l.points) - 1
		if last < 0 || l.points[last].column != column {
			l.points = append(l.points, point{column: column, at: at, mean: *s.Mean[k], min: *s.Min[k], max: *s.Max[k], n: 1})
			continue
		}
		p := &l.points[last]
		n := float64(p.n)
		p.at, p.mean = (p.at*n+at)/(n+1), p.mean*(n/(n+1))+*s.Mean[k]/(n+1)
		p.min, p.max, p.n = min(p.min, *s.Min[k]), max(p.max, *s.Max[k]), p.n+1
	}
}

func finite(v float64) bool { return !math.IsNaN(v) && math.Abs(v) < 1e150 }

// finish orders lines and points and says which line differs.
func (g *group) finish(r *fleet.BurnReport) {
	g.lines = slices.DeleteFunc(g.lines, func(l line) bool { return len(l.points) == 0 })
	slices.SortFunc(g.lines, func(a, b line) int { return fleet.CompareNatural(a.component, b.component) })
	byColumn := make([][]float64, columns)
	for i := range g.lines {
		l := &g.lines[i]
		slices.SortStableFunc(l.points, func(a, b point) int { return cmp.Compare(a.at, b.at) })
		var means []float64
		l.most = l.points[0].max
		for _, p := range l.points {
			byColumn[p.column] = append(byColumn[p.column], p.mean)
			means = append(means, p.mean)
			l.most = max(l.most, p.max)
		}
		l.median = quantile(means, 0.5)
		l.sick = slices.ContainsFunc(r.Checks, func(c fleet.Check) bool {
			return c.Outcome == fleet.Fail && (c.Component == l.component || strings.HasPrefix(c.Component, l.component+"/"))
		})
	}
	if len(g.lines) < 4 {
		return
	}
	middle := make([]float64, columns)
	for i, v := range byColumn {
		middle[i] = quantile(v, 0.5)
	}
	// How far a line is from its fellows is what it is in a tenth of the time: what is slowed down only now and then is seen, too.
	far := make([]float64, len(g.lines))
	for i, l := range g.lines {
		var d []float64
		for _, p := range l.points {
			d = append(d, math.Abs(p.mean-middle[p.column]))
		}
		far[i] = quantile(d, 0.9)
	}
	var levels []float64
	for _, v := range middle {
		levels = append(levels, math.Abs(v))
	}
	usual, level := quantile(far, 0.5), quantile(levels, 0.9)
	for i := range g.lines {
		g.lines[i].differs = far[i] > farFromFellows*usual && far[i] > farFromLevel*level
	}
}

// bounds are the lowest and the highest value of all lines.
func (g *group) bounds() (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, l := range g.lines {
		for _, p := range l.points {
			low, high = min(low, p.min, p.mean), max(high, p.max, p.mean)
		}
	}
	return low, high
}

// quantile of values in any order; 0 of none.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}

// title is what a plot is called.
func (g *group) title() string {
	name := strings.ReplaceAll(g.name, "-", " ")
	for _, w := range [][2]string{{"sm clock", "SM clock"}, {"ecc ", "ECC "}, {"pcie ", "PCIe "}} {
		name = strings.ReplaceAll(name, w[0], w[1])
	}
	return strings.TrimSpace(kindWord(g.family) + " " + name)
}

// flat: nothing ever changed, and all are equal. There is nothing to be seen in a picture of that.
func (g *group) flat() bool {
	low, high := g.bounds()
	return low == high
}

// first are the values of GPUs that are looked at first; what else is sampled is drawn where a part differs.
var first = []string{"temperature", "memory-temperature", "power", "sm-clock"}

// shown: it is worth to be looked at before anybody asks for it.
func (g *group) shown() bool {
	return !g.flat() && (g.family == "gpu" && slices.Contains(first, g.name) || g.differs())
}

func (g *group) differs() bool {
	return slices.ContainsFunc(g.lines, func(l line) bool { return l.differs })
}

// flatWords names what never changed, with its value; "" where there is nothing such.
func flatWords(all []group) string {
	var out []string
	for _, g := range all {
		if g.flat() {
			low, _ := g.bounds()
			out = append(out, g.title()+" ("+amount(low, g.unit)+")")
		}
	}
	return list(out)
}

// kindWord names a kind of part.
func kindWord(k string) string { return cmp.Or(kindNames[k], k) }

// seen says in words what a plot shows, for those who cannot see it, and for those who can.
func (g *group) seen() string {
	var differ, sick []string
	for _, l := range g.lines {
		switch {
		case l.differs:
			differ = append(differ, called(l.component))
		case l.sick:
			sick = append(sick, called(l.component))
		}
	}
	var s []string
	switch {
	case len(differ) > 0:
		s = append(s, list(differ)+plural(len(differ), " goes", " go")+" another way than the fellows.")
	case len(g.lines) >= 4:
		s = append(s, "None differs from its fellows.")
	}
	if len(sick) > 0 && len(sick) <= 3 && len(sick) < len(g.lines) {
		s = append(s, list(sick)+", of which a check failed, "+plural(len(sick), "is", "are")+" no exception here.")
	}
	return strings.Join(s, " ")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// list joins as people do: 1, 2 and 5.
func list(s []string) string {
	if len(s) < 2 {
		return strings.Join(s, "")
	}
	return strings.Join(s[:len(s)-1], ", ") + " and " + s[len(s)-1]
}
