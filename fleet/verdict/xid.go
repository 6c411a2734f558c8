package verdict

import (
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// rank orders what a message of the kernel means for a node that nobody uses: an application that faults there is our own, so that hardware is suspected
// sooner than in production.
type rank int

const (
	ignored rank = iota
	noted        // a warning
	blocking
	resetting
	replacing
)

type xid struct {
	rank  rank
	do    string
	words string
	// as are codes of differences that say the same, so that the message is a sign of them.
	as []string
}

var (
	asMemory = []string{"MC-GPU-REMAP-FAILED", "MC-GPU-REMAP-PENDING", "MC-GPU-ECC", "MC-GPU-SRAM", "MC-GPU-LIMIT", "MC-GPU-REMAP-SPENT"}
	asLink   = []string{"MC-NVLINK-DOWN", "MC-NVLINK-SLOW", "MC-NVLINK-WIRING", "MC-NVLINK-ERRORS", "MC-NVSWITCH-LINKS", "MC-NVSWITCH-MISSING", "MC-FABRIC-STATE", "MC-FABRIC-MANAGER", "MC-GPU-PEER"}
	asPower  = []string{"MC-GPU-SLOWDOWN", "MC-GPU-HOT"}
	asROM    = []string{"MC-GPU-INFOROM"}
	asPCIe   = []string{"MC-PCIE-WIDTH", "MC-PCIE-SPEED", "MC-PCIE-AER"}
)

// xidTable follows NVIDIA's catalogue of 2025-10 and what gpud, NVSentinel and DCGM do; ranks are for a node between tenants.
var xidTable = map[int]xid{
	8:   {blocking, "retest", "a channel stood still too long and was stopped", nil},
	11:  {noted, "retest", "bad commands reached the GPU", nil},
	13:  {blocking, "retest", "an exception of the compute engine", nil},
	25:  {noted, "retest", "bad commands reached the GPU", nil},
	31:  {blocking, "retest", "a page fault of the GPU", nil},
	32:  {blocking, "retest", "bad commands reached the GPU's DMA", nil},
	38:  {resetting, "reset", "a watchdog of the context switch firmware", nil},
	44:  {resetting, "reset", "a fault during a context switch", nil},
	43:  {noted, "retest", "the GPU stopped processing", nil},
	45:  {noted, "retest", "channels were cleaned up after an earlier error", nil},
	46:  {resetting, "reset", "the GPU timed out", nil},
	48:  {resetting, "reset", "an error of its memory that could not be corrected", asMemory},
	54:  {replacing, "reseat", "auxiliary power is not connected", asPower},
	61:  {resetting, "reset", "a breakpoint of an internal micro-controller", nil},
	62:  {resetting, "reset", "an internal micro-controller halted", nil},
	63:  {resetting, "reset", "a row of HBM is to be replaced by a spare one", asMemory},
	64:  {replacing, "replace", "a row of HBM could not be marked for replacement", asMemory},
	68:  {noted, "retest", "an exception of the video engine", nil},
	69:  {blocking, "retest", "an error of the compute class", nil},
	74:  {resetting, "reset", "an error of an NVLink", asLink},
	79:  {replacing, "cold-cycle", "the GPU fell off the PCIe bus", []string{"MC-GPU-LOST", "MC-GPU-HUNG", "MC-GPU-UNSEEN", "MC-GPU-MISSING"}},
	80:  {blocking, "retest", "commands reached the GPU damaged", asPCIe},
	81:  {replacing, "replace", "the GPU's VGA subsystem failed", nil},
	92:  {noted, "retest", "many errors of its memory were corrected", asMemory},
	93:  {noted, "none", "the InfoROM is nearly worn out by writes", asROM},
	94:  {resetting, "reset", "a contained error of its memory that could not be corrected", asMemory},
	95:  {resetting, "reset", "an uncontained error of its memory", asMemory},
	109: {resetting, "reset", "a context switch timed out", nil},
	110: {resetting, "reset", "a security fault", nil},
	119: {resetting, "reset", "the GPU's system processor did not answer", nil},
	120: {resetting, "reset", "an error of the GPU's system processor", nil},
	121: {blocking, "reset", "an error of the link between chips", nil},
	122: {blocking, "retest", "the InfoROM could not be read", asROM},
	123: {blocking, "retest", "the InfoROM could not be written", asROM},
	124: {blocking, "retest", "the InfoROM could not be erased", asROM},
	125: {blocking, "retest", "the InfoROM's file system is damaged", asROM},
	136: {resetting, "reset", "an NVLink could not be trained", asLink},
	137: {noted, "none", "a peer faulted over NVLink", asLink},
	140: {resetting, "reset", "an error escaped the correction", asMemory},
	143: {replacing, "cold-cycle", "the GPU could not be initialised", []string{"MC-GPU-LOST", "MC-GPU-UNSEEN"}},
	155: {resetting, "reset", "an NVLink error that software defined", asLink},
	156: {resetting, "reset", "a resource of the GPU was retired", asMemory},
	157: {replacing, "replace", "a resource of the GPU could not be retired", asMemory},
	158: {resetting, "reset", "a fatal timeout", nil},
	160: {blocking, "retest", "a channel of the HBM was retired", asMemory},
	161: {blocking, "retest", "a channel of the HBM could not be retired", asMemory},
	164: {noted, "none", "the power smoothing circuit nears the end of its life", nil},
	165: {replacing, "replace", "the power smoothing circuit is worn out", nil},
	166: {blocking, "reset", "an NVLink error under confidential computing", asLink},
	170: {blocking, "reset", "an NVLink error under confidential computing", asLink},
	167: {resetting, "cold-cycle", "a fatal timeout of PCIe", asPCIe},
	168: {replacing, "replace", "the memory was reduced after errors in a protected region", asMemory},
	169: {resetting, "reset", "the security processor halted", nil},
	171: {resetting, "reset", "an error of HBM that could not be corrected", asMemory},
	172: {resetting, "reset", "an error of SRAM that could not be corrected", asMemory},
	173: {replacing, "replace", "a fatal error of the link between chips", nil},
}

// xidOf is what an XID means; a number that should never be seen blocks, as nobody knows.
func xidOf(n int) xid {
	if x, ok := xidTable[n]; ok {
		return x
	}
	in := func(from, to int) bool { return n >= from && n <= to }
	switch {
	case n == 37, n == 66, n == 67, in(106, 108), n == 141, n == 151, n == 152, n == 153, n == 78, n == 154, n == 159, n == 162, n == 163: // 154 tells of a recovery action, which is read itself
		return xid{rank: ignored}
	case in(39, 41), in(70, 72), in(75, 77), n == 85, in(126, 135):
		return xid{blocking, "retest", "an error of a copy engine", nil}
	case n == 60, in(82, 84), n == 86, n == 88, n == 89, in(96, 105), n == 139, n == 142, n == 65, n == 73:
		return xid{noted, "retest", "an error of an engine for pictures or security", nil}
	case in(144, 150):
		return xid{resetting, "reset", "an error of an NVLink", asLink}
	}
	return xid{blocking, "retest", "a message that should never be seen", nil}
}

// meaning is what an XID means with what its line says beyond the number. NVLink 5 has one number for a unit of a link, and the unit that watches its state
// says in a sub-code why it went down (gpud's decoding of NVIDIA's catalogue of 2025-10).
func meaning(k fleet.KernelFinding) xid {
	x := xidOf(k.Code)
	if k.Code < 144 || k.Code > 150 {
		return x
	}
	if strings.HasPrefix(k.Unit, "NETIR") {
		switch k.SubCode {
		case 0x02, 0x04, 0x0a:
			return xid{resetting, "reset", "an NVLink went down by its own signal", asLink}
		case 0x15, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25:
			return xid{blocking, "retest", "an NVLink was brought down by its other end", asLink}
		case 0x0f, 0x11, 0x16:
			return xid{noted, "retest", "an NVLink was brought down by software", asLink}
		case 0x2a, 0x2b:
			return xid{resetting, "cable", "an NVLink's cable is not as it must be", asLink}
		}
	}
	if k.Severity == "nonfatal" {
		return xid{noted, "retest", "an error of an NVLink that was not fatal", asLink}
	}
	return x
}

// sxid families that are harmless: errors of one bit that were corrected, and replays (gpud, and Imbue's fleet scripts).
var sxidHarmless = map[int]bool{11012: true, 11021: true, 11022: true, 11023: true, 12021: true, 12023: true, 15008: true, 15011: true, 19049: true, 19055: true, 19057: true, 19059: true,
	19062: true, 19065: true, 19068: true, 19071: true, 24001: true, 24002: true, 24003: true, 20001: true, 22013: true}

// sxidWords says what part of a switch an SXid is about, by its thousands.
func sxidWords(n int) string {
	switch n / 1000 {
	case 10:
		return "host, heat or firmware"
	case 11, 12:
		return "routing of packets"
	case 13, 14:
		return "state"
	case 15:
		return "routes"
	case 16, 17:
		return "a port's control"
	case 18:
		return "a port's interface"
	case 19:
		return "a port's transport layer"
	case 20:
		return "a port's data link"
	case 21, 23:
		return "the crossbar"
	case 22:
		return "the ports' micro-controller"
	case 24:
		return "source tracking"
	case 25:
		return "a link's state"
	case 26:
		return "its system processor"
	case 27, 28:
		return "optics"
	case 29, 30:
		return "multicast"
	}
	return "an unknown part"
}
