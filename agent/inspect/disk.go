package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// readDisks reads every block device that could hold data: no partitions, no RAM disks, nothing built on top of others.
func (r *reading) readDisks(ctx context.Context) {
	if r.opts.Disks != nil {
		r.inv.Disks = slices.Clone(r.opts.Disks)
		return
	}
	names, err := r.fs.List("sys/block")
	if err != nil {
		r.missing("disk", err)
		return
	}
	for _, name := range names {
		device := r.fs.Device("sys/block", name)
		// What has no hardware behind it (loop, ram, zram, md, dm, nbd) stands below virtual; so do the heads of multipath NVMe, which are real.
		if device == "" || strings.HasPrefix(device, "/sys/devices/virtual/") && !strings.Contains(device, "/nvme-subsystem/") {
			continue
		}
		// hidden: one path of a multipath NVMe namespace, which its head stands for.
		if strings.HasPrefix(name, "fd") || r.fs.NumberOr(0, "sys/block", name, "hidden") == 1 {
			continue
		}
		d := r.disk(name, device)
		if r.opts.Sanitize != nil && !d.BootMedium && d.SizeBytes > 0 {
			how, err := r.opts.Sanitize(ctx, d)
			if err != nil {
				r.missing("disk/"+name+" sanitize", err)
			}
			d.Sanitize = how
		}
		if d.Transport == "nvme" && !d.BootMedium {
			d.Smart = r.smart(ctx, d)
		}
		r.inv.Disks = append(r.inv.Disks, d)
	}
}

func (r *reading) disk(name, device string) fleet.Disk {
	dir := "sys/block/" + name
	d := fleet.Disk{Name: name, Path: "/dev/" + name, Transport: transport(name, device, r.sas(device)), PCIAddress: sysfs.PCIAddress(device)}
	if d.PCIAddress == "" && d.Transport == "nvme" {
		d.PCIAddress = r.headAddress(name)
	}
	d.NUMANode = -1
	if d.PCIAddress != "" {
		d.NUMANode = int(r.fs.NumberOr(-1, "sys/bus/pci/devices", d.PCIAddress, "numa_node"))
		if d.Transport == "nvme" {
			d.PCIe, d.Slot = r.pcieLink(d.PCIAddress), r.slot(d.PCIAddress)
		}
	}
	sectors, err := r.fs.Number(dir, "size") // in units of 512 bytes, whatever the device's own are
	if err != nil {
		r.missing("disk/"+name+" size", err)
	}
	d.SizeBytes = sectors * 512
	block, err := r.fs.Number(dir, "queue/logical_block_size")
	if err != nil {
		r.missing("disk/"+name+" block size", err)
	}
	d.BlockBytes = int(block)
	d.Rotational = r.flag(name, "queue/rotational")
	d.Removable = r.flag(name, "removable")
	d.ReadOnly = r.flag(name, "ro")
	d.WWN = first(r.fs.Try(dir, "wwid"), r.fs.Try(dir, "device/wwid"))
	d.Model = r.model(name)
	d.Firmware = first(r.fs.Try(dir, "device/firmware_rev"), r.fs.Try(dir, "device/rev"))
	d.Serial = r.serial(name, device)
	d.BootMedium = r.bootMedium(name, d)
	if d.Serial == "" && !d.BootMedium {
		r.missingf("disk/"+name+" serial", "the device has none; it can not be accepted, so nothing is ever written to it")
	}
	return d
}

// slot is the name of the slot that a PCI function is plugged into, by the device's address without its function; "" where the firmware names none.
func (r *reading) slot(address string) string {
	names, err := r.fs.List("sys/bus/pci/slots")
	if err != nil {
		return ""
	}
	device, _, _ := strings.Cut(address, ".")
	for _, name := range names {
		if r.fs.Try("sys/bus/pci/slots", name, "address") == device {
			return name
		}
	}
	return ""
}

// headAddress is the PCI address of the first controller behind the head of a multipath NVMe namespace.
func (r *reading) headAddress(name string) string {
	names, err := r.fs.List("sys/block", name, "device")
	if err != nil {
		return ""
	}
	for _, c := range names {
		if a := r.fs.Try("sys/block", name, "device", c, "address"); strings.HasPrefix(c, "nvme") && sysfs.IsPCIAddress(a) {
			return a
		}
	}
	return ""
}

// flag reads a 0 or 1. What cannot be read is recorded: "false" must not look true.
func (r *reading) flag(name, file string) bool {
	n, err := r.fs.Number("sys/block", name, file)
	if err != nil {
		r.missing("disk/"+name+" "+path.Base(file), err)
	}
	return n == 1
}

func (r *reading) model(name string) string {
	model := r.fs.Try("sys/block", name, "device/model")
	vendor := r.fs.Try("sys/block", name, "device/vendor")
	// "ATA" is what SCSI says of a SATA disk, "0x1af4" what virtio does.
	if vendor == "" || vendor == "ATA" || vendor == "NVMe" || strings.HasPrefix(vendor, "0x") || strings.HasPrefix(model, vendor) {
		return model
	}
	return strings.TrimSpace(vendor + " " + model)
}

// sas reports whether the SCSI host of a device is a SAS one.
func (r *reading) sas(device string) bool {
	if strings.Contains(device, "/end_device-") {
		return true
	}
	for _, part := range strings.Split(device, "/") {
		if strings.HasPrefix(part, "host") {
			switch r.fs.Try("sys/class/scsi_host", part, "proc_name") {
			case "megaraid_sas", "mpt3sas", "mpi3mr", "smartpqi", "hpsa", "aacraid", "pm80xx", "isci":
				return true
			}
		}
	}
	return false
}

// transport tells by the device's place in the tree how it is attached.
func transport(name, device string, sas bool) string {
	has := func(s string) bool { return strings.Contains(device, s) }
	switch {
	case strings.HasPrefix(name, "nvme"):
		return "nvme"
	case has("/usb"):
		return "usb"
	case has("/virtio"):
		return "virtio"
	case sas:
		return "sas"
	case has("/ata"):
		return "sata"
	}
	return "unknown"
}

// serial finds a disk's serial number where its kind keeps it. The namespaces of an NVMe controller share the controller's.
func (r *reading) serial(name, device string) string {
	dir := "sys/block/" + name
	if strings.HasPrefix(name, "nvme") {
		return r.fs.Try(dir, "device/serial")
	}
	if s := r.fs.Try(dir, "serial"); s != "" { // virtio
		return s
	}
	if b, err := r.fs.Bytes(dir, "device/vpd_pg80"); err == nil {
		if s := unitSerial(b); s != "" {
			return s
		}
	}
	if strings.Contains(device, "/usb") {
		// The nearest ancestor with a serial is the USB device itself; its root hub's serial is a PCI address.
		for dir := device; strings.Contains(path.Dir(dir), "/usb"); dir = path.Dir(dir) {
			if s := r.fs.Try(dir, "serial"); s != "" {
				return s
			}
		}
	}
	return ""
}

// unitSerial reads the SCSI vital product data page 80h (SPC-4 section 7.8.14): four bytes of header, the text's length in the last two.
func unitSerial(b []byte) string {
	if len(b) < 4 || b[1] != 0x80 {
		return ""
	}
	n := min(int(b[2])<<8|int(b[3]), len(b)-4)
	s := strings.Trim(string(b[4:4+n]), " \x00")
	for _, c := range s {
		if c <= 0x20 || c > 0x7e {
			return strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
		}
	}
	return s
}

// bootMedium reports whether a device is what the agent came from: an optical drive, or a USB device whose ISO 9660 volume is labelled as ours. Content on any
// other disk decides nothing: a tenant could write that label to keep a disk from being erased.
func (r *reading) bootMedium(name string, d fleet.Disk) bool {
	if strings.HasPrefix(name, "sr") {
		return true
	}
	if d.Transport != "usb" {
		return false
	}
	label, err := isoLabel(r.fs.Path("dev", name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.missing("disk/"+name+" label", err)
	}
	return label == fleet.VolumeLabel
}

// isoLabel reads the volume identifier of an ISO 9660 volume (ECMA-119 section 8.4), or "" where there is none.
func isoLabel(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, 2048)
	if _, err := f.ReadAt(b, 16*2048); err == io.EOF {
		return "", nil // too small for a volume
	} else if err != nil {
		return "", fmt.Errorf("read its volume descriptor: %w", err)
	}
	if b[0] != 1 || string(b[1:6]) != "CD001" {
		return "", nil
	}
	return strings.TrimRight(string(b[40:72]), " \x00"), nil
}

func first(texts ...string) string {
	for _, s := range texts {
		if s != "" {
			return s
		}
	}
	return ""
}

// FileDisk is a plain file that stands for a disk, for agents that run as processes.
type FileDisk struct {
	Path   string `json:"path"`
	Serial string `json:"serial"`
	Model  string `json:"model"`
	// Transport is what the disk pretends to be; "file" when empty.
	Transport string `json:"transport,omitempty"`
}

// FileDisks turns files into disks of the size that the files have now; the result is for Options.Disks.
func FileDisks(list []FileDisk) ([]fleet.Disk, error) {
	out := []fleet.Disk{}
	seen := map[string]bool{}
	for i, f := range list {
		info, err := os.Stat(f.Path)
		switch {
		case err != nil:
			return nil, fmt.Errorf("disk %d: %w", i, err)
		case !info.Mode().IsRegular():
			return nil, fmt.Errorf("disk %d: %s is not a plain file", i, f.Path)
		case f.Serial == "" || seen[f.Serial]:
			return nil, fmt.Errorf("disk %d: %s needs a serial of its own", i, f.Path)
		}
		seen[f.Serial] = true
		out = append(out, fleet.Disk{
			Name: path.Base(f.Path), Path: f.Path, Serial: f.Serial, Model: f.Model, SizeBytes: info.Size(), BlockBytes: 512,
			Transport: first(f.Transport, "file"), NUMANode: -1,
		})
	}
	return out, nil
}

// LoadFileDisks reads a JSON list of FileDisk from a file.
func LoadFileDisks(file string) ([]fleet.Disk, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the list of disks: %w", err)
	}
	var list []FileDisk
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&list); err != nil {
		return nil, fmt.Errorf("%s byte %d: %w", file, dec.InputOffset(), err)
	}
	return FileDisks(list)
}
