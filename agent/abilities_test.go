package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/metalctl/metalctl/agent/disk"
	"github.com/metalctl/metalctl/agent/inspect"
	"github.com/metalctl/metalctl/fleet"
)

// drive answers Identify with a controller that can do some things.
type drive struct {
	oacs    uint16
	sanicap uint32
	fna     byte
	err     error
}

func (d drive) NSID() uint32 { return 1 }

func (d drive) Admin(_ context.Context, c disk.Command) error {
	if c.Opcode != 6 || c.CDW10 != 1 || len(c.Data) != 4096 {
		return errors.New("only Identify Controller is expected")
	}
	binary.LittleEndian.PutUint16(c.Data[256:], d.oacs)
	binary.LittleEndian.PutUint32(c.Data[328:], d.sanicap)
	c.Data[524] = d.fna
	return d.err
}

func TestADriveIsAskedHowItCanEraseItself(t *testing.T) {
	for name, tc := range map[string]struct {
		drive     drive
		transport string
		want      []string
		fails     bool
	}{
		"everything":                       {drive{oacs: 2, sanicap: 7, fna: 4}, "nvme", []string{"sanitize-crypto", "sanitize-block", "sanitize-overwrite", "format-crypto", "format"}, false},
		"format without crypto":            {drive{oacs: 2}, "nvme", []string{"format"}, false},
		"crypto without format is neither": {drive{fna: 4}, "nvme", []string{}, false},
		"a drive that does not answer":     {drive{err: errBoom}, "nvme", nil, true},
		"no NVMe drive":                    {drive{err: errBoom}, "sata", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			closed := false
			m := &machine{Deps: Deps{Admin: func(disk.Device) (disk.Admin, func() error, error) {
				return tc.drive, func() error { closed = true; return nil }, nil
			}}}
			got, err := m.abilities(context.Background(), fleet.Disk{Transport: tc.transport})
			if !slices.Equal(got, tc.want) || (err != nil) != tc.fails {
				t.Errorf("abilities = %v, %v", got, err)
			}
			if tc.transport == "nvme" && !closed {
				t.Error("the queue was left open")
			}
		})
	}
}

func TestTheInventorySaysHowDrivesErase(t *testing.T) {
	l := newLab(t, 16*mib)
	l.deps.Disks = nil
	dir := filepath.Join(l.root, "sys/devices/pci0000:00/0000:00:01.0/nvme/nvme0/nvme0n1/queue")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(filepath.Join(l.root, "sys/block"), 0o755),
		os.WriteFile(filepath.Join(dir, "../size"), []byte("8192\n"), 0o600),
		os.Symlink("../devices/pci0000:00/0000:00:01.0/nvme/nvme0/nvme0n1", filepath.Join(l.root, "sys/block/nvme0n1"))); err != nil {
		t.Fatal(err)
	}
	l.deps.Admin = func(disk.Device) (disk.Admin, func() error, error) {
		return drive{sanicap: 1}, func() error { return nil }, nil
	}
	l.deps.Inspect.Only = []string{inspect.PartDisk}
	l.run()
	var inv fleet.Inventory
	if err := decodeStrict(l.do("inventory", nil).Attachment, &inv); err != nil {
		t.Fatal(err)
	}
	if len(inv.Disks) != 1 || !slices.Equal(inv.Disks[0].Sanitize, []string{"sanitize-crypto"}) {
		t.Errorf("disks = %+v", inv.Disks)
	}
}
