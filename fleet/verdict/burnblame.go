package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// explain keeps of what one cause brought about the cause: what follows from it fails no more, and says so.
func (b *burner) explain() {
	b.oneSwitch()
	slices.SortStableFunc(b.checks, func(x, y found) int {
		return cmp.Or(int(x.family)-int(y.family), severity(y.Outcome)-severity(x.Outcome), x.rank()-y.rank())
	})
	var causes []found
	for i := range b.checks {
		f := &b.checks[i]
		if f.Outcome != fleet.Fail && f.Outcome != fleet.CouldNotTell && f.Outcome != fleet.Warn {
			continue
		}
		k := slices.IndexFunc(causes, func(c found) bool { return b.explains(c, *f) })
		if k < 0 {
			if f.Outcome != fleet.Warn {
				causes = append(causes, *f)
			}
			continue
		}
		c := causes[k]
		if f.Outcome == fleet.CouldNotTell {
			f.Outcome, f.Code = fleet.Skip, ""
		} else {
			f.Outcome = fleet.Warn
		}
		f.Do = "none"
		f.Words += fmt.Sprintf("; that follows from %s of %s", c.ID, c.Component)
	}
}

// oneSwitch makes one finding of links of several GPUs that lead to the same NVSwitch: what they have in common is the switch, which is soldered to the board.
func (b *burner) oneSwitch() {
	if b.last == nil {
		return
	}
	j := newJudge(b.last, b.in.Class)
	table := j.class.Expect.Topology.Wiring
	if table == "" && j.board != nil {
		table = j.board.wiring
	}
	at, gpus := map[int][]int{}, map[int]map[string]bool{}
	for i, f := range b.checks {
		_, n, ok := strings.Cut(f.Component, "/nvlink/")
		link, err := strconv.Atoi(n)
		k := slices.Index(b.names.gpu, root(f.Component))
		if f.family != ofLink || f.Outcome != fleet.Fail || !ok || err != nil || k < 0 {
			continue
		}
		if chip, _, ok := Wired(table, b.last.GPUs[k].ModuleID, link); ok {
			at[chip] = append(at[chip], i)
			if gpus[chip] == nil {
				gpus[chip] = map[string]bool{}
			}
			gpus[chip][root(f.Component)] = true
		}
	}
	for chip, checks := range at {
		if len(gpus[chip]) < leastOfSwitch {
			continue
		}
		c := b.checks[checks[0]].Check
		var links []string
		for _, i := range checks {
			links = append(links, b.checks[i].Component)
			b.checks[i].Outcome, b.checks[i].Do = fleet.Warn, "none"
			b.checks[i].Words += fmt.Sprintf("; that follows from NVSwitch %d, to which links of %d GPUs fail", chip, len(gpus[chip]))
		}
		slices.SortFunc(links, fleet.CompareNatural)
		c.Component, c.Value, c.Limit, c.Do = fmt.Sprintf("nvswitch/%d", chip), nil, nil, "cold-cycle"
		c.ID, c.Unit = "nvswitch-links", ""
		c.Words = fmt.Sprintf("NVSwitch %d: links of %s to it fail (%s): the switch and not the GPUs", chip, count(len(gpus[chip]), "GPU"), strings.Join(links, ", "))
		b.add(ofLink, c)
	}
}

// leastOfSwitch is of how many GPUs links to one switch must fail before it is the switch.
const leastOfSwitch = 3

// deeper are checks that are nearer to the cause than others of their family: wrong memory makes wrong results, a driver of another version makes a fabric
// that is not ready, and what was added under load says more than a total.
var deeper = []string{"gpu-memory-mismatches", "memory-mismatches", "disk-io-errors", "platform-load", "platform-no-driver", "platform-driver-mismatch", "platform-no-library", "platform-denied"}

func (f found) rank() int {
	if f.Code == "MC-GPU-LIMIT" && f.family == ofPCIe {
		return 1
	}
	if slices.Contains(deeper, f.ID) {
		return -1
	}
	return 0
}

// consequences says what follows from a cause of a family, at the same part.
var consequences = map[family][]family{
	ofPresence: {ofPresence, ofPower, ofHeat, ofPCIe, ofMemory, ofLink, ofPort, ofDisk, ofDIMM, ofDriver, ofData, ofClock, ofRate, ofUntold},
	ofPower:    {ofPower, ofHeat, ofClock, ofRate},
	ofHeat:     {ofHeat, ofClock, ofRate},
	ofPCIe:     {ofPCIe, ofRate, ofDriver},
	ofMemory:   {ofMemory, ofDriver, ofData, ofUntold},
	ofLink:     {ofLink, ofDriver, ofRate, ofData},
	ofPort:     {ofPort, ofRate},
	ofDisk:     {ofDisk, ofData, ofRate, ofUntold},
	ofDIMM:     {ofDIMM, ofDriver, ofData, ofRate},
	ofDriver:   {ofDriver, ofData, ofUntold},
	ofData:     {ofData, ofDriver, ofUntold},
	ofClock:    {ofClock, ofRate},
	ofRate:     {ofRate},
}

func (b *burner) explains(c, f found) bool {
	switch {
	case c.family == ofPlatform && f.family == ofPlatform:
		return true
	case c.family == ofUntold && f.family == ofUntold: // one reason
		return c.Component == f.Component && len(c.Evidence) > 0 && len(f.Evidence) > 0 && c.Evidence[0] == f.Evidence[0]
	case c.family == ofPlatform:
		return f.family == ofUntold && (f.Component == "node" || strings.HasPrefix(f.Component, "gpu") || strings.HasPrefix(f.Component, "hca"))
	}
	if !slices.Contains(consequences[c.family], f.family) || !b.related(c.Component, f.Component) {
		return false
	}
	switch { // not all that has the family has the cause
	case c.family == ofLink && (f.family == ofRate || f.family == ofData):
		return strings.Contains(f.Component, "/peer") || !strings.HasPrefix(f.Component, "gpu/")
	case c.family == ofPCIe && f.family == ofRate:
		return strings.Contains(f.ID, "h2d") || strings.Contains(f.ID, "d2h") || !strings.HasPrefix(f.Component, "gpu/")
	case c.family == ofRate:
		return strings.Contains(c.ID, "bandwidth") || c.ID == f.ID || strings.HasPrefix(c.ID, "gpu-memory") == strings.HasPrefix(f.ID, "gpu-memory")
	}
	return true
}

// related reports whether what happens to one component bears on the other: the same part, a pair that it is in, or what it hangs from.
func (b *burner) related(cause, f string) bool {
	for _, r := range roots(f) {
		if slices.Contains(roots(cause), r) {
			return true
		}
	}
	kind := func(c string) string { k, _, _ := strings.Cut(c, "/"); return k }
	switch kind(cause) {
	case "node":
		return true
	case "system":
		return cause == "system/power" || slices.Contains([]string{"system", "cpu", "core", "numa", "dimm"}, kind(f))
	case "fabric", "nvswitch", "nvswitches", "gpus":
		return kind(f) == "gpu" || kind(f) == "nvswitch"
	case "dimm", "dimms", "memory":
		return kind(f) == "numa" || kind(f) == "dimm" || kind(f) == "system"
	case "cpu", "cpus":
		return kind(f) == "core"
	case "infiniband":
		return kind(f) == "hca"
	case "nvme", "disks":
		return kind(f) == "disk"
	case "gpu", "hca", "disk":
		if up, ok := strings.CutPrefix(f, "pci/"); ok { // the other end of its link
			for a, c := range b.names.byPCI {
				if c == root(cause) && b.names.parent[a] == up {
					return true
				}
			}
		}
	case "pci":
		top := strings.TrimPrefix(cause, "pci/")
		for _, r := range roots(f) {
			for a, c := range b.names.byPCI {
				for up, i := a, 0; c == r && up != "" && i < 64; up, i = b.names.parent[up], i+1 {
					if up == top {
						return true
					}
				}
			}
		}
	}
	return false
}

// cured are the actions that might have ended a fault: when it is seen again in the same part after one of them, the part is condemned.
var cured = []string{"retest", "reset", "reboot", "cold-cycle", "reseat", "cable", "replace"}

// blame condemns what failed as it did before, and names what to replace. What could not be told is condemned the same way where it lies in one part.
func (b *burner) blame() {
	for i := range b.checks {
		f := &b.checks[i]
		part := f.Outcome == fleet.Fail || f.Outcome == fleet.CouldNotTell && f.family == ofUntold && strings.Contains(f.Component, "/")
		if !part {
			continue
		}
		if was, when := b.earlier(f); was != nil {
			f.Outcome, f.Do = fleet.Fail, "replace"
			if f.Code == "" {
				f.Code = was.Code
			}
			f.Words += fmt.Sprintf("; it was so on %s, too, after which it was to be cured by: %s", when, was.Do)
			f.Evidence = append(f.Evidence, fmt.Sprintf("the burn-in of %s: %s", when, was.Words))
		}
		if f.Do == "replace" && f.Replace == "" {
			f.Replace = b.replacement(f.Component)
			if f.Code == "MC-BURN-RESTART" {
				f.Replace = "the power supply, board or processor that the BMC's event log names"
			}
		}
	}
}

// earlier finds the same fault in the same part in an earlier report: by code, component and serial.
func (b *burner) earlier(f *found) (*fleet.Check, string) {
	mine, known := partOf(b.burnedParts(), f.Component)
	for i := range b.in.Earlier {
		r := &b.in.Earlier[i]
		if k := slices.IndexFunc(r.Checks, func(c fleet.Check) bool {
			if c.Code != f.Code || c.Code == "" || c.ID != f.ID && c.Code != "MC-BURN-DATA" || !slices.Contains(cured, c.Do) || c.Outcome != fleet.Fail && c.Outcome != fleet.CouldNotTell {
				return false
			}
			its, had := partOf(r.Machine.Parts, c.Component)
			if known && had && mine.Serial != "" && its.Serial != "" { // a part that moved takes its fault along
				return mine.Serial == its.Serial && strings.TrimPrefix(c.Component, its.Component) == strings.TrimPrefix(f.Component, mine.Component)
			}
			return c.Component == f.Component
		}); k >= 0 {
			return &r.Checks[k], r.EndedAt.UTC().Format("2006-01-02 15:04")
		}
	}
	return nil, ""
}
