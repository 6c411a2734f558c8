package verdict

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Baseboard says in which ways the node that its host showed at the last inspection is not the one that its BMC shows: GPUs are joined by serial, by UUID
// and by place. not says what could not be compared; last is what the BMC showed before, or nil. A GPU that the BMC sees and the host does not is another repair than one that neither sees, or that
// the host alone sees.
func Baseboard(inv fleet.Inventory, class fleet.Class, b fleet.Baseboard, last *fleet.Baseboard) (ds []fleet.Difference, not []string) {
	j := &boardJudge{judge: newJudge(&inv, class), b: &b}
	j.seat()
	j.presence()
	j.health()
	j.versions()
	j.memories()
	if b.Powered {
		j.boardLinks()
	} else {
		not = append(not, "bmc: the baseboard has no power, so that its links were not compared")
	}
	j.retimers()
	j.roots()
	j.changed(last)
	j.unreadParts()
	j.classOfBoard()
	for _, m := range b.Missing {
		not = append(not, fmt.Sprintf("bmc: %s could not be read: %s", m.What, m.Why))
	}
	stale := 0
	for _, s := range b.Sensors {
		if s.Stale {
			stale++
		}
	}
	if stale > 0 {
		not = append(not, fmt.Sprintf("bmc: %d of %d sensor values are stale", stale, len(b.Sensors)))
	}
	for i := range j.out {
		if j.out[i].Against != fleet.AgainstClass {
			j.out[i].Against = fleet.AgainstBMC
		}
	}
	return sorted(j.out), not
}

// boardJudge joins the host's view, which judge has, with the BMC's.
type boardJudge struct {
	*judge
	b *fleet.Baseboard
	// host is the place in Inventory.GPUs of each GPU of the board, -1 where the host has none; name its component.
	host []int
	name []string
	// offset is what makes a module id of the number in a GPU's name: boards count from 0 or from 1.
	offset int
	byName map[string]string // component by the board's name of a GPU
	// nameless is how many GPUs the host has on PCI of which nothing tells which they are.
	nameless int
}

// seat joins the GPUs of both views.
func (j *boardJudge) seat() {
	gpus := j.b.GPUs
	j.host, j.name, j.byName = make([]int, len(gpus)), make([]string, len(gpus)), map[string]string{}
	taken := map[int]bool{}
	match := func(same func(fleet.BoardGPU, fleet.GPU) bool) {
		for i, g := range gpus {
			for k, h := range j.inv.GPUs {
				if j.host[i] < 0 && !taken[k] && same(g, h) {
					j.host[i], taken[k] = k, true
				}
			}
		}
	}
	for i := range j.host {
		j.host[i] = -1
	}
	match(func(g fleet.BoardGPU, h fleet.GPU) bool {
		return g.Serial != "" && strings.EqualFold(g.Serial, h.Serial)
	})
	match(func(g fleet.BoardGPU, h fleet.GPU) bool {
		return bareUUID(g.UUID) != "" && bareUUID(g.UUID) == bareUUID(h.UUID)
	})
	j.offset = j.numbering()
	match(func(g fleet.BoardGPU, h fleet.GPU) bool {
		return g.Number >= 0 && h.ModuleID > 0 && g.Number+j.offset == h.ModuleID
	})
	// A GPU that the driver lost tells neither serial nor module id: where it is the only one, the place that is left over is its own.
	for i, g := range gpus {
		for k := range j.inv.GPUs {
			if j.host[i] < 0 && !taken[k] && g.Number >= 0 && j.names.modules && j.names.gpu[k] == "gpu/"+strconv.Itoa(g.Number+j.offset) {
				j.host[i], taken[k] = k, true
			}
		}
	}
	for k, h := range j.inv.GPUs {
		if !taken[k] && h.ModuleID == 0 && h.Serial == "" && bareUUID(h.UUID) == "" {
			j.nameless++
		}
	}
	for i, g := range gpus {
		switch {
		case j.host[i] >= 0:
			j.name[i] = j.names.gpu[j.host[i]]
		case g.Number >= 0:
			j.name[i] = "gpu/" + strconv.Itoa(g.Number+j.offset)
		default:
			j.name[i] = "board/" + g.Name
		}
		j.byName[g.Name] = j.name[i]
	}
}

func bareUUID(s string) string { return strings.ToLower(strings.TrimPrefix(s, "GPU-")) }

// numbering is what most joined GPUs say of how names are counted; without any, a board with a GPU 0 counts from there.
func (j *boardJudge) numbering() int {
	votes := map[int]int{}
	least := 1
	for i, g := range j.b.GPUs {
		if g.Number >= 0 {
			least = min(least, g.Number)
		}
		if k := j.host[i]; k >= 0 && g.Number >= 0 && j.inv.GPUs[k].ModuleID > 0 {
			votes[j.inv.GPUs[k].ModuleID-g.Number]++
		}
	}
	best := 1 - least
	for _, o := range slices.Sorted(maps.Keys(votes)) {
		if votes[o] > votes[best] {
			best = o
		}
	}
	return best
}

// presence finds GPUs that not everybody sees. What follows from that is covered.
func (j *boardJudge) presence() {
	seen := map[int]bool{} // host's GPUs that the BMC sees, too
	var unseen []int
	others := j.otherBoard()
	highest := j.class.Expect.GPUs.Count
	at := map[int]bool{} // module ids that somebody sees
	for i, g := range j.b.GPUs {
		k := j.host[i]
		if g.State == "Absent" {
			continue
		}
		if g.Number >= 0 {
			highest, at[g.Number+j.offset] = max(highest, g.Number+j.offset), true
		}
		if k < 0 {
			unseen = append(unseen, i)
			continue
		}
		if seen[k] = true; !others {
			j.pair(i, k)
		}
	}
	unseen = j.untold(unseen)
	all := len(unseen) > 1 && len(j.inv.GPUs) == 0
	for _, i := range unseen {
		if f := (finding{code: "MC-BOARD-GPU-HOST", component: j.name[i], want: "on PCI", got: "absent", do: "cold-cycle"}); !all {
			j.block(f, "%s: the BMC sees it (%s), the host does not show it on PCI: look at what is between them (PCIe switch, retimer, its reset) before the GPU itself%s", j.boardPart(i), j.words(i), j.darkRetimer(i))
		}
		j.cover(j.name[i])
	}
	if all {
		j.block(finding{code: "MC-BOARD-GPU-HOST", component: "gpus", want: fmt.Sprint(len(unseen)), got: "0", do: "cold-cycle"},
			"the BMC sees %d GPUs and the host none on PCI: the baseboard's power, its cables to the host or the host's PCIe, not the GPUs", len(unseen))
	}
	for k, h := range j.inv.GPUs {
		if h.ModuleID > 0 {
			highest, at[h.ModuleID] = max(highest, h.ModuleID), true
		}
		if anonymous := h.ModuleID == 0 && h.Serial == "" && bareUUID(h.UUID) == ""; !seen[k] && !anonymous && (h.Vendor == "nvidia" || h.Vendor == "") {
			j.warn(finding{code: "MC-BOARD-GPU-BMC", component: j.names.gpu[k], want: "seen by the BMC", got: "absent", do: "cold-cycle"},
				"%s: the host has it and the BMC does not: nobody watches its temperature and firmware; the baseboard's controller or its bus to the GPU, not the GPU's work", j.part(k))
			j.cover(j.names.gpu[k])
		}
	}
	j.nobody(highest, at)
}

// untold takes out of the GPUs that the host seems not to have those that it may have on PCI without telling which they are.
func (j *boardJudge) untold(unseen []int) []int {
	if j.nameless == 0 {
		return unseen
	}
	// Which of them are on PCI nobody can tell: none is called absent.
	for _, i := range unseen {
		j.block(finding{code: "MC-BOARD-GPU-DRIVER", component: j.name[i], want: "driven", got: "not driven", do: "cold-cycle"},
			"%s: the BMC sees it (%s), and the driver does not; PCI shows %s that did not tell which it is", j.boardPart(i), j.words(i), count(j.nameless, "GPU"))
		j.cover(j.name[i])
	}
	return nil
}

// otherBoard tells that no serial of the board is the host's: that is one story, of the board or of the BMC, and not one of each GPU.
func (j *boardJudge) otherBoard() bool {
	differ := 0
	for i, g := range j.b.GPUs {
		if k := j.host[i]; k >= 0 && j.otherSerial(i, k) {
			differ++
		} else if k >= 0 && g.State != "Absent" {
			return false
		}
	}
	if differ < 2 {
		return false
	}
	j.block(finding{code: "MC-BOARD-GPU-OTHER", component: "gpus", want: j.inv.GPUs[0].Serial, got: j.b.GPUs[0].Serial, do: "retest"},
		"all %d GPUs that the BMC shows have other serials than those of the host: the baseboard was replaced since the inspection, or the BMC is another machine's", differ)
	for _, n := range j.name {
		j.cover(n)
	}
	return true
}

func (j *boardJudge) otherSerial(i, k int) bool {
	g, h := &j.b.GPUs[i], &j.inv.GPUs[k]
	return g.Serial != "" && h.Serial != "" && !strings.EqualFold(g.Serial, h.Serial)
}

// nobody finds places where neither side sees a GPU.
func (j *boardJudge) nobody(highest int, at map[int]bool) {
	if len(at) == 0 || highest > 64 {
		return // nothing has a place
	}
	for id := 1; id <= highest; id++ {
		name := fmt.Sprintf("gpu/%d", id)
		if at[id] {
			continue
		}
		j.block(finding{code: "MC-BOARD-GPU-NONE", component: name, want: "present", got: "absent", do: "reseat"},
			"GPU %d (module id %d): neither the BMC nor the host sees it: it has no power or is not seated; a restart of the host does not bring it back", id, id)
		j.cover(name)
	}
}

// pair compares a GPU that both see.
func (j *boardJudge) pair(i, k int) {
	g, h, name := &j.b.GPUs[i], &j.inv.GPUs[k], j.name[i]
	switch {
	case j.otherSerial(i, k):
		j.block(finding{code: "MC-BOARD-GPU-OTHER", component: name, want: h.Serial, got: g.Serial, do: "retest"},
			"%s: the BMC shows another GPU there, with serial %s: it was replaced since the inspection, or the BMC is another machine's", j.part(k), g.Serial)
		j.cover(name)
	case g.Number >= 0 && h.ModuleID > 0 && g.Number+j.offset != h.ModuleID:
		j.warn(finding{code: "MC-BOARD-GPU-PLACE", component: name, want: fmt.Sprint(h.ModuleID), got: fmt.Sprint(g.Number + j.offset), do: "retest"},
			"%s: the BMC has it at place %d (%s)", j.part(k), g.Number+j.offset, g.Name)
	}
	if h.Lost != "" {
		do := "cold-cycle"
		if g.Health == "Critical" {
			do = "replace"
		}
		why := map[string]string{fleet.GPULostHung: "hangs in it", fleet.GPULostUnknown: "does not have it"}[lostWord(h.Lost)]
		if why == "" {
			why = "lost it"
		}
		j.block(finding{code: "MC-BOARD-GPU-DRIVER", component: name, want: "driven", got: h.Lost, do: do},
			"%s: PCI and the BMC see it (%s), the driver %s: the GPU has power and answers its controller, so start with a cold power cycle", j.part(k), j.words(i), why)
		j.cover(name)
	}
}

func lostWord(s string) string {
	w, _, _ := strings.Cut(s, ":")
	return w
}

func (j *boardJudge) words(i int) string {
	g := j.b.GPUs[i]
	out := g.State
	if g.Health != "" {
		out += ", health " + g.Health
	}
	return strings.TrimPrefix(orUnknown(out), ", ")
}

func (j *boardJudge) boardPart(i int) string {
	if k := j.host[i]; k >= 0 {
		return j.part(k)
	}
	return fmt.Sprintf("%s (%s, serial %s)", strings.Replace(j.name[i], "gpu/", "GPU ", 1), j.b.GPUs[i].Name, orUnknown(j.b.GPUs[i].Serial))
}
