package fleet

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// TestSecretStaysSecret prints a credential every way that there is.
func TestSecretStaysSecret(t *testing.T) {
	const word = "hunter2-correct-horse"
	s := NewSecret(word)
	type outer struct{ Password Secret }
	type hidden struct{ password Secret }
	values := map[string]any{
		"itself": s, "a pointer": &s, "a field": outer{s}, "a pointer to a field": &outer{s}, "an unexported field": hidden{s}, "a pointer to one": &hidden{s},
		"a slice": []Secret{s}, "a map": map[string]Secret{"p": s}, "a map key": map[Secret]int{s: 1}, "an interface": []any{s, &s},
	}
	verbs := []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%t", "%c", "%o", "%b", "%e", "%U", "%p", "%20s", "%-20v", "%!"}
	var out bytes.Buffer
	for name, v := range values {
		out.Reset()
		for _, verb := range verbs {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v, fmt.Sprint(v), fmt.Errorf("wrap: %v", v))
		b, err := json.Marshal(v)
		out.Write(b)
		if err != nil {
			out.WriteString(err.Error())
		}
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("log", "v", v, slog.Group("g", "v", v))
		}
		for _, leak := range []string{word, hex.EncodeToString([]byte(word)), strings.ToUpper(hex.EncodeToString([]byte(word)))} {
			if strings.Contains(out.String(), leak) {
				t.Errorf("%s leaks:\n%s", name, out.String())
			}
		}
	}
	if s.Reveal() != word || s.IsZero() {
		t.Errorf("revealed %q, zero %v", s.Reveal(), s.IsZero())
	}
	if z := NewSecret(""); !z.IsZero() || z.Reveal() != "" || !(Secret{}).IsZero() {
		t.Error("an empty secret is not zero")
	}
	if text, err := s.MarshalText(); string(text) != "***" || err != nil {
		t.Errorf("as text: %s, %v", text, err)
	}
}
