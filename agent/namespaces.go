package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/metalctl/metalctl/agent/disk"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// restoreNamespaces brings every accepted NVMe drive back to the namespaces that were accepted: a tenant may have split, resized, detached or deleted them.
// It comes before anything looks at the disks.
func (m *machine) restoreNamespaces(ctx context.Context, c step.Call) (step.Outcome, error) {
	var p step.NamespacesParams
	if err := decodeParams(c, &p); err != nil {
		return step.Outcome{}, err
	}
	want := map[string][]disk.Namespace{}
	var serials []string
	for _, a := range p.Accepted {
		if a.BlockBytes == 0 || a.SizeBytes == 0 || a.Serial == "" {
			continue
		}
		if want[a.Serial] == nil {
			serials = append(serials, a.Serial)
		}
		want[a.Serial] = append(want[a.Serial], disk.Namespace{SizeBytes: a.SizeBytes, BlockBytes: a.BlockBytes})
	}
	drives, err := m.controllers()
	if err != nil {
		return step.Outcome{}, err
	}
	did, out := []disk.Restored{}, step.Outcome{}
	changed := 0
	for i, serial := range serials {
		dev, ok := drives[serial]
		if !ok {
			continue // that it is missing, or no NVMe drive of this machine's own, is found by those who compare
		}
		dev.SizeBytes = 0
		for _, n := range want[serial] {
			dev.SizeBytes += n.SizeBytes
		}
		c.Progress("looking at the namespaces of "+serial, int64(i), int64(len(serials)))
		open := m.Admin
		if open == nil {
			open = disk.OpenController
		}
		r, err := disk.RestoreNamespaces(ctx, dev, want[serial], disk.EraseOptions{Admin: open, Now: m.Now, Progress: func(_ disk.Device, p disk.Progress) {
			c.Progress("waiting for the sanitize of "+serial, p.DoneBytes, p.TotalBytes)
		}})
		if err == nil && len(r.Did) > 0 {
			changed++
			err = m.seen(ctx, dev, len(want[serial]))
		}
		if ctx.Err() != nil {
			return step.Outcome{}, ctx.Err()
		}
		if err != nil {
			out.Faults = append(out.Faults, fleet.Fault{Code: "MC-FAULT-NAMESPACES", Component: "disk/" + serial, Severity: fleet.Critical, Since: m.Now().UTC(), Blocks: fleet.BlocksAllocate,
				Evidence: shorten(err.Error(), 300), Hint: "metalctl node retry NODE; where they are meant to be so: metalctl node inspect NODE, then: metalctl node accept NODE"})
			if r.Did == nil {
				r.Did = []string{}
			}
			r.Did = append(r.Did, "failed: "+err.Error())
		}
		did = append(did, r)
	}
	out.Attachment = map[string]any{"namespaces": did}
	out.Evidence = map[string]any{"drives": len(did), "restored": changed, "failed": len(out.Faults)}
	if n := len(out.Faults); n > 0 {
		out.Faults = out.Faults[:min(n, 8)]
		return out, fleet.Errorf(fleet.Broken, "MC-NVME-NAMESPACES", "%d drives do not have the namespaces that were accepted, first %s: %s", n, out.Faults[0].Component, out.Faults[0].Evidence).
			WithHint("metalctl node show NODE")
	}
	return out, nil
}

// controllers are the NVMe drives of this machine by serial number, one controller of each. A machine that is described has those that Controllers lists.
func (m *machine) controllers() (map[string]disk.Device, error) {
	out := map[string]disk.Device{}
	if m.Controllers != nil {
		list, err := m.Controllers()
		for _, d := range list {
			out[d.Serial] = d
		}
		return out, err
	}
	if m.Disks != nil || m.Inspect.Disks != nil {
		return out, nil
	}
	list, err := disk.Controllers(filepath.Join("/", m.Inspect.Root))
	for _, d := range list {
		if _, twice := out[d.Serial]; !twice {
			out[d.Serial] = d
		}
	}
	return out, err
}

// seen waits until the kernel shows as many disks of a drive as it has namespaces.
func (m *machine) seen(ctx context.Context, dev disk.Device, n int) error {
	if m.Controllers == nil {
		if err := disk.Rescan(dev); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, rescanLimit)
	defer cancel()
	again := time.NewTicker(rescanLimit / 100)
	defer again.Stop()
	for {
		present, err := m.present(ctx)
		if err != nil {
			return err
		}
		have := 0
		for _, d := range present {
			if d.Serial == dev.Serial {
				have++
			}
		}
		if have == n {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("the kernel shows %d disks of the drive %s, which has %d namespaces now", have, dev.Serial, n)
		}
	}
}

// rescanLimit is how long a kernel may take to show what a drive has.
const rescanLimit = 30 * time.Second
