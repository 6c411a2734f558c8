package verdict

import "github.com/metalctl/metalctl/fleet"

// board is what an NVIDIA baseboard is made of, whatever server is around it.
type board struct {
	name     string
	links    int     // NVLinks per GPU
	speed    float64 // GB/s each way
	switches int     // NVSwitches on PCI
	perGPU   int     // the most links that one GPU has to one switch
	wiring   string
}

// boards by a GPU's vendor:device. Sources: NVML captures of the boards, NCCL's and gpud's fixtures; see docs/gpu-faults.md.
var boards = map[string]board{
	"10de:20b0": {"HGX A100", 12, 25, 6, 2, ""},
	"10de:20b2": {"HGX A100", 12, 25, 6, 2, ""},
	"10de:2330": {"HGX H100", 18, 26.562, 4, 5, "hgx-hopper"},
	"10de:2335": {"HGX H200", 18, 26.562, 4, 5, "hgx-hopper"},
	"10de:2901": {"HGX B200", 18, 53.125, 0, 9, ""},
}

// boardOf is the board of an inventory's GPUs, nil where it is unknown, where they are of several kinds, or where module ids say that there is none.
func boardOf(inv *fleet.Inventory) *board {
	device, modules := "", false
	for _, g := range inv.GPUs {
		if device != "" && g.PCIDevice != device {
			return nil
		}
		device = g.PCIDevice
		modules = modules || g.ModuleID > 0
	}
	b, ok := boards[device]
	if !ok || !modules {
		return nil
	}
	return &b
}

// end is a port of a switch, numbered by ascending PCI address.
type end struct{ chip, port int }

// hopper has the switch port that each link of each module leads to: row m is module id m, column l is link l. It is a constant of the board; read from
// an H200 (all 144 pairs, all different) and in part from an H100, which agrees.
var hopper = [9][18]end{
	2: {{2, 46}, {2, 47}, {1, 2}, {1, 3}, {2, 41}, {2, 40}, {1, 5}, {1, 4}, {0, 46}, {0, 47}, {2, 34}, {1, 32}, {3, 34}, {3, 35}, {0, 43}, {0, 42}, {3, 38}, {3, 39}},
	4: {{3, 47}, {3, 46}, {1, 50}, {1, 51}, {3, 43}, {3, 42}, {2, 3}, {2, 2}, {0, 33}, {0, 32}, {1, 53}, {2, 35}, {0, 37}, {0, 36}, {1, 62}, {1, 63}, {2, 38}, {2, 39}},
	1: {{1, 36}, {1, 37}, {0, 40}, {0, 41}, {3, 58}, {3, 59}, {2, 62}, {2, 63}, {3, 63}, {3, 62}, {2, 45}, {1, 40}, {0, 44}, {0, 45}, {2, 43}, {2, 42}, {1, 46}, {1, 47}},
	3: {{3, 61}, {3, 60}, {1, 39}, {1, 38}, {3, 57}, {3, 56}, {0, 53}, {0, 52}, {2, 50}, {2, 51}, {1, 33}, {2, 52}, {0, 49}, {0, 48}, {2, 16}, {2, 17}, {1, 1}, {1, 0}},
	7: {{1, 54}, {1, 55}, {3, 45}, {3, 44}, {1, 58}, {1, 59}, {3, 41}, {3, 40}, {2, 56}, {2, 57}, {1, 43}, {2, 53}, {0, 55}, {0, 54}, {2, 49}, {2, 48}, {0, 51}, {0, 50}},
	5: {{1, 57}, {1, 56}, {2, 60}, {2, 61}, {3, 48}, {3, 49}, {0, 59}, {0, 58}, {3, 53}, {3, 52}, {2, 44}, {1, 52}, {0, 62}, {0, 63}, {2, 37}, {2, 36}, {1, 49}, {1, 48}},
	6: {{2, 33}, {2, 32}, {3, 37}, {3, 36}, {2, 0}, {2, 1}, {0, 34}, {0, 35}, {1, 6}, {1, 7}, {2, 19}, {1, 42}, {3, 33}, {3, 32}, {0, 39}, {0, 38}, {1, 35}, {1, 34}},
	8: {{1, 60}, {1, 61}, {3, 50}, {3, 51}, {1, 45}, {1, 44}, {2, 59}, {2, 58}, {3, 54}, {3, 55}, {1, 41}, {2, 18}, {0, 56}, {0, 57}, {2, 54}, {2, 55}, {0, 61}, {0, 60}},
}

// Wired is the switch (by ascending PCI address) and the port that a link of a module leads to by a table; false where the table does not know.
func Wired(wiring string, module, link int) (chip, port int, ok bool) {
	if wiring != "hgx-hopper" || module < 1 || module >= len(hopper) || link < 0 || link >= len(hopper[0]) {
		return 0, 0, false
	}
	e := hopper[module][link]
	return e.chip, e.port, true
}
