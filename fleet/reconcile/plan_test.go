package reconcile_test

import (
	"testing"

	"github.com/metalctl/metalctl/fixtures/contract"
)

func TestPlans(t *testing.T) { contract.Plan(t) }

func TestFrozenPlans(t *testing.T) { contract.FrozenPlan(t) }
