package agent_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/metalctl/metalctl/agent"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/images/pack"
)

func TestTakeSimulated(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "simulated"), []byte("hgx-h200\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if _, err := pack.Archive(context.Background(), src, &archive); err != nil {
		t.Fatal(err)
	}
	whole := archive.Bytes()
	half := len(whole) / 2
	for name, c := range map[string]struct {
		parts map[string][]byte
		code  string
		want  string
	}{
		"nothing is offered":        {nil, "", ""},
		"parts, in any order":       {map[string][]byte{"001": whole[half:], "000": whole[:half]}, "", "hgx-h200\n"},
		"the second part is absent": {map[string][]byte{"000": whole[:half]}, "MC-AGENT-SIMULATED", ""},
		"no archive":                {map[string][]byte{"000": []byte("something else")}, "MC-AGENT-SIMULATED", ""},
	} {
		t.Run(name, func(t *testing.T) {
			at := t.TempDir()
			for part, b := range c.parts {
				if err := os.Mkdir(filepath.Join(at, part), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(at, part, "raw"), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			dir, err := agent.TakeSimulated(filepath.Join(at, "*", "raw"))
			if fleet.CodeOf(err) != c.code || (dir != "") != (c.want != "") {
				t.Fatalf("got %q, %v; want code %q", dir, err, c.code)
			}
			if c.want == "" {
				return
			}
			if got, err := os.ReadFile(filepath.Join(dir, "simulated")); string(got) != c.want {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) != 1 {
		t.Errorf("%v, %v: what could not be read is left behind", left, err)
	}
}
