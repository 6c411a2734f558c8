package server

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/verdict"
)

// mostFellows bounds how many inventories one question reads.
const mostFellows = 32

type differencesIn struct {
	Item
	Against []string `query:"against,explode" maxItems:"4" enum:"class,last,fleet,bmc" doc:"what to compare the newest inventory with; none means all that is known; bmc is what the BMC showed of the GPU baseboard at the last inspection"`
	Now     bool     `query:"now" doc:"with bmc: ask the BMC now, by reads only, which may take two minutes"`
}

func (s *Server) getDifferences(ctx context.Context, in *differencesIn) (*plain[api.Differences], error) {
	n, inv, err := s.inspected(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	out := api.Differences{Node: n.Name, Against: in.Against, Class: n.Class, InventoryAt: n.InventoryAt, Differences: []fleet.Difference{}}
	if len(out.Against) == 0 {
		out.Against = []string{fleet.AgainstClass, fleet.AgainstLast, fleet.AgainstFleet}
		if n.Board != "" || in.Now {
			out.Against = append(out.Against, fleet.AgainstBMC)
		}
	}
	not := func(format string, args ...any) {
		out.NotCompared = append(out.NotCompared, fmt.Sprintf(format, args...))
	}
	if slices.Contains(out.Against, fleet.AgainstClass) {
		class, err := s.classOf(ctx, n)
		if err != nil {
			return nil, err
		}
		if class.Name == "" {
			not("class: the node has none that exists (%q), so that only what is wrong by itself was looked for", n.Class)
		}
		out.Differences = append(out.Differences, verdict.Judge(inv, class)...)
	}
	if slices.Contains(out.Against, fleet.AgainstLast) {
		last, err := s.inventoryBefore(ctx, n)
		switch {
		case err != nil:
			return nil, err
		case last == nil:
			not("last: there is no inventory before the newest")
		default:
			out.LastAt = last.TakenAt
			out.Differences = append(out.Differences, verdict.Last(inv, *last)...)
		}
	}
	if slices.Contains(out.Against, fleet.AgainstFleet) {
		fellows, err := s.fellows(ctx, n)
		if err != nil {
			return nil, err
		}
		out.Fellows = len(fellows)
		if len(fellows) < 2 {
			not("fleet: fewer than two other nodes of class %q have an inventory", n.Class)
		}
		out.Differences = append(out.Differences, verdict.Fellows(inv, fellows)...)
	}
	if slices.Contains(out.Against, fleet.AgainstBMC) {
		class, err := s.classOf(ctx, n)
		if err != nil {
			return nil, err
		}
		ds, why, at, err := s.boardDifferences(ctx, n, inv, class, in.Now)
		if err != nil {
			return nil, err
		}
		out.BoardAt, out.BoardNow, out.Differences, out.NotCompared = at, in.Now, append(out.Differences, ds...), append(out.NotCompared, why...)
	}
	return &plain[api.Differences]{out}, nil
}

// boardDifferences compares with what the BMC showed of the baseboard at the last inspection, or shows now. at is zero where that is nothing.
func (s *Server) boardDifferences(ctx context.Context, n fleet.Node, inv fleet.Inventory, class fleet.Class, now bool) (ds []fleet.Difference, not []string, at time.Time, err error) {
	before := n.LastBoard
	if now {
		before = n.Board
	}
	last, err := fleet.StoredBaseboard(ctx, s.Blobs, before)
	if err != nil {
		return nil, nil, at, err
	}
	var board *fleet.Baseboard
	if now {
		board, err = s.baseboard(ctx, n)
	} else {
		board, err = fleet.StoredBaseboard(ctx, s.Blobs, n.Board)
	}
	switch {
	case err != nil:
		return nil, nil, at, err
	case board == nil && !now:
		return verdict.BoardAbsent(class, last), []string{"bmc: its BMC showed no GPU baseboard at the last inspection, or was not asked yet"}, at, nil
	case board == nil:
		ds, not = verdict.BoardAbsent(class, last), []string{"bmc: its BMC shows no GPU baseboard"}
	default:
		at = board.TakenAt
		ds, not = verdict.Baseboard(inv, class, *board, last)
	}
	for i := range ds {
		if now {
			ds[i].Blocks = fleet.BlocksNothing // no inspection has made faults of them
		}
	}
	return ds, not, at, nil
}

// boardLimit is how long the BMC may be asked for its baseboard.
const boardLimit = 2 * time.Minute

// baseboard asks the node's BMC for it; nil where it shows none.
func (s *Server) baseboard(ctx context.Context, n fleet.Node) (*fleet.Baseboard, error) {
	if s.Boards == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, boardLimit)
	defer cancel()
	return s.Boards.Baseboard(ctx, n.ID)
}

// inspected reads a node with what the last inspection found.
func (s *Server) inspected(ctx context.Context, id string) (n fleet.Node, inv fleet.Inventory, err error) {
	if n, _, err = s.node(ctx, id); err != nil {
		return n, inv, err
	}
	if n.Inventory == "" {
		return n, inv, fleet.Errorf(fleet.NotFound, "MC-NODE-INVENTORY", "the node %s was not inspected yet", n.Name).WithHint("metalctl node inspect %s", n.Name)
	}
	inv, err = s.inventory(ctx, n.Inventory)
	return n, inv, err
}

// classOf is the node's class, the zero value where it has none that exists.
func (s *Server) classOf(ctx context.Context, n fleet.Node) (c fleet.Class, err error) {
	if n.Class == "" {
		return c, nil
	}
	err = s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		c, _, err = findClass(sn, n.Class)
		return err
	})
	if fleet.CodeOf(err) == "MC-CLASS-UNKNOWN" {
		return fleet.Class{}, nil
	}
	return c, err
}

// inventoryBefore is the inventory before the newest, nil where there is none or it is kept no more.
func (s *Server) inventoryBefore(ctx context.Context, n fleet.Node) (*fleet.Inventory, error) {
	if n.LastInventory == "" {
		return nil, nil
	}
	inv, err := s.inventory(ctx, n.LastInventory)
	if err != nil {
		if fleet.KindOf(err) == fleet.NotFound {
			return nil, nil
		}
		return nil, err
	}
	return &inv, nil
}

// fellows are other nodes of the class with their newest inventories, those that were looked at last first.
func (s *Server) fellows(ctx context.Context, n fleet.Node) ([]verdict.Fellow, error) {
	if n.Class == "" {
		return nil, nil
	}
	var nodes []fleet.Node
	err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
		nodes = nil
		return eachRecord(sn, fleet.KindNode, func(o fleet.Node, _ fleet.Revision) {
			if o.Class == n.Class && o.ID != n.ID && o.Inventory != "" {
				nodes = append(nodes, o)
			}
		})
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(nodes, func(a, b fleet.Node) int { return b.InventoryAt.Compare(a.InventoryAt) })
	var out []verdict.Fellow
	for _, o := range nodes[:min(len(nodes), mostFellows)] {
		inv, err := s.inventory(ctx, o.Inventory)
		if err != nil {
			return nil, err
		}
		out = append(out, verdict.Fellow{Node: o.Name, Inventory: inv})
	}
	return out, nil
}
