//go:build !ramdisk

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// logAttr is one attribute of a line that slog's text handler wrote.
var logAttr = regexp.MustCompile(`([a-z0-9_]+)=("(?:[^"\\]|\\.)*"|[^ "]*)`)

// attrsOf takes a line of the log apart.
func attrsOf(line string) map[string]string {
	out := map[string]string{}
	for _, m := range logAttr.FindAllStringSubmatch(line, -1) {
		value := m[2]
		if s, err := strconv.Unquote(value); err == nil {
			value = s
		}
		if _, again := out[m[1]]; again {
			out["twice"] = m[1]
		}
		out[m[1]] = value
	}
	return out
}

// logged are the things that lines may be about.
type logged struct {
	nodes      map[string]string // by id: its name
	operations map[string]string // by id: the name of its node
}

// lacks says what a line at info or above does not carry of what it is about, or "".
func (l logged) lacks(line string) string {
	a := attrsOf(line)
	if a["twice"] != "" {
		return "has " + a["twice"] + " twice"
	}
	if a["level"] == "DEBUG" || a["level"] == "" {
		return ""
	}
	about := ""
	for id, name := range l.nodes {
		if strings.Contains(line, id) || slices.ContainsFunc(strings.FieldsFunc(line, notWord), func(w string) bool { return w == name }) {
			about = name
		}
	}
	for id, name := range l.operations {
		if !strings.Contains(line, id) {
			continue
		}
		about = name
		if a[fleet.LogOperation] != id {
			return "names operation " + id + " and does not carry it"
		}
	}
	if about != "" && a[fleet.LogNode] == "" && !slices.Contains(strings.Split(a[fleet.LogNodes], ","), about) {
		return "is about " + about + " and does not carry it"
	}
	if a[fleet.LogNode] != "" && about == "" {
		return "carries a node that there is not"
	}
	if strings.HasPrefix(a["type"], "operation.") && a[fleet.LogOperation] == "" {
		return "tells of an operation and does not carry it"
	}
	for _, s := range step.Catalogue {
		if a["type"] == "operation.step" && strings.Contains(a["text"], ": "+s.Name+" ") && a[fleet.LogStep] != s.Name {
			return "tells of step " + s.Name + " and does not carry it"
		}
	}
	if a[fleet.LogStep] != "" && a[fleet.LogOperation] == "" {
		return "carries a step without its operation"
	}
	return ""
}

func notWord(r rune) bool {
	return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}

// scriptLogged wants each line that server and agents logged about a node to carry node, operation and step.
func scriptLogged(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: logged")
	}
	a := newAsking(ts)
	l := logged{nodes: map[string]string{}, operations: map[string]string{}}
	for path, each := range map[string]func(id, name, node string){
		"/api/v1/nodes":      func(id, name, _ string) { l.nodes[id] = name },
		"/api/v1/operations": func(id, _, node string) { l.operations[id] = node },
	} {
		body, _ := a.get(path + "?limit=1000")
		var list struct {
			Items []struct{ ID, Name, Node string }
		}
		ts.Check(json.Unmarshal([]byte(body), &list))
		for _, i := range list.Items {
			each(i.ID, i.Name, i.Node)
		}
	}
	texts := map[string]string{"the server": (*ts.Value(runKey{}).(**scriptRun)).out.String()}
	consoles, err := filepath.Glob(ts.MkAbs("rack/*/serial.log"))
	ts.Check(err)
	for _, c := range consoles {
		b, err := os.ReadFile(c)
		ts.Check(err)
		texts[c] = string(b)
	}
	seen := map[string]int{}
	for where, text := range texts {
		for line := range strings.Lines(text) {
			if why := l.lacks(strings.TrimSpace(line)); why != "" {
				ts.Fatalf("a line of %s %s: %s", where, why, line)
			}
			for _, k := range []string{fleet.LogNode, fleet.LogOperation, fleet.LogStep} {
				if attrsOf(line)[k] != "" {
					seen[fmt.Sprint(k, " of the server: ", where == "the server")]++
				}
			}
		}
	}
	if len(seen) != 6 {
		ts.Fatalf("too little was logged: %v", seen)
	}
}

// A line that lacks what it is about is found.
func TestLogged(t *testing.T) {
	l := logged{nodes: map[string]string{"id-1": "n1"}, operations: map[string]string{"op-1": "n1"}}
	for line, want := range map[string]string{
		`level=INFO msg="node moved" node=n1 operation=op-1 step=power-on type=operation.step text="n1: power-on begins"`: "",
		`level=INFO msg=x text="n1: power-on begins"`:                                            "is about n1 and does not carry it",
		`level=INFO msg=x id=id-1`:                                                               "is about n1 and does not carry it",
		`level=INFO msg=x nodes=n0,n1 text="n1 is there"`:                                        "",
		`level=INFO msg=x node=n1 text="as op-1 wants"`:                                          "names operation op-1 and does not carry it",
		`level=INFO msg=x node=n1 operation=op-1 type=operation.step text="n1: power-on begins"`: "tells of step power-on and does not carry it",
		`level=INFO msg=x node=n1 step=power-on`:                                                 "carries a step without its operation",
		`level=INFO msg=x node=n1 node=n1`:                                                       "has node twice",
		`level=DEBUG msg=x id=id-1`:                                                              "",
	} {
		if got := l.lacks(line); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
