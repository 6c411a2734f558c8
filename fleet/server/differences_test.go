package server

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// TestDifferences: what differs from the class, since the last inspection and from two fellows; what cannot be compared is said.
func TestDifferences(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	_, err := w.client.PutClass(ctx, fleet.Class{Name: "hgx", BurnIn: "none", EraseLevel: "purge", Expect: fleet.ClassExpect{GPUs: fleet.ExpectGPUs{Count: 2}}})
	must(t, err)
	gpus := func(serials ...string) (inv fleet.Inventory) {
		for i, s := range serials {
			inv.GPUs = append(inv.GPUs, fleet.GPU{Index: i, ModuleID: i + 1, Serial: s, VBIOS: "96.00", PCIAddress: fmt.Sprintf("0000:%02x:00.0", 16+i)})
		}
		inv.TakenAt = w.Now()
		return inv
	}
	keep := func(inv fleet.Inventory) string {
		digest, err := w.db.PutBlob(ctx, "inventory", strings.NewReader(asJSON(t, inv)))
		must(t, err)
		return digest
	}
	enrol := func(name, last, newest string) {
		req := createRequest(name)
		req.Class = "hgx"
		n, err := w.client.CreateNode(ctx, req, "")
		must(t, err)
		must(t, w.updateNode(ctx, n.ID, func(n *fleet.Node, _ *fleet.Change) error { n.Inventory, n.LastInventory = newest, last; return nil }))
	}
	enrol("n1", keep(gpus("A", "B")), keep(gpus("A", "C", "D")))
	of := func(against ...string) string {
		d, err := w.client.Differences(ctx, "n1", against...)
		must(t, err)
		var out []string
		for _, x := range d.Differences {
			out = append(out, x.Against+" "+x.Code+" "+x.Component)
		}
		return strings.Join(append(out, d.NotCompared...), "\n")
	}
	class, last := "class MC-CLASS-GPUS gpus", "last MC-PART-SWAPPED gpu/2\nlast MC-PART-ADDED gpu/3"
	alone := `fleet: fewer than two other nodes of class "hgx" have an inventory`
	if d := cmp.Diff(class+"\n"+last+"\n"+alone, of()); d != "" {
		t.Error(d)
	}
	enrol("n2", "", keep(gpus("E", "F")))
	enrol("n3", "", keep(gpus("G", "H")))
	for against, want := range map[string]string{"class": class, "last": last, "fleet": "fleet MC-FLEET-ODD gpus"} {
		if d := cmp.Diff(want, of(against)); d != "" {
			t.Errorf("against %s:\n%s", against, d)
		}
	}
	d, err := w.client.Differences(ctx, "n2")
	must(t, err)
	if len(d.Differences) != 0 || d.Fellows != 2 || len(d.NotCompared) != 1 {
		t.Errorf("got %+v", d)
	}
	l, err := w.client.Topology(ctx, "n1")
	must(t, err)
	if len(l.Nodes) != 1 || len(l.Nodes[0].Groups) != 3 || len(l.Notes) != 1 || l.Title != "n1" {
		t.Errorf("got %+v", l)
	}
	_, err = w.client.Differences(ctx, "n2", "tea leaves")
	wantCode(t, err, fleet.Invalid, "MC-API-INVALID")
	enrol("n4", "", "")
	_, err = w.client.Differences(ctx, "n4")
	wantCode(t, err, fleet.NotFound, "MC-NODE-INVENTORY")
}
