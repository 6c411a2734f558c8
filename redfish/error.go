package redfish

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Message is one entry of ExtendedInfo. All of it comes from the BMC and is untrusted text.
type Message struct {
	// ID is the MessageId without registry and version: "PropertyUnknown", not "Base.1.8.PropertyUnknown".
	ID       string
	Registry string
	Text     string
	Args     []string
	// RelatedProperties are JSON pointers as sent.
	RelatedProperties []string
	Severity          string
	Resolution        string
}

// Error is an answer of a BMC that is not a success.
type Error struct {
	// Status is the HTTP status, or 0 where a task failed.
	Status   int
	Method   string
	URI      string
	Messages []Message
	// Text is the start of a body that was no Redfish error (HTML, plain text).
	Text string
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Status != 0 {
		fmt.Fprintf(&b, "%s %s: %d %s", e.Method, e.URI, e.Status, http.StatusText(e.Status))
	} else {
		fmt.Fprintf(&b, "%s %s", e.Method, e.URI)
	}
	for i, m := range e.Messages {
		if i == 3 {
			break
		}
		text := m.Text
		if text == "" {
			text = strings.TrimSpace(m.ID + " " + strings.Join(m.Args, ", "))
		} else if m.ID != "" {
			text = m.ID + ": " + text
		}
		b.WriteString("; " + printable(text, 300))
	}
	if len(e.Messages) == 0 && e.Text != "" {
		b.WriteString("; " + printable(e.Text, 120))
	}
	return b.String()
}

// Has reports whether any message has one of ids (without registry prefix).
func (e *Error) Has(ids ...string) bool {
	for _, m := range e.Messages {
		for _, id := range ids {
			if strings.EqualFold(m.ID, id) {
				return true
			}
		}
	}
	return false
}

// mentions reports whether any id, text or resolution contains one of words (lower case).
func (e *Error) mentions(words ...string) bool {
	for _, m := range e.Messages {
		all := strings.ToLower(m.ID + " " + m.Text + " " + m.Resolution)
		for _, w := range words {
			if strings.Contains(all, w) {
				return true
			}
		}
	}
	text := strings.ToLower(e.Text)
	for _, w := range words {
		if text != "" && strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// licence reports whether the answer says that a licence is missing.
func (e *Error) licence() bool {
	return (e.Status == 0 || e.Status >= 400) && e.mentions("license", "licence")
}

// AsError returns the BMC's own answer in err's chain, or nil.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

func statusOf(err error) int {
	if e := AsError(err); e != nil {
		return e.Status
	}
	return 0
}

// parseError reads an error body. DSP0266 section 8.6 wants {"error":{"@Message.ExtendedInfo":[…]}}; seen are also a single
// object (Dell), a string, no "error" at all, no code (DGX), HTML and nothing.
func parseError(status int, method, uri string, body []byte) *Error {
	e := &Error{Status: status, Method: method, URI: uri}
	if len(strings.TrimSpace(string(body))) == 0 {
		return e
	}
	var top any
	if checkJSON(body) != nil || json.Unmarshal(body, &top) != nil {
		e.Text = plain(string(body))
		return e
	}
	e.Messages = messagesIn(top, 0)
	if len(e.Messages) == 0 {
		e.Text = plain(string(body))
	}
	return e
}

const maxMessages = 32

// messagesIn finds messages in any of the shapes above; depth is bounded as only known wrappers are opened.
func messagesIn(v any, depth int) []Message {
	if depth > 4 {
		return nil
	}
	switch v := v.(type) {
	case string:
		if strings.TrimSpace(v) != "" {
			return []Message{{Text: v}}
		}
	case []any:
		var all []Message
		for _, one := range v {
			if len(all) >= maxMessages {
				break
			}
			all = append(all, messagesIn(one, depth+1)...)
		}
		return all
	case map[string]any:
		return messagesInObject(v, depth)
	}
	return nil
}

func messagesInObject(v map[string]any, depth int) []Message {
	var all []Message
	for _, key := range []string{"error", "Error", "@Message.ExtendedInfo", "ExtendedInfo", "Messages"} {
		if inner, ok := v[key]; ok {
			all = append(all, messagesIn(inner, depth+1)...)
		}
	}
	if len(all) > 0 {
		return all
	}
	m := Message{Text: text(v["Message"]), Resolution: text(v["Resolution"]), Severity: text(v["MessageSeverity"])}
	if m.Severity == "" {
		m.Severity = text(v["Severity"])
	}
	id := first(text(v["MessageId"]), text(v["MessageID"]), text(v["code"]))
	if m.Text == "" {
		m.Text = text(v["message"])
	}
	if i := strings.LastIndexByte(id, '.'); i >= 0 {
		m.Registry, id = id[:i], id[i+1:]
	}
	m.ID = id
	m.Args = texts(v["MessageArgs"])
	m.RelatedProperties = texts(v["RelatedProperties"])
	if m.ID == "" && m.Text == "" {
		return nil
	}
	return []Message{m}
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func first(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}

// texts reads a list of strings, a single string, or a list with numbers in it.
func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var all []string
		for i, one := range v {
			if i == maxMessages {
				break
			}
			if s, ok := one.(string); ok {
				all = append(all, s)
			} else if one != nil {
				all = append(all, fmt.Sprint(one))
			}
		}
		return all
	}
	return nil
}

// plain drops markup and cuts a body that is no JSON.
func plain(s string) string {
	var b strings.Builder
	tag := false
	for _, r := range s {
		switch {
		case r == '<':
			tag = true
		case r == '>':
			tag = false
			b.WriteByte(' ')
		case !tag:
			b.WriteRune(r)
		}
		if b.Len() > 400 {
			break
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// printable makes text from a BMC safe for a terminal and cuts it to n runes.
func printable(s string, n int) string {
	var b strings.Builder
	for _, r := range s {
		if n == 0 {
			b.WriteString("…")
			break
		}
		n--
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == 0x202e || r == 0xfffd {
			r = ' '
		}
		b.WriteRune(r)
	}
	return b.String()
}

// explain wraps an answer of the BMC for an operator; what says what was being done.
func explain(err error, what string) error {
	if err == nil {
		return nil
	}
	var known *fleet.Error
	if errors.As(err, &known) {
		return fmt.Errorf("%s: %w", what, err)
	}
	e := AsError(err)
	if e == nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	switch {
	case e.licence():
		return fleet.Errorf(fleet.Refused, "MC-BMC-LICENCE", "%s: the BMC wants a licence: %w", what, err).
			WithHint("metalctl bmc probe shows which licence is missing")
	case e.Status == http.StatusForbidden || e.Status == http.StatusUnauthorized:
		return fleet.Errorf(fleet.Denied, "MC-BMC-AUTH", "%s: the account may not do this: %w", what, err).
			WithHint("give the BMC account the Operator role, or: metalctl bmc credential set NODE")
	case e.Status == http.StatusConflict || e.Status == http.StatusPreconditionFailed:
		return fleet.Errorf(fleet.Conflict, "MC-BMC-CONFLICT", "%s: %w", what, err)
	case e.Status == http.StatusServiceUnavailable || e.Status == http.StatusTooManyRequests || e.Status == http.StatusBadGateway || e.Status == http.StatusGatewayTimeout:
		return fleet.Errorf(fleet.Unavailable, "MC-BMC-BUSY", "%s: %w", what, err).WithHint("the BMC is starting or busy: give the same command again in some minutes; a plan that failed goes on with metalctl node retry NODE")
	}
	return fleet.Errorf(fleet.Broken, "MC-BMC-REFUSED", "%s: %w", what, err).WithHint("metalctl node timeline NODE shows the exchange")
}
