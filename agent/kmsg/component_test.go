package kmsg

import (
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

// TestComponent: a GPU is called by its module id, and by nothing that could be another one's.
func TestComponent(t *testing.T) {
	board := &fleet.Inventory{GPUs: []fleet.GPU{{Index: 0, ModuleID: 2, PCIAddress: "0000:19:00.0"}, {Index: 1, PCIAddress: "0000:3b:00.0", Lost: "lost: GPU is lost"}, {Index: 2, ModuleID: 1, PCIAddress: "0000:4c:00.0"}}}
	cards := &fleet.Inventory{GPUs: []fleet.GPU{{Index: 0, PCIAddress: "0000:19:00.0"}, {Index: -1, PCIAddress: "0000:3b:00.0"}}}
	none := func(string) (int64, bool) { return 0, false }
	for _, c := range []struct {
		name     string
		inv      *fleet.Inventory
		at, want string
	}{
		{"by module id", board, "pci/0000:19:00.0", "gpu/2"},
		{"a link", board, "pci/0000:4c:00.0/nvlink/7", "gpu/1/nvlink/7"},
		{"a lost GPU's index is another one's module id", board, "pci/0000:3b:00.0", "pci/0000:3b:00.0"},
		{"by index where there are no module ids", cards, "pci/0000:19:00.0", "gpu/0"},
		{"without driver", cards, "pci/0000:3b:00.0", "pci/0000:3b:00.0"},
		{"nothing known", board, "pci/0000:ff:00.0", "pci/0000:ff:00.0"},
	} {
		if got := Component(c.inv, c.at, none); got != c.want {
			t.Errorf("%s: %s is %s, not %s", c.name, c.at, got, c.want)
		}
	}
}
