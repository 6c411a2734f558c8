package fleet

import "testing"

func TestWhichEraseIsEnoughForAClass(t *testing.T) {
	clear, purge, format := Class{EraseLevel: "clear"}, Class{EraseLevel: "purge"}, Class{EraseLevel: "purge", AcceptFormat: true}
	for level, want := range map[string][3]bool{
		"":             {false, false, false},
		"clear":        {true, false, false},
		ErasedByFormat: {true, false, true},
		"purge":        {true, true, true},
	} {
		if got := [3]bool{clear.Erases(level), purge.Erases(level), format.Erases(level)}; got != want {
			t.Errorf("%q is enough for clear, purge, purge or format: %v, want %v", level, got, want)
		}
	}
}
