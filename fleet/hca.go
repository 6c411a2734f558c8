package fleet

// Roles of an HCA on a GPU node. Counting every mlx5 device as a rail is the usual mistake: boards carry a management bond, storage ports and, with
// Blackwell, functions that belong to the fabric manager.
const (
	HCARail       = "rail"       // the tenant's: shares a PCIe switch with a GPU
	HCAStorage    = "storage"    // the tenant's Ethernet or storage network
	HCAManagement = "management" // the host's own bond
	HCAFabric     = "fabric"     // NVLink subnet management on Blackwell boards: no tenant, no counters, restricted access
)

// HCA is one RDMA device (InfiniBand or RoCE).
type HCA struct {
	Name       string `json:"name"`
	PCIAddress string `json:"pci_address"`
	PCIDevice  string `json:"pci_device,omitempty"` // vendor:device
	NUMANode   int    `json:"numa_node"`
	Type       string `json:"type,omitempty"` // MT4129 is a ConnectX-7, MT41692 a BlueField-3
	// PSID names the board's firmware family; devlink's or sysfs' board_id.
	PSID       string `json:"psid,omitempty"`
	Firmware   string `json:"firmware,omitempty"`
	Serial     string `json:"serial,omitempty"`
	Part       string `json:"part,omitempty"`
	NodeGUID   GUID   `json:"node_guid,omitempty"`
	SystemGUID GUID   `json:"system_guid,omitempty"`
	// Mode is a BlueField's: dpu, nic, or "" for what is none.
	Mode  string    `json:"mode,omitempty"`
	Role  string    `json:"role"`
	Rail  *int      `json:"rail,omitempty"`
	PCIe  *PCIeLink `json:"pcie,omitempty"`
	Ports []HCAPort `json:"ports"`
	// Resources counts what somebody left open: qp, cq, mr, pd, ctx. All zero on a node without tenant, but for the kernel's own.
	Resources map[string]int64 `json:"resources,omitempty"`
	// TemperatureC is the ASIC's.
	TemperatureC *int `json:"temperature_c,omitempty"`
}

// HCAPort is one port. RateGbps is as the kernel prints it (400 for NDR 4X).
type HCAPort struct {
	Port          int      `json:"port"`
	GUID          GUID     `json:"guid,omitempty"`
	State         string   `json:"state"`          // ACTIVE, INIT, ARMED, DOWN
	PhysicalState string   `json:"physical_state"` // LinkUp, Polling, Disabled, ...
	LinkLayer     string   `json:"link_layer"`     // InfiniBand, Ethernet
	RateGbps      float64  `json:"rate_gbps"`
	LID           int      `json:"lid,omitempty"`
	SMLID         int      `json:"sm_lid,omitempty"`
	PKeys         []string `json:"pkeys,omitempty"` // 0x and 4 hex digits, without empty entries
	Interfaces    []string `json:"interfaces,omitempty"`
	// Counters are the port's and the hardware's that are not zero, by the kernel's names; data counters are in bytes.
	Counters map[string]int64 `json:"counters,omitempty"`
	Module   *PortModule      `json:"module,omitempty"`
}

// PortModule is the plugged transceiver or cable by its EEPROM (SFF-8636, CMIS).
type PortModule struct {
	Identifier   string   `json:"identifier,omitempty"` // QSFP28, OSFP, ...
	Vendor       string   `json:"vendor,omitempty"`
	Part         string   `json:"part,omitempty"`
	Serial       string   `json:"serial,omitempty"`
	LengthM      float64  `json:"length_m,omitempty"`
	TemperatureC *float64 `json:"temperature_c,omitempty"`
	// LaneRxPowerMW and LaneTxPowerMW are optical power by lane, in milliwatts; absent on copper.
	LaneRxPowerMW []float64 `json:"rx_power_mw,omitempty"`
	LaneTxPowerMW []float64 `json:"tx_power_mw,omitempty"`
}

// Rail is one GPU with what is nearest to it, derived from the PCIe path. Names are what the inventory calls the parts; "" is none.
type Rail struct {
	Rail     int      `json:"rail"`
	GPU      string   `json:"gpu"` // PCI address
	HCA      string   `json:"hca,omitempty"`
	NVMe     []string `json:"nvme,omitempty"`
	NUMANode int      `json:"numa_node"`
	// Distance is how GPU and HCA meet: PIX (one switch), PXB (several), PHB (a host bridge), NODE, SYS.
	Distance string `json:"distance,omitempty"`
	// Bridge is the PCI address where they meet.
	Bridge string `json:"bridge,omitempty"`
}
