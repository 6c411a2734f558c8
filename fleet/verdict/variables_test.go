package verdict

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

const (
	vendorGUID = "ec87d643-eba4-4bb5-a1e5-3f3e36b20da9"
	tenantGUID = "b6f5d5f0-9c4b-4d8e-8f5a-0a1b2c3d4e5f"
	imagesGUID = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
	shimGUID   = "605dab50-e046-4300-abb6-3dd810dd8b23"
)

func variable(name, guid, sum string) fleet.EFIVariable {
	return fleet.EFIVariable{Name: name, GUID: guid, Attributes: 7, SizeBytes: 4, SHA256: sum}
}

func firmware() fleet.Inventory {
	return fleet.Inventory{System: fleet.System{FirmwareMode: "uefi", BIOS: "1.2"}, Variables: []fleet.EFIVariable{
		variable("BootOrder", fleet.EFIGlobal, "1"), variable("Lang", fleet.EFIGlobal, "2"), variable("PK", fleet.EFIGlobal, "3"), variable("Setup", vendorGUID, "4"),
		variable("MTC", "eb704011-1402-11d3-8e77-00a0c969723b", "5"), variable("db", imagesGUID, "6"), {Name: "SecureBoot", GUID: fleet.EFIGlobal, Attributes: 6, SizeBytes: 1, SHA256: "on"},
	}}
}

func TestVariables(t *testing.T) {
	set := func(name, sum string) func(*fleet.Inventory) {
		return func(inv *fleet.Inventory) {
			for i := range inv.Variables {
				if inv.Variables[i].Name == name {
					inv.Variables[i].SHA256 = sum
				}
			}
		}
	}
	add := func(list ...fleet.EFIVariable) func(*fleet.Inventory) {
		return func(inv *fleet.Inventory) { inv.Variables = append(inv.Variables, list...) }
	}
	drop := func(name string) func(*fleet.Inventory) {
		return func(inv *fleet.Inventory) {
			var left []fleet.EFIVariable
			for _, v := range inv.Variables {
				if v.Name != name {
					left = append(left, v)
				}
			}
			inv.Variables = left
		}
	}
	volatile := variable("X", tenantGUID, "1")
	volatile.Attributes = 6
	for name, c := range map[string]struct {
		does   func(*fleet.Inventory)
		ignore []string
		remove string
		why    string
		faults []string
		words  string
	}{
		"as accepted":                           {does: func(*fleet.Inventory) {}},
		"the firmware counts":                   {does: set("MTC", "9")},
		"a boot entry came":                     {does: add(variable("Boot0007", fleet.EFIGlobal, "7"))},
		"one of a tenant":                       {does: add(variable("X", tenantGUID, "1")), remove: "X-" + tenantGUID},
		"one that a restart drops":              {does: add(volatile)},
		"a driver that firmware would load":     {does: add(variable("Driver0000", fleet.EFIGlobal, "1")), remove: "Driver0000-" + fleet.EFIGlobal},
		"a request to shim":                     {does: add(variable("MokNew", shimGUID, "1")), remove: "MokNew-" + shimGUID},
		"a new one beside the firmware's own":   {does: add(variable("New", vendorGUID, "1")), faults: []string{"New-" + vendorGUID}, words: "was not there, and is not for us to remove"},
		"a new one that is ignored":             {does: add(variable("New", vendorGUID, "1")), ignore: []string{"*-" + vendorGUID}},
		"set-up changed":                        {does: set("Setup", "9"), faults: []string{"Setup-" + vendorGUID}, words: "was changed"},
		"set-up changed, and is ignored":        {does: set("Setup", "9"), ignore: []string{"Setup-*"}},
		"a key of the firmware":                 {does: set("PK", "9"), faults: []string{"PK-" + fleet.EFIGlobal}, words: "whose code the firmware starts"},
		"a key of the firmware that is ignored": {does: set("PK", "9"), ignore: []string{"PK-*"}},
		"a list of forbidden images":            {does: add(variable("dbx", imagesGUID, "1")), faults: []string{"dbx-" + imagesGUID}, words: "is not for us to remove"},
		"shim's own keys":                       {does: add(fleet.EFIVariable{Name: "MokListRT", GUID: shimGUID, Attributes: 6}), faults: []string{"MokListRT-" + shimGUID}, words: "whose code shim starts"},
		"Secure Boot is off":                    {does: set("SecureBoot", "off"), faults: []string{"SecureBoot-" + fleet.EFIGlobal}, words: "was changed"},
		"one is gone":                           {does: drop("Setup"), faults: []string{"Setup-" + vendorGUID}, words: "is gone"},
		"nothing was read":                      {does: func(inv *fleet.Inventory) { inv.Variables = nil }, why: "could not be read", faults: []string{""}, words: "cannot be read now"},
		"other firmware": {does: func(inv *fleet.Inventory) {
			inv.System.BIOS = "1.3"
			inv.Variables = append(inv.Variables, variable("X", tenantGUID, "1"))
		}, why: "the firmware was 1.2 and is 1.3", faults: []string{"X-" + tenantGUID}, words: "was not there"},
	} {
		t.Run(name, func(t *testing.T) {
			accepted, inv, class := firmware(), firmware(), fleet.Class{Name: "c"}
			class.Clean.Variables.Ignore = c.ignore
			c.does(&inv)
			list, why := NewVariables(inv, accepted, class)
			var remove []string
			for _, v := range list {
				remove = append(remove, v.String())
			}
			if strings.Join(remove, " ") != c.remove || (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
				t.Errorf("removes %q (%s), want %q (%s)", remove, why, c.remove, c.why)
			}
			var faults []string
			var words strings.Builder
			for _, d := range Accepted(inv, accepted, class) {
				if d.Code != "MC-EFI-VARIABLE" || d.Blocks != fleet.BlocksAllocate {
					t.Errorf("%+v", d)
				}
				faults = append(faults, strings.TrimPrefix(strings.TrimPrefix(d.Component, "firmware/variables"), "/"))
				words.WriteString(d.Words)
			}
			if d := cmp.Diff(faults, c.faults); d != "" || !strings.Contains(words.String(), c.words) {
				t.Errorf("%s\n%s", d, words.String())
			}
		})
	}
	if list, why := NewVariables(firmware(), fleet.Inventory{}, fleet.Class{}); len(list) > 0 || !strings.Contains(why, "metalctl node accept") {
		t.Errorf("accepted before variables were kept: %v, %q", list, why)
	}
}
