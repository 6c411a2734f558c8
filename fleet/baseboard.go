package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

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
	Retimers []BoardRetimer    `json:"retimers,omitempty"`
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

// BoardRetimer is a PCIe retimer, which no host sees: it has no PCI function. Its firmware is the item FW_NAME.
type BoardRetimer struct {
	// Name is as firmware items and chassis have it: HGX_PCIeRetimer_3, or PCIeRetimer_0 of the host's own board.
	Name   string `json:"name"`
	State  string `json:"state,omitempty"`
	Health string `json:"health,omitempty"`
	// GPU is the GPU that it leads to, by the board's name; "" where that is not told.
	GPU   string          `json:"gpu,omitempty"`
	Links []BoardPCIeLink `json:"links,omitempty"`
}

// BoardPCIeLink is the PCIe link of a retimer's port; the generation is what it runs at now, which falls while it idles.
type BoardPCIeLink struct {
	Port  string `json:"port"`  // DOWN_0, UP_0
	State string `json:"state"` // as BoardPort.State
	PCIeLink
}

// FirmwareOf is the version of a part by its name, "" where no item tells.
func (b Baseboard) FirmwareOf(part string) string {
	bare := strings.TrimPrefix(part, "HGX_")
	id := strings.TrimSuffix(part, bare) + "FW_" + bare
	for _, f := range b.Firmware {
		if f.ID == id || f.ID == part {
			return f.Version
		}
	}
	return ""
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
	// Identity is "sha256:" over the certificates that it proves itself with, in their order; "" where it shows none. No measurement is asked for.
	Identity string `json:"identity,omitempty"`
	// Subject is the common name of its own certificate, where that can be told.
	Subject string `json:"subject,omitempty"`
}

// StoredBaseboard reads what an inspection has kept of a baseboard; nil where digest is "" or it is kept no more.
func StoredBaseboard(ctx context.Context, blobs Blobs, digest string) (*Baseboard, error) {
	if digest == "" {
		return nil, nil
	}
	f, err := blobs.OpenBlob(ctx, digest)
	if err != nil && KindOf(err) == NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the baseboard that was read: %w", err)
	}
	defer f.Close()
	var b Baseboard
	if err := json.NewDecoder(f).Decode(&b); err != nil {
		return nil, Errorf(Broken, "MC-STORE-BLOB", "the baseboard %s cannot be read: %w", digest, err).WithHint("metalctl server check")
	}
	return &b, nil
}
