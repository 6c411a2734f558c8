package agent

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/cleaning"
	"github.com/metalctl/metalctl/fleet/step"
)

// The record of a cleaning is composed from what the steps really send.
func TestWhatTheStepsSendMakesACleaningRecord(t *testing.T) {
	l := newLab(t, 8<<20, "S1", "S2")
	l.run()
	params := step.EraseParams{Accepted: l.accepted("S1", "GONE"), Level: "clear"}
	x := cleaning.Traces{Attachments: map[string]json.RawMessage{}, Inventory: &fleet.Inventory{}}
	for _, name := range []string{step.EraseDisks, step.VerifyErase, step.CleanBoot} {
		var p any = params
		if name == step.CleanBoot {
			p = struct{}{}
		}
		r := l.do(name, p)
		s := fleet.StepRun{Name: name, State: fleet.StepFinished, Params: json.RawMessage(mustJSON(t, p)), Evidence: r.Evidence, Error: r.Error}
		if r.Error != nil {
			s.State = fleet.StepFailed
		}
		if len(r.Attachment) > 0 { // as the server files it
			x.Attachments[name] = r.Attachment
			var err error
			if s.Evidence, err = step.Merge(r.Evidence, map[string]any{"blob": name}); err != nil {
				t.Fatal(err)
			}
		}
		x.Operation.Steps = append(x.Operation.Steps, s)
	}
	got := map[string]fleet.CleanResult{}
	for _, c := range cleaning.Compose(x).Components {
		got[c.Component] = c.Result
		if c.Component == "disk/S1" && (c.Method != "zeros" || c.Level != "clear" || c.ReadBack == "" || c.At.IsZero()) {
			t.Errorf("disk/S1: %+v", c)
		}
	}
	want := map[string]fleet.CleanResult{"disk/S1": fleet.CleanDone, "disk/GONE": fleet.CleanFailed, "firmware/boot-entries": fleet.CleanNotDone}
	for name, result := range want {
		if got[name] != result {
			t.Errorf("%s is %q, want %q\n%s", name, got[name], result, cmp.Diff(got, want))
		}
	}
}
