package agent

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/metalctl/metalctl/agent/disk"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// detached is an NVMe drive of 1 MiB whose one namespace no controller shows until it is attached.
type detached struct {
	mu       sync.Mutex
	refuses  bool
	attached bool
}

func (d *detached) NSID() uint32 { return 0 }

func (d *detached) Admin(_ context.Context, c disk.Command) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	le := binary.LittleEndian
	switch {
	case c.Opcode == 0x15 && d.refuses:
		return disk.Status(0x15)
	case c.Opcode == 0x15:
		d.attached = true
	case c.CDW10 == 1:
		copy(c.Data[4:], "N1                  ")
		le.PutUint16(c.Data[256:], 8)
	case c.CDW10 == 0x02 && d.attached, c.CDW10 == 0x10:
		le.PutUint32(c.Data, 1)
	case c.CDW10 == 0x11:
		le.PutUint64(c.Data, 2048)
		c.Data[130] = 9
	case c.CDW10 == 0x13:
		le.PutUint16(c.Data, 1)
	}
	return nil
}

func TestRestoringNamespaces(t *testing.T) {
	for name, c := range map[string]struct {
		drive    *detached
		accepted []fleet.AcceptedDevice
		did      string
		fault    string
	}{
		"a detached one is attached":     {&detached{}, []fleet.AcceptedDevice{{Serial: "N1", SizeBytes: 1 << 20, BlockBytes: 512}}, "attached namespace 1", ""},
		"as accepted":                    {&detached{attached: true}, []fleet.AcceptedDevice{{Serial: "N1", SizeBytes: 1 << 20, BlockBytes: 512}}, "", ""},
		"the drive refuses":              {&detached{refuses: true}, []fleet.AcceptedDevice{{Serial: "N1", SizeBytes: 1 << 20, BlockBytes: 512}}, "failed: ", "MC-FAULT-NAMESPACES disk/N1"},
		"a drive that is not here":       {&detached{}, []fleet.AcceptedDevice{{Serial: "N2", SizeBytes: 1 << 20, BlockBytes: 512}}, "", ""},
		"accepted without size of block": {&detached{}, []fleet.AcceptedDevice{{Serial: "N1", SizeBytes: 1 << 20}}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := c.drive
			l := newLab(t, 1<<20)
			l.deps.Controllers = func() ([]disk.Device, error) {
				return []disk.Device{{Path: "/dev/nvme0", Serial: "N1", Transport: "nvme"}}, nil
			}
			l.deps.Admin = func(disk.Device) (disk.Admin, func() error, error) { return d, func() error { return nil }, nil }
			l.deps.Disks = func(context.Context) ([]fleet.Disk, error) {
				d.mu.Lock()
				defer d.mu.Unlock()
				if !d.attached {
					return nil, nil
				}
				return []fleet.Disk{{Path: "/dev/nvme0n1", Serial: "N1", SizeBytes: 1 << 20, BlockBytes: 512, Transport: "nvme"}}, nil
			}
			l.run()
			r := l.do(step.RestoreNS, step.NamespacesParams{Accepted: c.accepted})
			fault := ""
			if r.Error != nil && len(r.Error.Faults) > 0 {
				fault = r.Error.Faults[0].Code + " " + r.Error.Faults[0].Component
			}
			if fault != c.fault || (r.Error == nil) != (c.fault == "") {
				t.Errorf("fault %q, want %q: %+v", fault, c.fault, r.Error)
			}
			var did struct{ Namespaces []disk.Restored }
			if err := json.Unmarshal(r.Attachment, &did); err != nil {
				t.Fatal(err)
			}
			var words []string
			for _, x := range did.Namespaces {
				words = slices.Concat(words, x.Did)
			}
			if got := strings.Join(words, "; "); !strings.Contains(got, c.did) || (got == "") != (c.did == "") {
				t.Errorf("did %q, want %q", got, c.did)
			}
		})
	}
}
