package reconcile_test

import (
	"encoding/json"
	"io"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// asked asks a verb of the node and lets the world come to rest.
func asked(t *testing.T, w *contract.World, verb string) fleet.Node {
	t.Helper()
	body := api.NodeVerb{AllowReboot: verb == "inspect"}
	if verb == "accept" {
		body.Devices = contract.Disks()
	}
	if _, err := w.Loop.Ask(t.Context(), w.Node, verb, body, "tester"); err != nil {
		t.Fatalf("%s: %v", verb, err)
	}
	w.Settle(time.Hour)
	n, _ := w.Read()
	return n
}

// cleaningRecord is the node's newest.
func cleaningRecord(t *testing.T, w *contract.World) fleet.CleaningRecord {
	t.Helper()
	n, _ := w.Read()
	f, err := w.Store.OpenBlob(t.Context(), n.Cleaning)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	var r fleet.CleaningRecord
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// An HCA that is not as it was accepted keeps the node from being handed out, however often it is looked at, until somebody accepts it so.
func TestWhatOutlivesAnEraseIsComparedWithWhatWasAccepted(t *testing.T) {
	w := contract.NewWorld(t)
	w.Machine.HCAs = []fleet.HCA{{Name: "mlx5_0", PCIAddress: "0000:1a:00.0", NodeGUID: "0x1", Ports: []fleet.HCAPort{{Port: 1, GUID: "0x1"}}}}
	asked(t, w, "inspect")
	if n := asked(t, w, "accept"); n.State != fleet.Available || n.AcceptedAs == "" || n.AcceptedAs != n.Inventory || len(n.Faults) > 0 {
		t.Fatalf("%s, accepted as %q, faults %+v", n.State, n.AcceptedAs, n.Faults)
	}
	w.Machine.HCAs[0].Ports = []fleet.HCAPort{{Port: 1, GUID: "0x2"}}
	for range 2 {
		n := asked(t, w, "clean")
		if f := n.Fault("MC-HCA-CHANGED", "hca/mlx5_0"); f == nil || f.Blocks != fleet.BlocksAllocate {
			t.Fatalf("%s, faults %+v", n.State, n.Faults)
		}
		found := false
		for _, c := range cleaningRecord(t, w).Components {
			found = found || c.Component == "hca/mlx5_0" && c.Result == fleet.CleanFailed
		}
		if !found {
			t.Error("the record does not say that it failed")
		}
	}
	if n := asked(t, w, "inspect"); n.State != fleet.Managed || n.Fault("MC-HCA-CHANGED", "hca/mlx5_0") == nil {
		t.Fatalf("a look made it better: %s, %+v", n.State, n.Faults)
	}
	if n := asked(t, w, "accept"); n.State != fleet.Available || len(n.Faults) > 0 {
		t.Errorf("accepted so: %s, %+v", n.State, n.Faults)
	}
}
