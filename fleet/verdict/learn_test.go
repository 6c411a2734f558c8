package verdict

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

const learnedFrom = "learned from node golden, inventory of 2026-07-01T10:00:00Z"

func learnedClass(inv fleet.Inventory) fleet.Class {
	return fleet.Class{Name: "learned", BurnIn: "none", EraseLevel: "purge", Expect: Learn(inv, learnedFrom)}
}

// fromNobody are the faults that only a limit of a site's own can find: no single machine teaches how much of what wears or warms up is too much.
var fromNobody = []string{"many PCIe replays", "an HCA is hot", "a worn drive"}

// TestLearnedFaults: against what was learned of a machine each fault of the matrix shows as against a class that a person wrote.
func TestLearnedFaults(t *testing.T) {
	for _, k := range kinds {
		learned := learnedClass(machine(k))
		for _, f := range faults {
			if f.only != "" && !strings.Contains(f.only, k.name) || slices.Contains(fromNobody, f.name) {
				continue
			}
			t.Run(k.name+"/"+f.name, func(t *testing.T) {
				inv := machine(k)
				f.does(k, &inv)
				want, got := judged(Judge(inv, classOf(k))), judged(Judge(inv, learned))
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("written (-) and learned (+):\n%s", d)
				}
			})
		}
	}
	for _, name := range fromNobody {
		if !slices.ContainsFunc(faults, func(f fault) bool { return f.name == name }) {
			t.Errorf("the matrix has no %q", name)
		}
	}
}

// twin is another machine of the same kind: every number that belongs to one part alone is another.
func twin(t *testing.T, inv fleet.Inventory) fleet.Inventory {
	t.Helper()
	b, err := json.Marshal(inv)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	own := regexp.MustCompile(`"(serial|uuid|mac|guid|node_guid|system_guid|lid)":("[^"]*"|[0-9]+)`)
	b = own.ReplaceAllFunc(b, func(m []byte) []byte {
		n++
		key, _, _ := strings.Cut(string(m), ":")
		if key == `"lid"` {
			return fmt.Appendf(nil, "%s:%d", key, 1000+n)
		}
		return fmt.Appendf(nil, `%s:"other-%d"`, key, n)
	})
	if n < 40 {
		t.Fatalf("only %d numbers of its own", n)
	}
	var out fleet.Inventory
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestLearnedMatches: a machine and its twin are what was learned of the one, which names nothing that the other has not, and is a class that is taken.
func TestLearnedMatches(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			inv := machine(k)
			class := learnedClass(inv)
			other := twin(t, inv)
			for what, ds := range map[string][]fleet.Difference{"itself": Judge(inv, class), "its twin": Judge(other, class), "suspicions": Suspicions(inv)} {
				for _, d := range ds {
					t.Errorf("%s: %+v", what, d)
				}
			}
			if d := cmp.Diff(class.Expect, Learn(other, learnedFrom)); d != "" {
				t.Errorf("the twin teaches something else:\n%s", d)
			}
			if bad := class.Validate(); len(bad) > 0 {
				t.Errorf("not a valid class: %+v", bad)
			}
			want := classOf(k).Expect
			got := class.Expect
			if got.GPUs.Count != 8 || got.MemoryBytes != want.MemoryBytes || got.Topology.Wiring != want.Topology.Wiring || !slices.Equal(got.Topology.GPUNUMANodes, want.Topology.GPUNUMANodes) ||
				got.GPUs.PCIe != want.GPUs.PCIe || got.InfiniBand != want.InfiniBand || got.ACS != "off" || got.Firmware.VBIOS != want.Firmware.VBIOS || got.Source != learnedFrom {
				t.Errorf("learned %+v\nwritten %+v", got, want)
			}
			for _, l := range got.Limits {
				if l.Source != learnedFrom {
					t.Errorf("limit %+v does not say where it is from", l)
				}
			}
		})
	}
}

// TestLearnedIsSilent: what a machine's parts do not agree on, or nobody read, is not expected of others, and the machine still is what was learned of it.
func TestLearnedIsSilent(t *testing.T) {
	for _, c := range []struct {
		name string
		does func(inv *fleet.Inventory)
		want func(e fleet.ClassExpect) bool
	}{
		{"two VBIOSes", func(inv *fleet.Inventory) { inv.GPUs[2].VBIOS = "96.00.A1" }, func(e fleet.ClassExpect) bool { return e.Firmware.VBIOS == "" && e.Firmware.GSP != "" }},
		{"two firmwares of one kind of HCA", func(inv *fleet.Inventory) { inv.HCAs[1].Firmware = "1.0" }, func(e fleet.ClassExpect) bool { return e.Firmware.HCA["MT_0000000838"] == "" }},
		{"modules of two sizes", func(inv *fleet.Inventory) { inv.Memory.DIMMs[3].SizeBytes *= 2 }, func(e fleet.ClassExpect) bool { return e.DIMMs.SizeBytes == 0 && e.DIMMs.Count == 32 }},
		{"modules that nobody read", func(inv *fleet.Inventory) { inv.Memory.DIMMs = nil }, func(e fleet.ClassExpect) bool { return e.DIMMs == (fleet.ExpectDIMMs{}) && e.MemoryBytes == 2<<40 }},
		{"no NUMA nodes told", func(inv *fleet.Inventory) { inv.GPUs[4].NUMANode = -1 }, func(e fleet.ClassExpect) bool { return e.Topology.GPUNUMANodes == nil }},
		{"access control here and there", func(inv *fleet.Inventory) { pciOf(inv, inv.Rails[1].Bridge).ACS = []string{"request-redirect"} }, func(e fleet.ClassExpect) bool { return e.ACS == "" }},
		{"a drive whose link nobody read", func(inv *fleet.Inventory) { pciOf(inv, inv.Disks[3].PCIAddress).Width = 0 }, func(e fleet.ClassExpect) bool { return e.NVMe.PCIe == fleet.ExpectPCIe{Generation: 4} }},
		{"no power limit told", func(inv *fleet.Inventory) { inv.GPUs[0].Power = nil }, func(e fleet.ClassExpect) bool {
			return e.Limit("gpu-power-limit") == nil && e.Limit("gpu-max-sm-clock") != nil
		}},
		{"no GPU at all", func(inv *fleet.Inventory) {
			inv.GPUs, inv.Rails, inv.NVSwitches, inv.GPUDriver = nil, nil, nil, nil
			inv.PCI = slices.DeleteFunc(inv.PCI, func(p fleet.PCI) bool { return p.Vendor == "10de" })
		}, func(e fleet.ClassExpect) bool {
			return e.GPUs == (fleet.ExpectGPUs{}) && e.Topology.GPUNUMANodes == nil && e.Topology.Rail == ""
		}},
		{"a machine that nothing was read of", func(inv *fleet.Inventory) { *inv = fleet.Inventory{} }, func(e fleet.ClassExpect) bool { return e.CPUs == 0 && e.MemoryBytes == 0 && len(e.Limits) == 0 }},
		{"rails that are BlueFields in NIC mode", func(inv *fleet.Inventory) {
			for i := range 8 {
				inv.HCAs[i].Mode = "nic"
			}
			inv.HCAs[8].Mode = "dpu"
		}, func(e fleet.ClassExpect) bool { return e.InfiniBand.BlueField == "nic" }},
		{"a BlueField that is no rail", func(inv *fleet.Inventory) { inv.HCAs[8].Mode = "dpu" }, func(e fleet.ClassExpect) bool { return e.InfiniBand.BlueField == "dpu" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inv := machine(kinds[1])
			c.does(&inv)
			class := learnedClass(inv)
			if !c.want(class.Expect) {
				t.Errorf("learned %+v", class.Expect)
			}
			for _, d := range Judge(inv, class) {
				if d.Against == fleet.AgainstClass {
					t.Errorf("differs from itself: %+v", d)
				}
			}
			if bad := class.Validate(); len(bad) > 0 {
				t.Errorf("not a valid class: %+v", bad)
			}
		})
	}
}

// TestSuspicions: a machine that is worn says so before others are held to it.
func TestSuspicions(t *testing.T) {
	inv := machine(kinds[1])
	inv.GPUs[3].ECC.Volatile.Corrected = 7
	inv.GPUs[4].PCIe.Replays = 2
	inv.GPUs[5].NVLinks[1].State = fleet.LinkDown
	inv.GPUs[5].ECC.Volatile.Corrected = 9
	var got []string
	for _, d := range Suspicions(inv) {
		got = append(got, fmt.Sprintf("%s %s %s", d.Code, d.Component, d.Blocks))
	}
	if d := cmp.Diff([]string{"MC-NVLINK-DOWN gpu/5/nvlink/1 allocate", "MC-GPU-LIMIT gpu/3 nothing", "MC-GPU-LIMIT gpu/5 nothing", "MC-GPU-LIMIT gpu/7 nothing"}, got); d != "" {
		t.Error(d)
	}
}

// TestNominalMemory: firmware and kernel keep a part, and the modules tell the whole where somebody read them.
func TestNominalMemory(t *testing.T) {
	for _, c := range []struct {
		name  string
		total int64
		dimms []int64
		want  int64
	}{
		{"modules", 2<<40 - 16<<30, slices.Repeat([]int64{64 << 30}, 32), 2 << 40},
		{"no modules", 2<<40 - 16<<30, nil, 2 << 40},
		{"modules that tell of half", 2<<40 - 16<<30, slices.Repeat([]int64{64 << 30}, 16), 2 << 40},
		{"a small machine, to a sixteenth", 1<<30 - 40<<20, nil, 992 << 20},
		{"nothing", 0, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := fleet.Memory{TotalBytes: c.total}
			for _, s := range c.dimms {
				m.DIMMs = append(m.DIMMs, fleet.DIMM{SizeBytes: s})
			}
			if got := nominalMemory(m); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}
