package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

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

// TestLearnClass: a class is learned of a whole machine that nothing is wrong with, whatever its present class says of it; anything else is refused with the next command.
func TestLearnClass(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	_, err := w.client.PutClass(ctx, fleet.Class{Name: "hgx", BurnIn: "none", EraseLevel: "clear", PowerOffAvailable: true, Expect: fleet.ClassExpect{GPUs: fleet.ExpectGPUs{Count: 4}}})
	must(t, err)
	whole := fleet.Inventory{TakenAt: w.Now(), System: fleet.System{BIOS: "2.1", Serial: "S1"}, CPUs: make([]fleet.CPU, 2), Missing: []fleet.Missing{{What: "tpm", Why: "there is none"}}}
	for i := range 2 {
		whole.GPUs = append(whole.GPUs, fleet.GPU{Index: i, ModuleID: i + 1, Model: "NVIDIA H200", Serial: fmt.Sprint(i), PCIAddress: fmt.Sprintf("0000:%02x:00.0", 16+i), ECC: &fleet.ECC{}})
	}
	whole.GPUs[1].ECC.Volatile.Corrected = 3
	lost := whole
	lost.GPUs = slices.Clone(whole.GPUs)
	lost.GPUs[0].Lost = fleet.GPULostBus
	outside := fleet.Inventory{OutOfBand: true, TakenAt: w.Now()}
	for i, c := range []struct {
		name  string
		inv   *fleet.Inventory
		class string
		state fleet.State
		fault *fleet.Fault
		code  string
		next  string // the command that is named, for node NODE
	}{
		{"whole", &whole, "hgx", fleet.Available, nil, "", ""},
		{"without a class", &whole, "", fleet.Managed, &fleet.Fault{Code: "MC-CLASS-NONE", Component: "class", Blocks: fleet.BlocksAllocate}, "", ""},
		{"unlike its class", &whole, "hgx", fleet.Managed, &fleet.Fault{Code: "MC-GPU-MISSING", Component: "gpu/3", Blocks: fleet.BlocksAllocate}, "", ""},
		{"warned", &whole, "hgx", fleet.Managed, &fleet.Fault{Code: "MC-NVLINK-ERRORS", Component: "gpu/1/nvlink/2", Blocks: fleet.BlocksNothing}, "", ""},
		{"never inspected", nil, "hgx", fleet.Enrolled, nil, "MC-NODE-INVENTORY", "metalctl node inspect NODE"},
		{"being inspected", &whole, "hgx", fleet.Inspecting, nil, "MC-CLASS-LEARN", "metalctl node explain NODE"},
		{"read through its BMC", &outside, "hgx", fleet.Managed, nil, "MC-CLASS-LEARN", "metalctl node inspect NODE --allow-reboot"},
		{"a GPU is lost", &lost, "hgx", fleet.Managed, nil, "MC-CLASS-LEARN", "metalctl node inventory NODE --diff"},
		{"swapped", &whole, "hgx", fleet.Managed, &fleet.Fault{Code: "MC-PART-SWAPPED", Component: "gpu/2", Blocks: fleet.BlocksAllocate, Evidence: "another GPU"}, "MC-CLASS-LEARN", "metalctl node explain NODE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := fmt.Sprintf("n%d", i+1)
			req := createRequest(name)
			req.Class = c.class
			n, err := w.client.CreateNode(ctx, req, "")
			must(t, err)
			must(t, w.updateNode(ctx, n.ID, func(n *fleet.Node, _ *fleet.Change) error {
				n.State = c.state
				if c.fault != nil {
					n.RaiseFault(*c.fault)
				}
				if c.inv != nil {
					digest, err := w.db.PutBlob(ctx, "inventory", strings.NewReader(asJSON(t, *c.inv)))
					n.Inventory = digest
					return err
				}
				return nil
			}))
			l, err := w.client.LearnClass(ctx, name, "")
			if c.code != "" {
				var e *fleet.Error
				if next := strings.ReplaceAll(c.next, "NODE", name); !errors.As(err, &e) || e.Code != c.code || e.Hint != next {
					t.Errorf("got %+v, want %s and %q", err, c.code, next)
				}
				return
			}
			must(t, err)
			want := fleet.Class{Name: "learned", BurnIn: "none", EraseLevel: "purge"}
			if c.class != "" {
				want = fleet.Class{Name: "hgx", BurnIn: "none", EraseLevel: "clear", PowerOffAvailable: true}
			}
			want.Expect = fleet.ClassExpect{Source: "learned from node " + name + ", inventory of " + whole.TakenAt.UTC().Format(time.RFC3339), CPUs: 2, GPUs: fleet.ExpectGPUs{Count: 2, Model: "NVIDIA H200"}, Firmware: fleet.ExpectFirmware{BIOS: "2.1"}}
			want.Expect.Topology.GPUNUMANodes = []int{0, 0}
			if d := cmp.Diff(want, l.Class); d != "" {
				t.Error(d)
			}
			if len(l.Suspicions) != 1 || l.Suspicions[0].Component != "gpu/2" || len(l.Unread) != 1 {
				t.Errorf("got %+v and %+v", l.Suspicions, l.Unread)
			}
			named, err := w.client.LearnClass(ctx, name, "another")
			must(t, err)
			if named.Class.Name != "another" {
				t.Errorf("called %q", named.Class.Name)
			}
			_, err = w.client.LearnClass(ctx, name, "No Name")
			wantCode(t, err, fleet.Invalid, "MC-API-INVALID")
		})
	}
}
