package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// linkTrouble is one way in which links of a part are wrong; links of one part that share it are one difference.
type linkTrouble struct {
	part, code, want, got, do string
	blocks                    bool
	words                     string
}

// boardLinks judges the graph of NVLinks by both of their ends, and against what the driver says of the GPU's end.
func (j *boardJudge) boardLinks() {
	dark := j.darkBoardSwitches()
	links := map[linkTrouble][]int{}
	var order []linkTrouble
	for _, l := range j.b.Links {
		if l.B != nil && j.byName[l.A.Part] == "" && j.byName[l.B.Part] != "" {
			l.A, l.B = *l.B, &l.A // the GPU's end first
		}
		name := j.portOwner(l.A.Part)
		if j.explained(name) || j.ofGone(l) || l.B != nil && dark[l.B.Part] {
			continue
		}
		t := j.trouble(l)
		if t.code == "" {
			continue
		}
		t.part = name
		if links[t] == nil {
			order = append(order, t)
		}
		links[t] = append(links[t], l.A.Port)
	}
	for _, t := range order {
		ports := links[t]
		slices.Sort(ports)
		f := finding{code: t.code, component: linkComponent(t.part, ports), want: t.want, got: t.got, do: t.do}
		report := j.warn
		if t.blocks {
			report = j.block
		}
		report(f, "%s: NVLink %s: %s", strings.Replace(strings.TrimPrefix(t.part, "board/"), "gpu/", "GPU ", 1), list(ports), t.words)
	}
}

// trouble is what is wrong with one link; no code: nothing.
func (j *boardJudge) trouble(l fleet.BoardLink) linkTrouble {
	far := fleet.LinkUnknown
	if l.B != nil {
		far = l.B.State
	}
	down := func(s string) bool { return s == fleet.LinkDown || s == fleet.LinkDisabled }
	t := linkTrouble{want: "up"}
	switch {
	case l.Doubt == fleet.LinkOneSided:
		t.code, t.want, t.got, t.do, t.words = "MC-BOARD-LINK-ENDS", "two ends", "one", "retest", "the BMC shows this end only; the other end is not there"
		t.blocks = down(l.A.State)
	case l.Doubt == fleet.LinkDisagree:
		t.code, t.want, t.got, t.do, t.words = "MC-BOARD-LINK-ENDS", "ends that agree", "another peer", "retest", "the other end says that it leads elsewhere"
	case down(l.A.State) && (far == fleet.LinkUp) || l.A.State == fleet.LinkUp && down(far):
		t.code, t.got, t.do, t.blocks = "MC-BOARD-LINK-ENDS", "down on one side", "reset", true
		t.words = fmt.Sprintf("it is %s at the GPU and %s at the other end", l.A.State, far)
	case down(l.A.State) || down(far):
		t.code, t.got, t.do, t.blocks, t.words = "MC-BOARD-LINK-DOWN", "down", "reset", true, "down by the BMC"
	case slowPort(l.A) || l.B != nil && slowPort(*l.B):
		t.code, t.got, t.do, t.blocks = "MC-BOARD-LINK-SLOW", fmt.Sprintf("%g Gbit/s", l.A.Gbps), "reset", true
		if !slowPort(l.A) {
			t.got = fmt.Sprintf("%g Gbit/s", l.B.Gbps)
		}
		t.want = fmt.Sprintf("%g Gbit/s", max(l.A.MaxGbps, l.A.Gbps))
		t.words = "it runs at " + t.got + ", not at " + t.want
	case l.A.State == fleet.LinkUp && down(j.hostLink(l.A)):
		t.code, t.got, t.do, t.words = "MC-BOARD-LINK-HOST", "down by the driver", "retest", "up by the BMC, and down by the driver at the inspection"
	}
	return t
}

func slowPort(p fleet.BoardPort) bool {
	return p.State == fleet.LinkUp && p.Gbps > 0 && p.MaxGbps > 0 && p.Gbps < p.MaxGbps*0.99
}

// hostLink is what the driver said of a GPU's link, LinkUnknown where it did not.
func (j *boardJudge) hostLink(p fleet.BoardPort) string {
	for i, g := range j.b.GPUs {
		if k := j.host[i]; g.Name == p.Part && k >= 0 {
			for _, l := range j.inv.GPUs[k].NVLinks {
				if l.Link == p.Port {
					return l.State
				}
			}
		}
	}
	return fleet.LinkUnknown
}

func (j *boardJudge) portOwner(part string) string {
	if n := j.byName[part]; n != "" {
		return n
	}
	return "board/" + part
}

// ofGone tells a link whose other end is at a GPU that is not there: that follows from the GPU.
func (j *boardJudge) ofGone(l fleet.BoardLink) bool {
	far, _, _ := strings.Cut(l.A.Peer, "/")
	if l.B != nil {
		far = l.B.Part
	}
	if n := j.byName[far]; n != "" {
		return j.explained(n)
	}
	if len(j.b.GPUs) == 0 || j.b.GPUs[0].Number < 0 {
		return false
	}
	stem := strings.TrimRight(j.b.GPUs[0].Name, "0123456789")
	digits, isGPU := strings.CutPrefix(far, stem)
	n := 0
	if _, err := fmt.Sscanf(digits, "%d", &n); !isGPU || err != nil {
		return false
	}
	return j.explained(fmt.Sprintf("gpu/%d", n+j.offset))
}

// darkBoardSwitches finds switches all of whose links to two GPUs or more are down, and reports each once.
func (j *boardJudge) darkBoardSwitches() map[string]bool {
	up, gpus := map[string]int{}, map[string]map[string]int{}
	for _, l := range j.b.Links {
		if l.B == nil {
			continue
		}
		a, b := l.A, *l.B
		if j.byName[a.Part] == "" {
			a, b = b, a
		}
		if j.byName[a.Part] == "" || j.byName[b.Part] != "" {
			continue // between switches, or between GPUs
		}
		if gpus[b.Part] == nil {
			gpus[b.Part] = map[string]int{}
		}
		if a.State != fleet.LinkDown || b.State == fleet.LinkUp {
			up[b.Part]++
		}
		gpus[b.Part][a.Part]++
	}
	dark := map[string]bool{}
	var names []string
	for s := range gpus {
		if up[s] == 0 && len(gpus[s]) > 1 {
			dark[s] = true
			names = append(names, s)
		}
	}
	slices.Sort(names)
	for _, s := range names {
		n := 0
		for _, c := range gpus[s] {
			n += c
		}
		j.block(finding{code: "MC-BOARD-LINK-DOWN", component: "board/" + s, want: "up", got: "down", do: "cold-cycle"}, "all %d links of %s, to %d GPUs, are down by the BMC: the switch and not the GPUs", n, s, len(gpus[s]))
	}
	return dark
}
