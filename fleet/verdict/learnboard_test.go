package verdict

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// TestLearnBoard: a board agrees with what was learned of it, and each thing that is taken from it or changed in it does not.
func TestLearnBoard(t *testing.T) {
	inv, b := agreeing(1)
	for i := range 8 {
		b.Retimers = append(b.Retimers, fleet.BoardRetimer{Name: fmt.Sprintf("HGX_PCIeRetimer_%d", i), State: "Enabled", Health: "OK"})
		b.Firmware = append(b.Firmware, fleet.BoardFirmware{ID: fmt.Sprintf("HGX_FW_PCIeRetimer_%d", i), Version: "2.7.20"})
	}
	b.Firmware = append(b.Firmware, fleet.BoardFirmware{ID: "HGX_FW_BMC_0", Version: "24.1"}, fleet.BoardFirmware{ID: "HGX_FW_NVSwitch_0", Version: "96.10"},
		fleet.BoardFirmware{ID: "HGX_FW_NVSwitch_1", Version: "96.11"}, fleet.BoardFirmware{ID: "HGX_FW_CPLD_0"}, fleet.BoardFirmware{ID: "odd[name", Version: "1"})
	e, items := LearnBoard(b)
	if d := cmp.Diff(fleet.ExpectBaseboard{Required: true, NVLinks: 8, Retimers: 8, RootsOfTrust: 4}, e); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]string{"HGX_InfoROM_GPU_*": "G520", "HGX_FW_PCIeRetimer_*": "2.7.20", "HGX_FW_BMC_0": "24.1", "HGX_FW_NVSwitch_0": "96.10", "HGX_FW_NVSwitch_1": "96.11"}, items); d != "" {
		t.Error(d)
	}
	class := fleet.Class{Name: "golden", Expect: fleet.ClassExpect{Baseboard: e, Firmware: fleet.ExpectFirmware{Board: items}}}
	if ds, _ := Baseboard(inv, class, b, nil); len(ds) > 0 {
		t.Errorf("the board differs from what was learned of it: %+v", ds)
	}
	for name, do := range map[string]func(b *fleet.Baseboard){
		"a retimer is gone":         func(b *fleet.Baseboard) { b.Retimers = b.Retimers[1:] },
		"a root of trust is gone":   func(b *fleet.Baseboard) { b.Roots = b.Roots[1:] },
		"an item is gone":           func(b *fleet.Baseboard) { b.Firmware = b.Firmware[:len(b.Firmware)-4] },
		"a switch has another one":  func(b *fleet.Baseboard) { b.Firmware[len(b.Firmware)-4].Version = "96.11" },
		"a retimer has another one": func(b *fleet.Baseboard) { b.Firmware[5].Version = "2.7.19" },
	} {
		t.Run(name, func(t *testing.T) {
			b := b
			b.Firmware = append([]fleet.BoardFirmware(nil), b.Firmware...)
			do(&b)
			if ds, _ := Baseboard(inv, class, b, nil); len(ds) == 0 {
				t.Error("nothing differs")
			}
		})
	}
	for name, do := range map[string]func(b *fleet.Baseboard){
		"read in part":  func(b *fleet.Baseboard) { b.Missing = []fleet.Missing{{What: "sensors", Why: "500"}} },
		"without power": func(b *fleet.Baseboard) { b.Powered = false },
	} {
		b := b
		do(&b)
		if e, items := LearnBoard(b); e != (fleet.ExpectBaseboard{}) || items != nil {
			t.Errorf("%s: learned %+v and %v", name, e, items)
		}
	}
}
