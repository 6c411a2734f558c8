package kmsg

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

func TestFind(t *testing.T) {
	for _, tc := range []struct {
		situation, line string
		want            fleet.KernelFinding
	}{
		{"an XID with its process", "NVRM: Xid (PCI:0000:9b:00): 13, pid=1234, name=train, Graphics Exception: ESR 0x404490=0x80000001",
			fleet.KernelFinding{Kind: XID, Code: 13, Component: "pci/0000:9b:00.0"}},
		{"an XID without the bus's name", "NVRM: Xid (0000:83:00): 48, pid='<unknown>', name=<unknown>, An uncorrectable double bit error (DBE) has been detected",
			fleet.KernelFinding{Kind: XID, Code: 48, Component: "pci/0000:83:00.0"}},
		{"an NVLink error that names its link", "NVRM: Xid (PCI:0000:8b:00): 74, pid='<unknown>', name=<unknown>, NVLink: fatal error detected on link 11(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)",
			fleet.KernelFinding{Kind: XID, Code: 74, Component: "pci/0000:8b:00.0/nvlink/11"}},
		{"NVLink 5", "NVRM: Xid (PCI:0000:51:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 08 (0x004505c6 0x00000000 0x00000000 0x00000000 0x00000000 0x00000000)",
			fleet.KernelFinding{Kind: XID, Code: 149, Unit: "NETIR_LINK_EVT", SubCode: 4, Component: "pci/0000:51:00.0/nvlink/8", Severity: "fatal"}},
		{"NVLink 5, single blanks", "NVRM: Xid (PCI:0000:51:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x004505c6 0x00000000 0x00000000)",
			fleet.KernelFinding{Kind: XID, Code: 149, Unit: "NETIR_LINK_EVT", SubCode: 4, Component: "pci/0000:51:00.0/nvlink/8", Severity: "fatal"}},
		{"the recovery action", "NVRM: Xid (PCI:0000:b3:00): 154, pid='<unknown>', name=<unknown>, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
			fleet.KernelFinding{Kind: XID, Code: 154, Component: "pci/0000:b3:00.0"}},
		{"a GPU that left the bus, with XID", "NVRM: Xid (PCI:0000:a3:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
			fleet.KernelFinding{Kind: XID, Code: 79, Component: "pci/0000:a3:00.0"}},
		{"a GPU that left the bus, without", "NVRM: GPU 0000:a3:00.0: GPU has fallen off the bus.",
			fleet.KernelFinding{Kind: XID, Code: 79, Component: "pci/0000:a3:00.0", Severity: "fatal"}},
		{"a GPU that left the bus as it was found", "NVRM: The NVIDIA GPU 0000:41:00.0 (PCI ID: 10de:2330) installed in this system has fallen off the bus and is not responding to commands.",
			fleet.KernelFinding{Kind: XID, Code: 79, Component: "pci/0000:41:00.0", Severity: "fatal"}},
		{"an SXid of a link", "nvidia-nvswitch2: SXid (PCI:0000:c5:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
			fleet.KernelFinding{Kind: SXid, Code: 20034, Component: "pci/0000:c5:00.0/port/30", Severity: "fatal"}},
		{"an SXid of none", "nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 10003, Non-fatal, Host_unhandled_interrupt",
			fleet.KernelFinding{Kind: SXid, Code: 10003, Component: "pci/0000:c3:00.0", Severity: "nonfatal"}},
		{"an NVLink that did not train", "NVRM: knvlinkUpdatePostRxDetectLinkMask_IMPL: Failed to update Rx Detect Link mask!", fleet.KernelFinding{Kind: NVLink}},
		{"AER, corrected", "pcieport 0000:16:01.1: PCIe Bus Error: severity=Corrected, type=Data Link Layer, (Receiver ID)",
			fleet.KernelFinding{Kind: AER, Component: "pci/0000:16:01.1", Severity: "corrected"}},
		{"AER, fatal", "nvidia 0000:18:00.0: AER: PCIe Bus Error: severity=Uncorrectable (Fatal), type=Transaction Layer, (Requester ID)",
			fleet.KernelFinding{Kind: AER, Component: "pci/0000:18:00.0", Severity: "fatal"}},
		{"a link that trained down", "pci 0000:1b:00.0: 252.048 Gb/s available PCIe bandwidth, limited by 16.0 GT/s PCIe x16 link at 0000:1a:00.0 (capable of 504.112 Gb/s with 32.0 GT/s PCIe x16 link)",
			fleet.KernelFinding{Kind: PCIeBandwidth, Component: "pci/0000:1b:00.0"}},
		{"EDAC", "EDAC MC1: 2 CE memory read error on B4 (channel:3 slot:0 page:0x1f offset:0x0 grain:32 syndrome:0x0)",
			fleet.KernelFinding{Kind: EDAC, Component: "dimm/B4", Severity: "corrected"}},
		{"a machine check", "mce: [Hardware Error]: CPU 12: Machine Check: 0 Bank 7: be00000000800400", fleet.KernelFinding{Kind: MCE, Component: "thread/12/bank/7", Severity: "fatal"}},
		{"an NVMe timeout", "nvme nvme4: I/O tag 12 (100c) opcode 0x2 (I/O Cmd) QID 3 timeout, aborting req_op:READ(0) size:4096", fleet.KernelFinding{Kind: NVMe, Component: "disk/nvme4"}},
		{"an NVMe controller that is gone", "nvme nvme4: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0xffff", fleet.KernelFinding{Kind: NVMe, Component: "disk/nvme4"}},
		{"a hot port module", "mlx5_core 0000:84:00.0: Port module event[error]: module 0, Cable error, High Temperature", fleet.KernelFinding{Kind: MLX5, Component: "pci/0000:84:00.0"}},
		{"a slot without power", "mlx5_core 0000:84:00.0: mlx5_pcie_event:301:(pid 268269): Detected insufficient power on the PCIe slot (27W).",
			fleet.KernelFinding{Kind: MLX5, Component: "pci/0000:84:00.0"}},
	} {
		got, ok := Find(tc.line)
		if diff := cmp.Diff(tc.want, got); !ok || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", tc.situation, ok, diff)
		}
	}
	for _, line := range []string{
		"", "nvme nvme0: 8/0/0 default/read/poll queues", "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.172.08", "EDAC MC: Ver: 3.0.0",
		"mlx5_core 0000:84:00.0: firmware version: 28.39.1002", "nvidia-nvlink: Nvlink Core is being initialized, major device number 511",
		"mce: CPU0: Thermal monitoring enabled", "mlx5_core 0000:84:00.0: Port module event: module 0, Cable plugged", "AER: enabled with IRQ 27",
		"mlx5_core 0000:84:00.0: 504.112 Gb/s available PCIe bandwidth (32.0 GT/s PCIe x16 link)",
	} {
		if f, ok := Find(line); ok {
			t.Errorf("%q was taken for %+v", line, f)
		}
	}
}

func TestFindingsAreCounted(t *testing.T) {
	boot := time.Date(2026, 6, 1, 8, 0, 0, 0, time.UTC)
	f := Findings{Boot: boot}
	for _, line := range []string{
		"4,10,1000000,-;NVRM: Xid (PCI:0000:9b:00): 13, first\n SUBSYSTEM=pci",
		"6,11,1500000,-;usb 1-1: new device",
		`4,12,2000000,-;NVRM: Xid (PCI:0000:9b:00): 13, second\x0a`,
		"4,13,3000000,-;NVRM: Xid (PCI:0000:a3:00): 13, another GPU",
		"nonsense", "4,x,1,-;Xid",
	} {
		if r, ok := Parse(line); ok {
			f.Add(r)
		}
	}
	want := []fleet.KernelFinding{
		{Kind: XID, Code: 13, Component: "pci/0000:9b:00.0", Count: 2, First: boot.Add(time.Second), Last: boot.Add(2 * time.Second), Line: "NVRM: Xid (PCI:0000:9b:00): 13, second\n"},
		{Kind: XID, Code: 13, Component: "pci/0000:a3:00.0", Count: 1, First: boot.Add(3 * time.Second), Last: boot.Add(3 * time.Second), Line: "NVRM: Xid (PCI:0000:a3:00): 13, another GPU"},
	}
	if diff := cmp.Diff(want, f.List()); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

func TestDecodeNVLink5(t *testing.T) {
	d, ok := DecodeNVLink5(" RLW_RXPIPE Nonfatal XC1 i3 Link -1 (0x01a00000 0x00000001)")
	want := NVLink5{Unit: "RLW_RXPIPE", Link: -1, SubCode: 26, Words: []uint32{0x01a00000, 1}}
	if diff := cmp.Diff(want, d); !ok || diff != "" {
		t.Errorf("%v (-want +got):\n%s", ok, diff)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add("6,339,5140900,-;NVRM: Xid (PCI:0000:51:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x004505c6 0x00000000)\n SUBSYSTEM=pci")
	f.Add("3,1,1,-;nvidia-nvswitch2: SXid (PCI:0000:c5:00.0): 20034, Fatal, Link 30 LTSSM Fault Up")
	f.Add("4,9,9,-;pcieport 0000:16:01.1: AER: PCIe Bus Error: severity=Uncorrectable (Non-Fatal)\\x0a")
	f.Fuzz(func(t *testing.T, line string) {
		r, ok := Parse(line)
		if !ok {
			r = Record{Text: line}
		}
		found := Findings{Boot: time.Unix(1e9, 0)}
		if !found.Add(r) {
			return
		}
		for _, k := range found.List() {
			if k.Kind == "" || k.Count != 1 || len(k.Line) > maxLine || strings.ContainsAny(k.Component, " \n") {
				t.Errorf("%q became %+v", line, k)
			}
		}
	})
}
