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
// and by place. not says what could not be compared. A GPU that the BMC sees and the host does not is another repair than one that neither sees, or that
// the host alone sees.
func Baseboard(inv fleet.Inventory, class fleet.Class, b fleet.Baseboard) (ds []fleet.Difference, not []string) {
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
	j.roots()
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
		j.out[i].Against = fleet.AgainstBMC
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
	all := len(unseen) > 1 && len(j.inv.GPUs) == 0
	for _, i := range unseen {
		if f := (finding{code: "MC-BOARD-GPU-HOST", component: j.name[i], want: "on PCI", got: "absent", do: "cold-cycle"}); !all {
			j.block(f, "%s: the BMC sees it (%s), the host does not show it on PCI: look at what is between them (PCIe switch, retimer, its reset) before the GPU itself", j.boardPart(i), j.words(i))
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
		if !seen[k] && (h.Vendor == "nvidia" || h.Vendor == "") {
			j.warn(finding{code: "MC-BOARD-GPU-BMC", component: j.names.gpu[k], want: "seen by the BMC", got: "absent", do: "cold-cycle"},
				"%s: the host has it and the BMC does not: nobody watches its temperature and firmware; the baseboard's controller or its bus to the GPU, not the GPU's work", j.part(k))
			j.cover(j.names.gpu[k])
		}
	}
	j.nobody(highest, at)
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

// health repeats what the baseboard's controller says of its parts.
func (j *boardJudge) health() {
	for i, g := range j.b.GPUs {
		if g.Health != "" && g.Health != "OK" {
			j.sick(j.name[i], j.boardPart(i), g.Health)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(j.b.Health)) {
		if j.byName[p] == "" {
			j.sick("board/"+p, p, j.b.Health[p])
		}
	}
}

func (j *boardJudge) sick(component, what, health string) {
	f := finding{code: "MC-BOARD-HEALTH", component: component, want: "OK", got: health, do: "retest"}
	if health == "Critical" {
		f.do = "replace"
		j.block(f, "%s: the baseboard's controller says that its health is critical", what)
		return
	}
	j.warn(f, "%s: the baseboard's controller says that its health is %s", what, strings.ToLower(health))
}

// versions compares the firmware that both views name. What all GPUs share is one difference.
func (j *boardJudge) versions() {
	items := map[string]string{}
	for _, f := range j.b.Firmware {
		items[f.ID] = f.Version
	}
	type change struct{ what, host, bmc string }
	who := map[change][]int{}
	var order []change
	paired := 0
	add := func(i int, what, host, bmc string) {
		if host == "" || bmc == "" || strings.EqualFold(host, bmc) {
			return
		}
		c := change{what, host, bmc}
		if who[c] == nil {
			order = append(order, c)
		}
		who[c] = append(who[c], i)
	}
	for i, g := range j.b.GPUs {
		k := j.host[i]
		if k < 0 || j.explained(j.name[i]) {
			continue
		}
		paired++
		h := j.inv.GPUs[k]
		add(i, "VBIOS", h.VBIOS, g.VBIOS)
		add(i, "InfoROM image", h.InfoROM["image"], items["HGX_InfoROM_"+g.Name])
		add(i, "VBIOS", h.VBIOS, otherThan(items["HGX_FW_"+g.Name], g.VBIOS))
	}
	for _, c := range order {
		f := finding{code: "MC-BOARD-FIRMWARE", component: "gpus", want: c.host, got: c.bmc, do: "cold-cycle"}
		if is := who[c]; len(is) > 1 && len(is) == paired {
			j.warn(f, "all %d GPUs: the %s is %s by the driver and %s by the BMC: an update waits for a power cycle, or was done since the inspection", len(is), c.what, c.host, c.bmc)
			continue
		}
		for _, i := range who[c] {
			f.component = j.name[i]
			j.warn(f, "%s: its %s is %s by the driver and %s by the BMC: an update waits for a power cycle, or was done since the inspection", j.boardPart(i), c.what, c.host, c.bmc)
		}
	}
}

// otherThan is v, "" where it says what was said.
func otherThan(v, said string) string {
	if strings.EqualFold(v, said) {
		return ""
	}
	return v
}

// memories finds what the controller knows of a GPU's memory and the driver did not say.
func (j *boardJudge) memories() {
	for i, g := range j.b.GPUs {
		k := j.host[i]
		if k < 0 || j.explained(j.name[i]) {
			continue
		}
		h := j.inv.GPUs[k]
		if rows := deref(h.RemappedRows); deref(g.RemapFailed) && !rows.Failure {
			j.block(finding{code: "MC-GPU-REMAP-FAILED", component: j.name[i], want: "false", got: "true", do: "replace"}, "%s: the BMC says that a row of its memory could not be replaced, the driver did not", j.part(k))
		} else if deref(g.RemapPending) && !rows.Pending {
			j.block(finding{code: "MC-GPU-REMAP-PENDING", component: j.name[i], want: "false", got: "true", do: "reset"}, "%s: the BMC says that a row of its memory waits to be replaced, the driver did not", j.part(k))
		}
		if n := deref(g.Uncorrected); h.ECC != nil && n > h.ECC.Aggregate.Uncorrected {
			j.warn(finding{code: "MC-GPU-ECC", component: j.name[i], want: fmt.Sprint(h.ECC.Aggregate.Uncorrected), got: fmt.Sprint(n), do: "retest"},
				"%s: the BMC counts %d uncorrected errors over its life, the driver %d at the inspection", j.part(k), n, h.ECC.Aggregate.Uncorrected)
		}
	}
}

// roots finds GPUs whose root of trust is not there while others have one, and those that are switched off.
func (j *boardJudge) roots() {
	if len(j.b.Roots) == 0 {
		return
	}
	have := map[string]bool{}
	for _, r := range j.b.Roots {
		for _, g := range j.b.GPUs {
			if strings.HasSuffix(r.ID, "_"+g.Name) {
				have[g.Name] = true
			}
		}
		if !r.Enabled || r.Health == "Critical" {
			j.warn(finding{code: "MC-BOARD-ROOT", component: "board/" + r.ID, want: "enabled", got: strings.TrimSpace(r.State + " " + r.Health), do: "configure"},
				"the root of trust %s cannot vouch for the firmware of its part", r.ID)
		}
	}
	for i, g := range j.b.GPUs {
		if len(have) > 0 && !have[g.Name] && g.State != "Absent" {
			j.warn(finding{code: "MC-BOARD-ROOT", component: j.name[i], want: "present", got: "absent", do: "cold-cycle"}, "%s has no root of trust in the BMC, and others have", j.boardPart(i))
		}
	}
}
