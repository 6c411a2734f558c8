package verdict

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

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
