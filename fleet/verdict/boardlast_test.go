package verdict

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// TestBoardAgainst: what the class and the last look say of a baseboard is one difference each, at its part.
func TestBoardAgainst(t *testing.T) {
	host := func(b *fleet.Baseboard, i int, link string) {
		b.Retimers[i].Links = []fleet.BoardPCIeLink{{Port: "DOWN_0", State: link, PCIeLink: fleet.PCIeLink{Width: 16, MaxWidth: 16}}}
	}
	for _, c := range []struct {
		name string
		do   func(inv *fleet.Inventory, b, last *fleet.Baseboard, e *fleet.ClassExpect)
		want string
	}{
		{"all as before and as the class says", func(_ *fleet.Inventory, _, _ *fleet.Baseboard, e *fleet.ClassExpect) {
			e.Baseboard = fleet.ExpectBaseboard{Required: true, NVLinks: 8, Retimers: 4, RootsOfTrust: 4}
			e.Firmware.Board = map[string]string{"HGX_FW_PCIeRetimer_*": "2.7"}
		}, ""},
		{"a root of trust is another", func(_ *fleet.Inventory, b, _ *fleet.Baseboard, _ *fleet.ClassExpect) {
			b.Roots[1].Identity = "sha256:x"
		}, "critical MC-BOARD-IDENTITY board/HGX_ERoT_GPU_1"},
		{"a root of trust is another after an update", func(_ *fleet.Inventory, b, last *fleet.Baseboard, _ *fleet.ClassExpect) {
			b.Roots[1].Identity = "sha256:x"
			b.Firmware = append(b.Firmware, fleet.BoardFirmware{ID: "HGX_FW_ERoT_GPU_1", Version: "2"})
			last.Firmware = append(last.Firmware, fleet.BoardFirmware{ID: "HGX_FW_ERoT_GPU_1", Version: "1"})
		}, "warning MC-BOARD-IDENTITY board/HGX_ERoT_GPU_1"},
		{"a root of trust went with its GPU, which was replaced", func(_ *fleet.Inventory, b, last *fleet.Baseboard, _ *fleet.ClassExpect) {
			b.Roots[1].Identity, last.GPUs[1].Serial = "sha256:x", "BEFORE"
		}, ""},
		{"a retimer is gone", func(_ *fleet.Inventory, b, _ *fleet.Baseboard, e *fleet.ClassExpect) {
			b.Retimers, e.Baseboard.Retimers = b.Retimers[1:], 4
		}, "critical MC-BOARD-RETIMER retimer/HGX_PCIeRetimer_0"},
		{"fewer retimers than the class says from the beginning", func(_ *fleet.Inventory, b, last *fleet.Baseboard, e *fleet.ClassExpect) {
			b.Retimers, last.Retimers, e.Baseboard.Retimers = b.Retimers[1:], last.Retimers[1:], 4
		}, "critical MC-BOARD-RETIMER retimers"},
		{"a retimer's link is down", func(_ *fleet.Inventory, b, _ *fleet.Baseboard, _ *fleet.ClassExpect) { host(b, 1, fleet.LinkDown) }, "critical MC-BOARD-RETIMER retimer/HGX_PCIeRetimer_1"},
		{"a retimer's link is down, and its GPU is not on PCI", func(inv *fleet.Inventory, b, _ *fleet.Baseboard, _ *fleet.ClassExpect) {
			host(b, 1, fleet.LinkDown)
			inv.GPUs = append(inv.GPUs[:1:1], inv.GPUs[2:]...)
		}, "critical MC-BOARD-GPU-HOST gpu/2"},
		{"a retimer is critical", func(_ *fleet.Inventory, b, _ *fleet.Baseboard, _ *fleet.ClassExpect) {
			b.Retimers[2].Health = "Critical"
		}, "critical MC-BOARD-HEALTH retimer/HGX_PCIeRetimer_2"},
		{"a retimer runs another firmware", func(_ *fleet.Inventory, b, _ *fleet.Baseboard, _ *fleet.ClassExpect) {
			b.Firmware[len(b.Firmware)-1].Version = "2.8"
		}, "warning MC-FIRMWARE-MIXED retimer/HGX_PCIeRetimer_3"},
		{"a retimer runs another firmware than the class says", func(_ *fleet.Inventory, b, _ *fleet.Baseboard, e *fleet.ClassExpect) {
			b.Firmware[len(b.Firmware)-1].Version = "2.8"
			e.Firmware.Board = map[string]string{"HGX_FW_PCIeRetimer_*": "2.7"}
		}, "critical MC-FIRMWARE-BASELINE board/HGX_FW_PCIeRetimer_3"},
		{"an item that the class names and the BMC does not", func(_ *fleet.Inventory, _, _ *fleet.Baseboard, e *fleet.ClassExpect) {
			e.Firmware.Board = map[string]string{"HGX_FW_FPGA_*": "1"}
		}, "critical MC-BOARD-UNREAD board/HGX_FW_FPGA_*"},
		{"fewer links than the class says", func(_ *fleet.Inventory, _, _ *fleet.Baseboard, e *fleet.ClassExpect) { e.Baseboard.NVLinks = 9 }, "critical MC-BOARD-LINK-ENDS board/nvlinks"},
		{"a part was not read, and the class wants it", func(_ *fleet.Inventory, b, _ *fleet.Baseboard, e *fleet.ClassExpect) {
			b.Missing, b.Retimers, e.Baseboard.Retimers = []fleet.Missing{{What: "chassis", Why: "read /redfish/v1/Chassis: no answer"}}, nil, 4
		}, "critical MC-BOARD-UNREAD board"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inv, b := agreeing(0)
			_, last := agreeing(0)
			for _, x := range []*fleet.Baseboard{&b, &last} {
				for i := range x.Roots {
					x.Roots[i].Identity = "sha256:" + x.Roots[i].ID
				}
				for i, g := range x.GPUs {
					n := "PCIeRetimer_" + g.Name[len("GPU_"):]
					x.Retimers = append(x.Retimers, fleet.BoardRetimer{Name: "HGX_" + n, GPU: g.Name, State: "Enabled", Health: "OK"})
					host(x, i, fleet.LinkUp)
					x.Firmware = append(x.Firmware, fleet.BoardFirmware{ID: "HGX_FW_" + n, Version: "2.7"})
				}
			}
			var e fleet.ClassExpect
			c.do(&inv, &b, &last, &e)
			ds, _ := Baseboard(inv, fleet.Class{Name: "k", Expect: e}, b, &last)
			var got []string
			for _, d := range ds {
				got = append(got, strings.Join([]string{string(d.Severity), d.Code, d.Component}, " "))
			}
			if d := cmp.Diff(c.want, strings.Join(got, "\n")); d != "" {
				t.Errorf("(-want +got):\n%s\n%+v", d, ds)
			}
		})
	}
}
