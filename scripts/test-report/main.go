// Command test-report reads `go test -json` and prints a line per package, every failure's output, every skip with its reason, and the counts.
// With CI=true a skip whose reason does not begin with one of -allow is a failure.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

type report struct {
	out                     io.Writer
	allow                   []string
	strict                  bool
	passed, failed, skipped int
	lines                   map[string][]string
	skips, bad, unsteady    []string
	failures                []failure
	// worse is a failure that no single test can answer for.
	worse bool
}

func main() {
	allow := flag.String("allow", "", "comma-separated beginnings of reasons that may skip in CI")
	again := flag.String("again", "", "the command that runs a test that failed once more; without it a failure is final")
	once := flag.String("once", "", "comma-separated ends of packages whose tests are asked again only once, because their boots are counted")
	unsteady := flag.String("unsteady", "", "file that gets the tests that failed once and passed when asked again")
	flag.Parse()
	r := &report{out: os.Stdout, allow: strings.Split(*allow, ","), strict: os.Getenv("CI") == "true", lines: map[string][]string{}}
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "test-report:", err)
		os.Exit(1)
	}
	r.again(strings.Fields(*again), strings.Split(*once, ","))
	if *unsteady != "" && len(r.unsteady) > 0 {
		if err := os.WriteFile(*unsteady, []byte(strings.Join(r.unsteady, "\n")+"\n"), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "test-report:", err)
			os.Exit(1)
		}
	}
	if !r.close() {
		os.Exit(1)
	}
}

func (r *report) read(in io.Reader) error {
	s := bufio.NewScanner(in)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var e event
		if json.Unmarshal(s.Bytes(), &e) != nil {
			fmt.Fprintln(r.out, s.Text()) // a build error is no JSON
			continue
		}
		r.take(e)
	}
	return s.Err()
}

func (r *report) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		r.lines[key] = append(r.lines[key], e.Output)
		return
	case "build-fail":
		r.failed++
		r.worse = true
		r.bad = append(r.bad, "build "+e.Package)
		return
	}
	if e.Test == "" {
		switch e.Action {
		case "pass", "skip":
			fmt.Fprintf(r.out, "ok    %s %.1fs\n", e.Package, e.Elapsed)
		case "fail":
			fmt.Fprintf(r.out, "FAIL  %s %.1fs\n%s", e.Package, e.Elapsed, strings.Join(r.lines[key], ""))
			r.bad = append(r.bad, e.Package)
			r.worse = r.worse || neverAgain.MatchString(strings.Join(r.lines[key], "")) || !slices.ContainsFunc(r.failures, func(f failure) bool { return f.pkg == e.Package })
		}
		return
	}
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		r.bad = append(r.bad, key)
		output := strings.Join(r.lines[key], "")
		fmt.Fprintf(r.out, "FAIL  %s\n%s", key, output)
		r.fail(e.Package, e.Test, output)
	case "skip":
		r.skipped++
		reason := reasonOf(r.lines[key])
		r.skips = append(r.skips, key+": "+reason)
		if r.strict && !slices.ContainsFunc(r.allow, func(a string) bool { return a != "" && strings.HasPrefix(reason, a) }) {
			r.bad = append(r.bad, "skipped in CI: "+key+": "+reason)
		}
	}
	if e.Action == "pass" || e.Action == "fail" || e.Action == "skip" {
		delete(r.lines, key)
	}
}

// fail keeps what the top-level test of a failure printed, its subtests included.
func (r *report) fail(pkg, test, output string) {
	test, _, _ = strings.Cut(test, "/")
	for i, f := range r.failures {
		if f.pkg == pkg && f.test == test {
			r.failures[i].output += output
			return
		}
	}
	r.failures = append(r.failures, failure{pkg: pkg, test: test, output: output})
}

// reasonOf is what t.Skip said: the last line that is indented, without its place.
func reasonOf(lines []string) string {
	for _, l := range slices.Backward(lines) {
		if strings.HasPrefix(l, "    ") {
			if _, reason, ok := strings.Cut(l, ": "); ok {
				return strings.TrimSpace(reason)
			}
			return strings.TrimSpace(l)
		}
	}
	return "no reason given"
}

func (r *report) close() bool {
	if len(r.skips) > 0 {
		fmt.Fprintln(r.out, "\nskipped:")
		for _, s := range r.skips {
			fmt.Fprintln(r.out, "  "+s)
		}
	}
	for _, u := range r.unsteady {
		fmt.Fprintln(r.out, "unsteady: it failed once, see above, and passed when asked again; mend it:", u)
	}
	for _, b := range r.bad {
		fmt.Fprintln(r.out, "not good:", b)
	}
	fmt.Fprintf(r.out, "\n%d passed, %d failed, %d skipped, %d unsteady\n", r.passed, r.failed, r.skipped, len(r.unsteady))
	return len(r.bad) == 0 && r.failed == 0 && r.passed > 0
}
