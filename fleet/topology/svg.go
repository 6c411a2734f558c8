package topology

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// Measures of the picture, in pixels.
const (
	colWidth  = 156
	gap       = 12
	pad       = 14
	margin    = 24
	lineStep  = 15
	titleStep = 18
	fontSize  = 11
	// charWidth is that of the font at fontSize: it has one width for all characters, so that a text's width is known without the font.
	charWidth = 6.7
)

var fill = map[string]string{"gpu": "#e7f4e4", "hca": "#e3eefb", "drive": "#f3eefa", "nic": "#e3eefb", "nvswitch": "#fdf3dc", "fabric": "#fdf3dc"}
var edge = map[string]string{"gpu": "#4c8c3f", "hca": "#3b6fb0", "drive": "#7a5ca8", "nic": "#3b6fb0", "nvswitch": "#b08a2e", "fabric": "#b08a2e"}

type canvas struct {
	b strings.Builder
	// foot is where a GPU's links begin, by component.
	foot map[string][2]int
}

// SVG draws the layout. It is self-contained: no script, no font, no link.
func (l Layout) SVG() []byte {
	c := &canvas{foot: map[string][2]int{}}
	width := margin
	for _, n := range l.Nodes {
		width += panelWidth(n) + gap
	}
	width = max(width-gap+margin, 520)
	y := margin + 34
	bodyHeight := 0
	others := 0
	for _, n := range l.Nodes {
		others = max(others, otherRows(n))
	}
	x := margin
	for _, n := range l.Nodes {
		bodyHeight = max(bodyHeight, c.panel(n, x, y, others))
		x += panelWidth(n) + gap
	}
	// Panels are drawn once their common height is known.
	var body strings.Builder
	x = margin
	for _, n := range l.Nodes {
		fmt.Fprintf(&body, `<rect x="%d" y="%d" width="%d" height="%d" rx="8" fill="#fafafa" stroke="#c8c8c8"/>`+"\n", x, y, panelWidth(n), bodyHeight)
		x += panelWidth(n) + gap
	}
	body.WriteString(c.b.String())
	c.b.Reset()
	y += bodyHeight
	if len(l.Switches) > 0 {
		y = c.fabric(l, y, width)
	}
	y = c.legend(l, y+20, width)
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="%d">`+"\n", width, y, width, y, fontSize)
	fmt.Fprintf(&out, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, y)
	fmt.Fprintf(&out, `<text x="%d" y="%d" font-size="18" font-weight="bold" fill="#222">%s</text>`+"\n", margin, margin+14, html.EscapeString(fit(plain(l.Title), int(float64(width-2*margin)*fontSize/18))))
	out.WriteString(body.String())
	out.WriteString(c.b.String())
	out.WriteString("</svg>\n")
	return []byte(out.String())
}

func columns(n Node) int {
	k := 0
	for _, g := range n.Groups {
		k += len(g.Rails)
	}
	return max(k, 1)
}

func panelWidth(n Node) int { return columns(n)*(colWidth+gap) - gap + 2*pad }

func otherRows(n Node) int { return (len(n.Others) + columns(n) - 1) / columns(n) }

// panel draws a NUMA node and returns its height.
func (c *canvas) panel(n Node, x, y, others int) int {
	head := fmt.Sprintf("NUMA %d", n.ID)
	if n.ID < 0 {
		head = "NUMA not told"
	}
	c.text(x+pad, y+20, panelWidth(n)-2*pad, "#222", true, head)
	sub := strings.Trim("CPUs "+n.CPUs+", "+sizeText(n.MemoryBytes), ", ")
	if n.CPUs != "" {
		c.text(x+pad, y+36, panelWidth(n)-2*pad, "#666", false, sub)
	}
	top := y + 48
	for i, p := range n.Others {
		c.box(p, x+pad+(i%columns(n))*(colWidth+gap), top+(i/columns(n))*(boxHeight(3)+8), boxHeight(3))
	}
	top += others * (boxHeight(3) + 8)
	// Rows are as high in one panel as in the others, for the same kinds of boxes.
	bridge := top + 4
	left := x + pad
	height := 0
	for _, g := range n.Groups {
		w := len(g.Rails)*(colWidth+gap) - gap
		if g.Bridge != "" {
			c.bar(g, left, bridge, w)
		}
		for _, r := range g.Rails {
			at := bridge + 36
			if r.HCA != nil {
				c.wire(left+colWidth/2, bridge+22, at)
				c.box(*r.HCA, left, at, boxHeight(3))
			} else {
				c.ghost(left, at, boxHeight(3), "no HCA")
			}
			at += boxHeight(3) + 8
			for _, d := range r.Drives {
				c.box(d, left, at, boxHeight(1))
				at += boxHeight(1) + 8
			}
			at += max(0, 1-len(r.Drives)) * (boxHeight(1) + 8)
			c.box(r.GPU, left, at, boxHeight(4))
			c.foot[r.GPU.Component] = [2]int{left + colWidth/2, at + boxHeight(4)}
			height = max(height, at+boxHeight(4)-y)
			left += colWidth + gap
		}
	}
	return max(height, top-y) + pad
}

func boxHeight(lines int) int { return titleStep + lines*lineStep + 10 }

func colours(kind, state string) (fillColour, edgeColour string, stroke int) {
	switch state {
	case Bad:
		return "#fde4e2", "#c62828", 3
	case Warning:
		return "#fff4d6", "#d08700", 3
	}
	return fill[kind], edge[kind], 1
}

func (c *canvas) box(p Part, x, y, h int) {
	f, e, s := colours(p.Kind, p.State)
	fmt.Fprintf(&c.b, `<rect x="%d" y="%d" width="%d" height="%d" rx="5" fill="%s" stroke="%s" stroke-width="%d"><title>%s</title></rect>`+"\n", x, y, colWidth, h, f, e, s, html.EscapeString(plain(p.Component)))
	title := p.Title
	if p.State != OK {
		title = "! " + title
	}
	c.text(x+9, y+titleStep, colWidth-16, "#111", true, title)
	for i, s := range p.Lines {
		if titleStep+(i+1)*lineStep > h-4 {
			break
		}
		c.text(x+9, y+titleStep+(i+1)*lineStep, colWidth-16, "#444", false, s)
	}
}

func (c *canvas) ghost(x, y, h int, words string) {
	fmt.Fprintf(&c.b, `<rect x="%d" y="%d" width="%d" height="%d" rx="5" fill="none" stroke="#aaa" stroke-dasharray="5 4"/>`+"\n", x, y, colWidth, h)
	c.text(x+9, y+titleStep, colWidth-16, "#888", false, words)
}

func (c *canvas) bar(g Group, x, y, w int) {
	colour := "#666"
	if g.State != OK {
		_, colour, _ = colours("", g.State)
	}
	fmt.Fprintf(&c.b, `<rect x="%d" y="%d" width="%d" height="22" rx="4" fill="#eceff1" stroke="%s"/>`+"\n", x, y, w, colour)
	c.text(x+9, y+15, w-16, "#333", false, "PCIe "+g.Bridge)
}

func (c *canvas) wire(x, from, to int) {
	fmt.Fprintf(&c.b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#888" stroke-width="2"/>`+"\n", x, from, x, to)
}

func (c *canvas) text(x, y, width int, colour string, bold bool, s string) {
	weight := ""
	if bold {
		weight = ` font-weight="bold"`
	}
	fmt.Fprintf(&c.b, `<text x="%d" y="%d" fill="%s"%s>%s</text>`+"\n", x, y, colour, weight, html.EscapeString(plain(fit(s, width))))
}

// fit cuts a text to what a width holds at fontSize.
func fit(s string, width int) string {
	r := []rune(s)
	n := int(float64(width) / charWidth)
	if len(r) <= n || n < 2 {
		return s
	}
	return string(r[:n-1]) + "…"
}

// fabric draws the NVSwitches below the panels, with a line for each bundle of links.
func (c *canvas) fabric(l Layout, y, width int) int {
	const room = 128 // for the lines between GPUs and switches
	n := len(l.Switches)
	boxes := n*colWidth + (n-1)*gap*3
	step := colWidth + gap*3
	if boxes > width-2*margin {
		step = (width - 2*margin) / n
		boxes = step * n
	}
	left := (width - boxes) / 2
	top := y + room
	var lines, labels strings.Builder
	for _, b := range slices.Backward(l.Bundles) {
		from, ok := c.foot[b.GPU]
		if !ok {
			continue
		}
		sx := left + b.Chip*step + colWidth/2
		// Lines to one switch end side by side, in the GPUs' order.
		sx += (from[0] - width/2) * (colWidth - 30) / width
		if l.Switches[b.Chip].Kind == "fabric" {
			sx = from[0] // the box is as wide as the picture
		}
		fx := from[0] + (2*b.Chip-n+1)*colWidth*3/(8*max(n, 2))
		colour, w := "#9bb58f", float64(b.Links)*0.45
		if b.State != OK {
			_, colour, _ = colours("", b.State)
			w = max(w, 2.5)
		}
		line := fmt.Sprintf(`<path d="M%d %d C%d %d %d %d %d %d" fill="none" stroke="%s" stroke-width="%.1f" stroke-opacity="0.85"><title>%s to %s: %d of %d links up</title></path>`+"\n",
			fx, from[1], fx, from[1]+room*3/5, sx, top-room*3/5, sx, top, colour, w, html.EscapeString(b.GPU), html.EscapeString(l.Switches[b.Chip].Title), b.Up, b.Links)
		text := fmt.Sprint(b.Links)
		if b.Up != b.Links {
			text = fmt.Sprintf("%d/%d", b.Up, b.Links)
		}
		label := fmt.Sprintf(`<text x="%d" y="%d" font-size="9" text-anchor="middle" fill="%s" stroke="#fff" stroke-width="2.5" paint-order="stroke">%s</text>`+"\n", fx, from[1]+14+pad, map[bool]string{true: "#55684d", false: colour}[b.State == OK], text)
		if b.State == OK {
			lines.WriteString(line)
		} else {
			labels.WriteString(line) // above the others
		}
		labels.WriteString(label)
	}
	c.b.WriteString(lines.String())
	c.b.WriteString(labels.String())
	for i, s := range l.Switches {
		if s.Kind == "fabric" {
			f, e, w := colours(s.Kind, s.State)
			fmt.Fprintf(&c.b, `<rect x="%d" y="%d" width="%d" height="%d" rx="5" fill="%s" stroke="%s" stroke-width="%d"/>`+"\n", margin, top, width-2*margin, boxHeight(1), f, e, w)
			c.text(margin+9, top+titleStep, width-2*margin-16, "#111", true, s.Title)
			c.text(margin+9, top+titleStep+lineStep, width-2*margin-16, "#444", false, strings.Join(s.Lines, ", "))
			continue
		}
		c.box(s, left+i*step, top, boxHeight(1))
	}
	return top + boxHeight(1)
}

// legend writes what is absent, what is wrong, and which NUMA nodes carry nothing; it returns the picture's height.
func (c *canvas) legend(l Layout, y, width int) int {
	if len(l.Empty) > 0 {
		y += lineStep
		c.text(margin, y, width-2*margin, "#666", false, "NUMA nodes without devices: "+strings.Trim(fmt.Sprint(l.Empty), "[]"))
	}
	for _, p := range l.Absent {
		y += lineStep
		c.text(margin, y, width-2*margin, "#c62828", true, "absent: "+p.Title)
	}
	for _, n := range l.Notes {
		_, colour, _ := colours("", n.State)
		for i, line := range wrap(n.Component+": "+n.Words, int(float64(width-2*margin-20)/charWidth)) {
			y += lineStep
			if i == 0 {
				fmt.Fprintf(&c.b, `<circle cx="%d" cy="%d" r="5" fill="%s"/>`+"\n", margin+5, y-4, colour)
			}
			c.text(margin+20, y, width-2*margin-20, "#222", false, line)
		}
	}
	if len(l.Notes) == 0 {
		y += lineStep
		c.text(margin, y, width-2*margin, "#2e7d32", false, "nothing differs")
	}
	return y + margin
}

// wrap breaks a text at spaces into lines of at most n characters.
func wrap(s string, n int) (lines []string) {
	line := ""
	for _, w := range strings.Fields(s) {
		if line != "" && len([]rune(line))+1+len([]rune(w)) > n {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += w
	}
	return append(lines, line)
}
