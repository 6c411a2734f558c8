package gpu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// readNVIDIA fills in NVIDIA's GPUs. One child asks what concerns the machine; then one child a GPU, all at once, each opens its own GPU by PCI address only:
// what a GPU's driver does to its callers (hang, crash, a state from which no kill helps) stays with that GPU, needs no second try, and no call is made twice.
func (r *Reading) readNVIDIA(ctx context.Context, opts Options) {
	var mine []int // places in r.GPUs
	for i, g := range r.GPUs {
		if g.Vendor == "nvidia" {
			mine = append(mine, i)
		}
	}
	loaded := kernelDriver(opts.Files)
	if len(mine) == 0 && loaded == "" {
		return // nothing of NVIDIA's here
	}
	if loaded != "" {
		r.Driver = &fleet.GPUDriver{Name: "nvidia", Version: loaded}
	}
	if opts.Helper == nil {
		why := "this is a recording without what NVIDIA's library answers: GPUs are known by PCI only"
		if !WithNVIDIA {
			why = "this program was built without NVIDIA's library (CGO_ENABLED=0): GPUs are known by PCI only"
		}
		r.missing("gpus", "%s", why)
		return
	}
	surveyor, err := startChild(opts)
	if err != nil {
		r.missing("gpus", "the helper that asks NVIDIA's library cannot be started: %v", err)
		return
	}
	defer surveyor.end()
	var sum *survey
	var failed *failure
	err = surveyor.ask(ctx, request{Library: opts.Library, Survey: true}, func(m message) error {
		switch {
		case m.Survey != nil:
			sum = m.Survey
		case m.Failed != nil:
			failed = m.Failed
		case m.Missing != nil:
			r.missing("gpus "+m.Missing.What, "%s", m.Missing.Why)
		default:
			return errors.New("a message that does not belong to a survey")
		}
		return nil
	})
	switch {
	case failed != nil:
		r.missing("gpus", "%s", failed.Why)
		return
	case err != nil:
		r.missing("gpus", "NVIDIA's library does not answer: %v", err)
	case sum == nil:
		r.missing("gpus", "NVIDIA's library does not answer: the helper said nothing")
	}
	if sum != nil {
		r.Driver = &sum.Driver
	}
	if err != nil && (sum == nil || sum.Driver.Version == "") { // not even opened: nobody else would get further
		return
	}
	answers := make([]answer, len(mine))
	var all sync.WaitGroup
	for n, i := range mine {
		all.Go(func() {
			answers[n] = askGPU(ctx, opts, request{Library: opts.Library, PCI: r.GPUs[i].PCIAddress})
		})
	}
	all.Wait()
	for n, i := range mine {
		g := &r.GPUs[i]
		if a := answers[n]; a.gpu != nil {
			merge(g, *a.gpu)
		}
		g.Lost = answers[n].lost
	}
	if sum != nil {
		for i := range r.GPUs {
			if g := &r.GPUs[i]; g.Vendor == "nvidia" && g.Index >= 0 {
				g.Confidential = sum.Confidential
			}
		}
		answers = append(answers, r.unseen(ctx, opts, sum.GPUs, mine, answers)...)
	}
	r.report(answers)
	if err == nil {
		r.readPeers(ctx, surveyor)
	}
	r.fabricManager(opts.Files)
}

// answer is what became of asking for one GPU.
type answer struct {
	name    string // how it is called in Missing
	gpu     *fleet.GPU
	missing []fleet.Missing
	lost    string
}

// askGPU asks one GPU in a child of its own.
func askGPU(ctx context.Context, opts Options, req request) answer {
	a := answer{name: "gpu/" + req.PCI}
	c, err := startChild(opts)
	if err != nil {
		a.missing = append(a.missing, fleet.Missing{Why: fmt.Sprintf("the helper that asks NVIDIA's library cannot be started: %v", err)})
		return a
	}
	defer c.end()
	err = c.ask(ctx, req, func(m message) error {
		switch {
		case m.GPU != nil:
			if req.PCI != "" && m.GPU.PCIAddress != req.PCI {
				return fmt.Errorf("it was asked for %s and answers for %q", req.PCI, m.GPU.PCIAddress)
			}
			a.gpu = m.GPU
		case m.Missing != nil:
			a.missing = append(a.missing, *m.Missing)
		case m.Failed != nil:
			switch m.Failed.Kind {
			case failLost:
				a.lost = fleet.GPULostBus + ": " + m.Failed.Why
			case failNotFound:
				a.lost = fleet.GPULostUnknown + ": PCI shows it, the driver does not have it (" + m.Failed.Why + ")"
			default:
				a.lost = fleet.GPULostFailed + ": " + m.Failed.Why
			}
		default:
			return errors.New("a message that does not belong to a GPU")
		}
		return nil
	})
	var g *gone
	switch {
	case err == nil && a.gpu == nil && a.lost == "":
		a.lost = fleet.GPULostFailed + ": the helper said nothing"
	case errors.As(err, &g) && g.Hung:
		a.lost = fleet.GPULostHung + ": " + g.Error()
	case errors.As(err, &g):
		a.lost = fleet.GPULostCrashed + ": " + g.Error()
	case err != nil:
		a.missing = append(a.missing, fleet.Missing{Why: err.Error()})
	}
	if a.lost != "" {
		a.missing = append(a.missing, fleet.Missing{Why: a.lost})
	}
	if a.gpu != nil {
		a.name = "gpu/" + a.gpu.PCIAddress
	}
	return a
}

// unseen asks for GPUs that the driver counts and PCI does not show: by the indexes that nobody has.
func (r *Reading) unseen(ctx context.Context, opts Options, count int, mine []int, answers []answer) []answer {
	taken := map[int]bool{}
	addresses := map[string]bool{}
	silent := 0 // those that the driver has, but whose index nobody learnt
	for n, i := range mine {
		addresses[r.GPUs[i].PCIAddress] = true
		switch a := answers[n]; {
		case a.gpu != nil && a.gpu.Index >= 0:
			taken[a.gpu.Index] = true
		case !strings.HasPrefix(a.lost, fleet.GPULostUnknown):
			silent++
		}
	}
	if count <= len(taken)+silent {
		return nil
	}
	var out []answer
	for index := range count {
		if taken[index] {
			continue
		}
		a := askGPU(ctx, opts, request{Library: opts.Library, Index: index + 1})
		if a.gpu == nil && a.lost != "" && silent > 0 {
			silent-- // one of those that PCI does show, and that failed before
			continue
		}
		if a.gpu == nil {
			a.name = fmt.Sprintf("gpu/%d", index)
			out = append(out, a)
			continue
		}
		if addresses[a.gpu.PCIAddress] {
			continue
		}
		g := *a.gpu
		g.Vendor, g.NUMANode, g.Lost = "nvidia", -1, a.lost
		r.GPUs = append(r.GPUs, g)
		a.missing = append(a.missing, fleet.Missing{Why: fmt.Sprintf("the driver has it as GPU %d, PCI does not show it", index)})
		out = append(out, a)
	}
	return out
}

// merge puts what the driver said over what PCI said; the place and the NUMA node are PCI's.
func merge(g *fleet.GPU, said fleet.GPU) {
	pci := *g
	*g = said
	g.Vendor, g.PCIAddress, g.NUMANode = pci.Vendor, pci.PCIAddress, pci.NUMANode
	if g.Model == "" {
		g.Model = pci.Model
	}
	if g.PCIDevice == "" {
		g.PCIDevice = pci.PCIDevice
	}
	if g.PCISubsystem == "" {
		g.PCISubsystem = pci.PCISubsystem
	}
	if g.PCIe == nil {
		g.PCIe = pci.PCIe
	}
}

// report enters what GPUs did not tell: what none of several told alike stands once, for all of them.
func (r *Reading) report(answers []answer) {
	count, asked := map[fleet.Missing]int{}, 0
	for _, a := range answers {
		if a.gpu != nil {
			asked++
		}
		for _, m := range a.missing {
			count[m]++
		}
	}
	for _, a := range answers {
		for _, m := range a.missing {
			what := strings.TrimSpace(a.name + " " + m.What)
			if asked > 1 && count[m] == asked && m.What != "" {
				what = "gpus " + m.What
			}
			r.missing(what, "%s", m.Why)
		}
	}
}

// readPeers asks how the GPUs that answered reach each other.
func (r *Reading) readPeers(ctx context.Context, c *child) {
	byAddress := map[string]*fleet.GPU{}
	req := request{NVLink: true}
	for i := range r.GPUs {
		g := &r.GPUs[i]
		if g.Vendor != "nvidia" || g.Index < 0 || g.Lost != "" {
			continue
		}
		req.Peers = append(req.Peers, g.PCIAddress)
		byAddress[g.PCIAddress] = g
		req.NVLink = req.NVLink && len(g.NVLinks) > 0
	}
	if len(req.Peers) < 2 {
		return
	}
	err := c.ask(ctx, req, func(m message) error {
		switch {
		case m.Missing != nil:
			r.missing("gpus "+m.Missing.What, "%s", m.Missing.Why)
		case m.Peers != nil:
			for from, row := range m.Peers {
				g := byAddress[from]
				if g == nil {
					return fmt.Errorf("it answers for %s, which nobody asked for", from)
				}
				g.P2P = map[string]string{}
				for to, words := range row {
					peer := byAddress[to]
					if peer == nil {
						return fmt.Errorf("it answers for %s, which nobody asked for", to)
					}
					g.P2P[strconv.Itoa(peer.Index)] = words
				}
			}
		default:
			return errors.New("a message that does not belong to peers")
		}
		return nil
	})
	if err != nil {
		r.missing("gpus p2p", "%v", err)
	}
}

// kernelDriver is the version of NVIDIA's loaded kernel module, or "".
func kernelDriver(files sysfs.Tree) string {
	line, _, _ := strings.Cut(files.Try("proc/driver/nvidia/version"), "\n")
	for _, f := range strings.Fields(line) {
		if strings.Count(f, ".") >= 1 && strings.Trim(f, "0123456789.") == "" {
			return f
		}
	}
	return ""
}

// fabricManager is the process's name, as long as the kernel keeps it.
const fabricManager = "nv-fabricmanage"

// fabricManager looks for the process that manages the NVLinks between GPUs: it is running, or absent. GPUs that are registered with one that does not show here,
// as it runs in another system, say nothing of it. Whether this machine needs one of its own follows from its switches, which are not GPUs.
func (r *Reading) fabricManager(files sysfs.Tree) {
	linked := slices.ContainsFunc(r.GPUs, func(g fleet.GPU) bool { return len(g.NVLinks) > 0 })
	if !linked || r.Driver == nil {
		return
	}
	if !slices.ContainsFunc(r.GPUs, func(g fleet.GPU) bool { return g.Fabric != nil && g.Fabric.State == "completed" }) {
		r.Driver.FabricManager = "absent"
	}
	// A recording keeps the one process that is looked for, and none of the others.
	aside := files.Aside()
	names, err := aside.List("proc")
	if err != nil {
		r.missing("gpu_driver fabric_manager", "%v", err)
	}
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		if comm := aside.Try("proc", name, "comm"); comm == fabricManager { // comm has 15 bytes
			files.Keep("proc/"+name+"/comm", []byte(comm+"\n"))
			r.Driver.FabricManager = "running"
		}
	}
}
