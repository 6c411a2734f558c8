package ufm

import (
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

func TestDecodePartitions(t *testing.T) {
	const good = `{"0x7FFF": {"partition": "management", "guids": [], "membership": "limited"},
		"0x0101": {"partition": "api_pkey_0x101", "ip_over_ib": true, "guids": [{"guid": "0x50000000000001AB", "index0": true, "membership": "full"}]}}`
	p, err := decodePartitions([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if c := p.carries("0x50000000000001ab"); c.String() != "0x0101=full 0x7fff=limited" || c.Index0 != 0x101 {
		t.Errorf("%s, index %s", c, c.Index0)
	}
	for what, text := range map[string]string{
		"no JSON":                   `<html>`,
		"a list":                    `[]`,
		"a key with the top bit":    `{"0x8101": {}}`,
		"a name for a key":          `{"all": {}}`,
		"one key in two forms":      `{"0x101": {}, "0x0101": {}}`,
		"a word for a GUID":         `{"0x101": {"guids": [{"guid": "ALL", "membership": "full"}]}}`,
		"no membership":             `{"0x101": {"guids": [{"guid": "5000000000000101"}]}}`,
		"both memberships":          `{"0x101": {"guids": [{"guid": "5000000000000101", "membership": "both"}]}}`,
		"one GUID, two memberships": `{"0x101": {"guids": [{"guid": "5000000000000101", "membership": "full"}, {"guid": "5000000000000101", "membership": "limited"}]}}`,
		"a default that is no word": `{"0x7fff": {"membership": "some"}}`,
		"a GUID that is zero":       `{"0x101": {"guids": [{"guid": "0000000000000000", "membership": "full"}]}}`,
	} {
		if p, err := decodePartitions([]byte(text)); err == nil {
			t.Errorf("%s: %+v", what, p)
		}
	}
}

func TestDecodeJob(t *testing.T) {
	for text, want := range map[string]string{"": "", " {} ": "", "null": "", `{"id": 7}`: "7", `{"id": "12"}`: "12"} {
		if got, err := decodeJob([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"x", `{"id": -1}`, `{"id": 1.5}`, `{"id": "../users"}`} {
		if got, err := decodeJob([]byte(text)); err == nil {
			t.Errorf("%s: %q", text, got)
		}
	}
	for text, want := range map[string]string{`{"Status": "Completed"}`: "done", `{"Status": "Running"}`: "waits", `{"Status": "Completed With Errors", "Summary": "no"}`: "error", `{}`: "error"} {
		done, err := decodeStatus([]byte(text))
		if got := map[bool]string{true: "done", false: "waits"}[done]; err != nil && want != "error" || err == nil && got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
}

// FuzzDecode: whatever UFM answers, what is taken of it is in its one form.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"0x101": {"guids": [{"guid": "5000000000000101", "membership": "full"}]}, "0x7fff": {"membership": "limited"}}`))
	f.Add([]byte(`[{"guid": "5000000000000101", "logical_state": "Active"}]`))
	f.Add([]byte(`{"id": 3, "Status": "Completed"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := decodePartitions(b); err == nil {
			for k, members := range p.by {
				for g, m := range members {
					if !g.Valid() || m.PKey != k || !k.Valid() && k != fleet.DefaultPKey {
						t.Errorf("%s %s %+v", k, g, m)
					}
				}
			}
		}
		if seen, _, err := decodePorts(b); err == nil {
			for g := range seen {
				if !g.Valid() {
					t.Errorf("port %q", g)
				}
			}
		}
		if id, err := decodeJob(b); err == nil && strings.Trim(id, "0123456789") != "" {
			t.Errorf("job %q", id)
		}
		_, _ = decodeStatus(b)
	})
}
