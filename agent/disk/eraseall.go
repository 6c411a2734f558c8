package disk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/metalctl/metalctl/fleet"
)

// Accepted is a disk that a person agreed to have erased when the node was inspected.
type Accepted struct {
	Serial string `json:"serial"`
	// Model and SizeBytes must be the same, too, where they are given.
	Model     string `json:"model,omitempty"`
	SizeBytes int64  `json:"size_bytes,omitempty"`
}

// Fault is a disk that is not clean, or not what was agreed on; whoever sees one must not go on as if the node were clean.
type Fault struct {
	// Code is MC-ERASE-UNEXPECTED, MC-ERASE-MISSING, MC-ERASE-IDENTITY, MC-DISK-BUSY, or what Erase failed with.
	Code    string `json:"code"`
	Path    string `json:"path,omitempty"`
	Serial  string `json:"serial,omitempty"`
	Message string `json:"message"`
}

// EraseReport is what EraseAll did.
type EraseReport struct {
	Evidence []Evidence `json:"evidence"`
	Faults   []Fault    `json:"faults,omitempty"`
}

// EraseAll erases, side by side, every disk that was accepted, and nothing else: a disk that nobody agreed on, the medium that the agent was booted from, and
// whatever is in use are not touched. Any fault makes the error MC-ERASE-INCOMPLETE beside the report: the node is clean only where err is nil.
func EraseAll(ctx context.Context, accepted []Accepted, present []Device, o EraseOptions) (EraseReport, error) {
	plan, faults := choose(accepted, present)
	var mu sync.Mutex // guards report
	report := EraseReport{Evidence: []Evidence{}, Faults: faults}
	var wg sync.WaitGroup
	for _, group := range plan {
		wg.Go(func() {
			for _, dev := range group {
				ev, err := eraseGuarded(ctx, dev, o)
				mu.Lock()
				if err == nil {
					report.Evidence = append(report.Evidence, ev)
				} else {
					report.Faults = append(report.Faults, faultOf(dev, err))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.SortFunc(report.Evidence, func(a, b Evidence) int { return strings.Compare(a.Path, b.Path) })
	slices.SortFunc(report.Faults, func(a, b Fault) int { return strings.Compare(a.Path+a.Serial+a.Code, b.Path+b.Serial+b.Code) })
	if err := ctx.Err(); err != nil {
		return report, fmt.Errorf("erase disks: %w", err)
	}
	return report, report.err()
}

// eraseGuarded is Erase whose panic is an error: of a disk whose worker panicked nobody knows how far it came, and the other disks' workers go on.
func eraseGuarded(ctx context.Context, dev Device, o EraseOptions) (ev Evidence, err error) {
	err = fleet.Catch(func() (err error) { ev, err = Erase(ctx, dev, o); return err })
	if p := new(fleet.Panic); errors.As(err, &p) {
		err = fleet.Errorf(fleet.Broken, "MC-ERASE-FAILED", "a defect in the agent: erasing %s: %w\n%s", dev, err, p.Stack).
			WithHint("metalctl node clean NODE; please report the stack")
	}
	return ev, err
}

func faultOf(dev Device, err error) Fault {
	code := fleet.CodeOf(err)
	if code == "" {
		code = "MC-ERASE-FAILED"
	}
	return Fault{code, dev.Path, dev.Serial, err.Error()}
}

func (r EraseReport) err() error {
	if len(r.Faults) == 0 {
		return nil
	}
	e := fleet.Errorf(fleet.Broken, "MC-ERASE-INCOMPLETE", "%d disks are erased, %d faults stand against calling the node clean", len(r.Evidence), len(r.Faults))
	for _, f := range r.Faults {
		e.Fields = append(e.Fields, fleet.FieldError{Field: strings.TrimSpace(f.Path + " " + f.Serial), Message: f.Code + ": " + f.Message})
	}
	return e.WithHint("metalctl node inspect NODE shows what is there; metalctl node accept NODE agrees to it")
}

// choose sorts the present disks into those to erase, grouped by drive (a drive's namespaces go one after the other), and faults.
func choose(accepted []Accepted, present []Device) ([][]Device, []Fault) {
	var faults []Fault
	groups, order := map[string][]Device{}, []string{}
	changed := changedNamespaces(accepted, present)
	for _, dev := range dedupe(present) {
		fault := func(code, format string, args ...any) {
			faults = append(faults, Fault{code, dev.Path, dev.Serial, fmt.Sprintf(format, args...)})
		}
		i := slices.IndexFunc(accepted, func(a Accepted) bool { return a.Serial != "" && a.Serial == dev.Serial })
		switch {
		case dev.BootMedium && i >= 0:
			// It is passed over, but somebody believes that it is erased.
			fault("MC-ERASE-FAILED", "accepted, but it is what the agent was booted from: not touched")
		case dev.BootMedium:
			// What the agent runs from is no disk of the node; it was never offered for acceptance.
		case i < 0 && dev.ReadOnly && dev.Removable:
			// A virtual CD of the BMC.
		case i < 0:
			fault("MC-ERASE-UNEXPECTED", "nobody accepted that this disk is erased: not touched")
		case dev.Transport == "nvme" && changed[dev.Serial] != "":
			fault("MC-ERASE-UNEXPECTED", "%s: not touched", changed[dev.Serial])
		case accepted[i].SizeBytes != 0 && accepted[i].SizeBytes != dev.SizeBytes && dev.Transport != "nvme":
			fault("MC-ERASE-IDENTITY", "accepted with %d bytes, it has %d: not touched", accepted[i].SizeBytes, dev.SizeBytes)
		case accepted[i].Model != "" && accepted[i].Model != dev.Model:
			fault("MC-ERASE-IDENTITY", "accepted as %s, it is %s: not touched", accepted[i].Model, dev.Model)
		case dev.Mounted != "":
			fault("MC-DISK-BUSY", "in use as %s: not touched", dev.Mounted)
		case dev.ReadOnly:
			fault("MC-ERASE-FAILED", "the disk is write protected")
		case len(groups[dev.Serial]) > 0 && dev.Transport != "nvme":
			fault("MC-ERASE-IDENTITY", "%s has the same serial: not touched", groups[dev.Serial][0].Path)
		default:
			if len(groups[dev.Serial]) == 0 {
				order = append(order, dev.Serial)
			}
			groups[dev.Serial] = append(groups[dev.Serial], dev)
		}
	}
	for _, a := range accepted {
		if a.Serial == "" {
			faults = append(faults, Fault{"MC-ERASE-MISSING", "", "", "accepted without a serial: nobody can tell which disk was meant"})
			continue
		}
		if !slices.ContainsFunc(present, func(d Device) bool { return d.Serial == a.Serial }) {
			faults = append(faults, Fault{"MC-ERASE-MISSING", "", a.Serial, "accepted, but not here: it left with whatever is on it, or does not answer"})
		}
	}
	var plan [][]Device
	for _, serial := range order {
		plan = append(plan, groups[serial])
	}
	return plan, faults
}

// changedNamespaces says, by serial, which NVMe drives have other namespaces than were accepted. A drive's namespaces share its serial, so only their
// number and the sum of their sizes tell that one was added, removed or resized.
func changedNamespaces(accepted []Accepted, present []Device) map[string]string {
	type drive struct {
		count   int
		bytes   int64
		unsized bool
	}
	agreed, here := map[string]drive{}, map[string]drive{}
	for _, a := range accepted {
		d := agreed[a.Serial]
		agreed[a.Serial] = drive{d.count + 1, d.bytes + a.SizeBytes, d.unsized || a.SizeBytes == 0}
	}
	for _, dev := range dedupe(present) {
		if dev.Transport == "nvme" {
			d := here[dev.Serial]
			here[dev.Serial] = drive{d.count + 1, d.bytes + dev.SizeBytes, false}
		}
	}
	out := map[string]string{}
	for serial, h := range here {
		a := agreed[serial]
		switch {
		case h.count > a.count:
			out[serial] = fmt.Sprintf("the drive has %d namespaces, %d were accepted", h.count, a.count)
		case !a.unsized && h.bytes != a.bytes:
			out[serial] = fmt.Sprintf("the drive's namespaces have %d bytes, %d were accepted", h.bytes, a.bytes)
		}
	}
	return out
}

// dedupe drops second paths to the same disk and orders by path.
func dedupe(present []Device) []Device {
	out := slices.Clone(present)
	slices.SortFunc(out, func(a, b Device) int { return strings.Compare(a.Path, b.Path) })
	return slices.CompactFunc(out, func(a, b Device) bool { return a.Path == b.Path })
}
