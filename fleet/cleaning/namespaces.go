package cleaning

import (
	"fmt"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// namespaces has each drive whose namespaces were looked at; where no plan looks, the disks' own lines say all.
func (c *composer) namespaces() {
	r := c.run(step.RestoreNS)
	if r == nil {
		return
	}
	var did []struct {
		Serial string   `json:"serial"`
		Did    []string `json:"did"`
		Waited string   `json:"waited"`
		After  []struct {
			SizeBytes  int64 `json:"size_bytes"`
			BlockBytes int   `json:"block_bytes"`
		} `json:"after"`
	}
	r.read("namespaces", &did)
	for _, d := range did {
		x := fleet.CleanedComponent{Component: "disk/" + d.Serial + "/namespaces", Identity: d.Serial, Result: fleet.CleanChecked, Asked: "as they were accepted", Method: "NVMe identify", Step: step.RestoreNS, At: r.FinishedAt}
		var back []string
		for _, n := range d.After {
			back = append(back, fmt.Sprintf("%d bytes in blocks of %d", n.SizeBytes, n.BlockBytes))
		}
		x.ReadBack = strings.Join(back, ", ")
		if len(d.Did) > 0 {
			x.Result, x.Method = fleet.CleanDone, "NVMe namespace management"
		}
		said := d.Did
		if d.Waited != "" {
			said = append([]string{d.Waited}, said...)
		}
		x.Said = strings.Join(said, "; ")
		if bad := r.faults("disk/" + d.Serial); len(bad) > 0 {
			x.Result, x.Why = fleet.CleanFailed, strings.Join(bad, "; ")
		}
		c.add(x)
	}
}
