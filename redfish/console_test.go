package redfish_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/bmc"
	"github.com/metalctl/metalctl/redfish"
)

func TestConsole(t *testing.T) {
	for _, personality := range []string{"generic", "openbmc-gb200"} {
		t.Run(personality, func(t *testing.T) {
			e := emulate(t, bmc.Config{Personality: personality, SecureBoot: true})
			b, err := redfish.Dial(t.Context(), e.URL(), options(e))
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close(t.Context())
			read := func(after int64) ([]string, int64) {
				t.Helper()
				lines, end, err := b.Console(t.Context(), after)
				if err != nil {
					t.Fatal(err)
				}
				var out []string
				for _, l := range lines {
					if l.At.IsZero() {
						t.Errorf("line %q has no time", l.Text)
					}
					out = append(out, l.Text)
				}
				return out, end
			}
			got, end := read(-1)
			if len(got) > 0 || end != -1 {
				t.Fatalf("an empty console: %q, %d", got, end)
			}
			e.HostSaid([]byte("\x1b[2J\x1b[01;01H\x1b[=3h\r\n  Downloading...1%\r  Downloading...2%\r\nBdsDxe: loading\r\npart"))
			got, end = read(end)
			if d := cmp.Diff(got, []string{"Downloading...2%", "BdsDxe: loading"}); d != "" {
				t.Error(d)
			}
			e.HostSaid([]byte("ly\n"))
			if got, end = read(end); len(got) != 1 || got[0] != "partly" {
				t.Errorf("the next line: %q", got)
			}
			e.HostSaid([]byte(strings.Repeat("x\n", 2500) + "the last\n"))
			if got, end = read(end); len(got) != 1000 || got[999] != "the last" {
				t.Errorf("after much: %d lines", len(got))
			}
			if got, next := read(end); len(got) > 0 || next != end {
				t.Errorf("nothing new: %q, %d", got, next)
			}
			if got, next := read(end + 1000); len(got) != 1000 || next != end {
				t.Errorf("a log that began anew: %d lines up to %d", len(got), next)
			}
			if s, err := b.SecureBoot(t.Context()); s != "Enabled" || err != nil {
				t.Errorf("Secure Boot %q, %v", s, err)
			}
		})
	}
}

func TestNoConsole(t *testing.T) {
	e := emulate(t, bmc.Config{Personality: "ilo5"})
	b, err := redfish.Dial(t.Context(), e.URL(), options(e))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(t.Context())
	before := 0
	for i := range 3 {
		lines, end, err := b.Console(t.Context(), -1)
		if len(lines) > 0 || end != -1 || err != nil {
			t.Errorf("%v, %d, %v", lines, end, err)
		}
		if n := len(e.RequestLog()); i > 0 && n != before {
			t.Errorf("a BMC that keeps no console was asked again: %s", fmt.Sprint(e.RequestLog()[before:]))
		} else {
			before = n
		}
	}
}
