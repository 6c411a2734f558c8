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
	skips, bad              []string
}

func main() {
	allow := flag.String("allow", "", "comma-separated beginnings of reasons that may skip in CI")
	flag.Parse()
	r := &report{out: os.Stdout, allow: strings.Split(*allow, ","), strict: os.Getenv("CI") == "true", lines: map[string][]string{}}
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "test-report:", err)
		os.Exit(1)
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
		}
		return
	}
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		r.bad = append(r.bad, key)
		fmt.Fprintf(r.out, "FAIL  %s\n%s", key, strings.Join(r.lines[key], ""))
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
	for _, b := range r.bad {
		fmt.Fprintln(r.out, "not good:", b)
	}
	fmt.Fprintf(r.out, "\n%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return len(r.bad) == 0 && r.failed == 0 && r.passed > 0
}
