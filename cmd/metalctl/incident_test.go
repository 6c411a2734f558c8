//go:build !ramdisk

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"
)

// incidentDocs is where the pages are that are made of the scripts.
const incidentDocs = "../../docs/incidents"

// TestIncidents breaks something for real, and resolves it with what the program says about it. Each script is a page of docs/incidents as well: its lines
// that begin with "#|" are the page's words, and each of its commands
//
//	shows N metalctl …     runs a command, wants exit code N, and puts command and output onto the page
//	mask RE TEXT           replaces what differs from run to run on the rest of the page
//	password MACHINE NEW   changes the password at the BMC, behind the server's back, and ends every session there
//	pull MACHINE N [NEW]   makes disk N die; with a serial, replaces it by an empty one
//	kill-agent MACHINE     ends the agent; the machine stays on
//	thief MACHINE          is another machine with the newest boot medium of that one
//	clock DURATION         sets the server's clock by so much
//	small-disk DIR MIB     mounts a file system of so many MiB; fill-disk FILE fills the one that FILE is on
//	rot DIR FILE           changes bytes in the file below DIR that is as large as FILE
//
// is on it with what it really printed. METALCTL_UPDATE=1 writes the pages.
func TestIncidents(t *testing.T) {
	if testing.Short() {
		t.Skip("long: ten servers and racks, each with something broken")
	}
	p := scriptParams(t, "testdata/incident")
	for name, do := range map[string]func(*testscript.TestScript, bool, []string){
		"shows": scriptShows, "mask": scriptMask, "password": scriptPassword, "kill-agent": scriptKillAgent, "thief": scriptThief, "clock": scriptClock,
		"pull": scriptPull, "small-disk": scriptSmallDisk, "fill-disk": scriptFillDisk, "rot": scriptRot,
	} {
		p.Cmds[name] = do
	}
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		page := &incidentPage{ids: map[string]string{}}
		e.Values[pageKey{}] = page
		t := e.T().(testing.TB)
		e.Defer(func() {
			if !t.Failed() { // else the page would only repeat why
				page.compare(t, filepath.Base(t.Name()))
			}
		})
		return setup(e)
	}
	testscript.Run(t, p)
}

// pageKey is where a script's page is.
type pageKey struct{}

// incidentPage is what the commands of a script printed, in their order.
type incidentPage struct {
	shown []string
	masks []incidentMask
	ids   map[string]string
}

type incidentMask struct {
	re   *regexp.Regexp
	with string
}

func scriptMask(ts *testscript.TestScript, neg bool, args []string) {
	re, err := regexp.Compile(args[0])
	ts.Check(err)
	page := ts.Value(pageKey{}).(*incidentPage)
	page.masks = append(page.masks, incidentMask{re, args[1]})
}

func scriptShows(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: shows N metalctl ...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	// A person types on a terminal, where tables have headings.
	if err := ts.Exec(args[1], append([]string{"--output=table"}, args[2:]...)...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
	page := ts.Value(pageKey{}).(*incidentPage)
	var said []string
	for line := range strings.Lines(ts.ReadFile("stdout") + ts.ReadFile("stderr")) {
		if line = strings.TrimRight(line, " \n"); line != "" && !followed.MatchString(line) {
			said = append(said, strings.ReplaceAll(line, ts.MkAbs("."), "."))
		}
	}
	page.shown = append(page.shown, "    $ "+page.mask(typed(args[1:], ts.MkAbs(".")))+"\n"+indented(aligned(page.mask(strings.Join(said, "\n")))))
}

// followed is a line of what a verb that follows its work says on the way.
var followed = regexp.MustCompile(`^\S+ +[a-z-]+ +\[[#.]*\] +\d+%`)

// typed is a command as somebody types it into a shell in the script's folder.
func typed(args []string, work string) string {
	var out []string
	for _, a := range args {
		a = strings.ReplaceAll(a, work+"/", "")
		if strings.ContainsAny(a, " '\"$*;&|<>()") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		out = append(out, a)
	}
	return strings.Join(out, " ")
}

var (
	maskID   = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	maskEach = []incidentMask{
		{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "<time>"},
		{regexp.MustCompile(`\b\d\d:\d\d:\d\d\b`), "<time>"},
		{regexp.MustCompile(`sha256:[0-9a-f]{64}`), "sha256:<digest>"},
		{regexp.MustCompile(`\b(127\.0\.0\.1|\[::1\]):\d+`), "127.0.0.1:<port>"},
		{regexp.MustCompile(`(\s|\()(in )?(\d+d)?(\d+h)?(\d+m)?\d+(\.\d+)?(s|ms|m|h|µs)\b`), "${1}${2}<span>"},
	}
)

// mask takes out what no two runs have in common: ids are numbered, times and ports are named for what they are.
func (p *incidentPage) mask(s string) string {
	for _, m := range p.masks {
		s = m.re.ReplaceAllString(s, m.with)
	}
	s = maskID.ReplaceAllStringFunc(s, func(id string) string {
		if p.ids[id] == "" {
			p.ids[id] = fmt.Sprintf("<id-%d>", len(p.ids)+1)
		}
		return p.ids[id]
	})
	for _, m := range maskEach {
		s = m.re.ReplaceAllString(s, m.with)
	}
	return s
}

var columnGap = regexp.MustCompile(`(\S)\s{2,}`)

// aligned sets neighbouring lines with as many columns under each other again, as what was masked had another width.
func aligned(s string) string {
	lines := strings.Split(s, "\n")
	cells := make([][]string, len(lines))
	for i, line := range lines {
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		cells[i] = strings.Split(columnGap.ReplaceAllString(line[len(indent):], "$1\x00"), "\x00")
		cells[i][0] = indent + cells[i][0]
	}
	for i := 0; i < len(lines); {
		end := i
		width := make([]int, len(cells[i]))
		for ; end < len(lines) && len(cells[end]) == len(cells[i]); end++ {
			for c, cell := range cells[end] {
				width[c] = max(width[c], len(cell))
			}
		}
		for ; i < end; i++ {
			var b strings.Builder
			for c, cell := range cells[i] {
				if c < len(cells[i])-1 {
					cell = fmt.Sprintf("%-*s  ", width[c], cell)
				}
				b.WriteString(cell)
			}
			lines[i] = strings.TrimRight(b.String(), " ")
		}
	}
	return strings.Join(lines, "\n")
}

func indented(s string) string {
	if s == "" {
		return ""
	}
	return "    " + strings.ReplaceAll(s, "\n", "\n    ") + "\n"
}

// compare puts the script's words and what its commands printed together, and wants the page of docs/incidents to be just that.
func (p *incidentPage) compare(t testing.TB, name string) {
	script, err := txtar.ParseFile(filepath.Join("testdata/incident", name+".txtar"))
	if err != nil {
		t.Error(err)
		return
	}
	var b strings.Builder
	shown, block := p.shown, false
	for line := range strings.Lines(string(script.Comment)) {
		words, prose := strings.CutPrefix(line, "#|")
		switch {
		case prose:
			if block {
				b.WriteString("\n")
			}
			b.WriteString(strings.TrimPrefix(words, " "))
			block = false
		case strings.HasPrefix(line, "shows ") && len(shown) > 0:
			b.WriteString("\n" + shown[0])
			shown, block = shown[1:], true
		}
	}
	if len(shown) > 0 {
		t.Errorf("%s: %d commands more were shown than the script has lines for", name, len(shown))
	}
	fmt.Fprintf(&b, "\nMade of what [the script](../../cmd/metalctl/testdata/incident/%s.txtar) did and saw.\n", name)
	file := filepath.Join(incidentDocs, name+".md")
	if os.Getenv("METALCTL_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Error(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Errorf("%v; write it with METALCTL_UPDATE=1", err)
		return
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("%s is not what the script saw (-page +script); look at it, then METALCTL_UPDATE=1:\n%s", file, d)
	}
}
