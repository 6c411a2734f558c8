package agent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/agent/disk"
	"github.com/metalctl/metalctl/agent/efi"
	"github.com/metalctl/metalctl/agent/inspect"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// Deps are what the steps need of the machine. Only Home is required; the zero value of the rest is this machine.
type Deps struct {
	// Home is the same as in Config.
	Home *Home
	// Inspect says how the machine is read: where its tree begins, how long to listen for neighbours, what stands in for what is read.
	Inspect inspect.Options
	// Simulated makes the folder for Inspect.Simulated, at each inventory; nil: Inspect has it.
	Simulated func() (string, error)
	// Disks lists the disks that there are now; nil: as Inspect says. An agent that is a process lists its files here, afresh each time.
	Disks func(context.Context) ([]fleet.Disk, error)
	// Vars is the folder of the EFI variables; "" means /sys/firmware/efi/efivars below the tree of Inspect, or none where Inspect.System describes another
	// machine than this one.
	Vars string
	// Packs is the folder that packs are put into; "" means DefaultPacks.
	Packs string
	// CleanGPUs puts the GPUs among the functions of PCI back, with root as Inspect says: opening a vendor's library is another room's business. nil: nobody can.
	CleanGPUs func(ctx context.Context, root string, pci []fleet.PCI, want fleet.CleanGPUs) fleet.GPUCleaning
	// Admin opens a drive's admin queue; nil: disk.OpenAdmin for NVMe disks.
	Admin func(disk.Device) (disk.Admin, func() error, error)
	// Controllers lists the NVMe drives, one controller of each, which Admin opens; nil: this machine's own.
	Controllers func() ([]disk.Device, error)
	// OriginTLS verifies origins of images other than the own server; nil: the system's authorities. OriginAllow are networks that origins may be in although
	// they are loopback, link-local or denied.
	OriginTLS   *tls.Config
	OriginAllow []netip.Prefix
	// Burn runs a stage of a burn-in; nil: this agent burns nothing in.
	Burn func(context.Context, BurnTask) (fleet.BurnPart, error)
	// Probe does this machine's half of a round of packets; nil: this agent can send none.
	Probe func(context.Context, fleet.ProbeTask) (fleet.ProbeReport, error)
	// Sync writes all that is cached to the disks; nil: sync(2).
	Sync func()
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// machine is what the steps of one boot share.
type machine struct {
	Deps

	mu      sync.Mutex
	written map[fleet.OperationID]written // guarded by mu: what write-image wrote
	erased  map[string]disk.Evidence      // guarded by mu: by the device's path and serial
}

// Steps binds the in-band steps of the catalogue to what does them on this machine.
func Steps(d Deps) step.Funcs {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Sync == nil {
		d.Sync = unix.Sync
	}
	m := &machine{Deps: d, written: map[fleet.OperationID]written{}, erased: map[string]disk.Evidence{}}
	return step.Funcs{
		step.FetchPacks:    m.fetchPacks,
		step.Inventory:     m.inventory,
		step.RestoreNS:     m.restoreNamespaces,
		step.EraseDisks:    m.eraseDisks,
		step.VerifyErase:   m.verifyErase,
		step.CleanBoot:     m.cleanBoot,
		step.CleanVars:     m.cleanVariables,
		step.CleanGPUs:     m.cleanGPUs,
		step.WriteImage:    m.writeImage,
		step.VerifyImage:   m.verifyImage,
		step.ConfigDrive:   m.configDrive,
		step.BootEntry:     m.bootEntry,
		step.BurnStage:     m.burnStage,
		step.ProbeWires:    m.probeWires,
		step.AgentPowerOff: m.powerOff,
	}
}

// decodeParams decodes a step's parameters and refuses what it does not know: a parameter that is passed over could be the one that protects something.
func decodeParams(c step.Call, out any) error {
	raw := c.Params
	if len(raw) == 0 {
		raw = json.RawMessage("{}")
	}
	if err := decodeStrict(raw, out); err != nil {
		return fleet.Errorf(fleet.Invalid, "MC-AGENT-TASK", "the parameters of %s: %w", c.Step, err).
			WithHint("agent and server are of different versions; boot the node again: metalctl node retry NODE")
	}
	return nil
}

// inventory reads the machine. The inventory travels as attachment, its counts as evidence.
func (m *machine) inventory(ctx context.Context, c step.Call) (step.Outcome, error) {
	inv, err := m.read(ctx, c.Progress)
	if err != nil {
		return step.Outcome{}, err
	}
	neighbours := 0
	for _, n := range inv.NICs {
		if n.LLDP != nil {
			neighbours++
		}
	}
	return step.Outcome{Attachment: inv, Evidence: map[string]any{
		"serial": inv.System.Serial, "uuid": inv.System.UUID, "cpus": len(inv.CPUs), "memory_bytes": inv.Memory.TotalBytes, "pci": len(inv.PCI),
		"disks": len(inv.Disks), "nics": len(inv.NICs), "neighbours": neighbours, "missing": len(inv.Missing),
	}}, nil
}

// simulated enters what stands in for the GPUs and HCAs of this machine.
func (m *machine) simulated(opts *inspect.Options) (err error) {
	if m.Simulated != nil {
		opts.Simulated, err = m.Simulated()
	}
	return err
}

// read reads the machine whole.
func (m *machine) read(ctx context.Context, progress func(part string, done, total int64)) (fleet.Inventory, error) {
	opts := m.Inspect
	opts.Now, opts.Variables = m.Now, m.Vars
	// The devices of a recording are not this machine's: nobody opens those in their place.
	if live := opts.Root == "" || opts.Root == "/"; opts.Sanitize == nil && (live || m.Admin != nil) {
		opts.Sanitize = m.abilities
	}
	if live := opts.Root == "" || opts.Root == "/"; opts.SmartLog == nil && (live || m.Admin != nil) {
		opts.SmartLog = m.smartLog
	}
	parts, done := int64(inspect.Parts()), int64(0)
	opts.Progress = func(part string) {
		progress(part, done, parts)
		done++
	}
	if m.Disks != nil {
		disks, err := m.Disks(ctx)
		if err != nil {
			return fleet.Inventory{}, err
		}
		opts.Disks = disks
	}
	if m.Simulated != nil {
		var err error
		if opts.Simulated, err = m.Simulated(); err != nil {
			return fleet.Inventory{}, err
		}
	}
	return inspect.Read(ctx, opts)
}

// present lists the disks that there are now. A removable drive without a medium is none.
func (m *machine) present(ctx context.Context) ([]disk.Device, error) {
	var list []fleet.Disk
	if m.Disks != nil {
		var err error
		if list, err = m.Disks(ctx); err != nil {
			return nil, err
		}
	} else {
		opts := m.Inspect
		opts.Only, opts.Sanitize, opts.SmartLog, opts.Progress = []string{inspect.PartDisk}, nil, nil, nil
		inv, err := inspect.Read(ctx, opts)
		if err != nil {
			return nil, err
		}
		for _, miss := range inv.Missing {
			if miss.What == inspect.PartDisk {
				return nil, fleet.Errorf(fleet.Broken, "MC-AGENT-DISK", "the machine's disks cannot be listed: %s", miss.Why)
			}
		}
		list = inv.Disks
	}
	var out []disk.Device
	for _, d := range list {
		if d.SizeBytes == 0 && d.Removable {
			continue
		}
		dev := disk.Of(d)
		// A file takes no commands of a drive, whatever it stands for.
		if info, err := os.Stat(d.Path); err == nil && info.Mode().IsRegular() {
			dev.Transport = "file"
		}
		out = append(out, dev)
	}
	return out, nil
}

// rootDisk finds the disk to write to among the accepted ones. serial, where known, is the disk that was chosen before and must still be there.
func (m *machine) rootDisk(ctx context.Context, hints fleet.RootDiskHints, accepted []fleet.AcceptedDevice, serial string) (disk.Device, string, error) {
	present, err := m.present(ctx)
	if err != nil {
		return disk.Device{}, "", err
	}
	var may []disk.Device
	for _, d := range present {
		if d.Serial != "" && slices.ContainsFunc(accepted, func(a fleet.AcceptedDevice) bool { return a.Serial == d.Serial }) {
			may = append(may, d)
		}
	}
	if len(may) == 0 {
		return disk.Device{}, "", fleet.Errorf(fleet.Conflict, "MC-AGENT-DISK", "none of the %d disks here is among the %d accepted ones", len(present), len(accepted)).
			WithHint("metalctl node inspect NODE shows what is there; metalctl node accept NODE agrees to it")
	}
	chosen, reason, err := disk.RootDisk(hints, may)
	if err != nil {
		return disk.Device{}, "", err
	}
	if serial != "" && chosen.Serial != serial {
		return disk.Device{}, "", fleet.Errorf(fleet.Conflict, "MC-AGENT-DISK", "the image was written to the disk %s; the hints choose %s now", serial, chosen).
			WithHint("write it again: metalctl node retry NODE")
	}
	return chosen, reason, nil
}

// uefi reports whether the machine was started by UEFI. For a machine that is described, its description says so: the host's firmware is not its own.
func (m *machine) uefi() (bool, error) {
	if s := m.Inspect.System; s != nil {
		return s.FirmwareMode == "uefi", nil
	}
	_, err := os.Stat(filepath.Join("/", m.Inspect.Root, "sys/firmware/efi"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// openVars opens the machine's EFI variables, and never the host's for a machine that is only described.
func (m *machine) openVars() (efi.FileVars, error) {
	switch {
	case m.Vars != "":
		return efi.OpenVars(m.Vars)
	case m.Inspect.System != nil:
		return efi.FileVars{}, fleet.Errorf(fleet.Broken, "MC-EFI-NO-VARS", "the described machine boots by UEFI, but no folder holds its EFI variables")
	}
	return efi.OpenVars(filepath.Join("/", m.Inspect.Root, "sys/firmware/efi/efivars"))
}

// powerOff writes everything out. The machine goes down once the server has the result.
func (m *machine) powerOff(context.Context, step.Call) (step.Outcome, error) {
	m.Sync()
	return step.Outcome{Evidence: map[string]bool{"synced": true}}, nil
}
