package disk

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

func TestTheRootDiskIsChosenTheSameWayEveryTime(t *testing.T) {
	const g = 1 << 30
	hgx := []Device{
		{Path: "/dev/nvme0n1", Serial: "M2B", Model: "SAMSUNG MZ1L21T9", Transport: "nvme", SizeBytes: 1920 * g},
		{Path: "/dev/nvme1n1", Serial: "M2A", Model: "SAMSUNG MZ1L21T9", Transport: "nvme", SizeBytes: 1920 * g},
		{Path: "/dev/nvme2n1", Serial: "D1", Model: "SAMSUNG MZQL23T8", Transport: "nvme", SizeBytes: 3840 * g, WWN: "eui.0025"},
		{Path: "/dev/sda", Serial: "USB", Model: "Virtual HDisk", Transport: "usb", SizeBytes: 8 * g, Removable: true},
		{Path: "/dev/sdb", Serial: "BOOT", Transport: "usb", SizeBytes: 8 * g, BootMedium: true},
		{Path: "/dev/sdc", Serial: "TINY", Transport: "sata", SizeBytes: 2 * g},
	}
	for _, c := range []struct {
		name   string
		hints  fleet.RootDiskHints
		serial string
		says   string
	}{
		{"no hints: the smallest, then the lowest serial", fleet.RootDiskHints{}, "M2A", "lowest serial of 2"},
		{"by serial", fleet.RootDiskHints{Serial: "d1"}, "D1", "only one"},
		{"by wwn", fleet.RootDiskHints{WWN: "eui.0025"}, "D1", "only one"},
		{"by name", fleet.RootDiskHints{Name: "nvme0n1"}, "M2B", "only one"},
		{"by part of the model", fleet.RootDiskHints{Model: "mzql"}, "D1", "only one"},
		{"by size", fleet.RootDiskHints{MinSizeBytes: 2000 * g}, "D1", "only one"},
		{"by largest size", fleet.RootDiskHints{MaxSizeBytes: 4 * g}, "TINY", "only one"},
		{"by transport", fleet.RootDiskHints{Transport: "nvme"}, "M2A", "lowest serial"},
		{"nothing fits", fleet.RootDiskHints{Serial: "X"}, "", "/dev/nvme0n1 (M2B): serial M2B is not X"},
		{"the boot medium is never chosen", fleet.RootDiskHints{Serial: "BOOT"}, "", "booted from it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 10 {
				rand.Shuffle(len(hgx), func(i, k int) { hgx[i], hgx[k] = hgx[k], hgx[i] })
				d, reason, err := RootDisk(c.hints, hgx)
				if c.serial == "" {
					if fleet.CodeOf(err) != "MC-DISK-ROOT" || !strings.Contains(err.Error(), c.says) {
						t.Fatalf("got %v, want MC-DISK-ROOT with %q", err, c.says)
					}
					continue
				}
				if err != nil || d.Serial != c.serial || !strings.Contains(reason, c.says) {
					t.Fatalf("got %s because %q (%v), want %s because %q", d.Serial, reason, err, c.serial, c.says)
				}
			}
		})
	}
	twins := []Device{{Path: "/dev/sda", Serial: "S", SizeBytes: g}, {Path: "/dev/sdb", Serial: "S", SizeBytes: g}}
	if _, _, err := RootDisk(fleet.RootDiskHints{Serial: "S"}, twins); fleet.CodeOf(err) != "MC-DISK-ROOT" {
		t.Errorf("two disks with the serial that was named: %v", err)
	}
}
