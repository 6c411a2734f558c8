package reconcile_test

import (
	"os"
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
	for _, decl := range step.Catalogue {
		if !strings.Contains(want, "\n| `"+decl.Name+"` |") {
			t.Errorf("no plan of the contract has the step %s", decl.Name)
		}
	}
}
