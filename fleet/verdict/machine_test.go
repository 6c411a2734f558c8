package verdict

import (
	"fmt"

	"github.com/metalctl/metalctl/fleet"
)

// kind is what the machines of these tests are made from; the captures that the profiles of fixtures/profiles stand for have more, but nothing that is
// judged otherwise.
type kind struct {
	name, model, device string
	memory              int64
	links               int
	speed               float64
	switches            int
	switchDevice        string
	nic, nicName        string
	rate                float64
	gen                 int
	modules             [8]int // module id by bus order
	numa                [8]int
	buses               [8]string
	nicBuses            [8]string
	pair                bool // two GPUs and two NICs share a PCIe switch
}

var kinds = []kind{
	{"dgx-a100", "NVIDIA A100-SXM4-80GB", "10de:20b2", 80 << 30, 12, 25, 6, "10de:1af1", "15b3:101b", "MT4123", 200, 4, [8]int{1, 2, 3, 4, 5, 6, 7, 8}, [8]int{3, 3, 1, 1, 7, 7, 5, 5},
		[8]string{"07", "0f", "47", "4e", "87", "90", "b7", "bd"}, [8]string{"0c", "12", "4b", "54", "8d", "94", "ba", "cc"}, true},
	{"hgx-h100", "NVIDIA H100 80GB HBM3", "10de:2330", 81559 << 20, 18, 26.562, 4, "10de:22a3", "15b3:1021", "MT4129", 400, 5, [8]int{2, 4, 1, 3, 7, 5, 6, 8}, [8]int{0, 0, 0, 0, 1, 1, 1, 1},
		[8]string{"1b", "43", "52", "61", "9d", "c3", "d1", "df"}, [8]string{"18", "40", "4f", "5e", "9a", "c0", "ce", "dc"}, false},
	{"hgx-h200", "NVIDIA H200", "10de:2335", 143771 << 20, 18, 26.562, 4, "10de:22a3", "15b3:1021", "MT4129", 400, 5, [8]int{2, 4, 1, 3, 7, 5, 6, 8}, [8]int{0, 0, 0, 0, 1, 1, 1, 1},
		[8]string{"19", "3b", "4c", "5d", "9b", "bb", "cb", "db"}, [8]string{"1a", "3c", "4d", "5e", "9c", "bc", "cc", "dc"}, false},
	{"hgx-b200", "NVIDIA B200", "10de:2901", 183359 << 20, 18, 53.125, 0, "", "15b3:1021", "MT4129", 400, 5, [8]int{4, 2, 1, 3, 8, 6, 5, 7}, [8]int{0, 0, 0, 0, 1, 1, 1, 1},
		[8]string{"51", "52", "62", "63", "75", "76", "86", "87"}, [8]string{"53", "54", "64", "65", "77", "78", "88", "89"}, true},
}

func ref[T any](v T) *T { return &v }

func genSpeed(g int) string {
	return fmt.Sprintf("%.1f GT/s PCIe", []float64{0, 2.5, 5, 8, 16, 32, 64}[g])
}

// machine is a whole machine of a kind in which nothing is wrong.
func machine(k kind) fleet.Inventory {
	inv := fleet.Inventory{
		System:  fleet.System{Vendor: "Example", Model: k.name, Serial: "SYS1", UUID: "u", BIOS: "2.1", FirmwareMode: "uefi", Kernel: "6.1"},
		Missing: []fleet.Missing{}, BMC: &fleet.HostBMC{Firmware: "1.2"},
		GPUDriver: &fleet.GPUDriver{Name: "nvidia", Version: "570.124.06", FabricManager: "running"},
	}
	if k.name == "hgx-b200" {
		inv.GPUDriver.FabricManager = "running"
	}
	nodes := 2
	if k.name == "dgx-a100" {
		nodes = 8
	}
	for i := range nodes {
		inv.NUMANodes = append(inv.NUMANodes, fleet.NUMANode{ID: i, CPUs: fmt.Sprint(i), MemoryBytes: 1 << 40 / int64(nodes) * 2})
	}
	for i := range 2 {
		inv.CPUs = append(inv.CPUs, fleet.CPU{Socket: i, Model: "CPU", Cores: 56, Threads: 112, Microcode: "0x2b"})
	}
	for i := range 32 {
		inv.Memory.DIMMs = append(inv.Memory.DIMMs, fleet.DIMM{Locator: fmt.Sprintf("%c%d", 'A'+i/16, i%16+1), SizeBytes: 64 << 30, SpeedMTs: 4800, Serial: fmt.Sprintf("D%02d", i), Part: "M321",
			Corrected: ref(int64(0)), Uncorrected: ref(int64(0))})
	}
	inv.Memory.TotalBytes = 2<<40 - 16<<30
	for i := range k.switches {
		a := fmt.Sprintf("0000:%02x:00.0", []int{0x05, 0xc4}[min(k.switches/6, 1)]+i)
		inv.NVSwitches = append(inv.NVSwitches, fleet.NVSwitch{PCIAddress: a, PCIDevice: k.switchDevice, NUMANode: 0})
		inv.PCI = append(inv.PCI, fleet.PCI{Address: a, Vendor: "10de", Device: k.switchDevice[5:], Class: "068000", Speed: "2.5 GT/s PCIe", Width: 2, MaxSpeed: "8.0 GT/s PCIe", MaxWidth: 2})
	}
	for i := range 8 {
		addRail(&inv, k, i)
	}
	// What is no rail: a management bond of a BlueField, and on Blackwell the function through which the fabric manager works.
	inv.HCAs = append(inv.HCAs, fleet.HCA{Name: "mlx5_bond_0", PCIAddress: "0000:29:00.0", PCIDevice: "15b3:a2dc", Role: fleet.HCAManagement, Type: "MT41692",
		PSID: "MT_0000000884", Firmware: "32.38.3056", Ports: []fleet.HCAPort{{Port: 1, State: "DOWN", PhysicalState: "Disabled", LinkLayer: "Ethernet", RateGbps: 100}}})
	if k.switches == 0 {
		inv.HCAs = append(inv.HCAs, fleet.HCA{Name: "mlx5_16", PCIAddress: "0000:05:00.0", PCIDevice: "15b3:1021", Role: fleet.HCAFabric, Type: "MT4129", PSID: "MT_0000001165", Firmware: "28.44.1036",
			Ports: []fleet.HCAPort{{Port: 1, State: "ACTIVE", PhysicalState: "LinkUp", LinkLayer: "InfiniBand", RateGbps: 200}}})
	}
	for i := range 2 {
		inv.Disks = append(inv.Disks, fleet.Disk{Name: fmt.Sprintf("nvme%dn1", 8+i), Path: "/dev/nvme", Serial: fmt.Sprintf("BOOT%d", i), Model: "BOOT960", SizeBytes: 960e9, Transport: "nvme", Smart: goodDrive()})
	}
	return inv
}

func goodDrive() *fleet.Smart {
	return &fleet.Smart{SparePercent: 100, SpareThreshold: 10, UsedPercent: 3, TemperatureC: 35}
}

// addRail adds GPU i in bus order with its PCIe switch, HCA and drive. Where two share a switch the second hangs below the first's.
func addRail(inv *fleet.Inventory, k kind, i int) {
	owner := i
	if k.pair {
		owner = i / 2 * 2
	}
	root, up := fmt.Sprintf("0000:%02x:01.0", 0xe0+owner), fmt.Sprintf("0000:%02x:00.0", 0xe8+owner)
	node := k.numa[i]
	gen := k.gen
	bridge := func(a, parent string) {
		inv.PCI = append(inv.PCI, fleet.PCI{Address: a, Vendor: "1000", Device: "c030", Class: "060400", NUMANode: node, Parent: parent, Speed: genSpeed(gen), MaxSpeed: genSpeed(gen), Width: 16, MaxWidth: 16, ACS: []string{}})
	}
	if owner == i {
		bridge(root, "")
		bridge(up, root)
	}
	leaf := func(n int) string {
		a := fmt.Sprintf("0000:%02x:%02x.0", 0xf0+owner/2, 4*(i-owner)+n+8*(owner%2))
		bridge(a, up)
		return a
	}
	gpu, nic := "0000:"+k.buses[i]+":00.0", "0000:"+k.nicBuses[i]+":00.0"
	drive := fmt.Sprintf("0000:%02x:00.0", 0x30+i)
	if i > 3 {
		drive = fmt.Sprintf("0000:%02x:00.0", 0xa0+i)
	}
	inv.PCI = append(inv.PCI, fleet.PCI{Address: gpu, Vendor: "10de", Device: k.device[5:], Class: "030200", NUMANode: node, Parent: leaf(0), Speed: "2.5 GT/s PCIe", MaxSpeed: genSpeed(gen), Width: 16, MaxWidth: 16})
	inv.PCI = append(inv.PCI, fleet.PCI{Address: nic, Vendor: "15b3", Device: k.nic[5:], Class: "020700", NUMANode: node, Parent: leaf(1), Speed: genSpeed(gen), MaxSpeed: genSpeed(gen), Width: 16, MaxWidth: 16})
	inv.PCI = append(inv.PCI, fleet.PCI{Address: drive, Vendor: "144d", Device: "a824", Class: "010802", NUMANode: node, Parent: leaf(2), Speed: genSpeed(4), MaxSpeed: genSpeed(4), Width: 4, MaxWidth: 4})
	g := fleet.GPU{Index: i, Vendor: "nvidia", ModuleID: k.modules[i], UUID: fmt.Sprintf("GPU-%d", i), Serial: fmt.Sprintf("165%07d", i), Model: k.model, PCIAddress: gpu, PCIDevice: k.device, NUMANode: node,
		MemoryBytes: k.memory, MemoryUsedBytes: ref(int64(0)), VBIOS: "96.00.DA.00.11", InfoROM: map[string]string{"image": "G520.0280.00.05"}, InfoROMValid: ref(true), GSP: "570.124.06",
		PCIe: &fleet.PCIeLink{Generation: 1, Width: 16, MaxGeneration: gen, MaxWidth: 16}, ECC: &fleet.ECC{Mode: fleet.Pending{Now: "on", Next: "on"}, SRAMThreshold: ref(false)},
		RemappedRows: &fleet.RemappedRows{Banks: map[string]int64{"max": 640}}, MIG: &fleet.Pending{Now: "off", Next: "off"}, Confidential: "off", Persistence: "on", ComputeMode: "default",
		Clocks: &fleet.GPUClocks{SM: 345, Memory: 2619, MaxSM: 1980, MaxMemory: 3201}, Power: &fleet.GPUPower{Draw: 75000, Limit: 700000, Default: 700000},
		Temperatures: &fleet.Temperatures{GPU: ref(34), Memory: ref(36), Margin: ref(52)}, ClockReasons: []string{"idle"}, Recovery: "none", P2P: map[string]string{}}
	g.Fabric = &fleet.GPUFabric{State: "completed", Status: "success"}
	if k.name == "dgx-a100" {
		g.Fabric = &fleet.GPUFabric{State: "unsupported"}
	}
	for l := range k.links {
		n := fleet.NVLink{Link: l, State: fleet.LinkUp, SpeedGBps: k.speed}
		switch {
		case k.switches == 6:
			n.Remote = &fleet.NVLinkEnd{Kind: "switch", PCIAddress: inv.NVSwitches[l/2].PCIAddress}
		case k.switches == 4:
			chip, port, _ := Wired("hgx-hopper", g.ModuleID, l)
			n.Remote = &fleet.NVLinkEnd{Kind: "switch", PCIAddress: inv.NVSwitches[chip].PCIAddress, Port: &port}
		}
		g.NVLinks = append(g.NVLinks, n)
	}
	for p := range 8 {
		if p != i {
			g.P2P[fmt.Sprint(p)] = "ok"
		}
	}
	inv.GPUs = append(inv.GPUs, g)
	name := fmt.Sprintf("mlx5_%d", i)
	inv.HCAs = append(inv.HCAs, fleet.HCA{Name: name, PCIAddress: nic, PCIDevice: k.nic, NUMANode: node, Type: k.nicName, PSID: "MT_0000000838", Firmware: "28.39.1002", NodeGUID: fleet.GUID(fmt.Sprintf("0xa088c20300e3%04x", i)),
		Role: fleet.HCARail, Rail: ref(i), Resources: map[string]int64{"qp": 1}, TemperatureC: ref(55), Ports: []fleet.HCAPort{{Port: 1, GUID: fleet.GUID(fmt.Sprintf("0xa088c20300e3%04x", i)), State: "ACTIVE", PhysicalState: "LinkUp",
			LinkLayer: "InfiniBand", RateGbps: k.rate, LID: i + 1, SMLID: 1, PKeys: []string{"0x7fff"}, Module: &fleet.PortModule{Serial: fmt.Sprintf("CBL%d", i)}}}})
	inv.NICs = append(inv.NICs, fleet.NIC{Name: fmt.Sprintf("ib%d", i), MAC: fleet.MAC(fmt.Sprintf("02:00:00:00:00:%02x", i)), PCIAddress: nic, NUMANode: node,
		LLDP: &fleet.Neighbor{ChassisID: "c0", SystemName: "leaf1", PortID: fmt.Sprintf("swp%d", i+1)}})
	disk := fmt.Sprintf("nvme%dn1", i)
	inv.Disks = append(inv.Disks, fleet.Disk{Name: disk, Path: "/dev/" + disk, Serial: fmt.Sprintf("S5H9NS%d", i), Model: "MZWLJ3T8", Firmware: "EPK9", SizeBytes: 3840e9, Transport: "nvme", PCIAddress: drive, NUMANode: node, Smart: goodDrive()})
	distance := "PIX"
	if !k.pair {
		distance = "PXB"
	}
	inv.Rails = append(inv.Rails, fleet.Rail{Rail: i, GPU: gpu, HCA: name, NVMe: []string{disk}, NUMANode: node, Distance: distance, Bridge: up})
}

// classOf is what such machines must be.
func classOf(k kind) fleet.Class {
	nodes := 2
	if k.name == "dgx-a100" {
		nodes = 8
	}
	c := fleet.Class{Name: k.name, BurnIn: "none", EraseLevel: "purge", Expect: fleet.ClassExpect{
		CPUs: 2, NUMANodes: nodes, MemoryBytes: 2 << 40, Disks: 10, NICs: 8, NVSwitches: k.switches, ACS: "off",
		DIMMs: fleet.ExpectDIMMs{Count: 32, SizeBytes: 64 << 30, SpeedMTs: 4800}, NVMe: fleet.ExpectNVMe{Count: 10, SizeBytes: 900e9, PCIe: fleet.ExpectPCIe{}},
		GPUs:       fleet.ExpectGPUs{Count: 8, Model: k.model, PCIDevice: k.device, MemoryBytes: k.memory, NVLinksUp: k.links, NVLinkGBps: k.speed, PCIe: fleet.ExpectPCIe{Generation: k.gen, Width: 16}, Confidential: "off"},
		InfiniBand: fleet.ExpectInfiniBand{Count: 8, RateGbps: k.rate, LinkLayer: "InfiniBand", PCIe: fleet.ExpectPCIe{Generation: k.gen, Width: 16}},
		Topology:   fleet.ExpectTopology{Rail: "PXB", NVMePerRail: 1, GPUNUMANodes: make([]int, 8)},
		Firmware:   fleet.ExpectFirmware{BIOS: "2.1", VBIOS: "96.00.DA.00.11", HCA: map[string]string{"MT_0000000838": "28.39.1002"}, NVMe: map[string]string{"MZWLJ3T8": "EPK9"}, Driver: "570.124.06", GSP: "570.124.06", InfoROM: "G520.0280.00.05", BMC: "1.2"},
		Limits: []fleet.Limit{{Check: "gpu-remapped-rows", Value: 512, Unit: "rows", Source: "DCGM"}, {Check: "nvme-used", Value: 80, Unit: "percent", Source: "test"}, {Check: "hca-temperature", Value: 105, Unit: "C", Source: "test"},
			{Check: "gpu-pcie-replays", Value: 80, Unit: "replays", Source: "test"}},
	}}
	for i, m := range k.modules {
		c.Expect.Topology.GPUNUMANodes[m-1] = k.numa[i]
	}
	if k.switches == 4 {
		c.Expect.Topology.Wiring = "hgx-hopper"
	}
	return c
}
