package verdict

import (
	"fmt"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

// TestKernelPlaces: what the kernel says of a part is said of that part, whether its line was named by address or by module id, which is no index.
func TestKernelPlaces(t *testing.T) {
	k := kinds[2]
	for _, c := range []struct {
		name string
		says fleet.KernelFinding
		does func(inv *fleet.Inventory)
		want string
		part string // in the words
	}{
		{name: "a name by module id", says: fleet.KernelFinding{Kind: "xid", Code: 119, Component: "gpu/7"}, want: "MC-GPU-XID gpu/7 critical reset", part: "1650000004"},
		{name: "an address", says: fleet.KernelFinding{Kind: "xid", Code: 119, Component: "pci/0000:9b:00"}, want: "MC-GPU-XID gpu/7 critical reset", part: "1650000004"},
		{name: "a link by module id", says: fleet.KernelFinding{Kind: "xid", Code: 74, Component: "gpu/7/nvlink/11"}, want: "MC-GPU-XID gpu/7/nvlink/11 critical reset", part: "NVLink 11 of GPU 7"},
		{name: "a link by address", says: fleet.KernelFinding{Kind: "xid", Code: 149, Component: "pci/0000:9b:00.0/nvlink/8", Unit: "NETIR_LINK_EVT", SubCode: 4, Severity: "fatal"}, want: "MC-GPU-XID gpu/7/nvlink/8 critical reset", part: "its own signal"},
		{name: "a cable", says: fleet.KernelFinding{Kind: "xid", Code: 149, Component: "gpu/7/nvlink/8", Unit: "NETIR_LINK_EVT", SubCode: 0x2a}, want: "MC-GPU-XID gpu/7/nvlink/8 critical cable", part: "cable"},
		{name: "a link that software took down", says: fleet.KernelFinding{Kind: "xid", Code: 149, Component: "gpu/7/nvlink/8", Unit: "NETIR_LINK_EVT", SubCode: 0x11}, want: "MC-GPU-XID gpu/7/nvlink/8 warning retest", part: "software"},
		{name: "a link's error that was not fatal", says: fleet.KernelFinding{Kind: "xid", Code: 145, Component: "gpu/7/nvlink/8", Unit: "RLW_RXPIPE", Severity: "nonfatal"}, want: "MC-GPU-XID gpu/7/nvlink/8 warning retest", part: "not fatal"},
		{name: "the recovery that the driver announced of a GPU which does not answer", says: fleet.KernelFinding{Kind: "xid", Code: 154, Component: "gpu/7", Line: "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"},
			does: func(inv *fleet.Inventory) { inv.GPUs[4].Recovery = "" }, want: "MC-GPU-RECOVERY gpu/7 critical reboot", part: "1650000004"},
		{name: "a lost GPU has no module id, and its address tells", says: fleet.KernelFinding{Kind: "xid", Code: 79, Component: "pci/0000:9b:00.0"},
			does: func(inv *fleet.Inventory) { blind(&inv.GPUs[4], fleet.GPULostBus+": GPU is lost") }, want: "MC-GPU-LOST gpu/7 critical cold-cycle", part: "GPU 7"},
		{name: "a link's error, beside old ones of another link", says: fleet.KernelFinding{Kind: "xid", Code: 74, Component: "gpu/7/nvlink/11"},
			does: func(inv *fleet.Inventory) { inv.GPUs[4].NVLinks[2].Errors = map[string]int64{"crc": 2} }, want: "MC-GPU-XID gpu/7/nvlink/11 critical reset MC-NVLINK-ERRORS gpu/7/nvlink/2 warning retest", part: "NVLink 11"},
		{name: "a switch's port", says: fleet.KernelFinding{Kind: "sxid", Code: 22003, Component: "pci/0000:06:00.0/port/12", Severity: "fatal"}, want: "MC-NVSWITCH-SXID nvswitch/1 critical reset", part: "NVSwitch 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inv := machine(k)
			if c.does != nil {
				c.does(&inv)
			}
			c.says.Count = 1
			inv.KernelFindings = []fleet.KernelFinding{c.says}
			ds := Judge(inv, classOf(k))
			if got := fmt.Sprint(judged(ds)); got != "["+c.want+"]" || !strings.Contains(ds[0].Words, c.part) {
				t.Errorf("%s, not %s with %q: %+v", got, c.want, c.part, ds)
			}
		})
	}
}
