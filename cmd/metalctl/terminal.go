package main

import (
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/metalctl/metalctl/fleet/topology"
)

// textOptions are what the terminal shows: no colour where it is none or NO_COLOR is set, plain characters where its locale knows no others.
func (p *program) textOptions() topology.TextOptions {
	o := topology.TextOptions{Unicode: true}
	locale := os.Getenv("LC_ALL")
	for _, name := range []string{"LC_CTYPE", "LANG"} {
		if locale == "" {
			locale = os.Getenv(name)
		}
	}
	if l := strings.ToLower(locale); !strings.Contains(l, "utf-8") && !strings.Contains(l, "utf8") {
		o.Unicode = false
	}
	if f, ok := p.stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		o.Colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			o.Width = w
		}
	}
	return o
}
