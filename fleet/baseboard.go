package fleet

import "time"

// Baseboard is what the controller of a GPU baseboard (on HGX the HMC) shows of it through the node's BMC, without the host. Missing says what could not
// be read, and why; a pointer that is nil was not told.
type Baseboard struct {
	// URI is the baseboard's own ComputerSystem.
	URI string `json:"uri"`
	// TakenAt is by our clock: the controller's is often not set, ClockWrong says so.
	TakenAt    time.Time `json:"taken_at"`
	ClockWrong bool      `json:"clock_wrong,omitempty"`
	// Powered is false where its parts are offline: links are down then, and nothing can be said of them.
	Powered  bool              `json:"powered"`
	GPUs     []BoardGPU        `json:"gpus"`
	Links    []BoardLink       `json:"links,omitempty"`
	Firmware []BoardFirmware   `json:"firmware,omitempty"`
	Sensors  []BoardSensor     `json:"sensors,omitempty"`
	Roots    []BoardRoot       `json:"roots_of_trust,omitempty"`
	Health   map[string]string `json:"health,omitempty"` // of parts that are not OK, by name
	// Requests is how many reads it took.
	Requests int       `json:"requests"`
	Missing  []Missing `json:"missing,omitempty"`
}

// BoardGPU is one GPU as the baseboard's controller knows it.
type BoardGPU struct {
	// Name is the controller's (GPU_SXM_3, GPU_0); Number is the last one in it, -1 where there is none. Boards count from 0 or from 1.
	Name   string `json:"name"`
	Number int    `json:"number"`
	Serial string `json:"serial,omitempty"`
	UUID   string `json:"uuid,omitempty"`
	Model  string `json:"model,omitempty"`
	Part   string `json:"part,omitempty"`
	VBIOS  string `json:"vbios,omitempty"`
	// State and Health are Redfish's words: Enabled, Absent, UnavailableOffline; OK, Warning, Critical.
	State       string `json:"state,omitempty"`
	Health      string `json:"health,omitempty"`
	MemoryBytes int64  `json:"memory_bytes,omitempty"`
	// PowerLimitWatts is nil where there is none: the controller writes 65535 then.
	PowerLimitWatts *int      `json:"power_limit_watts,omitempty"`
	PCIe            *PCIeLink `json:"pcie,omitempty"`
	// Corrected and Uncorrected are ECC errors over the GPU's life.
	Corrected   *int64 `json:"ecc_corrected,omitempty"`
	Uncorrected *int64 `json:"ecc_uncorrected,omitempty"`
	// RemapFailed and RemapPending are the marks of row remapping.
	RemapFailed  *bool `json:"remap_failed,omitempty"`
	RemapPending *bool `json:"remap_pending,omitempty"`
}

// Doubts about a BoardLink.
const (
	LinkOneSided = "one-sided" // the other end is not there
	LinkDisagree = "disagree"  // the other end says that it leads elsewhere
)

// BoardLink is one NVLink of the baseboard, seen from both of its ends.
type BoardLink struct {
	A BoardPort `json:"a"`
	// B is nil where only one end was seen.
	B     *BoardPort `json:"b,omitempty"`
	Doubt string     `json:"doubt,omitempty"`
}

// BoardPort is one end of a link.
type BoardPort struct {
	Part string `json:"part"` // GPU_SXM_3, NVSwitch_0
	Port int    `json:"port"`
	// State is LinkUp, LinkDown, LinkDisabled or LinkUnknown. Speeds are gigabits a second, 0 unknown.
	State   string  `json:"state"`
	Gbps    float64 `json:"gbps,omitempty"`
	MaxGbps float64 `json:"max_gbps,omitempty"`
	// Peer is the end that it says it leads to, as PART/PORT; "" where it does not say.
	Peer string `json:"peer,omitempty"`
}

// BoardFirmware is one item that the BMC's update service lists; ID is such as HGX_FW_GPU_SXM_1.
type BoardFirmware struct {
	ID      string `json:"id"`
	Version string `json:"version,omitempty"`
}

// BoardSensor is one value of a telemetry report. A stale one is what was measured last, at some time that nobody knows.
type BoardSensor struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Stale bool    `json:"stale,omitempty"`
}

// BoardRoot is one root of trust and the part that it vouches for.
type BoardRoot struct {
	ID      string `json:"id"`
	Part    string `json:"part,omitempty"`
	Enabled bool   `json:"enabled"`
	State   string `json:"state,omitempty"`
	Health  string `json:"health,omitempty"`
}
