package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// links judges NVLinks: state, speed, other end, errors. Links of one GPU that are in the same way wrong are one difference.
func (j *judge) links() {
	if j.class.Expect.GPUs.NVLinksUp > 0 {
		j.linksUnread()
	}
	dark := j.darkSwitches()
	fastest := j.expectedSpeed()
	for i := range j.inv.GPUs {
		g, name := &j.inv.GPUs[i], j.names.gpu[i]
		if j.explained(name) {
			continue
		}
		var down, off, unknown, slow []int
		up := 0
		for _, l := range g.NVLinks {
			switch l.State {
			case fleet.LinkUp:
				up++
				if l.SpeedGBps > 0 && l.SpeedGBps < fastest*0.99 {
					slow = append(slow, l.Link)
				}
			case fleet.LinkDown:
				if !dark(g.ModuleID, l.Link) {
					down = append(down, l.Link)
				}
			case fleet.LinkDisabled:
				off = append(off, l.Link)
			default:
				unknown = append(unknown, l.Link)
			}
		}
		if len(down) <= j.darkLinks {
			down = nil
		}
		all := len(g.NVLinks)
		if !j.noFabric {
			j.linkState(i, down, all, "down", "reset")
			j.linkState(i, off, all, "disabled", "configure")
			j.linkState(i, unknown, all, "in an unknown state", "retest")
		}
		if len(slow) > 0 {
			got := fmt.Sprintf("%g GB/s", slowest(g, slow))
			f := finding{code: "MC-NVLINK-SLOW", component: linkComponent(name, slow), want: fmt.Sprintf("%g GB/s", fastest), got: got, do: "reset"}
			j.block(f, "%s: NVLink %s of %d runs at %s each way, not at %g", j.part(i), list(slow), all, got, fastest)
		}
		if want := j.class.Expect.GPUs.NVLinksUp; want > 0 && up != want && len(down)+len(off)+len(unknown)+j.darkLinks == 0 && !j.noFabric && len(g.NVLinks) > 0 && all-up == 0 {
			j.block(finding{code: "MC-NVLINK-COUNT", component: name + "/nvlink", against: fleet.AgainstClass, want: fmt.Sprint(want), got: fmt.Sprint(up), do: "configure"},
				"%s has %s up, class %s wants %d", j.part(i), count(up, "NVLink"), j.class.Name, want)
		}
		j.linkErrors(i, name)
	}
	j.wiring()
}

func linkComponent(gpu string, links []int) string {
	if len(links) == 1 {
		return fmt.Sprintf("%s/nvlink/%d", gpu, links[0])
	}
	return gpu + "/nvlink"
}

func (j *judge) linkState(i int, links []int, all int, state, do string) {
	if len(links) == 0 {
		return
	}
	f := finding{code: "MC-NVLINK-DOWN", component: linkComponent(j.names.gpu[i], links), want: "up", got: state, do: do}
	if len(links) == all && all > 1 {
		j.block(f, "%s: all %d NVLinks are %s", j.part(i), all, state)
		return
	}
	is := "is"
	if len(links) > 1 {
		is = "are"
	}
	where := ""
	if len(links) == 1 && j.board != nil {
		if chip, port, ok := Wired(j.board.wiring, j.inv.GPUs[i].ModuleID, links[0]); ok {
			where = fmt.Sprintf(", which leads to NVSwitch %d port %d,", chip, port)
		}
	}
	j.block(f, "%s: NVLink %s of %d%s %s %s", j.part(i), list(links), all, where, is, state)
}

// darkSwitches finds NVSwitches that are on PCI and to which every link is down: the switch and not the GPUs. It returns which links that explains.
func (j *judge) darkSwitches() func(module, link int) bool {
	none := func(int, int) bool { return false }
	if j.board == nil || j.board.wiring == "" || j.noFabric || j.darkLinks > 0 {
		return none
	}
	up, down, gpus := map[int]int{}, map[int]int{}, map[int]map[int]bool{}
	for i, g := range j.inv.GPUs {
		if j.explained(j.names.gpu[i]) {
			continue
		}
		for _, l := range g.NVLinks {
			chip, _, ok := Wired(j.board.wiring, g.ModuleID, l.Link)
			if !ok {
				continue
			}
			if l.State != fleet.LinkDown {
				up[chip]++
				continue
			}
			down[chip]++
			if gpus[chip] == nil {
				gpus[chip] = map[int]bool{}
			}
			gpus[chip][g.ModuleID] = true
		}
	}
	dark := map[int]bool{}
	for chip := range down {
		if up[chip] == 0 && len(gpus[chip]) > 1 {
			dark[chip] = true
		}
	}
	if len(dark) == j.board.switches {
		return none // not one switch: every link of the node is down
	}
	for chip := range j.board.switches {
		if dark[chip] {
			name := fmt.Sprintf("nvswitch/%d", chip)
			j.block(finding{code: "MC-NVSWITCH-LINKS", component: name, want: "up", got: "down", do: "cold-cycle"},
				"all %d links to NVSwitch %d are down, of %d GPUs: the switch and not the GPUs", down[chip], chip, len(gpus[chip]))
		}
	}
	return func(module, link int) bool {
		chip, _, ok := Wired(j.board.wiring, module, link)
		return ok && dark[chip]
	}
}

// expectedSpeed is the class's, the board's, or that of the fastest link.
func (j *judge) expectedSpeed() float64 {
	if v := j.class.Expect.GPUs.NVLinkGBps; v > 0 {
		return v
	}
	if j.board != nil {
		return j.board.speed
	}
	v := 0.0
	for _, g := range j.inv.GPUs {
		for _, l := range g.NVLinks {
			v = max(v, l.SpeedGBps)
		}
	}
	return v
}

func slowest(g *fleet.GPU, links []int) float64 {
	v := -1.0
	for _, l := range g.NVLinks {
		if slices.Contains(links, l.Link) && (v < 0 || l.SpeedGBps < v) {
			v = l.SpeedGBps
		}
	}
	return v
}

// linksUnread: the class expects links and no driver told of any.
func (j *judge) linksUnread() {
	var blind []int
	judged := 0
	for i, g := range j.inv.GPUs {
		if j.explained(j.names.gpu[i]) {
			continue
		}
		judged++
		if len(g.NVLinks) == 0 {
			blind = append(blind, i)
		}
	}
	if len(blind) > 1 && len(blind) == judged {
		j.unread("gpus", "NVLinks", "gpus nvlinks", "gpus nvlink", "gpu", "nvml")
		return
	}
	for _, i := range blind {
		j.unread(j.names.gpu[i]+"/nvlink", "NVLinks", j.names.gpu[i], fmt.Sprintf("gpu/%d", j.inv.GPUs[i].Index))
	}
}

// effectiveBER is where an NVLink 5's error rate after correction is too high: 1e-12 (DCGM 4.6, health watches of NVLink).
const effectiveBER = 1e-12

func (j *judge) linkErrors(i int, name string) {
	most, source := effectiveBER, ""
	if l := j.class.Expect.Limit("nvlink-effective-ber"); l != nil {
		most, source = l.Value, ", by "+l.Source
	}
	var bad []int
	kinds := map[string]int64{}
	for _, l := range j.inv.GPUs[i].NVLinks {
		if l.EffectiveBER != nil && *l.EffectiveBER > most {
			j.block(finding{code: "MC-NVLINK-ERRORS", component: fmt.Sprintf("%s/nvlink/%d", name, l.Link), want: fmt.Sprintf("at most %g", most), got: fmt.Sprintf("%g", *l.EffectiveBER), do: "reset"},
				"%s: NVLink %d has an effective bit error rate of %g, more than %g%s", j.part(i), l.Link, *l.EffectiveBER, most, source)
			continue
		}
		if len(l.Errors) > 0 && j.said(fmt.Sprintf("%s/nvlink/%d", name, l.Link)) == nil {
			bad = append(bad, l.Link)
			for k, n := range l.Errors {
				kinds[k] += n
			}
		}
	}
	if len(bad) > 0 && j.said(name+"/nvlink") == nil {
		j.warn(finding{code: "MC-NVLINK-ERRORS", component: linkComponent(name, bad), want: "none", got: counters(kinds), do: "retest"},
			"%s: NVLink %s counted errors since the driver was loaded: %s", j.part(i), list(bad), counters(kinds))
	}
}

// counters prints what was counted, by name.
func counters(m map[string]int64) string {
	var out []string
	for k, n := range m {
		out = append(out, fmt.Sprintf("%s %d", k, n))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}
