package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// BoardUnread is what follows from a BMC that could not tell of its baseboard: it blocks where the class wants one.
func BoardUnread(class fleet.Class, why string) []fleet.Difference {
	return boardAlone(class, true, "unread", "the GPU baseboard could not be read through the BMC: %s", why)
}

// BoardAbsent is what follows from a BMC that shows no baseboard: nothing on a machine that has none. last is what was read before, or nil.
func BoardAbsent(class fleet.Class, last *fleet.Baseboard) []fleet.Difference {
	return boardAlone(class, last != nil, "absent", "the BMC shows no GPU baseboard")
}

// boardAlone is the one difference of a baseboard of which nothing is known; odd says that it is one although the class has no opinion.
func boardAlone(class fleet.Class, odd bool, got, words string, args ...any) []fleet.Difference {
	d := fleet.Difference{Code: "MC-BOARD-UNREAD", Component: "board", Severity: fleet.Warning, Blocks: fleet.BlocksNothing, Against: fleet.AgainstBMC, Want: "read", Got: got,
		Words: fmt.Sprintf(words, args...), Do: "retest"}
	switch {
	case class.Expect.WantsBoard():
		d.Severity, d.Blocks = fleet.Critical, fleet.BlocksAllocate
		d.Words += ", and class " + class.Name + " wants one"
	case !odd:
		return nil
	}
	return []fleet.Difference{d}
}

// unreadParts says what of the baseboard could not be read, all in one, as a controller that falls silent takes all the rest along.
func (j *boardJudge) unreadParts() {
	if len(j.b.Missing) == 0 || !j.class.Expect.WantsBoard() {
		return
	}
	m := j.b.Missing[0]
	more := ""
	if n := len(j.b.Missing) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	j.block(finding{code: "MC-BOARD-UNREAD", component: "board", want: "read", got: "unread", do: "retest"},
		"%s of the baseboard could not be read%s: %s; class %s wants it", m.What, more, m.Why, j.class.Name)
}

// classOfBoard compares the baseboard with what the class says of it.
func (j *boardJudge) classOfBoard() {
	e, class := j.class.Expect.Baseboard, j.class.Name
	if len(j.b.Missing) == 0 { // else that is said, and it is why they are fewer
		differ := func(code, component, what string, got, want int) {
			if want > 0 && got != want {
				j.block(finding{code: code, component: component, against: fleet.AgainstClass, want: fmt.Sprint(want), got: fmt.Sprint(got), do: "cold-cycle"},
					"the BMC shows %d %s, class %s wants %d", got, what, class, want)
			}
		}
		if j.said("retimer") == nil {
			differ("MC-BOARD-RETIMER", "retimers", "PCIe retimers", len(j.b.Retimers), e.Retimers)
		}
		if !j.saidCode("MC-BOARD-ROOT") {
			differ("MC-BOARD-ROOT", "board/roots", "roots of trust", len(j.b.Roots), e.RootsOfTrust)
		}
		if gone := j.saidCode("MC-BOARD-GPU-BMC", "MC-BOARD-GPU-NONE", "MC-BOARD-LINK-ENDS"); !gone {
			differ("MC-BOARD-LINK-ENDS", "board/nvlinks", "NVLinks with both ends", wholeLinks(j.b.Links), e.NVLinks)
		}
	}
	for _, item := range sortedKeys(j.class.Expect.Firmware.Board) {
		var components, versions []string
		for _, f := range j.b.Firmware {
			if fleet.MatchesItem(item, f.ID) {
				components, versions = append(components, "board/"+f.ID), append(versions, f.Version)
			}
		}
		if want := j.class.Expect.Firmware.Board[item]; len(components) > 0 {
			j.baseline("board/"+item, "the firmware", want, components, versions)
		} else if len(j.b.Missing) == 0 {
			j.block(finding{code: "MC-BOARD-UNREAD", component: "board/" + item, against: fleet.AgainstClass, want: want, got: "absent", do: "retest"},
				"the BMC lists no firmware %s, class %s wants it to be %s", item, class, want)
		}
	}
}

func (j *boardJudge) saidCode(codes ...string) bool {
	return slices.ContainsFunc(j.out, func(d fleet.Difference) bool { return slices.Contains(codes, d.Code) })
}

// changed compares with what the baseboard showed before: who it is, and what was there.
func (j *boardJudge) changed(last *fleet.Baseboard) {
	if last == nil {
		return
	}
	was := map[string]fleet.BoardRoot{}
	for _, r := range last.Roots {
		was[r.ID] = r
	}
	for _, r := range j.b.Roots {
		old := was[r.ID]
		if old.Identity == "" || old.Identity == r.Identity || j.swapped(r.ID, last) {
			continue
		}
		f := finding{code: "MC-BOARD-IDENTITY", component: "board/" + r.ID, want: old.Identity, got: r.Identity, do: "retest"}
		what := strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(r.ID, "HGX_"), "ERoT_"), "IRoT_")
		before, now := last.FirmwareOf(what), j.b.FirmwareOf(what)
		if own := strings.TrimPrefix(r.ID, "HGX_"); before == now && own != what {
			before, now = last.FirmwareOf("HGX_"+own), j.b.FirmwareOf("HGX_"+own)
		}
		switch {
		case r.Identity == "":
			if len(j.b.Missing) == 0 {
				j.warn(f, "the root of trust %s shows no certificate any more", r.ID)
			}
		case before != now:
			j.warn(f, "the root of trust %s proves itself with other certificates than before, and its firmware went from %s to %s: that may be why", r.ID, orUnknown(before), orUnknown(now))
		default:
			j.block(f, "the root of trust %s is another than at the last inspection, and its firmware is the same: its part was replaced, or somebody stands between", r.ID)
		}
	}
	if len(j.b.Missing) > 0 {
		return
	}
	for _, r := range last.Retimers {
		if j.retimer(r.Name) == nil {
			j.block(finding{code: "MC-BOARD-RETIMER", component: "retimer/" + r.Name, want: "present", got: "absent", do: "cold-cycle"}, "%s is not there any more%s", r.Name, j.leadsTo(r.GPU))
		}
	}
	have := map[string]bool{}
	for _, r := range j.b.Roots {
		have[r.ID] = true
	}
	for _, r := range last.Roots {
		if !have[r.ID] && !j.swapped(r.ID, last) && !j.explainedRoot(r.ID) {
			j.warn(finding{code: "MC-BOARD-ROOT", component: "board/" + r.ID, want: "present", got: "absent", do: "cold-cycle"}, "the root of trust %s is not there any more", r.ID)
		}
	}
}

// explainedRoot tells that the GPU which a root of trust vouches for has a difference of its own that says why it is gone.
func (j *boardJudge) explainedRoot(id string) bool {
	for _, g := range j.b.GPUs {
		if strings.HasSuffix(id, "_"+g.Name) {
			return j.said(j.byName[g.Name], "MC-BOARD-ROOT") != nil || j.explained(j.byName[g.Name])
		}
	}
	return j.saidCode("MC-BOARD-GPU-BMC", "MC-BOARD-GPU-NONE")
}

// swapped tells that the GPU which a root of trust vouches for is another than before: that is the story, and it is told where the host sees it.
func (j *boardJudge) swapped(id string, last *fleet.Baseboard) bool {
	for _, g := range j.b.GPUs {
		for _, o := range last.GPUs {
			if g.Name == o.Name && strings.HasSuffix(id, "_"+g.Name) && g.Serial != "" && o.Serial != "" && !strings.EqualFold(g.Serial, o.Serial) {
				return true
			}
		}
	}
	return false
}

func (j *boardJudge) retimer(name string) *fleet.BoardRetimer {
	for i := range j.b.Retimers {
		if j.b.Retimers[i].Name == name {
			return &j.b.Retimers[i]
		}
	}
	return nil
}

// leadsTo names the GPU behind a retimer in words.
func (j *boardJudge) leadsTo(gpu string) string {
	if n := j.byName[gpu]; n != "" {
		return ", on the way to " + strings.Replace(n, "gpu/", "GPU ", 1)
	}
	return ""
}

// retimers judges those that are not well, those whose link is down or narrow, and those whose firmware is not that of the others.
func (j *boardJudge) retimers() {
	type family struct{ components, versions []string }
	families := map[string]*family{} // by name without its number: a host's board has others than the baseboard
	for _, r := range j.b.Retimers {
		c := "retimer/" + r.Name
		if r.State == "Absent" {
			j.block(finding{code: "MC-BOARD-RETIMER", component: c, want: "present", got: "absent", do: "cold-cycle"}, "%s is absent by the BMC%s", r.Name, j.leadsTo(r.GPU))
			continue
		}
		if r.Health != "" && r.Health != "OK" {
			j.sick(c, r.Name, r.Health)
		}
		for _, l := range r.Links {
			down := j.b.Powered && (l.State == fleet.LinkDown || l.State == fleet.LinkDisabled)
			narrow := l.State == fleet.LinkUp && l.Width > 0 && l.MaxWidth > l.Width
			switch {
			case down && j.explained(j.byName[r.GPU]):
				// That a GPU is not on PCI has its own difference, which names the retimer.
			case down:
				j.block(finding{code: "MC-BOARD-RETIMER", component: c, want: "up", got: l.State, do: "cold-cycle"}, "%s: its PCIe link %s is %s%s", r.Name, l.Port, l.State, j.leadsTo(r.GPU))
			case narrow:
				j.block(finding{code: "MC-BOARD-RETIMER", component: c, want: fmt.Sprintf("x%d", l.MaxWidth), got: fmt.Sprintf("x%d", l.Width), do: "cold-cycle"},
					"%s: its PCIe link %s has %d of %d lanes%s", r.Name, l.Port, l.Width, l.MaxWidth, j.leadsTo(r.GPU))
			}
		}
		if name := strings.TrimRight(r.Name, "0123456789"); !j.baselined(r.Name) {
			if families[name] == nil {
				families[name] = &family{}
			}
			families[name].components, families[name].versions = append(families[name].components, c), append(families[name].versions, orUnknown(j.b.FirmwareOf(r.Name)))
		}
	}
	for _, name := range sortedKeys(families) {
		j.odd(families[name].components, families[name].versions, false, "MC-FIRMWARE-MIXED", "update", "firmware")
	}
}

// baselined tells that the class says which firmware a retimer has.
func (j *boardJudge) baselined(name string) bool {
	for item := range j.class.Expect.Firmware.Board {
		if fleet.MatchesItem(item, name) || fleet.MatchesItem(item, strings.Replace(name, "HGX_", "HGX_FW_", 1)) {
			return true
		}
	}
	return false
}

// darkRetimer names the retimer before a GPU whose link is down, in words.
func (j *boardJudge) darkRetimer(i int) string {
	for _, r := range j.b.Retimers {
		for _, l := range r.Links {
			if r.GPU == j.b.GPUs[i].Name && (l.State == fleet.LinkDown || l.State == fleet.LinkDisabled) {
				return "; the link " + l.Port + " of " + r.Name + " is " + l.State
			}
		}
	}
	return ""
}
