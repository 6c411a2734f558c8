package reconcile_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet/step"
)

func TestPlans(t *testing.T) { contract.Plan(t) }

func TestFrozenPlans(t *testing.T) { contract.FrozenPlan(t) }

func TestFaultsDocs(t *testing.T) {
	const path = "../../docs/faults.md"
	want := contract.FaultsMarkdown()
	if os.Getenv("METALCTL_UPDATE") != "" {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(got), "\n"), strings.Split(want, "\n")); diff != "" {
		t.Errorf("docs/faults.md is not what the contract of plans holds; make generate\n%s", diff)
	}
	// A row that names a test names one that there is.
	_, rows, _ := strings.Cut(want, "\n## Elsewhere\n")
	for _, held := range regexp.MustCompile("([a-z]+/[a-z]+) (Test[A-Za-z]+)(?:, (Test[A-Za-z]+))?").FindAllStringSubmatch(rows, -1) {
		for _, name := range held[2:] {
			if name != "" && !declares(t, "../../"+held[1], name) {
				t.Errorf("docs/faults.md names %s, and %s has no such test", name, held[1])
			}
		}
	}
	for _, decl := range step.Catalogue {
		if !strings.Contains(want, "\n| `"+decl.Name+"` |") {
			t.Errorf("no plan of the contract has the step %s", decl.Name)
		}
	}
}

// declares reports whether a room's tests have a function.
func declares(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(b), "\nfunc "+name+"(t *testing.T)")
	})
}
