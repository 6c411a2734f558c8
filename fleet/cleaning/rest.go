package cleaning

import (
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/fleet/verdict"
)

func (c *composer) bootEntries() {
	r := c.run(step.CleanBoot)
	x := fleet.CleanedComponent{Component: "firmware/boot-entries", Asked: "entries of earlier deployments removed"}
	if !r.finished() {
		x.Result, x.Why = fleet.CleanNotDone, r.short(step.CleanBoot)
		if bad := r.faults(x.Component); len(bad) > 0 {
			x.Result, x.Why = fleet.CleanFailed, strings.Join(bad, "; ")
		}
		c.add(x)
		return
	}
	x.Step, x.At = step.CleanBoot, r.FinishedAt
	var skipped string
	var removed, left []string
	r.read("removed", &removed)
	switch {
	case r.read("skipped", &skipped):
		x.Result, x.Why = fleet.CleanNotDone, skipped
	case len(removed) > 0:
		x.Result, x.Method, x.Said = fleet.CleanDone, "EFI variables deleted", "removed "+strings.Join(removed, ", ")
	default:
		x.Result, x.Method, x.Said = fleet.CleanChecked, "EFI variables read", "no entry of ours"
	}
	if r.read("left", &left) {
		x.ReadBack = "left: none"
		if len(left) > 0 {
			x.ReadBack = "left: " + strings.Join(left, ", ")
		}
	}
	c.add(x)
}

// rest has what no step deals with, each with the reason: a reader must not believe it clean because it is not named.
func (c *composer) rest() {
	open := func(component, identity, model, why string) {
		c.add(fleet.CleanedComponent{Component: component, Identity: identity, Model: model, Result: fleet.CleanNotDone, Why: why})
	}
	inv := c.Inventory
	if inv == nil {
		open("inventory", "", "", "nobody knows which further components the machine has: "+c.Unread)
		return
	}
	c.namespaces()
	c.variables()
	c.gpus()
	c.hcas()
	if inv.TPM != nil {
		open("tpm", "", strings.TrimSpace(inv.TPM.Manufacturer+" "+inv.TPM.Version), "a TPM is not cleared")
	}
	c.memory()
	open("bmc", c.Node.BMC.Serial, strings.TrimSpace(c.Node.BMC.Vendor+" "+c.Node.BMC.Model), "its accounts and settings are not looked at")
	c.versions()
}

// versions are those of the firmware, which compare-class compares with the class before anything is erased.
func (c *composer) versions() {
	x := fleet.CleanedComponent{Component: "firmware/versions", Model: strings.TrimSpace("BIOS " + c.Inventory.System.BIOS)}
	r := c.run(step.CompareClass)
	switch f := c.Class.Expect.Firmware; {
	case f.BIOS == "" && f.BMC == "" && f.Driver == "" && f.VBIOS == "" && f.GSP == "" && f.InfoROM == "" && len(f.HCA)+len(f.NVMe) == 0:
		x.Result, x.Why = fleet.CleanNotDone, "the class names no firmware versions to compare with"
	case !r.finished():
		x.Result, x.Why = fleet.CleanNotDone, r.short(step.CompareClass)
	default:
		x.Result, x.Asked, x.Method, x.Step, x.At = fleet.CleanChecked, "as the class says", "inventory compared with the class", step.CompareClass, r.FinishedAt
		var bad []string
		for _, d := range verdict.Judge(*c.Inventory, fleet.Class{Name: c.Class.Name, Expect: fleet.ClassExpect{Firmware: c.Class.Expect.Firmware}}) {
			if d.Against == fleet.AgainstClass {
				bad = append(bad, d.Words)
			}
		}
		if x.ReadBack = "as the class says"; len(bad) > 0 {
			x.Result, x.ReadBack, x.Why = fleet.CleanFailed, "", strings.Join(bad, "; ")
		}
	}
	c.add(x)
}

func firstOf(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}
