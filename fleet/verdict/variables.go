package verdict

import (
	"fmt"

	"github.com/metalctl/metalctl/fleet"
)

// NewVariables lists the firmware's variables that were not there when the machine was accepted and may be removed, in the inventory's order.
// why is not empty where they cannot be told.
func NewVariables(inv, accepted fleet.Inventory, class fleet.Class) (list []fleet.EFIVariable, why string) {
	switch {
	case inv.System.FirmwareMode == "bios" && accepted.System.FirmwareMode == "bios":
		return nil, "the machine was not started by UEFI"
	case len(accepted.Variables) == 0:
		return nil, "the accepted inventory names no variables; accept a newer one: metalctl node inspect, then metalctl node accept"
	case len(inv.Variables) == 0:
		return nil, "the firmware's variables could not be read"
	case inv.System.BIOS != accepted.System.BIOS:
		return nil, fmt.Sprintf("the firmware was %s and is %s, so that new variables may be its own", orUnknown(accepted.System.BIOS), orUnknown(inv.System.BIOS))
	}
	for _, v := range inv.Variables {
		if find(accepted.Variables, v) == nil && v.Attributes&fleet.NonVolatile != 0 && fleet.Removable(v.Name, v.GUID, accepted.Variables) && !class.Clean.Variables.Ignores(v) {
			list = append(list, v)
		}
	}
	return list, ""
}

func find(list []fleet.EFIVariable, v fleet.EFIVariable) *fleet.EFIVariable {
	for i := range list {
		if list[i].Name == v.Name && list[i].GUID == v.GUID {
			return &list[i]
		}
	}
	return nil
}

// variables compares the firmware's variables with those that were accepted. What NewVariables lists is no difference: it is removed.
func (j *judge) variables(accepted fleet.Inventory) {
	if len(accepted.Variables) == 0 {
		return
	}
	if len(j.inv.Variables) == 0 {
		j.block(finding{code: "MC-EFI-VARIABLE", component: "firmware/variables", want: "read", got: "unread", do: "none"}, "the firmware's variables were read when the node was accepted, and cannot be read now")
		return
	}
	gone, _ := NewVariables(*j.inv, accepted, j.class)
	differs := func(v fleet.EFIVariable, want, got, words string) {
		why := fleet.RuleOf(v.Name, v.GUID).Why
		if why != "" {
			why = ": " + why
		}
		j.block(finding{code: "MC-EFI-VARIABLE", component: "firmware/variables/" + v.String(), want: want, got: got, do: "configure"}, "%s", "the firmware's variable "+v.String()+" "+words+why)
	}
	for _, v := range j.inv.Variables {
		old := find(accepted.Variables, v)
		if !j.compared(v) {
			continue
		}
		switch {
		case old == nil && find(gone, v) == nil:
			differs(v, "absent", short(v), "was not there, and is not for us to remove")
		case old != nil && (old.SHA256 != v.SHA256 || old.SizeBytes != v.SizeBytes):
			differs(v, short(*old), short(v), "was changed")
		case old != nil && old.Attributes != v.Attributes:
			differs(v, fmt.Sprintf("attributes %#x", old.Attributes), fmt.Sprintf("attributes %#x", v.Attributes), "has other attributes")
		}
	}
	for _, old := range accepted.Variables {
		if j.compared(old) && find(j.inv.Variables, old) == nil {
			differs(old, short(old), "absent", "is gone")
		}
	}
}

// compared: volatile variables are gone with a restart, but those of security tell what the firmware does now.
func (j *judge) compared(v fleet.EFIVariable) bool {
	kind := fleet.RuleOf(v.Name, v.GUID).Kind
	return kind != fleet.VariableChurns && (kind == fleet.VariableSecurity || v.Attributes&fleet.NonVolatile != 0) && !j.class.Clean.Variables.Ignores(v)
}

func short(v fleet.EFIVariable) string {
	return fmt.Sprintf("%d bytes, sha256 %.12s", v.SizeBytes, v.SHA256)
}
