package agent

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"io"
	"strings"

	"github.com/metalctl/metalctl/agent/disk"
	"github.com/metalctl/metalctl/agent/efi"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/images/configdrive"
)

// maxUserData is more than fits on a config drive.
const maxUserData = 64 << 20

// configDrive moves the GPT's backup to the disk's end and adds the drive from which the system learns who it is.
func (m *machine) configDrive(ctx context.Context, c step.Call) (step.Outcome, error) {
	var p struct {
		step.ConfigDriveParams
		Serial string `json:"serial,omitempty"`
	}
	if err := decodeParams(c, &p); err != nil {
		return step.Outcome{}, err
	}
	content := configdrive.Content{InstanceID: p.InstanceID, Hostname: p.Hostname, SSHKeys: p.SSHKeys, MetaData: p.Meta, NetworkData: p.Network, Form: configdrive.Form(p.Form)}
	if p.UserData != "" || p.UserDigest != "" {
		c.Progress("fetching user-data", 0, 0)
		b, err := m.userData(ctx, p.UserData, p.UserDigest)
		if err != nil {
			return step.Outcome{}, err
		}
		content.UserData = b
	}
	drive, err := configdrive.Build(content)
	if err != nil {
		return step.Outcome{}, err
	}
	dev, _, err := m.rootDisk(ctx, p.Root, p.Accepted, m.serial(c, p.Serial))
	if err != nil {
		return step.Outcome{}, err
	}
	present, err := m.present(ctx)
	if err != nil {
		return step.Outcome{}, err
	}
	if err := disk.NoStrayConfigDrive(dev, present); err != nil {
		return step.Outcome{}, err
	}
	c.Progress("writing the config drive", 0, int64(len(drive)))
	if err := disk.FixGPT(ctx, dev); err != nil {
		return step.Outcome{}, err
	}
	part, err := disk.AddConfigDrive(ctx, dev, content.Form.Label(), drive)
	if err != nil {
		return step.Outcome{}, err
	}
	sum := sha256.Sum256(drive)
	return step.Outcome{Evidence: map[string]any{
		"serial": dev.Serial, "partition": part.Number, "partition_guid": part.GUID.String(), "label": part.Name, "bytes": len(drive), "sha256": hex.EncodeToString(sum[:]),
		"user_data_bytes": len(content.UserData), "instance_id": p.InstanceID, "hostname": p.Hostname,
	}}, nil
}

// userData fetches the tenant's user-data from the server and compares it with the lease's digest. Both must be given.
func (m *machine) userData(ctx context.Context, path, digest string) ([]byte, error) {
	want, err := hex.DecodeString(strings.TrimPrefix(digest, "sha256:"))
	if path == "" || err != nil || len(want) != sha256.Size {
		return nil, fleet.Errorf(fleet.Invalid, "MC-AGENT-TASK", "user-data needs a path and a SHA-256")
	}
	var b []byte
	err = m.Home.persist(ctx, func() (err error) { b, err = m.Home.Fetch(ctx, path, maxUserData); return err })
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(b); subtle.ConstantTimeCompare(sum[:], want) != 1 {
		return nil, fleet.Errorf(fleet.Broken, "MC-AGENT-USERDATA", "the server sends user-data with the sha256 %x; the lease's has %x", sum, want).
			WithHint("metalctl server check")
	}
	return b, nil
}

// serial is the disk that write-image chose: what the server says, else what this boot remembers, else "".
func (m *machine) serial(c step.Call, told string) string {
	if told != "" {
		return told
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.written[c.Operation].dev.Serial
}

// bootEntry makes the firmware start what was written. Without UEFI there are no entries, and the BMC's boot order decides.
func (m *machine) bootEntry(ctx context.Context, c step.Call) (step.Outcome, error) {
	var p step.RootParams
	if err := decodeParams(c, &p); err != nil {
		return step.Outcome{}, err
	}
	dev, _, err := m.rootDisk(ctx, p.Root, p.Accepted, m.serial(c, p.Serial))
	if err != nil {
		return step.Outcome{}, err
	}
	if out, skip, err := m.withoutUEFI(); skip || err != nil {
		return out, err
	}
	vars, err := m.openVars()
	if err != nil {
		return step.Outcome{}, err
	}
	parts, err := disk.Partitions(dev)
	if err != nil {
		return step.Outcome{}, err
	}
	esp, loader, err := findLoader(dev, parts)
	if err != nil {
		return step.Outcome{}, err
	}
	present, unread, err := m.partitionGUIDs(ctx)
	if err != nil {
		return step.Outcome{}, err
	}
	label := loader.Label
	if label == "" {
		label = "system"
	}
	entry, err := efi.SetBootEntry(vars, efi.Want{Present: present, Entry: efi.Entry{
		Label: label, PartitionGUID: esp.GUID, Number: uint32(esp.Number), StartLBA: uint64(esp.StartLBA), SizeLBA: uint64(esp.SizeLBA), Path: loader.Path,
	}})
	if err != nil {
		return step.Outcome{Faults: []fleet.Fault{m.bootFault(err)}}, err
	}
	ev := map[string]any{
		"serial": dev.Serial, "entry": entry.Name, "order": entry.Order, "removed": entry.Removed, "loader": loader, "partition": esp.Number, "partition_guid": esp.GUID.String(),
	}
	if unread != "" {
		ev["stale_entries_kept"] = unread
	}
	return step.Outcome{Evidence: ev}, nil
}

// withoutUEFI is the outcome on machines that were not started by UEFI. Under UEFI, absent variables are a failure like any other.
func (m *machine) withoutUEFI() (step.Outcome, bool, error) {
	yes, err := m.uefi()
	if err != nil || yes {
		return step.Outcome{}, false, err
	}
	return step.Outcome{Evidence: map[string]string{"skipped": "no EFI variables: the machine was not started by UEFI"}}, true, nil
}

func (m *machine) bootFault(err error) fleet.Fault {
	return fleet.Fault{
		Code: "MC-FAULT-BOOT-ENTRY", Component: "firmware/boot-entries", Severity: fleet.Critical, Since: m.Now().UTC(), Blocks: fleet.BlocksNothing,
		Evidence: shorten(err.Error(), 300), Hint: "metalctl node retry NODE; if it stays, reset the firmware's settings",
	}
}

// findLoader looks for what to start on the disk's EFI system partitions, in their order.
func findLoader(dev disk.Device, parts []disk.Partition) (disk.Partition, efi.Loader, error) {
	var last error
	for _, p := range parts {
		if p.Type != disk.TypeESP {
			continue
		}
		var loader efi.Loader
		err := disk.ReadPartition(dev, p, func(r io.ReaderAt, size int64) (err error) {
			loader, err = efi.FindLoader(r, size)
			return err
		})
		if err == nil {
			return p, loader, nil
		}
		last = err
	}
	if last == nil {
		last = fleet.Errorf(fleet.Broken, "MC-EFI-ESP", "%s has no EFI system partition, so UEFI firmware cannot start it", dev).
			WithHint("use an image that boots by UEFI: metalctl image list")
	}
	return disk.Partition{}, efi.Loader{}, last
}

// partitionGUIDs are those of all partitions of this machine: boot entries for others lead nowhere. Where a disk cannot be read, it says why and lists none,
// since any entry might lead there. A disk without a GPT holds none, and the boot medium's do not count.
func (m *machine) partitionGUIDs(ctx context.Context) (guids [][16]byte, unread string, err error) {
	present, err := m.present(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, d := range present {
		if d.BootMedium {
			continue
		}
		parts, err := disk.Partitions(d)
		if fleet.CodeOf(err) == "MC-DISK-NO-GPT" {
			continue
		}
		if err != nil {
			return nil, shorten(err.Error(), 200), nil
		}
		for _, p := range parts {
			guids = append(guids, p.GUID)
		}
	}
	return guids, "", nil
}

// cleanBoot removes the boot entries that earlier deployments left.
func (m *machine) cleanBoot(ctx context.Context, c step.Call) (step.Outcome, error) {
	if err := decodeParams(c, &struct{}{}); err != nil {
		return step.Outcome{}, err
	}
	if out, skip, err := m.withoutUEFI(); skip || err != nil {
		return out, err
	}
	vars, err := m.openVars()
	if err != nil {
		return step.Outcome{}, err
	}
	removed, left, err := efi.RemoveOurs(vars)
	if err != nil {
		return step.Outcome{Faults: []fleet.Fault{m.bootFault(err)}}, err
	}
	if removed == nil {
		removed = []string{}
	}
	if left == nil {
		left = []string{}
	}
	return step.Outcome{Evidence: map[string]any{"removed": removed, "left": left}}, ctx.Err()
}
