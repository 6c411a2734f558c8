package server

import (
	"context"
	"fmt"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/verdict"
)

type learnIn struct {
	Item
	Name string `query:"name" maxLength:"63" doc:"what the class is to be called; the node's own class where nothing is said, or learned"`
}

// learnClass makes a class of what a golden node is, and stores nothing.
func (s *Server) learnClass(ctx context.Context, in *learnIn) (*plain[api.Learned], error) {
	n, inv, err := s.inspected(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	own, err := s.classOf(ctx, n)
	if err != nil {
		return nil, err
	}
	found := verdict.Suspicions(inv)
	if err := unfitToLearn(n, inv, found, verdict.Judge(inv, own)); err != nil {
		return nil, err
	}
	class := fleet.Class{Name: "learned", BurnIn: "none", EraseLevel: "purge"}
	if own.Name != "" {
		class = own
	}
	if in.Name != "" {
		class.Name = in.Name
	}
	source := fmt.Sprintf("learned from node %s, inventory of %s", n.Name, inv.TakenAt.UTC().Format(time.RFC3339))
	board, items := class.Expect.Baseboard, class.Expect.Firmware.Board
	read, err := fleet.StoredBaseboard(ctx, s.Blobs, n.Board)
	if err != nil {
		return nil, err
	}
	if read != nil {
		board, items = verdict.LearnBoard(*read)
	}
	class.Expect = verdict.Learn(inv, source)
	class.Expect.Baseboard, class.Expect.Firmware.Board = board, items
	f := faultList{class.Validate()}
	if err := f.err("the class that was learned"); err != nil {
		return nil, err
	}
	return &plain[api.Learned]{api.Learned{Node: n.Name, InventoryAt: inv.TakenAt, Class: class, Suspicions: found, Unread: inv.Missing}}, nil
}

// unfitToLearn refuses a machine that others must not be held to: one that was not read whole, or that something is wrong with. That it is not what its
// present class says is no reason: that class is what is about to be replaced.
func unfitToLearn(n fleet.Node, inv fleet.Inventory, found, byClass []fleet.Difference) error {
	refuse := func(hint, format string, args ...any) error {
		return fleet.Errorf(fleet.Conflict, "MC-CLASS-LEARN", "no class can be learned from node %s: %s", n.Name, fmt.Sprintf(format, args...)).WithHint("%s", hint)
	}
	switch {
	case n.State == fleet.Inspecting:
		return refuse("metalctl node explain "+n.Name, "its inspection has not ended")
	case inv.OutOfBand:
		return refuse("metalctl node inspect "+n.Name+" --allow-reboot", "its inventory was read through the BMC alone")
	}
	for _, d := range found {
		if d.Blocks != fleet.BlocksNothing {
			return refuse("metalctl node inventory "+n.Name+" --diff", "%s on %s: %s", d.Code, d.Component, d.Words)
		}
	}
	known := map[string]bool{"MC-CLASS-NONE": true, "MC-INVENTORY-MORE": true}
	for _, d := range byClass {
		known[d.Code] = known[d.Code] || d.Against == fleet.AgainstClass
	}
	for _, f := range n.Faults {
		if f.Blocks != fleet.BlocksNothing && !known[f.Code] {
			return refuse("metalctl node explain "+n.Name, "it has the fault %s on %s: %s", f.Code, f.Component, f.Evidence)
		}
	}
	return nil
}
