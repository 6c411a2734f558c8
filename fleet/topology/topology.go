// Package topology draws what a machine is made of: NUMA nodes, PCIe switches, GPUs, HCAs, drives, NVSwitches and the links between them, with what is wrong marked.
//
// One layout serves the terminal, SVG and the API. The same inventory and differences give the same bytes.
package topology

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// States of a part, a link bundle or a whole.
const (
	OK      = "ok"
	Warning = "warning"
	Bad     = "bad"
)

// Layout is where everything is drawn: what belongs together, in which order.
type Layout struct {
	Title string `json:"title"`
	// Nodes are NUMA nodes that carry something; Empty those that do not.
	Nodes    []Node   `json:"numa_nodes"`
	Empty    []int    `json:"empty_numa_nodes,omitempty"`
	Switches []Part   `json:"nvswitches,omitempty"`
	Bundles  []Bundle `json:"nvlinks,omitempty"`
	// Absent are parts that differences tell of and the inventory does not show.
	Absent []Part `json:"absent,omitempty"`
	// Notes are the differences, blocking ones first.
	Notes []Note `json:"notes,omitempty"`
}

// Node is a NUMA node: its PCIe switches with what hangs below, and what hangs elsewhere. ID -1 is for parts whose node the firmware does not tell.
type Node struct {
	ID          int     `json:"id"`
	CPUs        string  `json:"cpus,omitempty"`
	MemoryBytes int64   `json:"memory_bytes,omitempty"`
	Groups      []Group `json:"groups,omitempty"`
	Others      []Part  `json:"others,omitempty"`
}

// Group is a PCIe switch with the rails that meet there.
type Group struct {
	Bridge string `json:"bridge,omitempty"` // PCI address, "" where nobody knows
	State  string `json:"state"`
	Rails  []Rail `json:"rails"`
}

// Rail is a GPU with what is nearest to it.
type Rail struct {
	Rail     int    `json:"rail"`
	GPU      Part   `json:"gpu"`
	HCA      *Part  `json:"hca,omitempty"`
	Drives   []Part `json:"drives,omitempty"`
	Distance string `json:"distance,omitempty"`
}

// Part is one box. Lines are what is written below its title.
type Part struct {
	Component string   `json:"component"`
	Kind      string   `json:"kind"` // gpu, hca, nic, drive, nvswitch, fabric
	Title     string   `json:"title"`
	Lines     []string `json:"lines,omitempty"`
	State     string   `json:"state"`
}

// Bundle is all links between one GPU and one switch. Chip is the place in Switches.
type Bundle struct {
	GPU       string  `json:"gpu"` // component
	Chip      int     `json:"chip"`
	Up        int     `json:"up"`
	Links     int     `json:"links"`
	SpeedGBps float64 `json:"speed_gbps,omitempty"` // of the slowest link that is up
	State     string  `json:"state"`
}

// Note is a difference as the picture's legend says it.
type Note struct {
	Component string `json:"component"`
	State     string `json:"state"`
	Words     string `json:"words"`
}

// Names say what only the caller knows: the component of a GPU by its place in the inventory, and the switch that a link leads to by the board's wiring
// where the driver does not tell.
type Names struct {
	GPU  func(i int) string
	Chip func(gpu, link int) (chip int, ok bool)
}

// Of lays out an inventory with its differences.
func Of(title string, inv fleet.Inventory, differences []fleet.Difference, names Names) Layout {
	b := &builder{inv: &inv, names: names, marks: map[string]string{}, drawn: map[string]bool{}}
	l := Layout{Title: title}
	for _, d := range differences {
		state := Bad
		if d.Blocks == fleet.BlocksNothing {
			state = Warning
		}
		if b.marks[d.Component] != Bad {
			b.marks[d.Component] = state
		}
		l.Notes = append(l.Notes, Note{d.Component, state, d.Words})
	}
	nodes := map[int]*Node{}
	for _, n := range inv.NUMANodes {
		nodes[n.ID] = &Node{ID: n.ID, CPUs: n.CPUs, MemoryBytes: n.MemoryBytes}
	}
	at := func(id int) *Node {
		if nodes[id] == nil {
			nodes[id] = &Node{ID: id}
		}
		return nodes[id]
	}
	b.groups(at)
	b.others(at)
	for _, n := range nodes {
		if len(n.Groups)+len(n.Others) == 0 {
			l.Empty = append(l.Empty, n.ID)
			continue
		}
		l.Nodes = append(l.Nodes, *n)
	}
	slices.Sort(l.Empty)
	slices.SortFunc(l.Nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	l.Switches, l.Bundles = b.fabric()
	for _, n := range l.Notes {
		if k, rest, ok := strings.Cut(n.Component, "/"); ok && !b.drawn[n.Component] && !strings.Contains(rest, "/") && slices.Contains([]string{"gpu", "hca", "disk", "rail"}, k) {
			b.drawn[n.Component] = true
			l.Absent = append(l.Absent, Part{Component: n.Component, Kind: k, Title: strings.Replace(strings.Replace(n.Component, "gpu/", "GPU ", 1), "/", " ", 1), State: n.State})
		}
	}
	return l
}

type builder struct {
	inv   *fleet.Inventory
	names Names
	marks map[string]string // by component of a difference
	drawn map[string]bool
}

// state is the worst of a component and of all below it.
func (b *builder) state(component string) string {
	s := OK
	for c, m := range b.marks {
		if c == component || strings.HasPrefix(c, component+"/") {
			if m == Bad {
				return Bad
			}
			s = m
		}
	}
	return s
}

func (b *builder) part(component, kind, title string, lines ...string) Part {
	b.drawn[component] = true
	return Part{Component: component, Kind: kind, Title: title, Lines: slices.DeleteFunc(lines, func(s string) bool { return s == "" }), State: b.state(component)}
}

func (b *builder) groups(at func(int) *Node) {
	rails := slices.Clone(b.inv.Rails)
	for i, g := range b.inv.GPUs {
		if !slices.ContainsFunc(rails, func(r fleet.Rail) bool { return r.GPU == g.PCIAddress }) {
			rails = append(rails, fleet.Rail{Rail: i, GPU: g.PCIAddress, NUMANode: g.NUMANode, Bridge: b.parent(g.PCIAddress)})
		}
	}
	slices.SortStableFunc(rails, func(x, y fleet.Rail) int { return cmp.Compare(x.Rail, y.Rail) })
	for _, r := range rails {
		i := slices.IndexFunc(b.inv.GPUs, func(g fleet.GPU) bool { return g.PCIAddress == r.GPU })
		if i < 0 {
			continue
		}
		out := Rail{Rail: r.Rail, GPU: b.gpu(i), Distance: r.Distance}
		if mark := b.marks[fmt.Sprintf("rail/%d", r.Rail)]; mark != "" {
			b.drawn[fmt.Sprintf("rail/%d", r.Rail)] = true
			if out.GPU.State == OK {
				out.GPU.State = Warning
			}
		}
		for k := range b.inv.HCAs {
			if b.inv.HCAs[k].Name == r.HCA && r.HCA != "" {
				p := b.hca(&b.inv.HCAs[k])
				out.HCA = &p
			}
		}
		for _, d := range b.inv.Disks {
			if slices.Contains(r.NVMe, d.Name) {
				out.Drives = append(out.Drives, b.drive(d))
			}
		}
		n := at(r.NUMANode)
		last := len(n.Groups) - 1
		if last < 0 || n.Groups[last].Bridge != r.Bridge || r.Bridge == "" {
			n.Groups = append(n.Groups, Group{Bridge: r.Bridge, State: b.state("pci/" + r.Bridge)})
			last++
		}
		n.Groups[last].Rails = append(n.Groups[last].Rails, out)
	}
}

func (b *builder) parent(address string) string {
	for _, p := range b.inv.PCI {
		if p.Address == address {
			return p.Parent
		}
	}
	return ""
}

func (b *builder) gpu(i int) Part {
	g := b.inv.GPUs[i]
	name := b.names.GPU(i)
	up := 0
	for _, l := range g.NVLinks {
		if l.State == fleet.LinkUp {
			up++
		}
	}
	links, bus := "", ""
	if len(g.NVLinks) > 0 {
		links = fmt.Sprintf("%d/%d NVLinks", up, len(g.NVLinks))
	}
	if l := g.PCIe; l != nil && l.Width > 0 {
		bus = fmt.Sprintf("gen%d x%d", max(l.MaxGeneration, l.Generation), l.Width)
	}
	what := strings.TrimPrefix(g.Model, "NVIDIA ")
	if g.Lost != "" {
		what = g.Lost
	} else if g.Index < 0 {
		what = "no driver"
	}
	if size := sizeText(g.MemoryBytes); size != "" {
		what += ", " + size
	}
	return b.part(name, "gpu", strings.Replace(name, "gpu/", "GPU ", 1), what, g.PCIAddress, bus, links)
}

func (b *builder) hca(h *fleet.HCA) Part {
	link := ""
	for _, p := range h.Ports {
		link = fmt.Sprintf("%g Gb/s %s", p.RateGbps, p.State)
		if p.State != "ACTIVE" {
			link = strings.TrimSpace(p.State + " " + p.PhysicalState)
		}
	}
	role := h.Role
	if h.Rail != nil {
		role = fmt.Sprintf("rail %d", *h.Rail)
	}
	return b.part("hca/"+h.Name, "hca", h.Name, role, link, h.PCIAddress)
}

func (b *builder) drive(d fleet.Disk) Part {
	return b.part("disk/"+d.Name, "drive", d.Name, sizeText(d.SizeBytes))
}

// others are HCAs and drives of no rail.
func (b *builder) others(at func(int) *Node) {
	for i := range b.inv.HCAs {
		if h := &b.inv.HCAs[i]; !b.drawn["hca/"+h.Name] {
			n := at(h.NUMANode)
			n.Others = append(n.Others, b.hca(h))
		}
	}
	for _, d := range b.inv.Disks {
		if !b.drawn["disk/"+d.Name] && !d.BootMedium && !d.Removable {
			n := at(d.NUMANode)
			n.Others = append(n.Others, b.drive(d))
		}
	}
	if len(b.inv.HCAs) > 0 {
		return
	}
	for _, c := range b.inv.NICs { // of a machine whose HCAs nobody read
		n := at(c.NUMANode)
		n.Others = append(n.Others, b.part("nic/"+c.Name, "nic", c.Name, string(c.MAC)))
	}
}

// fabric bundles NVLinks by GPU and switch. Where PCI shows no switch, one box stands for all of them.
func (b *builder) fabric() (switches []Part, bundles []Bundle) {
	chips := map[string]int{}
	all := slices.Clone(b.inv.NVSwitches)
	slices.SortFunc(all, func(x, y fleet.NVSwitch) int { return cmp.Compare(x.PCIAddress, y.PCIAddress) })
	for i, s := range all {
		chips[s.PCIAddress] = i
		switches = append(switches, b.part(fmt.Sprintf("nvswitch/%d", i), "nvswitch", fmt.Sprintf("NVSwitch %d", i), s.PCIAddress))
	}
	any := slices.ContainsFunc(b.inv.GPUs, func(g fleet.GPU) bool { return len(g.NVLinks) > 0 })
	if len(switches) == 0 && any {
		switches = append(switches, b.part("fabric", "fabric", "NVLink fabric", "its switches are not on PCI"))
	}
	for i, g := range b.inv.GPUs {
		name := b.names.GPU(i)
		by := map[int]*Bundle{}
		for _, l := range g.NVLinks {
			chip := 0
			if len(all) > 0 {
				known := false
				if l.Remote != nil {
					chip, known = chips[l.Remote.PCIAddress]
				}
				if !known && b.names.Chip != nil {
					chip, known = b.names.Chip(i, l.Link)
				}
				if !known || chip >= len(switches) {
					chip = len(all) - 1
				}
			}
			if by[chip] == nil {
				by[chip] = &Bundle{GPU: name, Chip: chip, State: OK}
			}
			x := by[chip]
			x.Links++
			if l.State == fleet.LinkUp {
				x.Up++
				if x.SpeedGBps == 0 || l.SpeedGBps < x.SpeedGBps {
					x.SpeedGBps = l.SpeedGBps
				}
			}
			if l.State == fleet.LinkDown || b.marks[fmt.Sprintf("%s/nvlink/%d", name, l.Link)] == Bad {
				x.State = Bad
			} else if x.State == OK && b.marks[fmt.Sprintf("%s/nvlink/%d", name, l.Link)] == Warning {
				x.State = Warning
			}
		}
		for chip := range switches {
			if by[chip] != nil {
				bundles = append(bundles, *by[chip])
			}
		}
	}
	return switches, bundles
}

// sizeText prints a size in decimal units, "" for none.
func sizeText(n int64) string {
	v, unit := float64(n), "B"
	for _, u := range []string{"kB", "MB", "GB", "TB"} {
		if v < 1000 {
			break
		}
		v, unit = v/1000, u
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%.3g %s", v, unit)
}
