package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// hca is what the machine shows of its one HCA from now on.
func hca(w *contract.World, serial string) {
	w.Machine.HCAs = []fleet.HCA{{Name: "mlx5_0", Serial: serial, PCIAddress: "0000:18:00.0", Type: "MT4129", NodeGUID: fleet.GUID("0x00000000" + strings.Repeat("0", 8-len(serial)) + serial)}}
}

// TestRepair: what somebody says was replaced counts when an inventory shows it, and the profile for repairs runs next.
func TestRepair(t *testing.T) {
	w := burnable(t)
	w.Loop.Profiles = append(w.Loop.Profiles, fleet.BurnProfile{Name: fleet.ProfileRepair, Rounds: 1, Stages: []fleet.BurnStage{{Name: "cpu", Stress: []string{fleet.StressCPU}, Seconds: 120}}})
	hca(w, "01d")
	ask(t, w, "inspect", api.NodeVerb{AllowReboot: true})
	ask(t, w, "burn", api.NodeVerb{Profile: contract.Brief.Name})
	n := wantState(t, w, fleet.Available)
	if n.BurnedAt.IsZero() || n.ProvenBy != contract.Brief.Name {
		t.Fatalf("not burned in: %+v", n)
	}
	n.RaiseFault(fleet.Fault{Code: "MC-BURN-HCA", Component: "hca/mlx5_0/port/1", Check: "hca-link-downed", Severity: fleet.Critical, Since: w.Clock, Evidence: "seen", Blocks: fleet.BlocksAllocate, Step: step.JudgeBurnIn})
	write(t, w, fleet.KeyOf(fleet.KindNode, n.ID), n)

	good := api.NodeVerb{Replaced: "hca/mlx5_0", OldSerial: "01d", NewSerial: "0e3", Note: "bay 4"}
	for name, p := range map[string]api.NodeVerb{
		"nothing":           {},
		"another old one":   {Replaced: "hca/mlx5_0", OldSerial: "077", NewSerial: "0e3"},
		"a part of another": {Replaced: "gpu/3", OldSerial: "01d", NewSerial: "0e3"},
		"the same again":    {Replaced: "hca/mlx5_0", OldSerial: "01d", NewSerial: "01D "},
		"a novel":           {Replaced: "hca/mlx5_0", OldSerial: "01d", NewSerial: "0e3", Note: strings.Repeat("long ", 100)},
	} {
		t.Run(name, func(t *testing.T) { refused(t, w, api.VerbRepair, p, "MC-REPAIR-SERIAL") })
	}
	if n, _ := w.Read(); len(n.Repairs) > 0 || n.BurnNext != "" {
		t.Fatalf("a refused repair left %+v, next %q", n.Repairs, n.BurnNext)
	}

	ask(t, w, api.VerbRepair, good)
	n, _ = w.Read()
	if len(n.Repairs) != 1 || n.Repairs[0].By != "tester" || n.Repairs[0].Report != n.BurnIn || !n.Repairs[0].SeenAt.IsZero() || n.BurnNext != fleet.ProfileRepair || !n.BurnedAt.IsZero() {
		t.Fatalf("recorded %+v, next %q, burned in %s", n.Repairs, n.BurnNext, n.BurnedAt)
	}
	told := func(kind string) string {
		t.Helper()
		e, err := w.Loop.Explain(t.Context(), w.Node)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range e.Reasons {
			if r.Kind == kind {
				return r.Text + " | " + r.Command
			}
		}
		return ""
	}
	if got := told("repair"); !strings.Contains(got, "serial 01d by 0e3") || !strings.Contains(got, "node inspect n1") {
		t.Errorf("explain says %q", got)
	}

	w.Clock = w.Clock.Add(time.Hour)
	ask(t, w, "inspect", api.NodeVerb{AllowReboot: true})
	n, _ = w.Read()
	if f := n.Fault("MC-FAULT-REPAIR", "hca/mlx5_0"); f == nil || !strings.Contains(f.Evidence, "serial 01d, is still there, at hca/mlx5_0") || n.Fault("MC-BURN-HCA", "hca/mlx5_0/port/1") == nil {
		t.Fatalf("the old part is still there, and the faults are %+v", n.Faults)
	}

	hca(w, "0e3")
	w.Clock = w.Clock.Add(time.Hour)
	ask(t, w, "inspect", api.NodeVerb{AllowReboot: true})
	n, _ = w.Read()
	if len(n.Faults) > 0 || n.Repairs[0].SeenAt.IsZero() || told("repair") != "" {
		t.Fatalf("the new part is there; faults %+v, repairs %+v", n.Faults, n.Repairs)
	}
	verb := "burn"
	if n.State == fleet.Managed {
		verb = "accept"
	}
	ask(t, w, verb, api.NodeVerb{Devices: map[string][]string{"accept": contract.Disks()}[verb]})
	n = wantState(t, w, fleet.Available)
	if rep := burnReport(t, w); rep.Profile != fleet.ProfileRepair || n.BurnNext != "" || n.BurnedAt.IsZero() {
		t.Errorf("%s ran, next is %q, burned in %s", rep.Profile, n.BurnNext, n.BurnedAt)
	}

	// Another part in that place, of which nobody said anything, is a swapped one again.
	hca(w, "0ff")
	w.Clock = w.Clock.Add(time.Hour)
	ask(t, w, "inspect", api.NodeVerb{AllowReboot: true})
	if n, _ := w.Read(); n.Fault("MC-PART-SWAPPED", "pci/0000:18:00.0") == nil {
		t.Errorf("nobody said that it was swapped: %+v", n.Faults)
	}
}
