package topology

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// TextOptions say what a terminal can show.
type TextOptions struct {
	Width   int // columns; 0 is no limit
	Colour  bool
	Unicode bool
}

// Text draws the layout for a terminal, one part a line, then the links as a table of GPUs and switches.
func (l Layout) Text(o TextOptions) string {
	t := &page{o: o, tee: "|- ", end: "`- ", bar: "|  ", bad: "X ", warn: "! "}
	if o.Unicode {
		t.tee, t.end, t.bar, t.bad, t.warn = "├─ ", "└─ ", "│  ", "✗ ", "▲ "
	}
	t.line(OK, l.Title)
	for _, n := range l.Nodes {
		head := fmt.Sprintf("NUMA %d", n.ID)
		if n.ID < 0 {
			head = "NUMA not told"
		}
		if n.CPUs != "" {
			head += "  cpus " + n.CPUs
		}
		if n.MemoryBytes > 0 {
			head += "  " + sizeText(n.MemoryBytes)
		}
		t.line(OK, head)
		for i, g := range n.Groups {
			branch, under := t.tee, t.bar
			if i == len(n.Groups)-1 && len(n.Others) == 0 {
				branch, under = t.end, "   "
			}
			name := "PCIe switch " + g.Bridge
			if g.Bridge == "" {
				name = "PCIe"
			}
			t.line(g.State, branch+name)
			var parts []Part
			for _, r := range g.Rails {
				gpu := r.GPU
				parts = append(parts, gpu)
				if r.HCA != nil {
					h := *r.HCA
					if r.Distance != "" {
						h.Lines = append(h.Lines[:len(h.Lines):len(h.Lines)], r.Distance+" to its GPU")
					}
					parts = append(parts, h)
				}
				parts = append(parts, r.Drives...)
			}
			t.parts(under, parts)
		}
		t.parts("", n.Others)
	}
	if len(l.Empty) > 0 {
		t.line(OK, "NUMA nodes without devices: "+strings.Trim(fmt.Sprint(l.Empty), "[]"))
	}
	t.links(l)
	for _, p := range l.Absent {
		t.line(p.State, "absent: "+p.Title)
	}
	for _, n := range l.Notes {
		t.note(n)
	}
	return t.b.String()
}

type page struct {
	o                        TextOptions
	b                        strings.Builder
	tee, end, bar, bad, warn string
}

func (t *page) parts(indent string, parts []Part) {
	for i, p := range parts {
		branch := t.tee
		if i == len(parts)-1 {
			branch = t.end
		}
		t.line(p.State, fmt.Sprintf("%s%s%-8s %s", indent, branch, p.Title, strings.Join(p.Lines, "  ")))
	}
}

// line writes one line with its mark in front, cut to the width.
func (t *page) line(state, s string) {
	mark := "  "
	switch state {
	case Bad:
		mark = t.bad
	case Warning:
		mark = t.warn
	}
	s = strings.TrimRight(mark+plain(s), " ")
	if w := t.o.Width; w > 3 && utf8.RuneCountInString(s) > w {
		dots := "..."
		if t.o.Unicode {
			dots = "…"
		}
		r := []rune(s)
		s = string(r[:w-utf8.RuneCountInString(dots)]) + dots
	}
	t.b.WriteString(t.paint(state, s))
	t.b.WriteByte('\n')
}

func (t *page) paint(state, s string) string {
	if !t.o.Colour || state == OK {
		return s
	}
	code := "33"
	if state == Bad {
		code = "31"
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// links is a table: how many links of each GPU lead to each switch, and how many of them are up where that is not all.
func (t *page) links(l Layout) {
	if len(l.Bundles) == 0 {
		return
	}
	speed := 0.0
	for _, b := range l.Bundles {
		speed = max(speed, b.SpeedGBps)
	}
	t.line(OK, fmt.Sprintf("NVLinks, %g GB/s each way", speed))
	head := fmt.Sprintf("   %-10s", "")
	for _, s := range l.Switches {
		head += fmt.Sprintf("%15s", s.Title)
	}
	t.line(OK, head)
	row := map[string]int{}
	var order []string
	for i, b := range l.Bundles {
		if _, ok := row[b.GPU]; !ok {
			order = append(order, b.GPU)
			row[b.GPU] = i
		}
	}
	for _, g := range order {
		s, state := fmt.Sprintf("   %-10s", strings.Replace(g, "gpu/", "GPU ", 1)), OK
		for chip := range l.Switches {
			cell := "-"
			for _, b := range l.Bundles {
				if b.GPU != g || b.Chip != chip {
					continue
				}
				cell = fmt.Sprint(b.Links)
				if b.Up != b.Links {
					cell = fmt.Sprintf("%d of %d up", b.Up, b.Links)
				}
				if b.State == Bad || b.State == Warning && state == OK {
					state = b.State
				}
			}
			s += fmt.Sprintf("%15s", cell)
		}
		t.line(state, s)
	}
}

func (t *page) note(n Note) {
	width := t.o.Width
	if width < 30 {
		width = 200
	}
	for i, s := range wrap(n.Component+": "+n.Words, width-4) {
		if i == 0 {
			t.line(n.State, s)
		} else {
			t.b.WriteString(t.paint(n.State, "    "+plain(s)) + "\n")
		}
	}
}

// plain replaces control characters: names come from devices.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
}
