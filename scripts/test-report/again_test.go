package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAgain(t *testing.T) {
	fail := func(pkg, test, output string) string {
		return fmt.Sprintf(`{"Action":"output","Package":%[1]q,"Test":%[2]q,"Output":%[3]q}
{"Action":"fail","Package":%[1]q,"Test":%[2]q}
{"Action":"fail","Package":%[1]q}
`, pkg, test, output)
	}
	const pass = `{"Action":"pass","Package":"m/p","Test":"TestA"}` + "\n"
	for name, c := range map[string]struct {
		first, then string
		exit        int
		good        bool
	}{
		"all pass":               {first: pass, good: true},
		"passes three times":     {first: pass + fail("m/p", "TestA", "late\n"), then: pass + pass + pass, good: true},
		"a subtest":              {first: pass + fail("m/p", "TestA/b", "late\n") + fail("m/p", "TestA", ""), then: pass + pass + pass, good: true},
		"passes twice":           {first: pass + fail("m/p", "TestA", "late\n"), then: pass + pass},
		"fails again":            {first: pass + fail("m/p", "TestA", "late\n"), then: pass + pass + pass, exit: 1},
		"boots are counted":      {first: pass + fail("m/boots", "TestA", "late\n"), then: pass, good: true},
		"not run at all":         {first: pass + fail("m/p", "TestA", "late\n")},
		"a race":                 {first: pass + fail("m/p", "TestA", "WARNING: DATA RACE\n"), then: pass + pass + pass},
		"a race in a subtest":    {first: pass + fail("m/p", "TestA/b", "WARNING: DATA RACE\n") + fail("m/p", "TestA", ""), then: pass + pass + pass},
		"a panic":                {first: pass + fail("m/p", "TestA", "panic: oh\n"), then: pass + pass + pass},
		"a package without test": {first: pass + `{"Action":"fail","Package":"m/p"}` + "\n", then: pass + pass + pass},
		"a build":                {first: pass + fail("m/p", "TestA", "late\n") + `{"Action":"build-fail","Package":"m/q"}` + "\n", then: pass + pass + pass},
		"too many":               {first: pass + fail("m/p", "TestA", "") + fail("m/p", "TestB", "") + fail("m/q", "TestC", ""), then: pass + pass + pass},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "then"), []byte(c.then), 0o600); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			r := &report{out: &out, lines: map[string][]string{}}
			if err := r.read(strings.NewReader(c.first)); err != nil {
				t.Fatal(err)
			}
			r.again([]string{"sh", "-c", fmt.Sprintf("cat %s; exit %d", filepath.Join(dir, "then"), c.exit)}, []string{"boots"})
			if good := r.close(); good != c.good {
				t.Errorf("good %v, want %v:\n%s", good, c.good, out.String())
			}
			if unsteady := strings.Contains(out.String(), "unsteady: "); unsteady != (c.good && name != "all pass") {
				t.Errorf("named unsteady: %v\n%s", unsteady, out.String())
			}
		})
	}
}
