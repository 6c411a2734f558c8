package reconcile_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// boards is a BMC that shows what a test says; of the looks in answers each is given once, then the last for ever.
type boards struct {
	t       *testing.T
	answers []look
	asked   int
}

type look struct {
	board *fleet.Baseboard
	err   error
}

func (b *boards) Baseboard(ctx context.Context, _ fleet.NodeID) (*fleet.Baseboard, error) {
	decl, _ := step.Find(step.ReadBoard)
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > decl.Limit-10*time.Second {
		b.t.Error("a look may take as long as the step, and nothing is left to keep what was read")
	}
	a := b.answers[min(b.asked, len(b.answers)-1)]
	b.asked++
	return a.board, a.err
}

// inspected inspects the node of w with a BMC that gives these answers, and says which faults it has then, and what the journal keeps of the look.
func inspected(t *testing.T, w *contract.World, answers ...look) (faults, evidence string, asked int) {
	t.Helper()
	b := &boards{t: t, answers: answers}
	w.Loop.Boards = b
	if _, err := w.Loop.Ask(t.Context(), w.Node, "inspect", api.NodeVerb{AllowReboot: true}, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Settle(time.Hour)
	n, op := w.Read()
	var out []string
	for _, f := range n.Faults {
		out = append(out, f.Code+" "+f.Component+" blocks "+string(f.Blocks))
	}
	last := op.Steps[len(op.Steps)-1]
	if op.State != fleet.OperationDone || last.Name != step.ReadBoard || n.InventoryAt.Before(op.StartedAt) {
		t.Fatalf("%s is %s, inventory of %s: %+v", op.Use, op.State, n.InventoryAt, op.Error)
	}
	return strings.Join(out, "\n"), string(last.Evidence), b.asked
}

// wantBoard makes the node's class want a baseboard.
func wantBoard(t *testing.T, w *contract.World) {
	t.Helper()
	_, err := w.Store.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindClass, "plain"),
		Value: fleet.Class{Name: "plain", BurnIn: "none", EraseLevel: "clear", Expect: fleet.ClassExpect{Disks: 2, Baseboard: fleet.ExpectBaseboard{Required: true}}}}}})
	if err != nil {
		t.Fatal(err)
	}
}

// TestReadBoard: what a look at the baseboard comes to, one after the other on one node: nothing makes it healthier but a look that read everything.
func TestReadBoard(t *testing.T) {
	const host = "MC-BOARD-GPU-HOST gpu/1 blocks allocate"
	gpu := &fleet.Baseboard{Powered: true, Requests: 9, GPUs: []fleet.BoardGPU{{Name: "GPU_SXM_1", Number: 1, Serial: "A", State: "Enabled"}}}
	part := &fleet.Baseboard{Powered: true, Missing: []fleet.Missing{{What: "GPU_SXM_1 ports", Why: "read /redfish/v1/Systems/HGX_Baseboard_0/Processors/GPU_SXM_1/Ports: not a JSON object"}}}
	whole := &fleet.Baseboard{Powered: true, Requests: 7}
	silent := fleet.Errorf(fleet.Unavailable, "MC-BMC-UNREACHABLE", "no answer")
	garbage := fleet.Errorf(fleet.Broken, "MC-BMC-PROTOCOL", "read /redfish/v1/Systems: not a JSON object")
	w := contract.NewWorld(t)
	for _, c := range []struct {
		name             string
		answers          []look
		faults, evidence string
		asked            int
	}{
		{"there is none", []look{{}}, "", `"none":"the BMC shows no GPU baseboard"`, 1},
		{"a GPU that the host does not see", []look{{board: gpu}}, host, `"gpus":1`, 1},
		{"silent once, then nothing differs", []look{{err: silent}, {board: whole}}, "", `"requests":7`, 2},
		{"the GPU is there again", []look{{board: gpu}}, host, `"gpus":1`, 1},
		{"cut off once, then the same", []look{{board: part}, {board: gpu}}, host, `"gpus":1`, 2},
		{"cut off each time: what was found stands", []look{{board: part}}, host, `"unread":1`, 2},
		{"silent each time: what was found stands", []look{{err: silent}}, host, `"kept":true`, 2},
		{"garbage: what was found stands", []look{{err: garbage}}, host, `"kept":true`, 1},
		{"without power: what was found stands", []look{{board: &fleet.Baseboard{}}}, host, `"differences":0`, 1},
		{"whole", []look{{board: whole}}, "", `"differences":0`, 1},
		{"gone, and nobody wants it", []look{{}}, "", `"differences":1`, 1},
	} {
		faults, evidence, asked := inspected(t, w, c.answers...)
		if faults != c.faults || !strings.Contains(evidence, c.evidence) || asked != c.asked {
			t.Errorf("%s: asked %d times, %s, faults:\n%s", c.name, asked, evidence, faults)
		}
	}
	wantBoard(t, w)
	for _, c := range []struct {
		name    string
		answers []look
		words   string
	}{
		{"there is none", []look{{}}, "the BMC shows no GPU baseboard, and class plain wants one"},
		{"silent", []look{{err: silent}}, "no answer, and class plain wants one"},
		{"garbage", []look{{err: garbage}}, "read /redfish/v1/Systems: not a JSON object, and class plain wants one"},
		{"cut off", []look{{board: part}}, "read /redfish/v1/Systems/HGX_Baseboard_0/Processors/GPU_SXM_1/Ports: not a JSON object"},
	} {
		if faults, _, _ := inspected(t, w, c.answers...); faults != "MC-BOARD-UNREAD board blocks allocate" {
			t.Errorf("%s: faults:\n%s", c.name, faults)
		}
		n, _ := w.Read()
		if f := n.Fault("MC-BOARD-UNREAD", "board"); f == nil || !strings.Contains(f.Evidence, c.words) {
			t.Errorf("%s: %+v", c.name, f)
		}
	}
	if faults, _, _ := inspected(t, w, look{board: whole}); faults != "" {
		t.Errorf("whole again: faults:\n%s", faults)
	}
}

// TestReadBoardDenied: a BMC that refuses the password fails the inspection as it does at every other step.
func TestReadBoardDenied(t *testing.T) {
	w := contract.NewWorld(t)
	w.Loop.Boards = &boards{t: t, answers: []look{{err: fleet.Errorf(fleet.Denied, "MC-BMC-AUTH", "the BMC refuses the password")}}}
	if _, err := w.Loop.Ask(t.Context(), w.Node, "inspect", api.NodeVerb{AllowReboot: true}, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Settle(time.Hour)
	n, op := w.Read()
	if f := n.Fault("MC-FAULT-INSPECT", "plan/inspect"); op.State != fleet.OperationFailed || f == nil || !strings.Contains(f.Evidence, "MC-BMC-AUTH") || n.Inventory == "" || n.Board != "" {
		t.Errorf("%s, faults %+v", op.State, n.Faults)
	}
}

// TestIdentityChanged: a root of trust that is another than before stays a fault until a person has cleared it, however often is looked again.
func TestIdentityChanged(t *testing.T) {
	w := contract.NewWorld(t)
	with := func(identity string) look {
		return look{board: &fleet.Baseboard{Powered: true, Roots: []fleet.BoardRoot{{ID: "HGX_ERoT_NVSwitch_0", Enabled: true, Identity: identity}}}}
	}
	const fault = "MC-BOARD-IDENTITY board/HGX_ERoT_NVSwitch_0 blocks allocate"
	for i, c := range []struct{ identity, want string }{{"sha256:a", ""}, {"sha256:a", ""}, {"sha256:b", fault}, {"sha256:b", fault}} {
		if faults, _, _ := inspected(t, w, with(c.identity)); faults != c.want {
			t.Errorf("look %d: faults:\n%s", i+1, faults)
		}
	}
	if _, err := w.Loop.Ask(t.Context(), w.Node, api.VerbClearFault, api.NodeVerb{FaultCode: "MC-BOARD-IDENTITY", FaultComponent: "board/HGX_ERoT_NVSwitch_0", Reason: "replaced"}, "tester"); err != nil {
		t.Fatal(err)
	}
	if faults, _, _ := inspected(t, w, with("sha256:b")); faults != "" {
		t.Errorf("cleared: faults:\n%s", faults)
	}
}
