package report

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Measures of a plot, in pixels of its view box.
const (
	plotWidth  = 960
	plotHeight = 268
	plotLeft   = 58
	plotRight  = 74
	plotTop    = 26
	plotBottom = 34
	// tooMany lines are drawn as their range and their middle, with those that differ.
	tooMany = 12
	// hues is how many colours the page's style has for lines.
	hues = 8
	// marks is how many it has for those that stand out.
	marks = 3
)

// svg draws a group: range of all, a line each, those that differ above the others with their name, stages above, hours below.
func (g *group) svg(r *fleet.BurnReport) string {
	low, high := g.bounds()
	yTicks, low, high := niceTicks(low, high)
	x := func(at float64) float64 {
		return plotLeft + (plotWidth-plotLeft-plotRight)*min(max(at/g.seconds, 0), 1)
	}
	y := func(v float64) float64 {
		return plotHeight - plotBottom - (plotHeight-plotBottom-plotTop)*(v-low)/(high-low)
	}
	var b strings.Builder
	alt := fmt.Sprintf("%s in %s over %s of %d parts, from %s to %s. %s", g.title(), unitWord(g.unit), span(g.seconds), len(g.lines), number(low), number(high), g.seen())
	fmt.Fprintf(&b, `<svg class="plot" viewBox="0 0 %d %d" role="img" aria-label="%s">`, plotWidth, plotHeight, escape(alt))
	g.stages(&b, r, x)
	for _, t := range yTicks {
		fmt.Fprintf(&b, `<path class="grid" d="M%d %.1fH%d"/><text class="end" x="%d" y="%.1f">%s</text>`, plotLeft, y(t), plotWidth-plotRight, plotLeft-6, y(t)+4, escape(number(t)))
	}
	fmt.Fprintf(&b, `<text x="4" y="%d" class="unit">%s</text>`, plotTop-10, escape(unitWord(g.unit)))
	for _, t := range timeTicks(g.seconds) {
		fmt.Fprintf(&b, `<path class="tick" d="M%.1f %dv5"/><text class="mid" x="%.1f" y="%d">%s</text>`, x(t), plotHeight-plotBottom, x(t), plotHeight-plotBottom+17, escape(span(t)))
	}
	fmt.Fprintf(&b, `<path class="axis" d="M%d %dH%d"/>`, plotLeft, plotHeight-plotBottom, plotWidth-plotRight)
	b.WriteString(g.band("band", g.lines, x, y))
	marked := slices.ContainsFunc(g.lines, line.marked)
	for i, l := range g.lines {
		if l.marked() || len(g.lines) > tooMany {
			continue
		}
		class := fmt.Sprintf("line c%d", i%hues)
		if marked {
			class = "line fellow"
		}
		b.WriteString(l.path(class, g.gap(), x, y))
	}
	if len(g.lines) > tooMany {
		b.WriteString(g.middle().path("line fellow", g.gap(), x, y))
	}
	var used []float64
	// What differs most is drawn last.
	for hue, i := range slices.Backward(g.markedOnes()) {
		l := g.lines[i]
		class := "marked"
		if l.differs {
			class = "marked differs"
			b.WriteString(g.band(fmt.Sprintf("own m%d", hue%marks), []line{l}, x, y))
		}
		b.WriteString(l.path(fmt.Sprintf("line %s m%d", class, hue%marks), g.gap(), x, y))
		last := l.points[len(l.points)-1]
		at := y(last.mean)
		for slices.ContainsFunc(used, func(u float64) bool { return math.Abs(u-at) < 12 }) {
			at -= 12
		}
		used = append(used, at)
		fmt.Fprintf(&b, `<text class="name m%d" x="%.1f" y="%.1f">%s</text>`, hue%marks, x(last.at)+5, at+4, escape(fit(called(l.component), 10)))
	}
	g.findings(&b, r, x)
	b.WriteString("</svg>")
	return b.String()
}

// markedOnes are the places of marked lines, those that differ first: a line's place here is its mark's hue.
func (g *group) markedOnes() (out []int) {
	for _, differs := range []bool{true, false} {
		for i, l := range g.lines {
			if l.marked() && l.differs == differs {
				out = append(out, i)
			}
		}
	}
	return out
}

// marked lines are drawn above the others, with their name: those that differ, and those of sick parts where they are few.
func (l line) marked() bool { return l.differs || l.sick }

// gap is the longest silence, in columns, that is no gap in a line: series of long buckets have few points.
func (g *group) gap() int {
	var steps []float64
	for _, l := range g.lines {
		for i := 1; i < len(l.points); i++ {
			steps = append(steps, float64(l.points[i].column-l.points[i-1].column))
		}
	}
	return int(2*quantile(steps, 0.5)) + 1
}

func (l line) path(class string, gap int, x, y func(float64) float64) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<path class="%s" d="`, class)
	for i, p := range l.points {
		verb := "L"
		if i == 0 || p.column-l.points[i-1].column > gap {
			verb = "M"
		}
		fmt.Fprintf(&b, "%s%.1f %.1f", verb, x(p.at), y(p.mean))
		if i+1 == len(l.points) && verb == "M" {
			b.WriteString("h2")
		}
	}
	fmt.Fprintf(&b, `"><title>%s</title></path>`, escape(called(l.component)))
	return b.String()
}

// band is the range of some lines.
func (g *group) band(class string, lines []line, x, y func(float64) float64) string {
	low, high, at := make([]float64, columns), make([]float64, columns), make([]float64, columns)
	there := make([]bool, columns)
	for _, l := range lines {
		for _, p := range l.points {
			if c := p.column; !there[c] {
				there[c], low[c], high[c], at[c] = true, p.min, p.max, p.at
			} else {
				low[c], high[c] = min(low[c], p.min), max(high[c], p.max)
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<path class="%s" d="`, class)
	gap := g.gap()
	var piece []int
	flush := func() {
		for i, c := range piece {
			fmt.Fprintf(&b, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[i == 0], x(at[c]), y(high[c]))
		}
		for _, c := range slices.Backward(piece) {
			fmt.Fprintf(&b, "L%.1f %.1f", x(at[c]), y(low[c]))
		}
		if len(piece) > 0 {
			b.WriteString("Z")
		}
		piece = piece[:0]
	}
	for c := range columns {
		if !there[c] {
			continue
		}
		if n := len(piece); n > 0 && c-piece[n-1] > gap {
			flush()
		}
		piece = append(piece, c)
	}
	flush()
	b.WriteString(`"/>`)
	return b.String()
}

// middle is the median of all lines.
func (g *group) middle() line {
	byColumn := make([][]point, columns)
	for _, l := range g.lines {
		for _, p := range l.points {
			byColumn[p.column] = append(byColumn[p.column], p)
		}
	}
	out := line{component: "the median of all"}
	for c, points := range byColumn {
		var v []float64
		for _, p := range points {
			v = append(v, p.mean)
		}
		if len(points) > 0 {
			out.points = append(out.points, point{column: c, at: points[0].at, mean: quantile(v, 0.5)})
		}
	}
	return out
}

// stripOf says what the strip above a plot shows: stages where they are few, else rounds.
func stripOf(r *fleet.BurnReport) (pieces []piece, of string) {
	const few = 40
	for _, s := range r.Stages {
		n := len(pieces) - 1
		if len(r.Stages) > few && n >= 0 && pieces[n].round == s.Round {
			pieces[n].to = s.EndedAt
			continue
		}
		p := piece{name: s.Stage, round: s.Round, from: s.BeganAt, to: s.EndedAt}
		if len(r.Stages) > few {
			p.name = fmt.Sprint(s.Round)
		}
		pieces = append(pieces, p)
	}
	if len(r.Stages) > few {
		return pieces, "rounds"
	}
	return pieces, "stages"
}

type piece struct {
	name     string
	round    int
	from, to time.Time
}

func (g *group) stages(b *strings.Builder, r *fleet.BurnReport, x func(float64) float64) {
	pieces, of := stripOf(r)
	const top, height = plotTop - 18, 13
	free := 0.0
	for i, p := range pieces {
		from, to := x(p.from.Sub(g.from).Seconds()), x(p.to.Sub(g.from).Seconds())
		fmt.Fprintf(b, `<rect class="s%d" x="%.1f" y="%d" width="%.1f" height="%d"><title>%s</title></rect>`, i%2, from, top, max(to-from, 0.5), height, escape(stageTitle(p, of)))
		if i > 0 && len(pieces) <= 80 {
			fmt.Fprintf(b, `<path class="stage" d="M%.1f %dV%d"/>`, from, plotTop, plotHeight-plotBottom)
		}
		if w := 6.2 * float64(len([]rune(p.name))); to-from >= w+2 || of == "rounds" && (from+to)/2-w/2 >= free {
			fmt.Fprintf(b, `<text class="mid small" x="%.1f" y="%d">%s</text>`, (from+to)/2, top+10, escape(p.name))
			free = (from+to)/2 + w/2 + 10
		}
	}
}

func stageTitle(p piece, of string) string {
	if of == "rounds" {
		return fmt.Sprintf("round %s, %s to %s", p.name, stamp(p.from), stamp(p.to))
	}
	return fmt.Sprintf("%s, round %d, %s to %s", p.name, p.round, stamp(p.from), stamp(p.to))
}

// findings marks when the kernel's log first and last said something of the parts that are drawn.
func (g *group) findings(b *strings.Builder, r *fleet.BurnReport, x func(float64) float64) {
	for _, k := range r.Kernel {
		if !slices.ContainsFunc(g.lines, func(l line) bool { return l.component == owner(k.Component) }) {
			continue
		}
		for _, at := range slices.Compact([]time.Time{k.First, k.Last}) {
			if s := at.Sub(g.from).Seconds(); !at.IsZero() && s >= 0 && s <= g.seconds {
				fmt.Fprintf(b, `<path class="finding" d="M%.1f %dl-4 8h8z"><title>%s</title></path>`, x(s), plotHeight-plotBottom-8, escape(called(owner(k.Component))+": "+findingName(k)+", "+stamp(at)))
			}
		}
	}
}

// findingName is the kind of a finding with its number.
func findingName(k fleet.KernelFinding) string {
	switch {
	case k.Kind == "xid" || k.Kind == "sxid":
		return strings.ToUpper(k.Kind[:1]) + k.Kind[1:] + fmt.Sprintf(" %d", k.Code)
	case k.Code != 0:
		return fmt.Sprintf("%s %d", k.Kind, k.Code)
	}
	return k.Kind
}

func escape(s string) string { return html.EscapeString(plain(s)) }

func fit(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// span is a length of time as an axis says it.
func span(seconds float64) string {
	switch {
	case seconds == 0:
		return "0"
	case seconds < 60:
		return number(seconds) + " s"
	case seconds < 3600:
		return number(math.Round(seconds/6)/10) + " min"
	}
	return number(math.Round(seconds/360)/10) + " h"
}

// niceTicks are round values over a range, which they widen to its outermost.
func niceTicks(low, high float64) (ticks []float64, from, to float64) {
	if high-low < 1e-9*max(math.Abs(low), math.Abs(high), 1e-9) {
		low, high = low-math.Max(math.Abs(low)*0.05, 1), high+math.Max(math.Abs(high)*0.05, 1)
	}
	step := math.Pow(10, math.Floor(math.Log10((high-low)/4)))
	for _, m := range []float64{1, 2, 5, 10} {
		if (high-low)/(step*m) <= 5 {
			step *= m
			break
		}
	}
	from = math.Floor(low/step) * step
	for i := 0.0; i < 12; i++ {
		t := from + i*step
		ticks = append(ticks, math.Round(t/step)*step)
		if t >= high {
			break
		}
	}
	return ticks, from, ticks[len(ticks)-1]
}

// timeTicks are round times over a run.
func timeTicks(seconds float64) (ticks []float64) {
	step := seconds / 6
	for _, s := range []float64{1, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 48 * 3600} {
		if seconds/s <= 12 {
			step = s
			break
		}
	}
	for i := range 13 {
		if t := float64(i) * step; t <= seconds*1.0001 {
			ticks = append(ticks, t)
		}
	}
	return ticks
}
