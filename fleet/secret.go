package fleet

import (
	"fmt"
	"log/slog"
)

// Secret is a credential. However it is printed, logged or marshalled it reads "***"; Reveal is the only way to its text.
type Secret struct{ text string }

// NewSecret wraps text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text; the caller hands it to the wire and keeps no copy.
func (s Secret) Reveal() string { return s.text }

// IsZero reports whether there is no text.
func (s Secret) IsZero() bool { return s.text == "" }

func (Secret) String() string               { return "***" }
func (Secret) GoString() string             { return "***" }
func (Secret) LogValue() slog.Value         { return slog.StringValue("***") }
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"***"`), nil }
func (Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// Format covers the verbs that String does not, such as %d, which would print the text as the wrong type.
func (Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, "***") }
