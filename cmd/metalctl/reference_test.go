//go:build !ramdisk

package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/metalctl/metalctl/fleet"
)

// golden compares a generated document with the one in the repository; METALCTL_UPDATE=1 writes it anew.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv("METALCTL_UPDATE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not what the code says; look, then: make generate\n%s", path, diff)
	}
}

func TestDocsErrors(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Error codes\n\nGenerated from the table that `metalctl help CODE` prints (fleet/codes_machine.go, fleet/codes_server.go); to change it, change that and run `make generate`.\n")
	for _, code := range slices.Sorted(maps.Keys(fleet.Codes)) {
		page := fleet.Codes[code]
		fmt.Fprintf(&b, "\n## %s: %s\n\n%s\n", code, page.Title, strings.TrimSpace(page.Text))
	}
	golden(t, "../../docs/errors.md", b.String())
}

func TestDocsCLI(t *testing.T) {
	t.Setenv("METALCTL_SERVER", "")
	t.Setenv("METALCTL_TOKEN_FILE", "")
	t.Setenv("METALCTL_CACERT", "")
	root := treeForTest()
	var b strings.Builder
	b.WriteString("# Commands\n\nGenerated from the command tree; to change it, change that and run `make generate`.\n\n```text\n" + exitCodesText + "```\n\n## Flags of every command\n\n")
	flagList(&b, root.PersistentFlags())
	for _, c := range tree(root) {
		if isNoun(c) || c.Hidden || c.Name() == "completion" || c.HasParent() && c.Parent().Name() == "completion" {
			continue
		}
		if c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		fmt.Fprintf(&b, "\n## %s\n\n", c.CommandPath())
		text := c.Short + "."
		if c.Long != "" {
			text = strings.TrimSpace(c.Long)
		}
		fmt.Fprintf(&b, "%s\n\n```text\n%s\n```\n\nExample:\n\n```sh\n%s\n```\n", text, c.UseLine(), unindent(c.Example))
		if flags := c.LocalFlags(); flags.HasAvailableFlags() {
			b.WriteString("\n")
			flagList(&b, flags)
		}
	}
	golden(t, "../../docs/cli.md", b.String())
}

func flagList(b *strings.Builder, flags *pflag.FlagSet) {
	home, _ := os.UserHomeDir() // without one, no default lies in it
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		kind, usage := pflag.UnquoteUsage(f)
		if kind != "" {
			name += " " + kind
		}
		def := ""
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" && f.DefValue != "0s" {
			def = " (default " + f.DefValue + ")"
		}
		for _, private := range []string{defaultDataDir(), os.TempDir(), home} {
			if len(private) > 1 {
				usage, def = strings.ReplaceAll(usage, private, "…"), strings.ReplaceAll(def, private, "…")
			}
		}
		fmt.Fprintf(b, "- `%s`: %s%s\n", name, usage, def)
	})
}

// unindent drops the two spaces that examples stand in by.
func unindent(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}

// TestExamples holds every example to its own command.
func TestExamples(t *testing.T) {
	root := treeForTest()
	for _, c := range tree(root) {
		if c.Example == "" || c.Parent() != nil && c.Parent().Name() == "completion" {
			continue
		}
		if !strings.Contains(c.Example, strings.TrimSpace(c.CommandPath())) {
			t.Errorf("the example of %s shows another command: %s", c.CommandPath(), c.Example)
		}
	}
}
