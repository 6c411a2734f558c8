//go:build !ramdisk

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

// Each key of a log line in the product is in the one list, each of the list is used, and the documentation has all of them.
func TestLogKeys(t *testing.T) {
	known, used := map[string]bool{}, map[string]bool{}
	for _, k := range fleet.LogKeys() {
		known[k.Key] = true
	}
	named := map[string]string{"LogNode": fleet.LogNode, "LogNodes": fleet.LogNodes, "LogOperation": fleet.LogOperation, "LogStep": fleet.LogStep, "LogTry": fleet.LogTry, "LogLease": fleet.LogLease, "LogFabric": fleet.LogFabric}
	lines := 0
	for _, path := range houseFiles(t) {
		if strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/testdata/") || strings.Contains(path, "/fixtures/") || strings.Contains(path, "/test/") || strings.Contains(path, "/scripts/") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		key := func(e ast.Expr) string {
			switch e := e.(type) {
			case *ast.BasicLit:
				s, err := strconv.Unquote(e.Value)
				if err != nil {
					t.Fatal(err)
				}
				return s
			case *ast.SelectorExpr:
				return named[e.Sel.Name]
			}
			return ""
		}
		ast.Inspect(f, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			pairs, is := logPairs(c)
			if !is {
				return true
			}
			lines++
			for i := 0; i+1 < len(pairs); i += 2 {
				k := key(pairs[i])
				if used[k] = true; !known[k] {
					t.Errorf("%s: key %q is not in fleet.LogKeys", fset.Position(pairs[i].Pos()), k)
				}
			}
			return true
		})
	}
	if lines < 80 {
		t.Errorf("only %d log lines were found", lines)
	}
	doc, err := os.ReadFile("../../docs/operate/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range fleet.LogKeys() {
		if !used[k.Key] {
			t.Errorf("no line has the key %q", k.Key)
		}
		if want := "| `" + k.Key + "` | " + k.Is + " |\n"; !strings.Contains(string(doc), want) {
			t.Errorf("docs/operate/logs.md lacks %s", want)
		}
	}
}

// logPairs returns the keys and values of a call that logs, or prepares a logger or a list of them, as far as they stand in it.
func logPairs(c *ast.CallExpr) (pairs []ast.Expr, is bool) {
	if fn, ok := c.Fun.(*ast.Ident); ok && fn.Name == "append" && len(c.Args) > 1 {
		// append(about, key, value, …) of a list for the log: its first addition is one of the named keys or the list's own call.
		if first, ok := c.Args[0].(*ast.CallExpr); ok {
			if sel, ok := first.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "whose" {
				return c.Args[1:], true
			}
		}
		if id, ok := c.Args[0].(*ast.Ident); ok && id.Name == "about" {
			return c.Args[1:], true
		}
		return nil, false
	}
	sel, ok := c.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil, false
	}
	if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "slog" {
		switch sel.Sel.Name {
		case "String", "Int":
			return c.Args, true
		}
		return nil, false
	}
	logger := ""
	switch x := sel.X.(type) {
	case *ast.Ident:
		logger = x.Name
	case *ast.SelectorExpr:
		logger = x.Sel.Name
	case *ast.CallExpr: // a logger that is made when there is something to say
		if f, ok := x.Fun.(*ast.SelectorExpr); ok {
			logger = f.Sel.Name
		}
	}
	if logger != "log" && logger != "Log" && logger != "anonymous" {
		return nil, false
	}
	from := 1
	switch sel.Sel.Name {
	case "With":
		from = 0
	case "Debug", "Info", "Warn", "Error":
	case "DebugContext", "InfoContext", "WarnContext", "ErrorContext":
		from = 2
	case "Log":
		from = 3
	default:
		return nil, false
	}
	if c.Ellipsis.IsValid() || len(c.Args) < from {
		return nil, true // its list is looked at where it is made
	}
	return c.Args[from:], true
}
