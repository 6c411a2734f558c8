package agent

import (
	"context"
	"fmt"
	"path"
	"strings"
	"sync"

	"github.com/metalctl/metalctl/agent/disk"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// erasedDisk is the evidence of one erased disk, short enough for the journal; the whole of it is in the attachment.
type erasedDisk struct {
	Serial string     `json:"serial"`
	Method string     `json:"method"`
	Claim  disk.Claim `json:"claim"`
	// SampledBytes were read back after the erasure.
	SampledBytes int64 `json:"sampled_bytes"`
}

// eraseDisks erases the accepted disks and nothing else. Every difference between what was accepted and what is there is a fault and fails the step, after
// the accepted disks were handled.
func (m *machine) eraseDisks(ctx context.Context, c step.Call) (step.Outcome, error) {
	var p step.EraseParams
	if err := decodeParams(c, &p); err != nil {
		return step.Outcome{}, err
	}
	level := disk.Claim(p.Level)
	if level != disk.Clear && level != disk.Purge {
		return step.Outcome{}, fleet.Errorf(fleet.Invalid, "MC-AGENT-TASK", "the level %q of %s is neither %s nor %s", p.Level, c.Step, disk.Clear, disk.Purge)
	}
	present, err := m.present(ctx)
	if err != nil {
		return step.Outcome{}, err
	}
	var accepted []disk.Accepted
	for _, a := range p.Accepted {
		accepted = append(accepted, disk.Accepted{Serial: a.Serial, Model: a.Model, SizeBytes: a.SizeBytes})
	}
	total := newTotal(c, present, p.Accepted)
	report, err := disk.EraseAll(ctx, accepted, present, disk.EraseOptions{
		Policy: disk.ErasePolicy{Level: level, AcceptFormat: p.AcceptFormat}, Admin: m.Admin, Now: m.Now,
		Progress: func(d disk.Device, p disk.Progress) { total.set(d.Path, p) },
	})
	out := step.Outcome{Attachment: report}
	evidence := []erasedDisk{}
	m.mu.Lock()
	for _, e := range report.Evidence {
		m.erased[e.Path+" "+e.Serial] = e
		evidence = append(evidence, erasedDisk{e.Serial, e.Method, e.Claim, e.SampledBytes})
	}
	m.mu.Unlock()
	if len(evidence) <= 24 {
		out.Evidence = map[string]any{"erased": evidence}
	} else {
		out.Evidence = map[string]any{"erased_disks": len(evidence)} // the list is in the attachment
	}
	for _, f := range report.Faults {
		out.Faults = append(out.Faults, m.eraseFault(f))
	}
	return out, err
}

func acceptedSerial(list []fleet.AcceptedDevice, serial string) bool {
	for _, a := range list {
		if a.Serial != "" && a.Serial == serial {
			return true
		}
	}
	return false
}

// eraseFault turns what kept a disk from being erased into a fault of the node.
func (m *machine) eraseFault(f disk.Fault) fleet.Fault {
	out := fleet.Fault{
		Code: "MC-FAULT-ERASE-FAILED", Component: "disk/" + f.Serial, Severity: fleet.Critical, Since: m.Now().UTC(), Blocks: fleet.BlocksAllocate,
		Evidence: f.Code + ": " + f.Message, Hint: "metalctl node clean NODE; if it stays, replace the disk",
	}
	if f.Serial == "" {
		out.Component = "disk/" + path.Base(f.Path)
	}
	switch f.Code {
	case "MC-ERASE-UNEXPECTED":
		out.Code, out.Hint = "MC-DEVICE-UNEXPECTED", "metalctl node inspect NODE, then: metalctl node accept NODE"
	case "MC-ERASE-MISSING":
		out.Code, out.Hint = "MC-DEVICE-MISSING", "look for the disk; without it: metalctl node accept NODE"
	}
	if len(out.Evidence) > 300 {
		out.Evidence = strings.ToValidUTF8(out.Evidence[:297], "") + "..."
	}
	return out
}

// total adds up the progress of disks that are worked on side by side.
type total struct {
	call step.Call

	mu    sync.Mutex
	all   int64                    // the bytes of all disks
	disks map[string]disk.Progress // guarded by mu
}

func newTotal(c step.Call, present []disk.Device, accepted []fleet.AcceptedDevice) *total {
	t := &total{call: c, disks: map[string]disk.Progress{}}
	for _, d := range present {
		if acceptedSerial(accepted, d.Serial) && !d.BootMedium {
			t.all += d.SizeBytes
		}
	}
	return t
}

func (t *total) set(path string, p disk.Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.disks[path]; p.Stage != "erase" {
		p = disk.Progress{Stage: p.Stage, DoneBytes: old.TotalBytes, TotalBytes: old.TotalBytes} // the erasing itself is over
	}
	t.disks[path] = p
	done, sampling := int64(0), 0
	for _, d := range t.disks {
		done += d.DoneBytes
		if d.Stage != "erase" {
			sampling++
		}
	}
	stage := fmt.Sprintf("erasing %d disks", len(t.disks)-sampling)
	if sampling == len(t.disks) {
		stage = fmt.Sprintf("reading samples of %d disks", sampling)
	}
	t.call.Progress(stage, done, t.all)
}

// verifyErase looks again, apart from the erasure: both ends of every accepted disk show no signature, and samples read as the method leaves them. A disk
// that this boot did not erase must read as zeros: nobody remembers a method that leaves anything else.
func (m *machine) verifyErase(ctx context.Context, c step.Call) (step.Outcome, error) {
	var p step.EraseParams
	if err := decodeParams(c, &p); err != nil {
		return step.Outcome{}, err
	}
	present, err := m.present(ctx)
	if err != nil {
		return step.Outcome{}, err
	}
	type checked struct {
		Serial  string `json:"serial"`
		Bytes   int64  `json:"sampled_bytes"`
		Reading string `json:"reads_as"`
	}
	list := []checked{}
	out := step.Outcome{}
	for i, a := range p.Accepted {
		found := false
		for _, d := range present {
			if a.Serial == "" || d.Serial != a.Serial || d.BootMedium {
				continue
			}
			found = true
			c.Progress("reading "+d.Path, int64(i), int64(len(p.Accepted)))
			m.mu.Lock()
			how, known := m.erased[d.Path+" "+d.Serial]
			m.mu.Unlock()
			random := known && !how.SampledZero
			n, bad, err := m.looksErased(ctx, d, random)
			if err != nil {
				return step.Outcome{}, err
			}
			if bad != "" {
				f := m.eraseFault(disk.Fault{Code: "MC-ERASE-VERIFY", Path: d.Path, Serial: d.Serial, Message: bad})
				f.Code = "MC-FAULT-DATA-LEFT"
				out.Faults = append(out.Faults, f)
				continue
			}
			reading := "zeros"
			if random {
				reading = "what " + how.Method + " leaves"
			}
			list = append(list, checked{d.Serial, n, reading})
		}
		if !found {
			out.Faults = append(out.Faults, m.eraseFault(disk.Fault{Code: "MC-ERASE-MISSING", Serial: a.Serial, Message: "accepted, but not here: it left with whatever is on it, or does not answer"}))
		}
	}
	out.Evidence = map[string]any{"verified": list}
	if len(out.Faults) > 0 {
		return out, fleet.Errorf(fleet.Broken, "MC-ERASE-VERIFY", "%d disks are shown to be erased, %d are not: %s", len(list), len(out.Faults), out.Faults[0].Evidence).
			WithHint("erase them again: metalctl node clean NODE")
	}
	return out, nil
}

// looksErased returns how many bytes were read and, where the disk does not look erased, why.
func (m *machine) looksErased(ctx context.Context, d disk.Device, random bool) (int64, string, error) {
	names, err := disk.Signatures(d)
	if err != nil {
		return 0, "", err
	}
	if len(names) > 0 {
		return 0, "signatures are left: " + strings.Join(names, ", "), nil
	}
	return sample(ctx, d, random)
}
