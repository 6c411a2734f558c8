package gpu

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/metalctl/metalctl/fleet"
)

// Clean puts every NVIDIA GPU among the functions of PCI back as want says, reads each setting back, and looks for what a tenant left running. Each GPU has
// a child of its own, as in Read. Nothing is done, and Unseen says why, where there is no driver.
func Clean(ctx context.Context, opts Options, pci []fleet.PCI, want fleet.CleanGPUs) fleet.GPUCleaning {
	opts, want = opts.filled(), want.Filled()
	var mine []string
	others := 0
	for _, p := range pci {
		switch {
		case !accelerator(p):
		case p.Vendor == vendorNVIDIA:
			mine = append(mine, p.Address)
		default:
			others++
		}
	}
	driver, why, none := opts.driver(ctx)
	switch {
	case len(mine)+others == 0:
		return fleet.GPUCleaning{Unseen: "PCI shows no GPU"}
	case len(mine) == 0:
		return fleet.GPUCleaning{Unseen: "only NVIDIA's GPUs can be put back, and there is none"}
	case none:
		return fleet.GPUCleaning{Unseen: "no driver: " + why}
	case why != "":
		return fleet.GPUCleaning{Unseen: "the driver did not answer: " + why, Failed: true}
	}
	out := fleet.GPUCleaning{Driver: driver, GPUs: make([]fleet.GPUCleaned, len(mine))}
	var all sync.WaitGroup
	for i, address := range mine {
		all.Go(func() {
			out.GPUs[i] = cleanGPU(ctx, opts, request{Library: opts.Library, PCI: address, Clean: &want})
		})
	}
	all.Wait()
	return out
}

// driver asks for the driver's version, or says why it cannot be asked; none: because there is none.
func (o Options) driver(ctx context.Context) (version, why string, none bool) {
	if o.Helper == nil {
		return "", "nothing here answers as NVIDIA's library", true
	}
	c, err := startChild(o)
	if err != nil {
		return "", fmt.Sprintf("the helper cannot be started: %v", err), false
	}
	defer c.end()
	err = c.ask(ctx, request{Library: o.Library, Survey: true}, func(m message) error {
		switch {
		case m.Survey != nil:
			version = m.Survey.Driver.Version
		case m.Failed != nil:
			why, none = m.Failed.Why, m.Failed.Kind == failLibrary || m.Failed.Kind == failDriver
		}
		return nil
	})
	if why == "" && version == "" {
		why = "NVIDIA's library does not answer"
		if err != nil {
			why += ": " + err.Error()
		}
	}
	return version, why, none
}

// cleanGPU has one GPU put back by a child of its own. One that is not gone through whole has a fault that says where it ended.
func cleanGPU(ctx context.Context, opts Options, req request) fleet.GPUCleaned {
	out := fleet.GPUCleaned{PCIAddress: req.PCI, Index: -1}
	c, err := startChild(opts)
	if err != nil {
		out.Faults = append(out.Faults, fmt.Sprintf("the helper cannot be started: %v", err))
		return out
	}
	defer c.end()
	failed := ""
	err = c.ask(ctx, req, func(m message) error {
		switch {
		case m.Cleaned != nil && m.Cleaned.PCIAddress != req.PCI:
			return fmt.Errorf("it was asked for %s and answers for %q", req.PCI, m.Cleaned.PCIAddress)
		case m.Cleaned != nil:
			out = *m.Cleaned
		case m.Failed != nil:
			failed = m.Failed.Why
		case m.Missing != nil: // of who it is; what counts is among the faults
		default:
			return errors.New("a message that does not belong to a GPU that is cleaned")
		}
		return nil
	})
	switch {
	case failed != "":
		out.Faults, out.Whole = append(out.Faults, failed), false
	case err != nil:
		out.Faults, out.Whole = append(out.Faults, err.Error()), false
	case !out.Whole:
		out.Faults = append(out.Faults, "the helper ended before it had gone through all")
	}
	return out
}
