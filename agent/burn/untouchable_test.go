package burn

import (
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

// TestUntouchable: only disks that somebody agreed to have overwritten are, and none whose serial number says that it could be another one.
func TestUntouchable(t *testing.T) {
	disk := fleet.Disk{Name: "sda", Serial: "S1", Model: "M", SizeBytes: 100}
	other := disk
	other.Name = "sdb"
	medium := disk
	medium.BootMedium = true
	accepted := []fleet.AcceptedDevice{{Serial: "S1", Model: "M", SizeBytes: 100}}
	for _, c := range []struct {
		name     string
		disk     fleet.Disk
		present  []fleet.Disk
		accepted []fleet.AcceptedDevice
		want     string // in the reason; "" is that it may be overwritten
	}{
		{"accepted", disk, []fleet.Disk{disk}, accepted, ""},
		{"two namespaces of one drive", disk, []fleet.Disk{disk, other}, append(accepted, accepted...), ""},
		{"another with its serial number", disk, []fleet.Disk{disk, other}, accepted, "have its serial number"},
		{"of another size", disk, []fleet.Disk{disk}, []fleet.AcceptedDevice{{Serial: "S1", Model: "M", SizeBytes: 99}}, "nobody accepted"},
		{"not accepted", disk, []fleet.Disk{disk}, nil, "nobody accepted"},
		{"the boot medium", medium, []fleet.Disk{medium}, accepted, "was booted from"},
	} {
		if got := untouchable(c.disk, c.present, c.accepted); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, not %q", c.name, got, c.want)
		}
	}
}
