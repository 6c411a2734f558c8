package fleet

// Difference is one way in which a machine is not what it should be: not what its class says, not what it was, not what its own BMC sees, or not what
// its fellows are. Component names the part by place (gpu/3, gpu/3/nvlink/7, dimm/A1, disk/nvme2, hca/mlx5_4/port/1, pci/0000:1b:00.0), so that a
// person with a screwdriver finds it; GPUs are named by module id where the board has one, else by index.
type Difference struct {
	// Code is a fault's, such as MC-GPU-MISSING: every difference that blocks becomes a fault.
	Code      string   `json:"code"`
	Component string   `json:"component"`
	Severity  Severity `json:"severity"`
	Blocks    Blocks   `json:"blocks"`
	// Against says what it was compared with: class, last, bmc, fleet, or self (the part's own state is wrong whatever is expected of it).
	Against string `json:"against"`
	Want    string `json:"want,omitempty"`
	Got     string `json:"got,omitempty"`
	// Words is the whole in one sentence that names part, slot and serial.
	Words string `json:"words"`
	// Do is what to do about it: none, retest, reset, reboot, cold-cycle, reseat, cable, replace, update, configure.
	Do string `json:"do,omitempty"`
}

// What a difference is against.
const (
	AgainstClass    = "class"
	AgainstLast     = "last"
	AgainstBMC      = "bmc"
	AgainstFleet    = "fleet"
	AgainstSelf     = "self"
	AgainstAccepted = "accepted" // what a person accepted
)
