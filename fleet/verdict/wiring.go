package verdict

import (
	"fmt"

	"github.com/metalctl/metalctl/fleet"
)

// wiring compares the other end of each link with the board's table. It is a warning where only the board says so, and blocks where the class does.
func (j *judge) wiring() {
	table := j.class.Expect.Topology.Wiring
	report, against := j.block, fleet.AgainstClass
	if table == "" && j.board != nil {
		table, report, against = j.board.wiring, j.warn, fleet.AgainstSelf
	}
	chips := map[string]int{}
	for i, s := range switchesInOrder(j.inv) {
		chips[s.PCIAddress] = i
	}
	if table == "" || j.board == nil || len(chips) != j.board.switches {
		return
	}
	for i, g := range j.inv.GPUs {
		if j.explained(j.names.gpu[i]) {
			continue
		}
		var wrong []int
		want, got := "", ""
		for _, l := range g.NVLinks {
			chip, port, ok := Wired(table, g.ModuleID, l.Link)
			if !ok || l.Remote == nil || l.State != fleet.LinkUp || l.Remote.PCIAddress == "" {
				continue
			}
			at, known := chips[l.Remote.PCIAddress]
			if known && at == chip && (l.Remote.Port == nil || *l.Remote.Port == port) {
				continue
			}
			wrong = append(wrong, l.Link)
			want, got = fmt.Sprintf("NVSwitch %d port %d", chip, port), j.endWords(l.Remote, at, known)
		}
		if len(wrong) == 1 {
			report(finding{code: "MC-NVLINK-WIRING", component: linkComponent(j.names.gpu[i], wrong), against: against, want: want, got: got, do: "reseat"},
				"%s: NVLink %d leads to %s, by the board's wiring to %s", j.part(i), wrong[0], got, want)
		} else if len(wrong) > 1 {
			report(finding{code: "MC-NVLINK-WIRING", component: j.names.gpu[i] + "/nvlink", against: against, want: "as the board is wired", got: fmt.Sprintf("%d links elsewhere", len(wrong)), do: "reseat"},
				"%s: NVLinks %s lead elsewhere than the board is wired", j.part(i), list(wrong))
		}
	}
}

func (j *judge) endWords(e *fleet.NVLinkEnd, chip int, known bool) string {
	s := e.Kind + " " + e.PCIAddress
	if known {
		s = fmt.Sprintf("NVSwitch %d", chip)
	}
	if e.Port != nil {
		s += fmt.Sprintf(" port %d", *e.Port)
	}
	return s
}
