package fleet

import "time"

// GPU is one accelerator: an NVIDIA GPU as NVML shows it, an AMD one as amdgpu's sysfs shows it, or one that only PCI shows. What its driver did not
// answer is nil or absent, and named in the inventory's Missing with the reason; a zero here was read.
type GPU struct {
	// Index is the driver's number; -1 where only PCI shows the device.
	Index  int    `json:"index"`
	Vendor string `json:"vendor"` // nvidia, amd, or the PCI vendor's 4 hex digits
	// ModuleID is the position on the baseboard (1 to 8 on HGX), 0 where there is none: boards are wired by it, host cabling permutes Index.
	ModuleID int    `json:"module_id,omitempty"`
	UUID     string `json:"uuid,omitempty"`
	Serial   string `json:"serial,omitempty"`
	Model    string `json:"model"`
	// Part is the board's part number, Board its id, both as the InfoROM has them.
	Part       string `json:"part,omitempty"`
	Board      string `json:"board,omitempty"`
	PCIAddress string `json:"pci_address"`
	// PCIDevice and PCISubsystem are vendor:device, 4 hex digits each.
	PCIDevice    string `json:"pci_device,omitempty"`
	PCISubsystem string `json:"pci_subsystem,omitempty"`
	NUMANode     int    `json:"numa_node"` // -1 where the firmware does not say
	MemoryBytes  int64  `json:"memory_bytes,omitempty"`
	// MemoryUsedBytes is what is taken while nobody should use it; the driver's own reserve is not in it.
	MemoryUsedBytes *int64 `json:"memory_used_bytes,omitempty"`
	// BAR1Bytes is the window through which others on PCIe reach the memory: GPUDirect wants it as large as the memory.
	BAR1Bytes int64 `json:"bar1_bytes,omitempty"`
	// Virtualization is none on bare metal; passthrough or vgpu say that this machine is a guest.
	Virtualization string `json:"virtualization,omitempty"`
	// ComputeCapability is such as "9.0".
	ComputeCapability string `json:"compute_capability,omitempty"`

	VBIOS string `json:"vbios,omitempty"`
	// InfoROM has the versions by object: image, oem, ecc, power.
	InfoROM map[string]string `json:"inforom,omitempty"`
	// InfoROMValid is false where its checksum does not fit.
	InfoROMValid *bool  `json:"inforom_valid,omitempty"`
	GSP          string `json:"gsp,omitempty"` // firmware of the GPU's system processor, or "disabled"

	PCIe         *PCIeLink     `json:"pcie,omitempty"`
	NVLinks      []NVLink      `json:"nvlinks,omitempty"`
	ECC          *ECC          `json:"ecc,omitempty"`
	RemappedRows *RemappedRows `json:"remapped_rows,omitempty"`
	MIG          *Pending      `json:"mig,omitempty"` // on, off
	Confidential string        `json:"confidential_compute,omitempty"`
	Persistence  string        `json:"persistence,omitempty"`   // on, off
	ComputeMode  string        `json:"compute_mode,omitempty"`  // default, exclusive-process, prohibited
	Clocks       *GPUClocks    `json:"clocks,omitempty"`        // now and at most
	Power        *GPUPower     `json:"power,omitempty"`         // limits and draw
	Temperatures *Temperatures `json:"temperatures,omitempty"`  // now and where it slows down
	ClockReasons []string      `json:"clock_reasons,omitempty"` // why the clocks are below their maximum now, such as hw-thermal-slowdown
	// ThrottledNS is for how long in all, in nanoseconds since the driver was loaded, by reason; a reason that is not there was not told.
	ThrottledNS map[string]int64  `json:"throttled_ns,omitempty"`
	Fabric      *GPUFabric        `json:"fabric,omitempty"`          // its place in the NVLink fabric
	Recovery    string            `json:"recovery_action,omitempty"` // what the driver asks for: none, reset, reboot, drain-p2p, drain-and-reset, recover-imex
	Processes   []GPUProcess      `json:"processes,omitempty"`       // who uses it
	P2P         map[string]string `json:"p2p,omitempty"`             // by peer's index: ok, or why not
	// Lost says why the driver cannot speak to it; it begins with one of the words of GPULost and has the driver's after a colon. "" is not lost.
	Lost string `json:"lost,omitempty"`
}

// What GPU.Lost begins with: they call for different repairs.
const (
	GPULostBus     = "lost"    // fallen off the bus: the driver says so
	GPULostHung    = "hung"    // a call for it did not come back in time
	GPULostCrashed = "crashed" // a call for it took its process along
	GPULostUnknown = "unknown" // PCI shows it, the driver does not have it
	GPULostFailed  = "failed"  // the driver has it and refuses to open it
)

// PCIeLink is a link's state. Generation 0 and width 0 are unknown. A link may idle below its maximum: a judgement needs load.
type PCIeLink struct {
	Generation    int   `json:"generation"`
	Width         int   `json:"width"`
	MaxGeneration int   `json:"max_generation"`
	MaxWidth      int   `json:"max_width"`
	Replays       int64 `json:"replays,omitempty"`
}

// States of an NVLink.
const (
	LinkUp       = "up"
	LinkDown     = "down"
	LinkDisabled = "disabled"
	LinkUnknown  = "unknown"
)

// NVLink is one link of a GPU. SpeedGBps is each way, in gigabytes a second: 26.562 on Hopper, 53.125 on Blackwell.
type NVLink struct {
	Link      int     `json:"link"`
	State     string  `json:"state"`
	Version   string  `json:"version,omitempty"`
	SpeedGBps float64 `json:"speed_gbps,omitempty"`
	// Remote is the other end; nil where the driver does not tell (Blackwell answers all ones).
	Remote *NVLinkEnd `json:"remote,omitempty"`
	// Errors has counters by name that are not zero: replay, recovery, crc; on NVLink 5 malformed, overrun, rcv, rcv-remote, rcv-general, local-integrity,
	// xmit-discards, recovery-ok, recovery-failed, recovery-events, effective, symbol.
	Errors map[string]int64 `json:"errors,omitempty"`
	// EffectiveBER is NVLink 5's bit error rate after correction.
	EffectiveBER *float64 `json:"effective_ber,omitempty"`
}

// NVLinkEnd is where a link leads: a switch's or a GPU's PCI address and, where told, the port there.
type NVLinkEnd struct {
	Kind       string `json:"kind"` // switch, gpu, unknown
	PCIAddress string `json:"pci_address,omitempty"`
	Port       *int   `json:"port,omitempty"`
}

// Pending is a setting that takes effect at the next reset.
type Pending struct {
	Now  string `json:"now"`
	Next string `json:"next"`
}

// ECC has error counts since the driver was loaded (volatile) and over the GPU's life (aggregate).
type ECC struct {
	Mode      Pending   `json:"mode"` // on, off
	Volatile  ECCCounts `json:"volatile"`
	Aggregate ECCCounts `json:"aggregate"`
	// SRAMThreshold is the driver's own mark that the SRAM's errors passed their limit: replace the GPU.
	SRAMThreshold *bool `json:"sram_threshold_exceeded,omitempty"`
}

// ECCCounts are errors by place. Parity errors of SRAM count as uncorrectable, as they lose data.
type ECCCounts struct {
	Corrected       int64 `json:"corrected"`
	Uncorrected     int64 `json:"uncorrected"`
	SRAMCorrected   int64 `json:"sram_corrected,omitempty"`
	SRAMUncorrected int64 `json:"sram_uncorrected,omitempty"`
	DRAMCorrected   int64 `json:"dram_corrected,omitempty"`
	DRAMUncorrected int64 `json:"dram_uncorrected,omitempty"`
}

// RemappedRows is what HBM rows were replaced. Pending needs a reset, Failure a new GPU.
type RemappedRows struct {
	Correctable   int64 `json:"correctable"`
	Uncorrectable int64 `json:"uncorrectable"`
	Pending       bool  `json:"pending"`
	Failure       bool  `json:"failure"`
	// Banks counts memory banks by how many spare rows they have left: max, high, partial, low, none.
	Banks map[string]int64 `json:"banks,omitempty"`
}

// GPUClocks are in MHz.
type GPUClocks struct {
	SM        int `json:"sm_mhz"`
	Memory    int `json:"memory_mhz"`
	MaxSM     int `json:"max_sm_mhz"`
	MaxMemory int `json:"max_memory_mhz"`
	// AppSM and AppMemory are the application clocks that a user set, 0 where there are none.
	AppSM     int `json:"application_sm_mhz,omitempty"`
	AppMemory int `json:"application_memory_mhz,omitempty"`
}

// GPUPower is in milliwatts.
type GPUPower struct {
	Draw     int64 `json:"draw_mw"`
	Limit    int64 `json:"limit_mw"`   // enforced now
	Default  int64 `json:"default_mw"` // after a reset
	MinLimit int64 `json:"min_mw,omitempty"`
	MaxLimit int64 `json:"max_mw,omitempty"`
}

// Temperatures are in degrees Celsius; nil was not told. Margin is how far the GPU is below its own limit (T.Limit). Drivers for Hopper and later tell
// the others as distance from that limit (negative: above it), older ones as temperatures.
type Temperatures struct {
	GPU       *int `json:"gpu_c,omitempty"`
	Memory    *int `json:"memory_c,omitempty"`
	Margin    *int `json:"margin_c,omitempty"`
	Slowdown  *int `json:"slowdown_c,omitempty"`
	Shutdown  *int `json:"shutdown_c,omitempty"`
	MemoryMax *int `json:"memory_max_c,omitempty"`

	SlowdownLimit *int `json:"slowdown_limit_c,omitempty"`
	ShutdownLimit *int `json:"shutdown_limit_c,omitempty"`
	MemoryLimit   *int `json:"memory_limit_c,omitempty"`
}

// GPUFabric is the state of registration with the fabric manager: unsupported, not-started, in-progress, completed. Unhealthy names the bits of the
// health mask that are true.
type GPUFabric struct {
	State     string   `json:"state"`
	Status    string   `json:"status,omitempty"` // success, or the fabric manager's error
	Cluster   string   `json:"cluster,omitempty"`
	Clique    int      `json:"clique,omitempty"`
	Unhealthy []string `json:"unhealthy,omitempty"`
}

// GPUProcess is a process that holds memory of a GPU.
type GPUProcess struct {
	PID         int    `json:"pid"`
	Name        string `json:"name,omitempty"`
	Kind        string `json:"kind"` // compute, graphics, mps
	MemoryBytes int64  `json:"memory_bytes,omitempty"`
}

// GPUDriver is the software between the kernel and the GPUs.
type GPUDriver struct {
	Name    string `json:"name"` // nvidia, amdgpu
	Version string `json:"version,omitempty"`
	CUDA    string `json:"cuda,omitempty"`
	Library string `json:"library,omitempty"` // NVML's version
	// FabricManager is running, absent, or failed; "" where the machine needs none.
	FabricManager string `json:"fabric_manager,omitempty"`
}

// NVSwitch is one switch chip that the host sees on PCI. B200 boards show none.
type NVSwitch struct {
	PCIAddress string    `json:"pci_address"`
	PCIDevice  string    `json:"pci_device"`
	NUMANode   int       `json:"numa_node"`
	UUID       string    `json:"uuid,omitempty"`
	Firmware   string    `json:"firmware,omitempty"`
	PCIe       *PCIeLink `json:"pcie,omitempty"`
	// Ports are those that a GPU's link leads to, by number, each with the GPU's module id and link; filled from the GPUs' side.
	Ports []SwitchPort `json:"ports,omitempty"`
}

// SwitchPort is one NVLink port of a switch and the link it meets.
type SwitchPort struct {
	Port   int `json:"port"`
	Module int `json:"module"` // the GPU's module id
	Link   int `json:"link"`
}

// KernelFinding is what the kernel's log said of hardware since boot, decoded and counted.
type KernelFinding struct {
	Kind string `json:"kind"` // xid, sxid, aer, mce, edac, nvlink, nvme, mlx5, pcie-bandwidth
	// Code is the number of an XID or SXid, 0 otherwise.
	Code int `json:"code,omitempty"`
	// Unit and SubCode say more of an XID of NVLink 5 (144 to 150): the part of the link, such as RLW_RXPIPE, and bits 20 to 25 of its first word.
	Unit      string    `json:"unit,omitempty"`
	SubCode   int       `json:"sub_code,omitempty"`
	Component string    `json:"component,omitempty"` // as far as the line tells: gpu/3, a PCI address, a DIMM's label
	Severity  string    `json:"severity,omitempty"`  // fatal, nonfatal, corrected, as the line says
	Count     int       `json:"count"`
	First     time.Time `json:"first,omitzero"`
	Last      time.Time `json:"last,omitzero"`
	// Line is the newest one, at most 300 bytes.
	Line string `json:"line"`
}
