package step

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// mostDifferences bounds what Differences names.
const mostDifferences = 12

// Differences names what of a plan that was shown is another in one that would run now: steps that came or went, their order, and each parameter with
// both values. It names nothing where the digests agree. What people may not see of parameters is not shown, only that it differs.
func Differences(was, now Plan) []fleet.FieldError {
	if was.Digest == now.Digest {
		return nil
	}
	var out []fleet.FieldError
	note := func(field, format string, args ...any) {
		out = append(out, fleet.FieldError{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if was.Use != now.Use {
		note("use", "was %s, is %s", was.Use, now.Use)
	}
	if was.Catalogue != now.Catalogue {
		note("catalogue", "the server knows other steps than when the plan was shown: version %d, then %d", was.Catalogue, now.Catalogue)
	}
	out = append(out, erasedDifferences(was.Erases, now.Erases)...) // early: what is cut off at the end must not be which data is lost
	old, oldOrder := numbered(was.Steps)
	fresh, freshOrder := numbered(now.Steps)
	for _, name := range oldOrder {
		if _, ok := fresh[name]; !ok {
			note(name, "does not run any more; it was there because %s", old[name].Why)
		}
	}
	for _, name := range freshOrder {
		before, ok := old[name]
		if !ok {
			note(name, "runs now: %s", fresh[name].Why)
			continue
		}
		out = append(out, paramDifferences(name, before, fresh[name])...)
	}
	both := func(name string) bool { return old[name] == nil || fresh[name] == nil }
	oldOrder, freshOrder = slices.DeleteFunc(oldOrder, both), slices.DeleteFunc(freshOrder, both)
	if !slices.Equal(oldOrder, freshOrder) {
		note("steps", "ran in the order %s, and run now in the order %s", strings.Join(oldOrder, ", "), strings.Join(freshOrder, ", "))
	}
	if len(out) == 0 {
		note("plan", "differs in what is not shown")
	}
	if more := len(out) - mostDifferences; more > 0 {
		out = append(out[:mostDifferences:mostDifferences], fleet.FieldError{Field: "plan", Message: fmt.Sprintf("differs in %d more places", more)})
	}
	return out
}

// numbered are steps by name, the second of one name as name#2, and their order.
func numbered(steps []Planned) (map[string]*Planned, []string) {
	all, count := map[string]*Planned{}, map[string]int{}
	var order []string
	for i, s := range steps {
		count[s.Name]++
		name := s.Name
		if n := count[s.Name]; n > 1 {
			name = fmt.Sprintf("%s#%d", name, n)
		}
		all[name] = &steps[i]
		order = append(order, name)
	}
	return all, order
}

func paramDifferences(name string, was, now *Planned) []fleet.FieldError {
	if bytes.Equal(was.Params, now.Params) {
		return nil
	}
	old, fresh := leaves(Shown(was.Name, was.Params)), leaves(Shown(now.Name, now.Params))
	paths := map[string]bool{}
	for p := range old {
		paths[p] = true
	}
	for p := range fresh {
		paths[p] = true
	}
	var out []fleet.FieldError
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		before, had := old[p]
		after, has := fresh[p]
		text := ""
		switch {
		case before == after:
			continue
		case !had:
			text = "is now " + after
		case !has:
			text = "was " + before + ", is not there now"
		default:
			text = "was " + before + ", is " + after
		}
		out = append(out, fleet.FieldError{Field: name + p, Message: text})
	}
	if len(out) == 0 {
		out = append(out, fleet.FieldError{Field: name, Message: "differs in what is not shown, such as the query of an address"})
	}
	return out
}

// leaves are the values of a JSON text by their paths, such as .disks[0].serial.
func leaves(text json.RawMessage) map[string]string {
	out := map[string]string{}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if len(text) == 0 || dec.Decode(&v) != nil {
		return out
	}
	collect(out, "", v)
	return out
}

func collect(out map[string]string, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			collect(out, path+"."+k, x)
		}
	case []any:
		for i, x := range v {
			collect(out, fmt.Sprintf("%s[%d]", path, i), x)
		}
	case string:
		out[path] = shortValue(fmt.Sprintf("%q", v))
	default:
		out[path] = shortValue(fmt.Sprint(v))
	}
}

// shortValue keeps a value readable in one line.
func shortValue(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// erasedDifferences names devices by what people know them by.
func erasedDifferences(was, now []fleet.AcceptedDevice) []fleet.FieldError {
	var out []fleet.FieldError
	has := func(all []fleet.AcceptedDevice, d fleet.AcceptedDevice) bool { return slices.Contains(all, d) }
	for _, d := range was {
		if !has(now, d) {
			out = append(out, fleet.FieldError{Field: "erases", Message: fmt.Sprintf("%s (%s, %d bytes) is not among the devices any more", d.Serial, orNothing(d.Model), d.SizeBytes)})
		}
	}
	for _, d := range now {
		if !has(was, d) {
			out = append(out, fleet.FieldError{Field: "erases", Message: fmt.Sprintf("%s (%s, %d bytes) is among the devices now", d.Serial, orNothing(d.Model), d.SizeBytes)})
		}
	}
	return out
}

func orNothing(s string) string {
	if s == "" {
		return "no model"
	}
	return s
}
