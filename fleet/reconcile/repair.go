package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/fleet/verdict"
)

// faultRepair is on a part that somebody said was replaced, where the next inventory does not show that.
const faultRepair = "MC-FAULT-REPAIR"

// mostNote bounds what a repair record says besides, as a node's record has 4 KiB.
const mostNote = 120

// repair records that a part was replaced. The serial numbers are held against the newest inventory at once, and against the next where it still shows the old part.
func (l *Loop) repair(ctx context.Context, id fleet.NodeID, p api.NodeVerb, by string) error {
	v, inv, err := l.inspected(ctx, id)
	if err != nil {
		return err
	}
	r, err := repairAsked(*v.node.v, p, verdict.Parts(inv))
	if err != nil {
		return err
	}
	seen := v.node.v.Inventory
	return l.update(ctx, id, func(v *view) error {
		n := v.node.v
		switch {
		case n.Lease != "":
			return fleet.Errorf(fleet.Conflict, "MC-NODE-LEASED", "%s belongs to lease %s: its parts are not ours to swap", n.Name, n.Lease).WithHint("metalctl lease release %s", n.Lease)
		case v.op.v != nil && !v.undoing():
			return fleet.Errorf(fleet.Conflict, "MC-NODE-BUSY", "%s runs on %s", v.op.v.Use, n.Name).WithHint("metalctl operation show %s", v.op.v.ID)
		case n.Inventory != seen:
			return fleet.Errorf(fleet.Conflict, "MC-REPAIR-SERIAL", "%s was inspected at this moment", n.Name).WithHint("give the same command again")
		}
		r := r
		r.At, r.By = v.now, by
		if slices.ContainsFunc(n.Faults, func(f fleet.Fault) bool { return f.Step == step.JudgeBurnIn && r.of(f.Component) }) {
			r.Report = n.BurnIn
		}
		n.Record(r.Repair)
		n.BurnedAt, n.BurnNext = time.Time{}, fleet.ProfileRepair
		v.repairEvent(r.Repair, fmt.Sprintf("%s: %s was replaced, says %s: serial %s by %s %s", n.Name, r.Component, by, r.Old, r.New, r.Note))
		v.repairsSeen(verdict.Parts(inv), false)
		return nil
	})
}

// asked is a repair as somebody asks for it.
type asked struct{ fleet.Repair }

// of reports whether a component is the repaired part, or a piece of it.
func (r asked) of(component string) bool {
	return component == r.Component || strings.HasPrefix(component, r.Component+"/")
}

// repairAsked checks a repair against what the machine is made of.
func repairAsked(n fleet.Node, p api.NodeVerb, parts []fleet.BurnedPart) (asked, error) {
	r := asked{fleet.Repair{Component: p.Replaced, Old: strings.TrimSpace(p.OldSerial), New: strings.TrimSpace(p.NewSerial), Note: p.Note}}
	var fields []fleet.FieldError
	field := func(bad bool, name, text string) {
		if bad {
			fields = append(fields, fleet.FieldError{Field: name, Message: text})
		}
	}
	field(r.Component == "", "replaced", "is empty; it is a part such as gpu/3")
	field(r.Old == "", "old_serial", "is empty")
	field(r.New == "", "new_serial", "is empty")
	field(r.Old != "" && fleet.SameSerial(r.Old, r.New), "new_serial", "is the old one")
	field(len(r.Old) > 64, "old_serial", "is longer than 64 bytes")
	field(len(r.New) > 64, "new_serial", "is longer than 64 bytes")
	field(len(p.Note) > mostNote, "note", fmt.Sprintf("is longer than %d bytes", mostNote))
	at := slices.IndexFunc(parts, func(x fleet.BurnedPart) bool { return x.Component == r.Component })
	has := func(serial string) bool {
		return slices.ContainsFunc(parts, func(x fleet.BurnedPart) bool { return x.Serial != "" && fleet.SameSerial(x.Serial, serial) })
	}
	switch {
	case len(fields) > 0:
	case at >= 0 && fleet.SameSerial(parts[at].Serial, r.New) && !has(r.Old): // inspected since
	case at >= 0 && parts[at].Serial == "":
		field(true, "replaced", r.Component+" shows no serial number, so that no inventory could tell whether it was replaced")
	case at >= 0 && !fleet.SameSerial(parts[at].Serial, r.Old):
		field(true, "old_serial", fmt.Sprintf("%s has serial %s in the newest inventory", r.Component, parts[at].Serial))
	case at < 0 && !slices.ContainsFunc(n.Faults, func(f fleet.Fault) bool { return r.of(f.Component) }): // what is lost shows no serial, and has a fault
		field(true, "replaced", r.Component+" is no part of the newest inventory, and no fault names it")
	}
	if len(fields) == 0 {
		return r, nil
	}
	e := fleet.Errorf(fleet.Invalid, "MC-REPAIR-SERIAL", "this repair of %s cannot be recorded: %s %s", n.Name, fields[0].Field, fields[0].Message)
	e.Fields = fields
	return r, e.WithHint("metalctl node inventory %s shows parts and serials; metalctl node repair %s --replaced gpu/3 --old SERIAL --new SERIAL", n.Name, n.Name)
}

func (v *view) repairEvent(r fleet.Repair, text string) {
	v.event("node.repair", "%s", strings.TrimSpace(text))
	// Strings and times always encode.
	v.events[len(v.events)-1].Data, _ = json.Marshal(r)
}

// repairsSeen holds the repairs that no inventory has shown yet against one. What it shows takes back the burn-in's faults of that part, which is another one now and
// has its burn-in before it; what it does not show is a fault, where the inventory is newer than the word.
func (v *view) repairsSeen(parts []fleet.BurnedPart, newer bool) {
	n := v.node.v
	n.Repairs = slices.Clone(n.Repairs)
	for i := range n.Repairs {
		r := &n.Repairs[i]
		if !r.SeenAt.IsZero() {
			continue
		}
		if why := r.Seen(parts); why != "" {
			if newer {
				v.fault(fleet.Fault{Code: faultRepair, Component: r.Component, Evidence: fmt.Sprintf("%s said that serial %s was replaced by %s, and %s", r.By, r.Old, r.New, why),
					Hint: "metalctl node inventory " + n.Name + ", then: metalctl node repair " + n.Name + " --replaced " + r.Component + " --old SERIAL --new SERIAL"})
			}
			continue
		}
		r.SeenAt = v.now
		v.repairEvent(*r, fmt.Sprintf("%s: the inventory shows %s with serial %s, and %s nowhere", n.Name, r.Component, r.New, r.Old))
		at := ""
		if k := slices.IndexFunc(parts, func(p fleet.BurnedPart) bool { return p.Component == r.Component }); k >= 0 {
			at = "pci/" + parts[k].PCIAddress
		}
		for _, f := range slices.Clone(n.Faults) {
			gone := f.Code == "MC-PART-SWAPPED" && f.Component == at ||
				(asked{*r}).of(f.Component) && (f.Code == "MC-PART-SWAPPED" || f.Code == faultRepair || f.Step == step.JudgeBurnIn && v.class.BurnInDue(*n))
			if gone && n.ClearFault(f.Code, f.Component) {
				v.event("node.fault", "%s: %s on %s is gone, as the part was replaced", n.Name, f.Code, f.Component)
			}
		}
	}
}
