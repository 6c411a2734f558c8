package verdict

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

func TestAccepted(t *testing.T) {
	for name, c := range map[string]struct {
		does  func(inv *fleet.Inventory, class *fleet.Class)
		want  []string
		words string
	}{
		"as it was accepted": {func(*fleet.Inventory, *fleet.Class) {}, nil, ""},
		"another port GUID":  {func(inv *fleet.Inventory, _ *fleet.Class) { inv.HCAs[3].Ports[0].GUID = "0xbad" }, []string{"MC-HCA-CHANGED hca/mlx5_3"}, "its GUID of port 1 was 0xa088c20300e30003 and is 0xbad"},
		"a port GUID unread": {func(inv *fleet.Inventory, _ *fleet.Class) { inv.HCAs[3].Ports = nil }, []string{"MC-HCA-CHANGED hca/mlx5_3"}, "is unknown"},
		"another node GUID":  {func(inv *fleet.Inventory, _ *fleet.Class) { inv.HCAs[3].NodeGUID = "0xbad" }, []string{"MC-HCA-CHANGED hca/mlx5_3"}, "its node GUID was"},
		"another firmware":   {func(inv *fleet.Inventory, _ *fleet.Class) { inv.HCAs[3].Firmware = "28.0" }, []string{"MC-HCA-CHANGED hca/mlx5_3"}, "its firmware was 28.39.1002 and is 28.0"},
		"the class names its own": {func(inv *fleet.Inventory, class *fleet.Class) {
			inv.HCAs[3].Firmware = "28.0"
			class.Expect.Firmware.HCA = map[string]string{"MT_0000000838": "28.0"}
		}, nil, ""},
		"it has another name": {func(inv *fleet.Inventory, _ *fleet.Class) { inv.HCAs[3].Name = "ib3" }, nil, ""},
		"one is gone":         {func(inv *fleet.Inventory, _ *fleet.Class) { inv.HCAs = inv.HCAs[1:] }, []string{"MC-HCA-CHANGED hca/mlx5_0"}, "is gone"},
		"one came": {func(inv *fleet.Inventory, _ *fleet.Class) {
			inv.HCAs = append(inv.HCAs, fleet.HCA{Name: "mlx5_v", PCIAddress: "0000:ff:00.1"})
		}, []string{"MC-HCA-CHANGED hca/mlx5_v"}, "was not there"},
		"somebody holds it open": {func(inv *fleet.Inventory, _ *fleet.Class) { inv.HCAs[3].Resources = map[string]int64{"ctx": 1} }, []string{"MC-HCA-RESIDUE hca/mlx5_3"}, "somebody holds it open"},
	} {
		t.Run(name, func(t *testing.T) {
			accepted, inv, class := machine(kinds[2]), machine(kinds[2]), fleet.Class{Name: "c"}
			c.does(&inv, &class)
			var got []string
			var words strings.Builder
			for _, d := range Accepted(inv, accepted, class) {
				if d.Blocks != fleet.BlocksAllocate || d.Against != fleet.AgainstAccepted {
					t.Errorf("%+v", d)
				}
				got = append(got, d.Code+" "+d.Component)
				words.WriteString(d.Words)
			}
			if d := cmp.Diff(got, c.want); d != "" || !strings.Contains(words.String(), c.words) {
				t.Errorf("%s\n%s", d, words.String())
			}
		})
	}
}
