//go:build !ramdisk

package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// notCommands is what else follows the program's name: sentences about it, and the headings of its own formats.
var notCommands = []string{"is ", "was ", "again", "as ", "enrols", "store", "data key", "pack manifest", "boot medium", "debug shell", "that", "takes GPU", "%"}

var (
	mention     = regexp.MustCompile(`(?:^|[^=/\w-])metalctl `)
	mentionEnd  = regexp.MustCompile(`[\x60\n"()]`)
	placeholder = regexp.MustCompile(`^[A-Z][A-Z0-9-]*$`)
	verbose     = regexp.MustCompile(`%[a-z]`)
)

// checkMention says what is wrong with a text such as "node show NODE lists it": no such command, no such flag, or an argument of another kind.
func checkMention(root *cobra.Command, text string) error {
	cmd, args, flagValue := root, 0, false
	if slices.ContainsFunc(notCommands, func(s string) bool { return strings.HasPrefix(text, s) }) {
		return nil
	}
	for i, word := range strings.Fields(text) {
		bare := strings.TrimRight(word, ".,;:…")
		end := bare != word
		bare = strings.Trim(bare, "'’[]|")
		switch {
		case strings.HasPrefix(bare, "-") && len(bare) > 1:
			name, _, valued := strings.Cut(strings.TrimLeft(bare, "-"), "=")
			flag := cmd.Flags().Lookup(name)
			if flag == nil {
				flag = cmd.InheritedFlags().Lookup(name)
			}
			if flag == nil && !strings.HasPrefix(bare, "--") && len(name) == 1 {
				if flag = cmd.Flags().ShorthandLookup(name); flag == nil {
					flag = cmd.InheritedFlags().ShorthandLookup(name)
				}
			}
			if flag == nil && name != "help" {
				return fmt.Errorf("%s has no flag %s", cmd.CommandPath(), bare)
			}
			flagValue = flag != nil && !valued && flag.NoOptDefVal == ""
		case flagValue:
			flagValue = false
		case bare == "/" || bare == "|" || bare == "&&":
			return nil
		default:
			if sub := child(cmd, bare); sub != nil && args == 0 {
				cmd = sub
				break
			}
			if cmd == root {
				return fmt.Errorf("there is no command %q", bare)
			}
			if placeholder.MatchString(bare) {
				if args == 0 && !strings.Contains(cmd.Use, bare) && cmd.Name() != "help" {
					return fmt.Errorf("%s takes no %s but: %s", cmd.CommandPath(), bare, cmd.Use)
				}
				args++
				break
			}
			if cmd.HasSubCommands() && !cmd.HasParent() || isNoun(cmd) && i > 0 && !verbose.MatchString(bare) {
				return fmt.Errorf("%s has no verb %q", cmd.CommandPath(), bare)
			}
			args++
		}
		if end {
			break
		}
	}
	return nil
}

func child(cmd *cobra.Command, name string) *cobra.Command {
	for _, c := range cmd.Commands() {
		if c.Name() == name || c.HasAlias(name) {
			return c
		}
	}
	return nil
}

// isNoun reports whether a command only groups verbs.
func isNoun(c *cobra.Command) bool { return c.HasSubCommands() && c.Annotations["noun"] != "" }

func treeForTest() *cobra.Command {
	root := newRoot(&program{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

func TestCheckMention(t *testing.T) {
	root := treeForTest()
	for text, ok := range map[string]bool{
		"node show NODE lists them":                      true,
		"node shows NODE":                                false,
		"node set NODE --class CLASS, where":             true,
		"node set NODE --colour red":                     false,
		"node, or something":                             true,
		"image add FILE":                                 false,
		"image add NAME --file FILE":                     true,
		"server, or give another address with --nothing": true,
		"servers":                    false,
		"is older than the store":    true,
		"bmc credential set NODE":    true,
		"lease release %s":           true,
		"events --follow -o jsonl":   true,
		"events -z":                  false,
		"help MC-BMC-AUTH":           true,
		"node power off NODE --full": false,
	} {
		if err := checkMention(root, text); (err == nil) != ok {
			t.Errorf("metalctl %s: got %v, want ok %v", text, err, ok)
		}
	}
}

// TestCommandsExist holds every command that a person is told to type to the command tree: in error pages, in hints and other texts of the sources, in
// examples, and in the documents.
func TestCommandsExist(t *testing.T) {
	root := treeForTest()
	count := 0
	check := func(where, text string) {
		text = strings.ReplaceAll(text, "--user metalctl", "--user USER")
		for _, said := range mention.Split(text, -1)[1:] {
			count++
			said = mentionEnd.Split(said, 2)[0]
			if err := checkMention(root, said); err != nil {
				t.Errorf("%s: metalctl %s: %v", where, said, err)
			}
		}
	}
	for code, page := range fleet.Codes {
		check("fleet.Codes "+code, page.Title+"\n"+page.Text)
	}
	fset := token.NewFileSet()
	for _, path := range houseFiles(t) {
		name := strings.TrimPrefix(path, "../../")
		if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "fleet/codes") || strings.HasPrefix(name, "scripts/") {
			continue
		}
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					check(fset.Position(lit.Pos()).String(), s)
				}
			}
			return true
		})
	}
	var docs []string
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../docs/operate/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, found...)
	}
	for _, path := range docs {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		check(filepath.Base(path), string(b))
	}
	if count < 200 {
		t.Errorf("only %d commands were found: the search is broken", count)
	}
}

// TestTakesCanBeTyped: whatever a node is said to take has a command.
func TestTakesCanBeTyped(t *testing.T) {
	node := child(treeForTest(), "node")
	verbs := []fleet.Verb{api.VerbHold, api.VerbUnhold, api.VerbProtect, api.VerbUnprotect, api.VerbRetry, api.VerbClearFault, api.VerbRepair}
	for _, s := range fleet.States() {
		verbs = append(verbs, fleet.Takes(s)...)
	}
	for _, v := range verbs {
		if child(node, string(v)) == nil {
			t.Errorf("there is no command metalctl node %s", v)
		}
	}
}
