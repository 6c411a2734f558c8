package inspect

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzUnitSerial(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		if s := unitSerial(b); !utf8.ValidString(s) || s != strings.TrimSpace(s) && !strings.ContainsAny(s, "\x00") {
			t.Errorf("%q", s)
		}
	})
}
