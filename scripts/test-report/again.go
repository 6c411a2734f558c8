package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// unsteadyMost is how many tests may fail once and still be asked again: more are no accident.
const unsteadyMost = 2

// neverAgain is output that no second run takes back: a race that was seen is there.
var neverAgain = regexp.MustCompile(`(?m)^WARNING: DATA RACE|race detected during execution|^panic: |^fatal error: |panic: test timed out`)

// failure is a top-level test that failed, and what it printed.
type failure struct{ pkg, test, output string }

// again asks the tests that failed once more, each alone: one that passes every time (3, or 1 where boots are counted) is unsteady and named so.
// Nothing is asked again where anything else went wrong, where a race or a panic was seen, or where more than unsteadyMost failed.
func (r *report) again(command []string, once []string) {
	if len(command) == 0 || len(r.failures) == 0 || len(r.failures) > unsteadyMost || r.worse {
		return
	}
	for _, f := range r.failures {
		if neverAgain.MatchString(f.output) {
			return
		}
	}
	for _, f := range r.failures {
		times := 3
		if slices.ContainsFunc(once, func(s string) bool { return s != "" && strings.HasSuffix(f.pkg, "/"+s) }) {
			times = 1
		}
		fmt.Fprintf(r.out, "again %s %s, %d times\n", f.pkg, f.test, times)
		args := append(slices.Clone(command[1:]), "-json", "-count="+strconv.Itoa(times), "-run", "^"+f.test+"$", f.pkg)
		out, err := exec.Command(command[0], args...).CombinedOutput()
		if passes := passesOf(string(out), f.test); err != nil || passes != times {
			fmt.Fprintf(r.out, "it passed %d of %d times (%v)\n%s\n", passes, times, err, out)
			return
		}
		r.unsteady = append(r.unsteady, f.pkg+" "+f.test)
	}
	r.bad = slices.DeleteFunc(r.bad, func(b string) bool {
		return slices.ContainsFunc(r.failures, func(f failure) bool {
			return b == f.pkg || b == f.pkg+" "+f.test || strings.HasPrefix(b, f.pkg+" "+f.test+"/")
		})
	})
	r.failed = 0
}

func passesOf(out, test string) int {
	n := 0
	for s := bufio.NewScanner(strings.NewReader(out)); s.Scan(); {
		var e event
		if json.Unmarshal(s.Bytes(), &e) == nil && e.Action == "pass" && e.Test == test {
			n++
		}
	}
	return n
}
