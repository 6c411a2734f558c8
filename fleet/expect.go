package fleet

import (
	"encoding/json"
	"path"
	"reflect"
	"strconv"
)

// ClassExpect is what an inventory is compared with; zero fields are not compared. What a field wants and an inventory could not read blocks handing the
// node out: an error makes no node healthier.
type ClassExpect struct {
	// Source says where the expectations are from, as each limit says for itself: learned from a node, a vendor's document, a site's own baseline.
	Source      string           `json:"source,omitempty"`
	CPUs        int              `json:"cpus,omitempty"` // sockets
	NUMANodes   int              `json:"numa_nodes,omitempty"`
	MemoryBytes int64            `json:"memory_bytes,omitempty"`
	DIMMs       ExpectDIMMs      `json:"dimms,omitzero"`
	Disks       int              `json:"disks,omitempty"`
	NVMe        ExpectNVMe       `json:"nvme,omitzero"`
	NICs        int              `json:"nics,omitempty"`
	GPUs        ExpectGPUs       `json:"gpus,omitzero"`
	NVSwitches  int              `json:"nvswitches,omitempty"` // that the host sees on PCI; B200 boards show none
	InfiniBand  ExpectInfiniBand `json:"infiniband,omitzero"`
	Topology    ExpectTopology   `json:"topology,omitzero"`
	Firmware    ExpectFirmware   `json:"firmware,omitzero"`
	Baseboard   ExpectBaseboard  `json:"baseboard,omitzero"`
	// ACS is "off" where no PCIe switch above a GPU or HCA may turn traffic up to the root, "on" where all must; "" is not compared.
	ACS    string  `json:"acs,omitempty"`
	Limits []Limit `json:"limits,omitempty"`
}

// ExpectPCIe is the link that a device must have under load. A GPU's generation is compared with its maximum, as it idles below it.
type ExpectPCIe struct {
	Generation int `json:"generation,omitempty"`
	Width      int `json:"width,omitempty"`
}

// ExpectGPUs is a number in JSON where nothing but the count is given, as it was before there was more to say.
type ExpectGPUs struct {
	Count int `json:"count,omitempty"`
	// Model is as the driver calls it; PCIDevice is vendor:device, which PCI shows without a driver.
	Model     string `json:"model,omitempty"`
	PCIDevice string `json:"pci_device,omitempty"`
	// MemoryBytes is the least that each has.
	MemoryBytes int64 `json:"memory_bytes,omitempty"`
	// NVLinksUp is how many links of each are up, NVLinkGBps how fast each is, one way.
	NVLinksUp  int        `json:"nvlinks_up,omitempty"`
	NVLinkGBps float64    `json:"nvlink_gbps,omitempty"`
	PCIe       ExpectPCIe `json:"pcie,omitzero"`
	// Confidential is what confidential computing must be: on or off.
	Confidential string `json:"confidential_compute,omitempty"`
}

// ExpectInfiniBand is about the tenant's rails: a management bond, storage ports and the fabric manager's functions do not count. It is a number in JSON
// where nothing but the count is given.
type ExpectInfiniBand struct {
	Count     int        `json:"count,omitempty"`
	RateGbps  float64    `json:"rate_gbps,omitempty"`
	LinkLayer string     `json:"link_layer,omitempty"` // InfiniBand or Ethernet (RoCE)
	PCIe      ExpectPCIe `json:"pcie,omitzero"`
	// BlueField is the mode that DPUs must be in, nic or dpu: those that are rails, or all where no rail is one.
	BlueField string `json:"bluefield,omitempty"`
}

// ExpectNVMe is a number in JSON where nothing but the count is given. SizeBytes is the least of the data drives' sizes; boot drives may be smaller, so
// that it is the least of all drives.
type ExpectNVMe struct {
	Count     int        `json:"count,omitempty"`
	SizeBytes int64      `json:"size_bytes,omitempty"`
	PCIe      ExpectPCIe `json:"pcie,omitzero"`
}

// ExpectDIMMs is about the memory modules that are plugged.
type ExpectDIMMs struct {
	Count     int   `json:"count,omitempty"`
	SizeBytes int64 `json:"size_bytes,omitempty"`
	SpeedMTs  int   `json:"speed_mts,omitempty"`
}

// Distances between a GPU and its rail's HCA, from near to far: one PCIe switch, several, a host bridge, one NUMA node, the link between sockets.
var Distances = []string{"PIX", "PXB", "PHB", "NODE", "SYS"}

// ExpectTopology is where parts must be.
type ExpectTopology struct {
	// Wiring names the table of NVLinks by module id: hgx-hopper.
	Wiring string `json:"wiring,omitempty"`
	// Rail is the farthest that a GPU and its HCA may be apart.
	Rail string `json:"rail,omitempty"`
	// GPUNUMANodes has the NUMA node of each GPU, by module id from 1, or by index where a board has no module ids.
	GPUNUMANodes []int `json:"gpu_numa_nodes,omitempty"`
	// NVMePerRail is the least number of drives beside each GPU.
	NVMePerRail int `json:"nvme_per_rail,omitempty"`
}

// ExpectFirmware is the baseline of versions; what is empty may be any.
type ExpectFirmware struct {
	BIOS    string `json:"bios,omitempty"`
	BMC     string `json:"bmc,omitempty"`
	Driver  string `json:"driver,omitempty"` // the GPUs'
	VBIOS   string `json:"vbios,omitempty"`
	GSP     string `json:"gsp,omitempty"`
	InfoROM string `json:"inforom,omitempty"` // the image version
	// HCA has a version by PSID, NVMe one by model.
	HCA  map[string]string `json:"hca,omitempty"`
	NVMe map[string]string `json:"nvme,omitempty"`
	// Board has versions by item as the BMC's update service names them (HGX_FW_BMC_0); * in an item stands for any text.
	Board map[string]string `json:"board,omitempty"`
}

// ExpectBaseboard is what the BMC must show of the GPU baseboard, without the host.
type ExpectBaseboard struct {
	// Required: it must be there and be read whole. Whatever else is expected of it requires it, too.
	Required bool `json:"required,omitempty"`
	// NVLinks is how many must be seen from both ends, Retimers and RootsOfTrust how many there must be.
	NVLinks      int `json:"nvlinks,omitempty"`
	Retimers     int `json:"retimers,omitempty"`
	RootsOfTrust int `json:"roots_of_trust,omitempty"`
}

// MatchesItem tells that a name of ExpectFirmware.Board means a firmware item.
func MatchesItem(name, item string) bool {
	ok, err := path.Match(name, item)
	return ok && err == nil
}

// WantsBoard tells that the BMC must show a GPU baseboard.
func (e ClassExpect) WantsBoard() bool {
	return e.Baseboard != ExpectBaseboard{} || len(e.Firmware.Board) > 0
}

func (e ExpectGPUs) MarshalJSON() ([]byte, error) {
	type whole ExpectGPUs
	return countOr(e.Count, e == ExpectGPUs{Count: e.Count}, whole(e))
}

func (e *ExpectGPUs) UnmarshalJSON(b []byte) error {
	type whole ExpectGPUs
	return countInto(b, &e.Count, (*whole)(e))
}

func (e *ExpectGPUs) UnmarshalYAML(read func(any) error) error {
	type whole ExpectGPUs
	return countRead(read, &e.Count, (*whole)(e))
}

func (e ExpectInfiniBand) MarshalJSON() ([]byte, error) {
	type whole ExpectInfiniBand
	return countOr(e.Count, e == ExpectInfiniBand{Count: e.Count}, whole(e))
}

func (e *ExpectInfiniBand) UnmarshalJSON(b []byte) error {
	type whole ExpectInfiniBand
	return countInto(b, &e.Count, (*whole)(e))
}

func (e *ExpectInfiniBand) UnmarshalYAML(read func(any) error) error {
	type whole ExpectInfiniBand
	return countRead(read, &e.Count, (*whole)(e))
}

func (e ExpectNVMe) MarshalJSON() ([]byte, error) {
	type whole ExpectNVMe
	return countOr(e.Count, e == ExpectNVMe{Count: e.Count}, whole(e))
}

func (e *ExpectNVMe) UnmarshalJSON(b []byte) error {
	type whole ExpectNVMe
	return countInto(b, &e.Count, (*whole)(e))
}

func (e *ExpectNVMe) UnmarshalYAML(read func(any) error) error {
	type whole ExpectNVMe
	return countRead(read, &e.Count, (*whole)(e))
}

func countOr(count int, only bool, whole any) ([]byte, error) {
	if only {
		return strconv.AppendInt(nil, int64(count), 10), nil
	}
	return json.Marshal(whole)
}

// countInto decodes a number into count, anything else into whole, which replaces all that was there.
func countInto(b []byte, count *int, whole any) error {
	reflect.ValueOf(whole).Elem().SetZero()
	if len(b) > 0 && (b[0] == '-' || b[0] >= '0' && b[0] <= '9') {
		return json.Unmarshal(b, count)
	}
	return json.Unmarshal(b, whole)
}

// countRead is countInto for a file, whose reader tells line and column.
func countRead(read func(any) error, count *int, whole any) error {
	reflect.ValueOf(whole).Elem().SetZero()
	if read(count) == nil {
		return nil
	}
	return read(whole)
}
