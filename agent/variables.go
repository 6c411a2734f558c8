package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/agent/efi"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// cleanVariables removes what a tenant left in the firmware. The server says what is new; what firmware needs is refused here, whoever says so.
func (m *machine) cleanVariables(ctx context.Context, c step.Call) (step.Outcome, error) {
	var p step.VariablesParams
	if err := decodeParams(c, &p); err != nil {
		return step.Outcome{}, err
	}
	if p.Remove == nil {
		return step.Outcome{Evidence: map[string]string{"skipped": "nobody could tell which variables are new"}}, nil
	}
	if out, skip, err := m.withoutUEFI(); skip || err != nil {
		return out, err
	}
	vars, err := m.openVars()
	if err != nil {
		return step.Outcome{}, err
	}
	removed, out := []string{}, step.Outcome{}
	for _, guid := range slices.Sorted(maps.Keys(p.Remove)) {
		for _, name := range slices.Sorted(slices.Values(p.Remove[guid])) {
			if err := ctx.Err(); err != nil {
				return step.Outcome{}, err
			}
			v := fleet.EFIVariable{Name: name, GUID: guid}
			if err := removeVariable(vars, v); err != nil {
				out.Faults = append(out.Faults, fleet.Fault{Code: "MC-FAULT-VARIABLE-LEFT", Component: shorten("firmware/variables/"+v.String(), 120), Severity: fleet.Critical, Since: m.Now().UTC(), Blocks: fleet.BlocksAllocate,
					Evidence: shorten(err.Error(), 300), Hint: "metalctl node retry NODE; if it stays, reset the firmware's settings"})
				continue
			}
			removed = append(removed, v.String())
		}
	}
	out.Evidence = map[string]any{"removed": removed, "left": len(out.Faults)}
	if n := len(out.Faults); n > 0 {
		out.Faults = out.Faults[:min(n, mostVariableFaults)]
		return out, fleet.Errorf(fleet.Broken, "MC-EFI-READBACK", "%d variables of the firmware that were not there when the node was accepted could not be removed, first %s: %s", n, out.Faults[0].Component, out.Faults[0].Evidence)
	}
	return out, nil
}

// mostVariableFaults bounds the faults of one step: a node's record is read often.
const mostVariableFaults = 4

// removeVariable removes a variable and reads that it is gone.
func removeVariable(vars efi.FileVars, v fleet.EFIVariable) error {
	if _, guid, ok := fleet.SplitVariable(v.String()); !ok || guid != v.GUID || strings.ContainsAny(v.Name, "/\x00") {
		return fmt.Errorf("%q is no variable's name", v.String())
	}
	if r := fleet.RuleOf(v.Name, v.GUID); r.Kind != fleet.VariablePlain {
		return fmt.Errorf("it is never removed: %s", r.Why)
	}
	if err := vars.Remove(v.Name, v.GUID); err != nil {
		return err
	}
	there, err := vars.Has(v.Name, v.GUID)
	if err == nil && there {
		err = errors.New("the firmware took the removal and still shows it")
	}
	return err
}
