package report

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

//go:embed page
var pageFiles embed.FS

// page is what the template of a report is filled with.
type page struct {
	R       fleet.BurnReport
	Name    string
	Style   template.CSS
	Script  template.JS
	Policy  string
	Counts  []outcomeCount
	Actions []action
	Found   []finding
	Tables  []table
	Plots   []plot
	Flat    string // what never changed
	Strip   string
	Picture template.HTML
	Parts   []partGroup
	Limits  []usedLimit
	Stages  []stageSum
	Engines string
	Checks  []fleet.Check
	Length  string
}

type outcomeCount struct {
	Outcome fleet.Outcome
	Words   string
	N       int
}

type plot struct {
	Title, Seen string
	Lines       []plotLine
	SVG         template.HTML
	Hidden      bool // nothing is to be seen: below a fold
}

type plotLine struct {
	Name, Class, Most, Median string
}

// HTML writes a report as one page that needs nothing but itself: no other file, no network, no script. A small script filters the list of checks where the
// browser runs it; the page's own policy allows no other, and nothing from outside.
func HTML(w io.Writer, r fleet.BurnReport) error {
	style, err := pageFiles.ReadFile("page/style.css")
	if err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	script, err := pageFiles.ReadFile("page/filter.js")
	if err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	t, err := template.New("report.html").Funcs(pageFuncs(&r)).ParseFS(pageFiles, "page/report.html")
	if err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	sum := sha256.Sum256(script)
	p := page{
		R: r, Name: plain(nodeName(&r)), Style: template.CSS(style), Script: template.JS(script),
		Policy:  "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'",
		Actions: actions(&r), Found: findings(&r), Tables: sideBySide(&r), Parts: partGroups(&r), Limits: usedLimits(&r), Stages: stageSums(&r),
		Engines: strings.Join(engines(&r), ", "), Checks: worstFirst(r.Checks), Length: span(elapsed(&r)), Counts: outcomeCounts(&r),
	}
	all := groups(&r)
	p.Flat = flatWords(all)
	for _, hidden := range []bool{false, true} {
		for _, g := range all {
			if !g.flat() && g.shown() != hidden {
				p.Plots = append(p.Plots, plotOf(&r, &g))
			}
		}
	}
	_, p.Strip = stripOf(&r)
	if l, ok := layout(&r); ok {
		p.Picture = inline(l.SVG())
	}
	if err := t.Execute(w, p); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

func outcomeCounts(r *fleet.BurnReport) (out []outcomeCount) {
	for _, o := range outcomes {
		n := 0
		for _, c := range r.Checks {
			if c.Outcome == o {
				n++
			}
		}
		if n > 0 {
			out = append(out, outcomeCount{o, outcomeWords(o), n})
		}
	}
	return out
}

func plotOf(r *fleet.BurnReport, g *group) plot {
	p := plot{Title: g.title() + ", " + unitWord(g.unit), Seen: g.seen(), SVG: template.HTML(g.svg(r))} // all text in it is escaped where it is written
	marked := g.markedOnes()
	for i, l := range g.lines {
		class := fmt.Sprintf("c%d", i%hues)
		if hue := slices.Index(marked, i); hue >= 0 {
			class = fmt.Sprintf("marked m%d", hue%marks)
		} else if len(marked) > 0 || len(g.lines) > tooMany {
			class = "fellow"
		}
		p.Lines = append(p.Lines, plotLine{called(l.component), class, number(l.most), number(l.median)})
	}
	p.Hidden = !g.shown()
	return p
}

var svgSize = regexp.MustCompile(`^<svg ([^>]*?)width="\d+" height="\d+" `)

// inline is a picture that grows and shrinks with the page; fleet/topology has escaped what is in it.
func inline(svg []byte) template.HTML {
	return template.HTML(svgSize.ReplaceAllString(string(svg), `<svg $1`))
}

// pageFuncs are what the template calls. Text from a report goes through text: what is no character is none in a page, either.
func pageFuncs(r *fleet.BurnReport) template.FuncMap {
	return template.FuncMap{
		"text":      func(s any) string { return plain(fmt.Sprint(s)) },
		"called":    called,
		"kindWord":  kindWord,
		"stamp":     stamp,
		"measured":  measured,
		"limit":     limitShort,
		"limitAll":  limitWords,
		"advice":    adviceWords,
		"words":     outcomeWords,
		"sign":      sign,
		"serial":    func(component string) string { p, _ := part(r, component); return p.Serial },
		"codeTitle": func(code string) string { return fleet.Codes[code].Title },
		"codeText":  func(code string) string { return fleet.Codes[code].Text },
		"finding":   findingName,
		"verdict":   verdictWords,
	}
}

// sign tells outcomes apart without colour.
func sign(o fleet.Outcome) string {
	switch o {
	case fleet.Pass:
		return "✓"
	case fleet.Warn:
		return "▲"
	case fleet.Fail:
		return "✗"
	case fleet.Skip:
		return "–"
	}
	return "?"
}

// verdictWords say what a verdict means for the machine.
func verdictWords(r fleet.BurnReport) string {
	switch {
	case r.Verdict == fleet.Fail:
		return "Something is broken. The machine may not be handed out."
	case r.Verdict == fleet.CouldNotTell:
		return "It is not known whether this machine is well, and no part is condemned. It may not be handed out."
	case !r.Finished:
		return "It did not finish, so that it proves nothing."
	case r.Fixture != "":
		return "It says what the judge makes of this machine, and nothing about any hardware."
	case r.Verdict == fleet.Warn:
		return "It passed with remarks. The machine may be handed out."
	}
	return "The machine may be handed out."
}
