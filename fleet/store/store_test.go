package store_test

import (
	"testing"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
)

func TestContract(t *testing.T) {
	contract.Store(t, func(t *testing.T) fleet.Store { return contract.OpenStore(t) })
}
