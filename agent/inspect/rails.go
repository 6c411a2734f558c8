package inspect

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Distances between two functions, nearest first, in the words of NVIDIA's topology matrix: one switch, several switches, one host bridge, one NUMA node,
// and anything farther.
var distances = []string{"PIX", "PXB", "PHB", "NODE", "SYS"}

const (
	withinSwitch = 1 // PIX and PXB: traffic does not reach the processor
	farthest     = 4
)

// spot is where a function sits: the path from its host bridge on, as the kernel's folders have it.
type spot struct {
	address string
	path    []string // host bridge such as pci0000:15, then PCI addresses down to its own
	numa    int
}

// spotOf finds a function's place; ok is false for what the tree does not show.
func (r *reading) spotOf(address string) (s spot, ok bool) {
	fs := r.treeOf(address)
	device := fs.Device("sys/bus/pci/devices", address)
	parts := strings.Split(device, "/")
	for i, p := range parts {
		// Virtual machines hang each device below a host bridge of its own, far down a path of other buses; a VMD's begins anew below a function.
		if host, found := strings.CutPrefix(p, "pci"); found && strings.Count(host, ":") == 1 {
			s.path = parts[i:]
		}
	}
	s.address, s.numa = address, int(fs.NumberOr(-1, "sys/bus/pci/devices", address, "numa_node"))
	return s, len(s.path) > 0
}

// distance says how two functions meet: an index into distances, and the bridge where their paths part, "" where that is no PCI function.
func distance(a, b spot, nodes int) (rank int, bridge string) {
	common := 0
	for common < len(a.path) && common < len(b.path) && a.path[common] == b.path[common] {
		common++
	}
	switch {
	case common == 0:
		if a.numa == b.numa && (a.numa >= 0 || nodes <= 1) {
			return 3, ""
		}
		return 4, ""
	case common == 1:
		return 2, ""
	}
	bridge = a.path[common-1]
	// Below one switch each has a port of it and itself; what is longer goes through a further switch.
	if len(a.path)-common <= 2 && len(b.path)-common <= 2 {
		return 0, bridge
	}
	return 1, bridge
}

// readRails finds what is nearest to each GPU, and so the role of each HCA that does not tell its own.
func (r *reading) readRails(context.Context) {
	gpus := r.gpuSpots()
	m := railMap{nodes: len(r.inv.NUMANodes), gpus: gpus}
	index := map[string]int{}
	for i, h := range r.inv.HCAs {
		index[h.PCIAddress] = i
		if s, ok := r.spotOf(h.PCIAddress); ok && h.Role == "" {
			m.hcas = append(m.hcas, s)
		}
	}
	sortSpots(m.hcas)
	if !m.near() {
		m.hcas = slices.DeleteFunc(m.hcas, func(s spot) bool { return !r.oneForEach(index[s.address], len(gpus)) })
	}
	rails := m.rails()
	for _, h := range m.hcas {
		if n, ok := m.railOf[h.address]; ok {
			hca := &r.inv.HCAs[index[h.address]]
			hca.Role, hca.Rail = fleet.HCARail, &n
		}
	}
	for i := range r.inv.HCAs {
		if r.inv.HCAs[i].Role == "" {
			r.inv.HCAs[i].Role = fleet.HCAStorage
		}
	}
	var drives []spot
	names := map[string]string{}
	for _, d := range r.inv.Disks {
		if s, ok := r.spotOf(d.PCIAddress); ok && d.Transport == "nvme" {
			drives = append(drives, s)
			names[d.PCIAddress] = d.Name
		}
	}
	sortSpots(drives)
	m.place(rails, drives, names)
	for i := range rails {
		if address := rails[i].HCA; address != "" {
			rails[i].HCA = r.inv.HCAs[index[address]].Name
		}
	}
	r.inv.Rails = rails
}

// gpuSpots are the GPUs that there are: those that a driver shows and those that only PCI does.
func (r *reading) gpuSpots() []spot {
	var out []spot
	for _, p := range r.inv.PCI {
		if !accelerator(p) {
			continue
		}
		if s, ok := r.spotOf(p.Address); ok {
			out = append(out, s)
		}
	}
	sortSpots(out)
	return out
}

// accelerator reports whether a function computes: 3D controllers (0302) and processing accelerators (1200). What draws on a screen is none, but for NVIDIA's
// and AMD's cards, which say VGA where they have an output.
func accelerator(p fleet.PCI) bool {
	vga := strings.HasPrefix(p.Class, "0300") && (p.Vendor == "10de" || p.Vendor == "1002")
	return vga || strings.HasPrefix(p.Class, "0302") || strings.HasPrefix(p.Class, "1200")
}

// sortSpots sorts by address; domains of more digits come behind.
func sortSpots(s []spot) {
	slices.SortFunc(s, func(a, b spot) int { return cmp.Or(len(a.address)-len(b.address), cmp.Compare(a.address, b.address)) })
}

// oneForEach reports whether an HCA is one of as many alike as there are GPUs: where no switch joins them, as in virtual machines, that tells rails from
// the rest.
func (r *reading) oneForEach(i, gpus int) bool {
	kind := func(h fleet.HCA) [2]string {
		k := [2]string{h.Type + " " + h.PCIDevice, ""}
		if len(h.Ports) > 0 {
			k[1] = h.Ports[0].LinkLayer
		}
		return k
	}
	alike := 0
	for _, h := range r.inv.HCAs {
		if h.Role == "" && kind(h) == kind(r.inv.HCAs[i]) {
			alike++
		}
	}
	return alike == gpus
}

// railMap pairs GPUs with what is nearest to them.
type railMap struct {
	nodes      int
	gpus, hcas []spot // sorted by address
	railOf     map[string]int
}

// near reports whether any HCA shares a switch with a GPU.
func (m *railMap) near() bool {
	for _, g := range m.gpus {
		for _, h := range m.hcas {
			if rank, _ := distance(g, h, m.nodes); rank <= withinSwitch {
				return true
			}
		}
	}
	return false
}

// rails gives each GPU its HCA, by address for now. The nearest pairs come first; among equals, the first GPU gets the first HCA that is free. A GPU that is
// left over shares an HCA at its own switch; an HCA that is left over at a GPU's switch belongs to that GPU's rail, too.
func (m *railMap) rails() []fleet.Rail {
	m.railOf = map[string]int{}
	if len(m.gpus) == 0 {
		return nil
	}
	rails := make([]fleet.Rail, len(m.gpus))
	for i, g := range m.gpus {
		rails[i] = fleet.Rail{Rail: i, GPU: g.address, NUMANode: g.numa}
	}
	most := withinSwitch
	if !m.near() {
		most = farthest
	}
	join := func(i int, h spot, rank int, bridge string) {
		rails[i].HCA, rails[i].Distance, rails[i].Bridge = h.address, distances[rank], bridge
		if _, taken := m.railOf[h.address]; !taken {
			m.railOf[h.address] = i
		}
	}
	for _, share := range []bool{false, true} {
		for want := 0; want <= most; want++ {
			for i, g := range m.gpus {
				if rails[i].HCA != "" || share && want > withinSwitch {
					continue
				}
				for _, h := range m.hcas {
					_, taken := m.railOf[h.address]
					if rank, bridge := distance(g, h, m.nodes); rank == want && taken == share {
						join(i, h, rank, bridge)
						break
					}
				}
			}
		}
	}
	for _, h := range m.hcas {
		if _, taken := m.railOf[h.address]; !taken {
			if i, rank := m.nearest(h, nil); rank <= withinSwitch {
				m.railOf[h.address] = i
			}
		}
	}
	return rails
}

// nearest is the GPU nearest to s; among equals the one that load says has least, then the first.
func (m *railMap) nearest(s spot, load []int) (gpu, rank int) {
	gpu, rank = -1, farthest+1
	for i, g := range m.gpus {
		d, _ := distance(g, s, m.nodes)
		if d < rank || d == rank && load != nil && load[i] < load[gpu] {
			gpu, rank = i, d
		}
	}
	return gpu, rank
}

// place puts the drives that share a switch with a GPU into its rail, evenly where several GPUs are as near.
func (m *railMap) place(rails []fleet.Rail, drives []spot, names map[string]string) {
	load := make([]int, len(m.gpus))
	for _, d := range drives {
		if i, rank := m.nearest(d, load); rank <= withinSwitch {
			load[i]++
			rails[i].NVMe = append(rails[i].NVMe, names[d.address])
		}
	}
}
