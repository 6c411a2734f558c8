package fleet

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a credential. However it is printed, logged or marshalled it reads "***"; Reveal is the only way to its text.
type Secret struct {
	// text is a pointer because fmt prints an unexported field of a struct without asking its methods; it then shows an address.
	text *string
}

// NewSecret wraps text.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal returns the text; the caller hands it to the wire and keeps no copy.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is no text.
func (s Secret) IsZero() bool { return s.text == nil }

// Format answers every verb of fmt, also those that would take the struct apart (%d).
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, "***") } //nolint:errcheck // fmt has no way to tell

func (Secret) String() string               { return "***" }
func (Secret) GoString() string             { return "***" }
func (Secret) LogValue() slog.Value         { return slog.StringValue("***") }
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"***"`), nil }
func (Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }
