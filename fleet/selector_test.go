package fleet

import "testing"

// A selector that is understood selects by its own words.
func FuzzSelector(f *testing.F) {
	for _, s := range []string{"rack=r1", "a!=b,c,!d", "a==b", ",", "=", "!", "a=b=c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rs, err := ParseSelector(text)
		if err != nil {
			if CodeOf(err) != "MC-API-SELECTOR" {
				t.Fatalf("got %v", err)
			}
			return
		}
		for _, r := range rs {
			labels := map[string]string{r.Key: r.Value}
			if got := Selects([]Requirement{r}, labels); got != (r.Op == LabelEquals || r.Op == LabelSet) {
				t.Fatalf("%q: %+v of itself is %v", text, r, got)
			}
		}
	})
}
