package fleet

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"
)

// TestCodesHaveOnePage: a code that stands in both tables would have the page of the second one.
func TestCodesHaveOnePage(t *testing.T) {
	for code := range machineCodes {
		if _, twice := serverCodes[code]; twice {
			t.Errorf("%s has two pages", code)
		}
	}
}

func TestErrorChain(t *testing.T) {
	plain := Errorf(Unavailable, "MC-BMC-DOWN", "dial: %w", io.ErrUnexpectedEOF).WithHint("ping %s", "bmc")
	for name, c := range map[string]struct {
		err  error
		kind Kind
		code string
		hint string
		text string
		is   error
	}{
		"nothing":                               {nil, Broken, "", "", "", nil},
		"another package's error":               {io.EOF, Broken, "", "", "EOF", io.EOF},
		"an Error":                              {plain, Unavailable, "MC-BMC-DOWN", "ping bmc", "dial: unexpected EOF", io.ErrUnexpectedEOF},
		"wrapped by fmt":                        {fmt.Errorf("boot n1: %w", plain), Unavailable, "MC-BMC-DOWN", "ping bmc", "boot n1: dial: unexpected EOF", io.ErrUnexpectedEOF},
		"an outer kind wins":                    {Errorf(Timeout, "", "wait: %w", plain), Timeout, "MC-BMC-DOWN", "ping bmc", "wait: dial: unexpected EOF", plain},
		"an outer code and hint win":            {Errorf(Refused, "MC-NODE-X", "no: %w", plain).WithHint("stop"), Refused, "MC-NODE-X", "stop", "no: dial: unexpected EOF", plain},
		"joined errors: the first that is ours": {errors.Join(io.EOF, plain), Unavailable, "MC-BMC-DOWN", "ping bmc", "EOF\ndial: unexpected EOF", io.EOF},
		"no cause":                              {Errorf(NotFound, "MC-X-Y", "there is no %q", "x"), NotFound, "MC-X-Y", "", `there is no "x"`, nil},
	} {
		if k := KindOf(c.err); k != c.kind {
			t.Errorf("%s: kind %v, want %v", name, k, c.kind)
		}
		if code := CodeOf(c.err); code != c.code {
			t.Errorf("%s: code %q, want %q", name, code, c.code)
		}
		if hint := HintOf(c.err); hint != c.hint {
			t.Errorf("%s: hint %q, want %q", name, hint, c.hint)
		}
		if c.err != nil && c.err.Error() != c.text {
			t.Errorf("%s: text %q, want %q", name, c.err, c.text)
		}
		if c.is != nil && !errors.Is(c.err, c.is) {
			t.Errorf("%s: is not %v", name, c.is)
		}
	}
	if errors.Is(plain, fs.ErrNotExist) {
		t.Error("an error is what it never wrapped")
	}
}

func TestErrorFields(t *testing.T) {
	e := Errorf(Invalid, "MC-X-Y", "the file is not valid")
	e.Fields = []FieldError{{"rack.yaml:3:7", "unknown key \"bcm\""}, {"bmc.address", "is not https"}}
	want := "the file is not valid\n  rack.yaml:3:7: unknown key \"bcm\"\n  bmc.address: is not https"
	if e.Error() != want {
		t.Errorf("got %q, want %q", e.Error(), want)
	}
}

func TestKindNames(t *testing.T) {
	seen := map[string]bool{}
	for k := Broken; k <= Timeout; k++ {
		if s := k.String(); seen[s] || s == "" {
			t.Errorf("kind %d is called %q", k, s)
		}
		seen[k.String()] = true
	}
	if got := Kind(99).String(); got != "kind(99)" {
		t.Errorf("an unknown kind is called %q", got)
	}
}

func TestProblemOf(t *testing.T) {
	for name, c := range map[string]struct {
		kind      Kind
		transient bool
	}{
		"broken": {Broken, false}, "invalid": {Invalid, false}, "denied": {Denied, false}, "refused": {Refused, false}, "conflict": {Conflict, false},
		"unavailable": {Unavailable, true}, "timeout": {Timeout, true},
	} {
		p := ProblemOf(Errorf(c.kind, "MC-X-Y", "it").WithHint("do"))
		if p.Transient != c.transient || p.Code != "MC-X-Y" || p.Hint != "do" || p.Detail != "it" {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if ProblemOf(nil) != nil {
		t.Error("no error has a problem")
	}
}
