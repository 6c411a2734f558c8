package verdict

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// tallyKey is one counter of one component.
type tallyKey struct{ id, component string }

// tally is what a counter grew by over a burn-in.
type tally struct {
	added int64
	hours float64 // in which it was watched: those of the stages
	// from and to are its first and its last reading; resets is how often it went down in between, which counts from zero.
	from, to int64
	resets   int
}

// sight is one reading of a machine.
type sight struct {
	counts map[tallyKey]int64
	// stage is the number of the part that it belongs to.
	stage int
}

// count reads all parts' counters and adds up what they grew by.
func (b *burner) count() {
	b.tallies = map[tallyKey]*tally{}
	for i := range b.parts {
		for _, inv := range []*fleet.Inventory{b.parts[i].Before, b.parts[i].After} {
			if inv != nil {
				b.sights = append(b.sights, sight{readCounters(inv), i})
			}
		}
	}
	for i := 1; i < len(b.sights); i++ {
		was, is := b.sights[i-1], b.sights[i]
		hours := 0.0
		if was.stage == is.stage {
			p := &b.parts[is.stage]
			hours = p.EndedAt.Sub(p.BeganAt).Hours() * float64(max(1, p.Speed))
		}
		for k, n := range is.counts {
			old, ok := was.counts[k]
			if !ok {
				continue
			}
			t := b.tallies[k]
			if t == nil {
				t = &tally{from: old}
				b.tallies[k] = t
			}
			d := n - old
			if d < 0 {
				t.resets++
				d = n
			}
			t.added, t.to, t.hours = t.added+d, n, t.hours+hours
		}
	}
}

// readCounters are all counters that an inventory has, zero ones as well: a part that was read and a counter that is not there was zero.
func readCounters(inv *fleet.Inventory) map[tallyKey]int64 {
	out := make(map[tallyKey]int64, 2048) // what a node of eight GPUs has
	n := nameParts(inv)
	for i, g := range inv.GPUs {
		c := n.gpu[i]
		if e := g.ECC; e != nil {
			v := e.Volatile
			out[tallyKey{"gpu-ecc-uncorrected", c}] = max(v.Uncorrected, v.SRAMUncorrected+v.DRAMUncorrected)
			out[tallyKey{"gpu-ecc-corrected", c}] = max(v.Corrected, v.SRAMCorrected+v.DRAMCorrected)
		}
		if r := g.RemappedRows; r != nil {
			out[tallyKey{"gpu-remapped-rows", c}] = r.Uncorrectable
			out[tallyKey{"gpu-remapped-rows-corrected", c}] = r.Correctable
		}
		if g.PCIe != nil {
			out[tallyKey{"gpu-pcie-replays", c}] = g.PCIe.Replays
		}
		for reason, ns := range g.ThrottledNS {
			out[tallyKey{"gpu-throttled-" + reason, c}] = ns
		}
		for _, l := range g.NVLinks {
			at := fmt.Sprintf("%s/nvlink/%d", c, l.Link)
			for _, r := range counterRules {
				if name, ok := strings.CutPrefix(r.id, "nvlink-"); ok && (l.Errors[name] > 0 || r.fifth == (l.EffectiveBER != nil)) {
					out[tallyKey{r.id, at}] = l.Errors[name]
				}
			}
		}
	}
	for _, p := range inv.PCI {
		c := n.byPCI[p.Address]
		if c == "" {
			c = "pci/" + p.Address
		}
		for _, how := range []string{"fatal", "nonfatal", "correctable"} {
			sum := int64(0)
			for k, v := range p.AER {
				if kind, what, _ := strings.Cut(k, "/"); kind == how && !strings.HasPrefix(what, "TOTAL") {
					sum += v
				}
			}
			out[tallyKey{"pcie-aer-" + how, c}] += sum
		}
	}
	for _, h := range inv.HCAs {
		if h.Role == fleet.HCAFabric {
			continue
		}
		for _, p := range h.Ports {
			at := fmt.Sprintf("hca/%s/port/%d", h.Name, p.Port)
			for _, r := range counterRules {
				if name, ok := strings.CutPrefix(r.id, "hca-"); ok {
					out[tallyKey{r.id, at}] = p.Counters[strings.ReplaceAll(name, "-", "_")]
				}
			}
		}
	}
	for _, d := range inv.Memory.DIMMs {
		if d.Corrected != nil {
			out[tallyKey{"dimm-corrected", "dimm/" + d.Locator}] = *d.Corrected
		}
		if d.Uncorrected != nil {
			out[tallyKey{"dimm-uncorrected", "dimm/" + d.Locator}] = *d.Uncorrected
		}
	}
	for _, d := range inv.Disks {
		if d.Smart != nil && !d.BootMedium {
			out[tallyKey{"disk-media-errors", "disk/" + d.Name}] = d.Smart.MediaErrors
			out[tallyKey{"disk-spare-spent", "disk/" + d.Name}] = int64(100 - d.Smart.SparePercent)
			out[tallyKey{"disk-unsafe-shutdowns", "disk/" + d.Name}] = d.Smart.UnsafeShutdowns
		}
	}
	return out
}

// How sure a rate must be before a part is condemned for it, and with which confidence a report says what it is below.
const (
	condemns = 0.999
	says     = 0.95
)

// counters judges what counters grew by, link by link and drive by drive; links of a GPU and counters of a port that did not move are one check.
func (b *burner) counters() {
	b.count()
	b.throttled()
	by := map[string][]tallyKey{}
	for k := range b.tallies {
		by[k.id] = append(by[k.id], k)
	}
	for _, r := range counterRules {
		keys := by[r.id]
		slices.SortFunc(keys, func(x, y tallyKey) int { return fleet.CompareNatural(x.component, y.component) })
		quiet := map[string][]tallyKey{}
		var order []string
		for _, k := range keys {
			if b.tallies[k].added > 0 {
				b.counted(r, k)
				continue
			}
			at := k.component
			if gpu, _, ok := strings.Cut(at, "/nvlink/"); ok {
				at = gpu + "/nvlink"
			}
			if quiet[at] == nil {
				order = append(order, at)
			}
			quiet[at] = append(quiet[at], k)
		}
		for _, at := range order {
			if !strings.HasPrefix(at, "pci/") { // a board has a hundred bridges
				b.still(r, at, quiet[at])
			}
		}
	}
}

// still enters that a counter did not move, and what that says of its rate.
func (b *burner) still(r counterRule, at string, keys []tallyKey) {
	hours, resets := 0.0, 0
	for _, k := range keys {
		hours += b.tallies[k].hours
		resets += b.tallies[k].resets
	}
	c := fleet.Check{ID: r.id, Component: at, Outcome: fleet.Pass, Value: new(float64), Unit: r.valueUnit(), Words: fmt.Sprintf("%s: no %s%s", b.name(at), r.what, below95(0, hours))}
	if resets > 0 {
		c.Evidence = append(c.Evidence, fmt.Sprintf("the counter was reset %s", times(resets)))
	}
	b.add(r.family, c)
}

// valueUnit is what a check of the rule is in: how many where one is too many, a rate otherwise.
func (r counterRule) valueUnit() string {
	if r.fatal {
		return r.unit
	}
	return r.unit + "/h"
}

// below95 says what a rate is below, "" where nothing was watched.
func below95(n int64, hours float64) string {
	if hours <= 0 {
		return ""
	}
	return fmt.Sprintf(": the rate is below %.3g per hour at 95 %%", poissonUpper(n, says)/hours)
}

// counted judges a counter that moved.
func (b *burner) counted(r counterRule, k tallyKey) {
	t := b.tallies[k]
	v := float64(t.added)
	if !r.fatal && t.hours > 0 {
		v /= t.hours
	}
	c := fleet.Check{ID: r.id, Component: k.component, Outcome: fleet.Pass, Value: &v, Unit: r.valueUnit(), Do: "none"}
	for i := 1; i < len(b.sights); i++ { // the stage in which it moved first
		x, known := b.sights[i-1].counts[k]
		if y, ok := b.sights[i].counts[k]; known && ok && x != y {
			p := &b.parts[b.sights[i].stage]
			c.Stage, c.Round = p.Stage, p.Round
			break
		}
	}
	c.Evidence = append(c.Evidence, fmt.Sprintf("%d before, %d after, in %s under watch", t.from, t.to, took(t.hours)))
	if t.resets > 0 {
		c.Evidence = append(c.Evidence, fmt.Sprintf("the counter was reset %s in between", times(t.resets)))
	}
	what := fmt.Sprintf("%s: %d %s", b.name(k.component), t.added, r.what)
	most, source, against := r.most, r.source, "metalctl"
	if l, whose := b.limit(r.limit); l != nil {
		most, source, against = l.Value, l.Source, whose
	}
	if r.fatal {
		c.Outcome, c.Code, c.Do = r.worst, r.code, r.do
		c.Limit = &fleet.CheckLimit{Value: 0, Unit: r.unit, Against: against, Source: r.source}
		c.Words = fmt.Sprintf("%s while it worked, and none is right (%s)", what, r.source)
		b.add(r.family, c)
		return
	}
	if t.hours <= 0 || most <= 0 {
		c.Words = what + below95(t.added, t.hours)
		b.add(r.family, c)
		return
	}
	sure, likely := poissonLower(t.added, condemns)/t.hours > most, v > most
	c.Limit = &fleet.CheckLimit{Value: most, Unit: c.Unit, Against: against, Source: source}
	switch {
	case sure:
		c.Outcome, c.Code, c.Do = r.worst, r.code, r.do
		c.Words = fmt.Sprintf("%s, %.3g per hour: surely more than %.3g per hour (at 99.9 %%; %s)", what, v, most, source)
	case likely:
		c.Outcome, c.Code, c.Do = fleet.Warn, r.code, "retest"
		c.Words = fmt.Sprintf("%s, %.3g per hour: likely more than %.3g per hour (%s), but too few to be sure of it", what, v, most, source)
	default:
		c.Words = what + below95(t.added, t.hours)
	}
	b.add(r.family, c)
}

func took(hours float64) string {
	return time.Duration(hours * float64(time.Hour)).Round(time.Second).String()
}

// limit is the profile's or the class's limit for a check, and whose it is.
func (b *burner) limit(check string) (*fleet.Limit, string) {
	if check == "" {
		return nil, ""
	}
	if i := slices.IndexFunc(b.in.Profile.Limits, func(l fleet.Limit) bool { return l.Check == check }); i >= 0 {
		return &b.in.Profile.Limits[i], "profile"
	}
	return b.in.Class.Expect.Limit(check), "class"
}

// throttled judges for how long GPUs were slowed down. Their power limit slows them under full load, as it should; their hardware never.
func (b *burner) throttled() {
	var brake []string
	gpus := 0
	for i := range b.gpus() {
		c := b.names.gpu[i]
		hard, worst, told := int64(0), "", false
		for _, r := range []string{"hw-slowdown", "hw-thermal-slowdown", "hw-power-brake"} {
			t := b.tallies[tallyKey{"gpu-throttled-" + r, c}]
			told = told || t != nil
			if t != nil && t.added > hard {
				hard, worst = t.added, r
			}
		}
		soft := b.tallies[tallyKey{"gpu-throttled-sw-thermal-slowdown", c}]
		if !told && soft == nil {
			continue
		}
		gpus++
		v := float64(hard) / 1e9
		check := fleet.Check{ID: "gpu-throttled", Component: c, Outcome: fleet.Pass, Value: &v, Unit: "s", Words: fmt.Sprintf("%s was not slowed down by its hardware or by heat", b.name(c))}
		switch {
		case hard > 0 && worst == "hw-power-brake":
			brake = append(brake, c)
			check.Outcome, check.Code, check.Do = fleet.Fail, "MC-BURN-THROTTLED", "cold-cycle"
			check.Words = fmt.Sprintf("%s was slowed down by the power brake signal for %s", b.name(c), time.Duration(hard))
		case hard > 0:
			check.Outcome, check.Code, check.Do = fleet.Fail, "MC-BURN-THROTTLED", "reseat"
			check.Words = fmt.Sprintf("%s was slowed down by its hardware (%s) for %s", b.name(c), worst, time.Duration(hard))
		case soft != nil && soft.added > 0:
			v = float64(soft.added) / 1e9
			check.Outcome, check.Code, check.Do = fleet.Warn, "MC-BURN-THROTTLED", "retest"
			check.Words = fmt.Sprintf("%s was slowed down by its driver because of heat for %s", b.name(c), time.Duration(soft.added))
			if soft.hours > 0 && v > hotShare*soft.hours*3600 {
				check.Outcome, check.Do = fleet.Fail, "reseat"
			}
		}
		b.add(ofHeat, check)
	}
	if len(brake) < 2 || len(brake) < gpus {
		return
	}
	b.checks = slices.DeleteFunc(b.checks, func(f found) bool { return f.ID == "gpu-throttled" && slices.Contains(brake, f.Component) })
	b.add(ofPower, fleet.Check{ID: "gpu-throttled", Component: "system/power", Outcome: fleet.Fail, Code: "MC-BURN-THROTTLED", Do: "reseat",
		Words: fmt.Sprintf("all %d GPUs were slowed down by the power brake signal: look at the power supplies, not at the GPUs", len(brake))})
}

// hotShare is for which part of the time the driver may slow a GPU down because of heat before that fails.
const hotShare = 0.05

func (b *burner) gpus() []fleet.GPU {
	if b.last == nil {
		return nil
	}
	return b.last.GPUs
}

// counterRule says how a counter is judged. What is fatal fails with the first event; other counters fail where their rate is surely above most.
type counterRule struct {
	id, unit, what string
	family         family
	fatal          bool
	worst          fleet.Outcome
	fifth          bool    // a counter of NVLink 5, whose links tell a bit error rate
	most           float64 // events per hour; 0 is no limit
	limit          string  // the LimitCheck by which a profile or class says otherwise
	code, do       string
	source         string
}
