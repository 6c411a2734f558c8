package verdict

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// agreeing is a host and a baseboard that agree: four GPUs with two links each to two switches.
func agreeing(first int) (inv fleet.Inventory, b fleet.Baseboard) {
	b.Powered = true
	for i := range 4 {
		serial := fmt.Sprintf("S%d", i)
		h := fleet.GPU{Index: 3 - i, Vendor: "nvidia", ModuleID: i + 1, Serial: serial, VBIOS: "96", PCIAddress: fmt.Sprintf("0000:%02x:00.0", 16+i), RemappedRows: &fleet.RemappedRows{},
			ECC: &fleet.ECC{}, InfoROM: map[string]string{"image": "G520"}}
		g := fleet.BoardGPU{Name: fmt.Sprintf("GPU_%d", i+first), Number: i + first, Serial: serial, VBIOS: "96", State: "Enabled", Health: "OK"}
		for l := range 2 {
			h.NVLinks = append(h.NVLinks, fleet.NVLink{Link: l, State: fleet.LinkUp})
			end := fleet.BoardPort{Part: fmt.Sprintf("NVSwitch_%d", l), Port: i, State: fleet.LinkUp, Gbps: 212, MaxGbps: 212, Peer: fmt.Sprintf("%s/%d", g.Name, l)}
			b.Links = append(b.Links, fleet.BoardLink{A: fleet.BoardPort{Part: g.Name, Port: l, State: fleet.LinkUp, Gbps: 212, MaxGbps: 212, Peer: fmt.Sprintf("NVSwitch_%d/%d", l, i)}, B: &end})
		}
		inv.GPUs, b.GPUs = append(inv.GPUs, h), append(b.GPUs, g)
		b.Roots = append(b.Roots, fleet.BoardRoot{ID: "HGX_ERoT_" + g.Name, Enabled: true})
		b.Firmware = append(b.Firmware, fleet.BoardFirmware{ID: "HGX_InfoROM_" + g.Name, Version: "G520"})
	}
	return inv, b
}

// TestBaseboard: each way in which host and BMC can disagree is one difference at the right part, and calls for its own repair.
func TestBaseboard(t *testing.T) {
	yes, many := true, int64(7)
	for _, c := range []struct {
		name string
		do   func(inv *fleet.Inventory, b *fleet.Baseboard)
		want string
	}{
		{"both see the same", func(*fleet.Inventory, *fleet.Baseboard) {}, ""},
		{"the BMC alone sees a GPU", func(inv *fleet.Inventory, _ *fleet.Baseboard) { inv.GPUs = append(inv.GPUs[:1:1], inv.GPUs[2:]...) }, "critical MC-BOARD-GPU-HOST gpu/2 cold-cycle"},
		{"the BMC sees GPUs and the host none", func(inv *fleet.Inventory, _ *fleet.Baseboard) { inv.GPUs = nil }, "critical MC-BOARD-GPU-HOST gpus cold-cycle"},
		{"the host alone sees a GPU", func(_ *fleet.Inventory, b *fleet.Baseboard) { b.GPUs = append(b.GPUs[:1:1], b.GPUs[2:]...) }, "warning MC-BOARD-GPU-BMC gpu/2 cold-cycle"},
		{"the BMC calls a GPU absent that the host has", func(_ *fleet.Inventory, b *fleet.Baseboard) { b.GPUs[1].State, b.GPUs[1].Serial = "Absent", "" }, "warning MC-BOARD-GPU-BMC gpu/2 cold-cycle"},
		{"neither sees a GPU", func(inv *fleet.Inventory, b *fleet.Baseboard) {
			inv.GPUs, b.GPUs = append(inv.GPUs[:1:1], inv.GPUs[2:]...), append(b.GPUs[:1:1], b.GPUs[2:]...)
		}, "critical MC-BOARD-GPU-NONE gpu/2 reseat"},
		{"the driver lost a GPU that the BMC sees", func(inv *fleet.Inventory, b *fleet.Baseboard) { inv.GPUs[1].Lost = "lost: XID 79" }, "critical MC-BOARD-GPU-DRIVER gpu/2 cold-cycle"},
		{"the driver never had a GPU that the BMC calls critical", func(inv *fleet.Inventory, b *fleet.Baseboard) {
			inv.GPUs[1] = fleet.GPU{Index: -1, Vendor: "nvidia", ModuleID: 2, Lost: "unknown: not initialised"}
			b.GPUs[1].Health = "Critical"
		}, "critical MC-BOARD-GPU-DRIVER gpu/2 replace"},
		{"the driver lost a GPU that tells nothing any more", func(inv *fleet.Inventory, _ *fleet.Baseboard) {
			inv.GPUs[1] = fleet.GPU{Index: 2, Vendor: "nvidia", PCIAddress: inv.GPUs[1].PCIAddress, Lost: "lost: GPU is lost"}
		}, "critical MC-BOARD-GPU-DRIVER gpu/2 cold-cycle"},
		{"the driver lost two GPUs that tell nothing any more", func(inv *fleet.Inventory, _ *fleet.Baseboard) {
			for _, i := range []int{1, 2} {
				inv.GPUs[i] = fleet.GPU{Index: 3 - i, Vendor: "nvidia", PCIAddress: inv.GPUs[i].PCIAddress, Lost: "lost: GPU is lost"}
			}
		}, "critical MC-BOARD-GPU-DRIVER gpu/2 cold-cycle\ncritical MC-BOARD-GPU-DRIVER gpu/3 cold-cycle"},
		{"another GPU is in place", func(_ *fleet.Inventory, b *fleet.Baseboard) { b.GPUs[1].Serial = "OTHER" }, "critical MC-BOARD-GPU-OTHER gpu/2 retest"},
		{"another board is in place", func(_ *fleet.Inventory, b *fleet.Baseboard) {
			for i := range b.GPUs {
				b.GPUs[i].Serial, b.GPUs[i].VBIOS, b.Links[i].B.State = "X"+b.GPUs[i].Serial, "97", "down"
			}
		}, "critical MC-BOARD-GPU-OTHER gpus retest"},
		{"two GPUs changed places", func(_ *fleet.Inventory, b *fleet.Baseboard) {
			b.GPUs[0].Serial, b.GPUs[1].Serial = b.GPUs[1].Serial, b.GPUs[0].Serial
		}, "warning MC-BOARD-GPU-PLACE gpu/1 retest\nwarning MC-BOARD-GPU-PLACE gpu/2 retest"},
		{"one VBIOS differs", func(_ *fleet.Inventory, b *fleet.Baseboard) { b.GPUs[1].VBIOS = "97" }, "warning MC-BOARD-FIRMWARE gpu/2 cold-cycle"},
		{"every VBIOS differs", func(_ *fleet.Inventory, b *fleet.Baseboard) {
			for i := range b.GPUs {
				b.GPUs[i].VBIOS = "97"
			}
		}, "warning MC-BOARD-FIRMWARE gpus cold-cycle"},
		{"one InfoROM differs", func(_ *fleet.Inventory, b *fleet.Baseboard) { b.Firmware[2].Version = "G521" }, "warning MC-BOARD-FIRMWARE gpu/3 cold-cycle"},
		{"a link is down at both ends", func(_ *fleet.Inventory, b *fleet.Baseboard) { b.Links[3].A.State, b.Links[3].B.State = "down", "down" }, "critical MC-BOARD-LINK-DOWN gpu/2/nvlink/1 reset"},
		{"a link is down at the switch alone", func(_ *fleet.Inventory, b *fleet.Baseboard) { b.Links[3].B.State = "down" }, "critical MC-BOARD-LINK-ENDS gpu/2/nvlink/1 reset"},
		{"the other end of a link is not there", func(_ *fleet.Inventory, b *fleet.Baseboard) { b.Links[3].B, b.Links[3].Doubt = nil, fleet.LinkOneSided }, "warning MC-BOARD-LINK-ENDS gpu/2/nvlink/1 retest"},
		{"all links of a GPU are down", func(_ *fleet.Inventory, b *fleet.Baseboard) {
			for i := 2; i < 4; i++ {
				b.Links[i].A.State, b.Links[i].B.State = "down", "down"
			}
		}, "critical MC-BOARD-LINK-DOWN gpu/2/nvlink reset"},
		{"all links of a switch are down", func(_ *fleet.Inventory, b *fleet.Baseboard) {
			for i := 0; i < 8; i += 2 {
				b.Links[i].A.State, b.Links[i].B.State = "down", "down"
			}
		}, "critical MC-BOARD-LINK-DOWN board/NVSwitch_0 cold-cycle"},
		{"a link is slow", func(_ *fleet.Inventory, b *fleet.Baseboard) { b.Links[3].B.Gbps = 106 }, "critical MC-BOARD-LINK-SLOW gpu/2/nvlink/1 reset"},
		{"a link is up by the BMC and down by the driver", func(inv *fleet.Inventory, _ *fleet.Baseboard) { inv.GPUs[1].NVLinks[1].State = fleet.LinkDown }, "warning MC-BOARD-LINK-HOST gpu/2/nvlink/1 retest"},
		{"links that are down without power", func(_ *fleet.Inventory, b *fleet.Baseboard) { b.Powered, b.Links[3].A.State = false, "down" }, "bmc: the baseboard has no power, so that its links were not compared"},
		{"the BMC knows of a row that could not be replaced", func(_ *fleet.Inventory, b *fleet.Baseboard) { b.GPUs[3].RemapFailed = &yes }, "critical MC-GPU-REMAP-FAILED gpu/4 replace"},
		{"both know of a row that waits", func(inv *fleet.Inventory, b *fleet.Baseboard) {
			b.GPUs[3].RemapPending, inv.GPUs[3].RemappedRows.Pending = &yes, true
		}, ""},
		{"the BMC counts more errors", func(_ *fleet.Inventory, b *fleet.Baseboard) { b.GPUs[0].Uncorrected = &many }, "warning MC-GPU-ECC gpu/1 retest"},
		{"a root of trust is missing", func(_ *fleet.Inventory, b *fleet.Baseboard) { b.Roots = b.Roots[1:] }, "warning MC-BOARD-ROOT gpu/1 cold-cycle"},
		{"a part is critical", func(_ *fleet.Inventory, b *fleet.Baseboard) { b.Health = map[string]string{"FPGA_0": "Critical"} }, "critical MC-BOARD-HEALTH board/FPGA_0 replace"},
	} {
		for _, first := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s, counted from %d", c.name, first), func(t *testing.T) {
				inv, b := agreeing(first)
				c.do(&inv, &b)
				ds, not := Baseboard(inv, fleet.Class{}, b, nil)
				var got []string
				for _, d := range ds {
					got = append(got, strings.Join([]string{string(d.Severity), d.Code, d.Component, d.Do}, " "))
					if d.Against != fleet.AgainstBMC || d.Words == "" {
						t.Errorf("got %+v", d)
					}
				}
				if d := cmp.Diff(strings.Split(c.want, "\n"), strings.Split(strings.Join(append(got, not...), "\n"), "\n")); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
			})
		}
	}
}

// TestBaseboardCount: the class knows of a last GPU that nobody sees.
func TestBaseboardCount(t *testing.T) {
	inv, b := agreeing(1)
	ds, _ := Baseboard(inv, fleet.Class{Expect: fleet.ClassExpect{GPUs: fleet.ExpectGPUs{Count: 5}}}, b, nil)
	if len(ds) != 1 || ds[0].Code != "MC-BOARD-GPU-NONE" || ds[0].Component != "gpu/5" {
		t.Errorf("got %+v", ds)
	}
}
