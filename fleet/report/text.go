package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/topology"
)

// Text writes a report for a terminal: verdict, what to do, what did not pass, a line for each series, and the counts.
func Text(w io.Writer, r fleet.BurnReport, o topology.TextOptions) error {
	t := &sheet{o: o}
	t.line(colourOf(r.Verdict), fmt.Sprintf("%s %s  %s, profile %s, %s", t.sign(r.Verdict), strings.ToUpper(outcomeWords(r.Verdict)), nodeName(&r), r.Profile, took(&r)))
	t.wrap("  ", r.Headline)
	if r.Fixture != "" {
		t.wrap("  ", "No real machine: it was made up from the fixture "+r.Fixture+".")
	}
	if !r.Finished {
		t.wrap("  ", "It did not finish"+strings.TrimSuffix(": "+r.Stopped, ": ")+".")
	}
	if todo := actions(&r); len(todo) > 0 {
		t.line("", "")
		t.line("", "What to do next")
		for i, a := range todo {
			t.wrap(fmt.Sprintf("  %d. ", i+1), a.What+": "+a.Words)
		}
	}
	if found := findings(&r); len(found) > 0 {
		t.line("", "")
		t.line("", "What did not pass")
		for _, f := range found {
			head := fmt.Sprintf("  %s %s  %s", t.sign(f.Outcome), f.Where, f.ID)
			if m := measured(f.Check); m != "" {
				head += "  " + strings.TrimSuffix(m+", "+limitShort(f.Limit), ", ")
			}
			if f.Code != "" {
				head += "  " + f.Code
			}
			t.line(colourOf(f.Outcome), head)
			t.wrap("      ", f.Words)
			for _, e := range f.Evidence {
				t.wrap("      - ", e)
			}
		}
	}
	all := groups(&r)
	for _, g := range all {
		if g.shown() {
			t.sparks(&g)
		}
	}
	if flat := flatWords(all); flat != "" {
		t.line("", "")
		t.wrap("", "Never changed, and equal in all: "+flat+".")
	}
	if len(r.Kernel) > 0 {
		t.line("", "")
		t.line("", "The kernel's log")
		for _, k := range r.Kernel {
			t.wrap("  ", fmt.Sprintf("%s, %s, %d times: %s", findingName(k), called(k.Component), k.Count, k.Line))
		}
	}
	t.line("", "")
	var counts []string
	for _, c := range outcomeCounts(&r) {
		counts = append(counts, fmt.Sprintf("%d %s", c.N, c.Words))
	}
	t.wrap("", strings.TrimSuffix(fmt.Sprintf("Checks: %s; measured by %s", strings.Join(counts, ", "), strings.Join(engines(&r), ", ")), "; measured by "))
	return t.to(w)
}

func took(r *fleet.BurnReport) string {
	if r.Finished {
		return "took " + span(elapsed(r))
	}
	return "ran for " + span(elapsed(r))
}

// sheet is a text for a terminal.
type sheet struct {
	o topology.TextOptions
	b strings.Builder
}

func (t *sheet) to(w io.Writer) error {
	if _, err := io.WriteString(w, t.b.String()); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

func colourOf(o fleet.Outcome) string {
	switch o {
	case fleet.Fail:
		return "31"
	case fleet.Warn, fleet.CouldNotTell:
		return "33"
	case fleet.Pass:
		return "32"
	}
	return ""
}

func (t *sheet) sign(o fleet.Outcome) string {
	if t.o.Unicode {
		return sign(o)
	}
	switch o {
	case fleet.Pass:
		return "+"
	case fleet.Warn:
		return "!"
	case fleet.Fail:
		return "X"
	case fleet.Skip:
		return "-"
	}
	return "?"
}

// line writes one line, cut to the width, in a colour where there is one.
func (t *sheet) line(colour, s string) {
	s = t.clean(s)
	if width := t.o.Width; width > 3 && utf8.RuneCountInString(s) > width {
		dots := "..."
		if t.o.Unicode {
			dots = "…"
		}
		s = string([]rune(s)[:width-utf8.RuneCountInString(dots)]) + dots
	}
	if colour != "" && t.o.Colour {
		s = "\x1b[" + colour + "m" + s + "\x1b[0m"
	}
	t.b.WriteString(strings.TrimRight(s, " ") + "\n")
}

// wrap breaks a text at spaces; lines but the first are indented as far as the first one's head.
func (t *sheet) wrap(head, s string) {
	width := t.o.Width
	if width < 30 {
		width = 100
	}
	rest := strings.Repeat(" ", utf8.RuneCountInString(head))
	line := head
	for _, w := range strings.Fields(t.clean(s)) {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(w) > width && strings.TrimSpace(line) != strings.TrimSpace(head) {
			t.line("", line)
			line = rest
		}
		if line != head && line != rest {
			line += " "
		}
		line += w
	}
	if strings.TrimSpace(line) != "" {
		t.line("", line)
	}
}

// clean leaves no character that moves a terminal's cursor, and only those that it can show.
func (t *sheet) clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Cf):
			return '?'
		case !t.o.Unicode && r > unicode.MaxASCII:
			if a, ok := ascii[r]; ok {
				return a
			}
			return '?'
		}
		return r
	}, s)
}

var ascii = map[rune]rune{'°': ' ', 'µ': 'u', '–': '-', '…': '.', '✓': '+', '✗': 'X', '▲': '!'}

// sparks draws a series a line, all of a group in one scale.
func (t *sheet) sparks(g *group) {
	const name, figures = 16, 30
	width := t.o.Width
	if width < 60 {
		width = 100
	}
	room := min(width-name-figures, 96)
	if room < 8 {
		return
	}
	low, high := g.bounds()
	t.line("", "")
	t.wrap("", fmt.Sprintf("%s, %s to %s over %s. %s", g.title(), number(low), amount(high, g.unit), span(g.seconds), g.seen()))
	lines := g.lines
	if len(lines) > tooMany {
		lines = []line{g.middle()}
		for _, i := range g.markedOnes() {
			lines = append(lines, g.lines[i])
		}
	}
	for _, l := range lines {
		mark, colour := "  ", ""
		if l.differs {
			mark, colour = t.sign(fleet.Warn)+" ", "33"
		}
		least, most := math.Inf(1), math.Inf(-1)
		for _, p := range l.points {
			least, most = min(least, p.mean), max(most, p.mean)
		}
		t.line(colour, fmt.Sprintf("%s%-*s%s  %s to %s", mark, name-2, fit(called(l.component), name-3), t.spark(l, room, low, high), number(least), number(most)))
	}
}

// spark draws means as blocks of eight heights and of characters that are darker where there are no blocks.
func (t *sheet) spark(l line, room int, low, high float64) string {
	marks := []rune("▁▂▃▄▅▆▇█")
	if !t.o.Unicode {
		marks = []rune("_.-:=+*#")
	}
	sum, n := make([]float64, room), make([]float64, room)
	for _, p := range l.points {
		i := min(p.column*room/columns, room-1)
		sum[i] += p.mean
		n[i]++
	}
	out := make([]rune, room)
	for i := range out {
		switch {
		case n[i] == 0:
			out[i] = ' '
		case high <= low:
			out[i] = marks[len(marks)/2]
		default:
			out[i] = marks[min(max(int((sum[i]/n[i]-low)/(high-low)*float64(len(marks))), 0), len(marks)-1)]
		}
	}
	return string(out)
}
