package agent

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

func TestCleaningGPUs(t *testing.T) {
	whole := func(module int, faults ...string) fleet.GPUCleaned {
		return fleet.GPUCleaned{PCIAddress: "0000:18:00.0", Index: 0, ModuleID: module, Whole: true, Faults: faults}
	}
	for name, c := range map[string]struct {
		want   fleet.CleanGPUs
		did    *fleet.GPUCleaning // nil: nobody speaks to GPUs
		faults []string
	}{
		"as they should be":          {did: &fleet.GPUCleaning{Driver: "570", GPUs: []fleet.GPUCleaned{whole(3)}}},
		"one has two faults":         {did: &fleet.GPUCleaning{GPUs: []fleet.GPUCleaned{whole(3, "a", "b"), whole(4)}}, faults: []string{"MC-FAULT-GPU-LEFT gpu/3 a", "MC-FAULT-GPU-LEFT gpu/3 b"}},
		"one that told no module id": {did: &fleet.GPUCleaning{GPUs: []fleet.GPUCleaned{{PCIAddress: "0000:18:00.0", Index: -1, Faults: []string{"lost"}}}}, faults: []string{"MC-FAULT-GPU-LEFT gpu/0000:18:00.0 lost"}},
		"no driver":                  {did: &fleet.GPUCleaning{Unseen: "no driver"}},
		"no driver, required":        {want: fleet.CleanGPUs{Required: true}, did: &fleet.GPUCleaning{Unseen: "no driver"}, faults: []string{"MC-FAULT-GPU-UNSEEN gpus no driver"}},
		"nobody, required":           {want: fleet.CleanGPUs{Required: true}, faults: []string{"MC-FAULT-GPU-UNSEEN gpus this agent has nobody who speaks to GPUs"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, 1<<20)
			if c.did != nil {
				l.deps.CleanGPUs = func(_ context.Context, _ string, _ []fleet.PCI, want fleet.CleanGPUs) fleet.GPUCleaning {
					if want != c.want {
						t.Errorf("asked for %+v, want %+v", want, c.want)
					}
					return *c.did
				}
			}
			l.run()
			r := l.do(step.CleanGPUs, c.want)
			var got []string
			if r.Error != nil {
				for _, f := range r.Error.Faults {
					if f.Blocks != fleet.BlocksAllocate {
						t.Errorf("%+v blocks nothing", f)
					}
					got = append(got, f.Code+" "+f.Component+" "+f.Evidence)
				}
			}
			if d := cmp.Diff(got, c.faults); d != "" {
				t.Error(d)
			}
			var did fleet.GPUCleaning
			if err := json.Unmarshal(r.Attachment, &did); err != nil || c.did != nil && cmp.Diff(did, *c.did) != "" {
				t.Errorf("attached %s (%v)", r.Attachment, err)
			}
		})
	}
}
