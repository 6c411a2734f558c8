package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/metalctl/metalctl/agent/disk"
	"github.com/metalctl/metalctl/fleet"
)

// abilities asks an NVMe drive how it can erase itself, for the inventory; the names are those of fleet.Disk.Sanitize. Other disks are not asked.
func (m *machine) abilities(ctx context.Context, d fleet.Disk) (list []string, err error) {
	err = m.ask(d, func(admin disk.Admin) error {
		// Identify, CNS 01h: the controller (NVM Express Base 2.0, section 5.17.2.1).
		b := make([]byte, 4096)
		if err := admin.Admin(ctx, disk.Command{Opcode: 0x06, CDW10: 1, Data: b, Timeout: 30 * time.Second}); err != nil {
			return fmt.Errorf("identify controller: %w", err)
		}
		list = advertised(b)
		return nil
	})
	return list, err
}

// SmartLog asks an NVMe drive of this machine for its account of its health, log page 02h; it needs root.
func SmartLog(ctx context.Context, d fleet.Disk) ([]byte, error) {
	return (&machine{}).smartLog(ctx, d)
}

// smartLog asks an NVMe drive for its account of its health.
func (m *machine) smartLog(ctx context.Context, d fleet.Disk) (log []byte, err error) {
	err = m.ask(d, func(admin disk.Admin) error {
		log, err = disk.SmartLog(ctx, admin)
		return err
	})
	return log, err
}

// ask opens the admin queue of an NVMe drive for one question; other disks are not asked.
func (m *machine) ask(d fleet.Disk, question func(disk.Admin) error) error {
	if d.Transport != "nvme" {
		return nil
	}
	open := m.Admin
	if open == nil {
		open = disk.OpenAdmin
	}
	admin, closeAdmin, err := open(disk.Of(d))
	if err != nil {
		return err
	}
	return errors.Join(question(admin), closeAdmin())
}

// advertised reads OACS (bytes 256 and 257), SANICAP (328 to 331) and FNA (524) of the controller's data structure (figure 275).
func advertised(b []byte) []string {
	oacs, sanicap, fna := binary.LittleEndian.Uint16(b[256:]), binary.LittleEndian.Uint32(b[328:]), b[524]
	list := []string{}
	for _, a := range []struct {
		name string
		has  bool
	}{
		{"sanitize-crypto", sanicap&1 != 0}, {"sanitize-block", sanicap&2 != 0}, {"sanitize-overwrite", sanicap&4 != 0},
		{"format-crypto", oacs&2 != 0 && fna&4 != 0}, {"format", oacs&2 != 0},
	} {
		if a.has {
			list = append(list, a.name)
		}
	}
	return list
}
