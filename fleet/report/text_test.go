package report

import (
	"bytes"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/metalctl/metalctl/fixtures/reports"
	"github.com/metalctl/metalctl/fleet/topology"
)

func TestText(t *testing.T) {
	all := everyReport()
	all["hostile"] = hostile()
	for name, r := range all {
		for _, o := range []topology.TextOptions{{}, {Width: 40, Unicode: true}, {Width: 80}, {Width: 132, Unicode: true, Colour: true}} {
			var b bytes.Buffer
			if err := Text(&b, r, o); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(b.String()) {
				line = strings.TrimSuffix(line, "\n")
				if o.Colour {
					line = strings.TrimSuffix(line, "\x1b[0m")
					if i := strings.Index(line, "m"); strings.HasPrefix(line, "\x1b[") {
						line = line[i+1:]
					}
				}
				if o.Width > 0 && utf8.RuneCountInString(line) > o.Width {
					t.Errorf("%s, %+v: %d columns: %s", name, o, utf8.RuneCountInString(line), line)
				}
				if i := strings.IndexFunc(line, func(r rune) bool {
					return unicode.IsControl(r) || unicode.In(r, unicode.Cf) || !o.Unicode && r > unicode.MaxASCII
				}); i >= 0 {
					t.Errorf("%s, %+v: %q", name, o, line)
				}
			}
		}
	}
}

func TestTextSays(t *testing.T) {
	var b bytes.Buffer
	if err := Text(&b, reports.Of(reports.Options{Hours: 6, Sick: reports.Hot}), topology.TextOptions{Width: 100, Unicode: true}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"✗ FAIL  hgx-001, profile acceptance, took 6 h\n",
		"  1. GPU 6 in slot SXM6, serial 1650723040296: take it out, look at it and seat it again\n",
		"  ✗ gpu/6  gpu-temperature-max  89 °C, at most 87 °C  MC-GPU-HOT\n",
		"      - fans ran at 92 % of their speed\n",
		"GPU temperature, ",
		"▲ GPU 6 ",
		"  GPU 7 ",
		"  nvlink 149, GPU 2, 12 times: NVRM: Xid",
		"Checks: 3 fail, 2 warn, 479 pass, 1 skipped; measured by builtin 1, builtin-ptx 1\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
