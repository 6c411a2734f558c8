package fleet

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWouldErase(t *testing.T) {
	for name, c := range map[string]struct {
		disk Disk
		want []AcceptedDevice
	}{
		"a disk that can be told apart and written": {Disk{Serial: "A", Model: "NVMe", SizeBytes: 10}, []AcceptedDevice{{Serial: "A", Model: "NVMe", SizeBytes: 10}}},
		"the medium the agent booted from":          {Disk{Serial: "CD", SizeBytes: 1, BootMedium: true}, nil},
		"removable":                                 {Disk{Serial: "USB", SizeBytes: 1, Removable: true}, nil},
		"read-only":                                 {Disk{Serial: "RO", SizeBytes: 1, ReadOnly: true}, nil},
		"without a serial number":                   {Disk{SizeBytes: 1}, nil},
		"an empty slot":                             {Disk{Serial: "EMPTY"}, nil},
	} {
		if diff := cmp.Diff(Inventory{Disks: []Disk{c.disk}}.WouldErase(), c.want); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
