package fleet

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Kind says what a caller can do about an error; callers branch on it and never on text.
type Kind uint8

const (
	// Broken: something that should work did not; look at the evidence.
	Broken Kind = iota
	// Invalid: the input is wrong; Fields names every place.
	Invalid
	// NotFound: the named thing does not exist.
	NotFound
	// Denied: the caller may not do this (no or wrong credential, missing right).
	Denied
	// Conflict: the thing's present state forbids it, or somebody else was first.
	Conflict
	// Refused: a rule forbids it whatever the state (protected, frozen, unsafe).
	Refused
	// Unavailable: the other side does not answer now; the same call may work later.
	Unavailable
	// Timeout: the time that was granted is over, or the work was aborted.
	Timeout
)

var kindNames = [...]string{"broken", "invalid", "not found", "denied", "conflict", "refused", "unavailable", "timed out"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", k)
}

// FieldError is one fault of an input: where it stands and what is wrong with it.
type FieldError struct {
	// Field is a path such as "bmc.address", or "file:line:column".
	Field   string `json:"field"`
	Message string `json:"message"`
}

// Error is what an operator sees: a stable code, what failed and why, and the next command to type.
type Error struct {
	Kind Kind
	// Code is stable and has a page in `metalctl help CODE` (Codes); empty for errors that never leave the program.
	Code string
	// Msg says what was being done and what went wrong, lower case, no full stop.
	Msg string
	// Hint is the next command to type, or the setting to change; may be empty.
	Hint   string
	Fields []FieldError
	// Err is the cause, or nil.
	Err error
}

// Errorf makes an Error; a %w in format becomes its cause.
func Errorf(kind Kind, code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Code: code, Msg: err.Error(), Err: errors.Unwrap(err)}
}

// WithHint sets the next command to type and returns e.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

func (e *Error) Error() string {
	if len(e.Fields) == 0 {
		return e.Msg
	}
	var b strings.Builder
	b.WriteString(e.Msg)
	for _, f := range e.Fields {
		fmt.Fprintf(&b, "\n  %s: %s", f.Field, f.Message)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// NoSpace reports whether an error says that a disk, a quota or a file may take no more.
func NoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// KindOf returns the kind of the outermost Error in err's chain, and Broken where there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Broken
}

// CodeOf returns the outermost stable code in err's chain, or "".
func CodeOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Code != "" {
			return e.Code
		}
		err = e.Err
	}
	return ""
}

// HintOf returns the outermost hint in err's chain, or "".
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}

// HintFor puts a node's name into a hint that says NODE, so that its command can be typed as it stands.
func HintFor(hint, node string) string {
	if node == "" {
		return hint
	}
	words := strings.Split(hint, " ")
	for i, w := range words {
		if rest, ok := strings.CutPrefix(w, "NODE"); ok && strings.Trim(rest, ",;:.)") == "" {
			words[i] = node + rest
		}
	}
	return strings.Join(words, " ")
}
