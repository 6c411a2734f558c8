package fleet

import "time"

// Inventory is what an agent read from a machine. It replaces the old one whole. Missing says what could not be read, and why: an absent
// value is never a zero that somebody could believe.
type Inventory struct {
	Version int       `json:"version"`
	TakenAt time.Time `json:"taken_at"`
	// Simulated names what the GPUs, NVSwitches and HCAs of a simulated machine are made of; "" is real hardware.
	Simulated string `json:"simulated,omitempty"`
	// OutOfBand marks an inventory that was read through the BMC alone.
	OutOfBand  bool       `json:"out_of_band,omitempty"`
	System     System     `json:"system"`
	CPUs       []CPU      `json:"cpus"`
	NUMANodes  []NUMANode `json:"numa_nodes"`
	Memory     Memory     `json:"memory"`
	PCI        []PCI      `json:"pci"`
	GPUDriver  *GPUDriver `json:"gpu_driver,omitempty"`
	GPUs       []GPU      `json:"gpus,omitempty"`
	NVSwitches []NVSwitch `json:"nvswitches,omitempty"`
	HCAs       []HCA      `json:"hcas,omitempty"`
	NICs       []NIC      `json:"nics"`
	Disks      []Disk     `json:"disks"`
	TPM        *TPM       `json:"tpm,omitempty"`
	// Variables are the firmware's, sorted by name and GUID; none where the machine was not started by UEFI.
	Variables []EFIVariable `json:"variables,omitempty"`
	// BMC is the controller as the host sees it.
	BMC            *HostBMC        `json:"bmc,omitempty"`
	Rails          []Rail          `json:"rails,omitempty"`
	KernelFindings []KernelFinding `json:"kernel_findings,omitempty"`
	Missing        []Missing       `json:"missing"`
}

// WouldErase lists the disks that accept would agree to: all that could hold data, but not the boot medium, nor what is removable or read-only, nor
// what has no serial number to be known by. What is shown, what is agreed to and what is compared come from here.
func (i Inventory) WouldErase() []AcceptedDevice {
	var out []AcceptedDevice
	for _, d := range i.Disks {
		if d.BootMedium || d.Removable || d.ReadOnly || d.Serial == "" || d.SizeBytes == 0 {
			continue
		}
		a := AcceptedDevice{Serial: d.Serial, Model: d.Model, SizeBytes: d.SizeBytes}
		if d.Transport == "nvme" {
			a.BlockBytes = d.BlockBytes
		}
		out = append(out, a)
	}
	return out
}

// System is the machine's identity. UUID is in the byte order that SMBIOS 2.6 and Redfish show.
type System struct {
	Vendor   string `json:"vendor"`
	Model    string `json:"model"`
	Serial   string `json:"serial"`
	UUID     string `json:"uuid"`
	Board    string `json:"board,omitempty"`
	BIOS     string `json:"bios,omitempty"`
	BIOSDate string `json:"bios_date,omitempty"`
	// FirmwareMode is "uefi" or "bios"; SecureBoot is "on", "off" or "unknown".
	FirmwareMode string `json:"firmware_mode"`
	SecureBoot   string `json:"secure_boot"`
	Kernel       string `json:"kernel"`
}

// CPU is one socket.
type CPU struct {
	Socket    int    `json:"socket"`
	Model     string `json:"model"`
	Cores     int    `json:"cores"`
	Threads   int    `json:"threads"`
	Microcode string `json:"microcode,omitempty"`
	MaxMHz    int    `json:"max_mhz,omitempty"`
}

// NUMANode is one memory domain; Distances is its row of the SLIT, in node order.
type NUMANode struct {
	ID          int    `json:"id"`
	CPUs        string `json:"cpus"` // list format, such as 0-3,8-11
	MemoryBytes int64  `json:"memory_bytes"`
	Distances   []int  `json:"distances"`
}

// Memory is the machine's RAM: what the kernel sees and which modules carry it.
type Memory struct {
	TotalBytes int64  `json:"total_bytes"`
	DIMMs      []DIMM `json:"dimms"`
}

// DIMM is one memory module by SMBIOS type 17.
type DIMM struct {
	Locator   string `json:"locator"`
	SizeBytes int64  `json:"size_bytes"`
	SpeedMTs  int    `json:"speed_mts,omitempty"`
	Serial    string `json:"serial,omitempty"`
	Part      string `json:"part,omitempty"`
	Vendor    string `json:"vendor,omitempty"`
	// Corrected and Uncorrected are the errors that EDAC counted since boot; nil where no EDAC driver knows the module.
	Corrected   *int64 `json:"corrected,omitempty"`
	Uncorrected *int64 `json:"uncorrected,omitempty"`
}

// PCI is one function. Widths are lanes; speeds are GT/s as the kernel prints them.
type PCI struct {
	Address  string `json:"address"`
	Vendor   string `json:"vendor"` // 4 hex digits
	Device   string `json:"device"`
	Class    string `json:"class"` // 6 hex digits
	Driver   string `json:"driver,omitempty"`
	NUMANode int    `json:"numa_node"` // -1 where the firmware does not say
	Parent   string `json:"parent,omitempty"`
	Speed    string `json:"speed,omitempty"`
	Width    int    `json:"width,omitempty"`
	MaxSpeed string `json:"max_speed,omitempty"`
	MaxWidth int    `json:"max_width,omitempty"`
	// Subsystem is vendor:device of the board, 4 hex digits each.
	Subsystem string `json:"subsystem,omitempty"`
	// ACS lists the access control services that a bridge enforces (source-validation, request-redirect, ...): they turn traffic between GPU and NIC
	// up to the root. nil where the function has no such capability, empty where all are off.
	ACS []string `json:"acs,omitzero"`
	// AER counts errors that are not zero, by severity and name, such as nonfatal/TLP.
	AER map[string]int64 `json:"aer,omitempty"`
}

// NIC is one Ethernet interface.
type NIC struct {
	Name       string    `json:"name"`
	MAC        MAC       `json:"mac"`
	Driver     string    `json:"driver,omitempty"`
	PCIAddress string    `json:"pci_address,omitempty"`
	NUMANode   int       `json:"numa_node"`
	Carrier    bool      `json:"carrier"`
	SpeedMbps  int       `json:"speed_mbps,omitempty"`
	MTU        int       `json:"mtu"`
	Addresses  []string  `json:"addresses,omitempty"`
	LLDP       *Neighbor `json:"lldp,omitempty"`
}

// Neighbor is what the other end of a wire says of itself by LLDP (IEEE 802.1AB).
type Neighbor struct {
	ChassisID  string `json:"chassis_id"`
	PortID     string `json:"port_id"`
	SystemName string `json:"system_name,omitempty"`
	PortDesc   string `json:"port_description,omitempty"`
	VLAN       int    `json:"vlan,omitempty"`
}

// Disk is one block device that could hold data.
type Disk struct {
	Name       string `json:"name"`
	Path       string `json:"path"`
	Serial     string `json:"serial"`
	Model      string `json:"model"`
	WWN        string `json:"wwn,omitempty"`
	Firmware   string `json:"firmware,omitempty"`
	SizeBytes  int64  `json:"size_bytes"`
	BlockBytes int    `json:"block_bytes"`
	Transport  string `json:"transport"` // nvme, sata, sas, virtio, usb, file
	Rotational bool   `json:"rotational"`
	Removable  bool   `json:"removable"`
	ReadOnly   bool   `json:"read_only,omitempty"`
	PCIAddress string `json:"pci_address,omitempty"`
	// Slot is the name that the firmware gives the slot of the drive's own PCIe function.
	Slot     string `json:"slot,omitempty"`
	NUMANode int    `json:"numa_node"`
	// Sanitize lists what the device says it can do to erase itself: sanitize-crypto, sanitize-block, sanitize-overwrite, format-crypto, format, discard.
	Sanitize []string `json:"sanitize,omitempty"`
	Smart    *Smart   `json:"smart,omitempty"`
	// PCIe is the link of a drive that has one of its own.
	PCIe *PCIeLink `json:"pcie,omitempty"`
	// BootMedium marks the medium this agent was booted from: it is never written or erased.
	BootMedium bool `json:"boot_medium,omitempty"`
}

// Smart is a drive's own account of its health (NVMe log page 02h; NVM Express Base Specification 2.0c, figure 207).
type Smart struct {
	// CriticalWarning has a word per bit that is set: spare-low, temperature, degraded, read-only, backup-failed, pmr-unreliable.
	CriticalWarning []string `json:"critical_warning,omitempty"`
	TemperatureC    int      `json:"temperature_c"`
	SparePercent    int      `json:"spare_percent"`
	SpareThreshold  int      `json:"spare_threshold_percent"`
	UsedPercent     int      `json:"used_percent"`
	MediaErrors     int64    `json:"media_errors"`
	ErrorLogEntries int64    `json:"error_log_entries"`
	UnsafeShutdowns int64    `json:"unsafe_shutdowns"`
	PowerOnHours    int64    `json:"power_on_hours"`
	WrittenBytes    int64    `json:"written_bytes"`
	ReadBytes       int64    `json:"read_bytes"`
}

// HostBMC is the management controller by SMBIOS type 38 and 42, and IPMI's device id where the kernel has a driver.
type HostBMC struct {
	Interface string `json:"interface,omitempty"` // KCS, SSIF, ...
	// HostInterface is the network interface that leads to it, and Address what it says its address there is.
	HostInterface string `json:"host_interface,omitempty"`
	Address       string `json:"address,omitempty"`
	Firmware      string `json:"firmware,omitempty"`
	Manufacturer  string `json:"manufacturer,omitempty"`
}

// TPM is the machine's trusted platform module.
type TPM struct {
	Version      string `json:"version"`
	Manufacturer string `json:"manufacturer,omitempty"`
}

// Missing says what could not be read, and why.
type Missing struct {
	What string `json:"what"`
	Why  string `json:"why"`
}
