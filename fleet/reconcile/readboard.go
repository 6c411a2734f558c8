package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/fleet/verdict"
)

// boardSpare is what reading leaves of the step's time, to keep and to judge what was read.
const boardSpare = 20 * time.Second

// boardEvidence is what the journal keeps of a look at a baseboard. Board is the digest of what was read, "" where there is none.
type boardEvidence struct {
	Board       string `json:"board,omitempty"`
	None        string `json:"none,omitempty"`
	GPUs        int    `json:"gpus,omitempty"`
	NVLinks     int    `json:"nvlinks,omitempty"`
	Firmware    int    `json:"firmware,omitempty"`
	Retimers    int    `json:"retimers,omitempty"`
	Roots       int    `json:"roots_of_trust,omitempty"`
	Requests    int    `json:"requests,omitempty"`
	Unread      int    `json:"unread,omitempty"`
	Differences int    `json:"differences"`
	// Kept: the BMC could not be asked, so that what it showed before stays what is known.
	Kept bool `json:"kept,omitempty"`
}

// readBoard reads the GPU baseboard through the BMC, keeps what it read and compares it with the newest inventory, the class and the time before. A BMC
// that cannot tell is no reason to lose the inspection: that is a fault, which blocks where the class wants a baseboard. What was found before is cleared
// only by a look that read everything.
func (l *Loop) readBoard(ctx context.Context, c step.Call) (step.Outcome, error) {
	v, inv, err := l.inspected(ctx, c.Node)
	if err != nil {
		return step.Outcome{}, err
	}
	n := v.node.v
	last, err := fleet.StoredBaseboard(ctx, l.Blobs, n.Board)
	if err != nil {
		return step.Outcome{}, err
	}
	board, unread, err := l.askBoard(ctx, c)
	if err != nil {
		return step.Outcome{}, err
	}
	var ds []fleet.Difference
	var seen boardEvidence
	whole := false
	switch {
	case unread != nil:
		seen.Kept, seen.Unread = true, 1
		ds = verdict.BoardUnread(v.class, fleet.ProblemOf(unread).Detail)
	case board == nil:
		whole, seen.None = true, "the BMC shows no GPU baseboard"
		ds = verdict.BoardAbsent(v.class, last)
	default:
		whole = board.Powered && len(board.Missing) == 0
		seen = boardEvidence{GPUs: len(board.GPUs), NVLinks: len(board.Links), Firmware: len(board.Firmware), Retimers: len(board.Retimers), Roots: len(board.Roots),
			Requests: board.Requests, Unread: len(board.Missing)}
		ds, _ = verdict.Baseboard(*inv, v.class, *board, last)
		b, err := json.Marshal(board)
		if err != nil {
			return step.Outcome{}, fmt.Errorf("encode the baseboard of %s: %w", n.Name, err)
		}
		if seen.Board, err = l.Blobs.PutBlob(ctx, "baseboard", bytes.NewReader(b)); err != nil {
			return step.Outcome{}, err
		}
	}
	seen.Differences = len(ds)
	return step.Outcome{Evidence: seen, Faults: boardFaults(*n, ds, whole)}, nil
}

// askBoard asks the BMC, nil where it shows no baseboard. unread says why it could not tell; err is for another try, or ends the step: that the BMC refuses
// the password, or is another than was enrolled, is no matter of the baseboard.
func (l *Loop) askBoard(ctx context.Context, c step.Call) (board *fleet.Baseboard, unread, err error) {
	if l.Boards == nil {
		return nil, nil, nil
	}
	reading := ctx
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		reading, cancel = context.WithDeadline(ctx, end.Add(-boardSpare))
		defer cancel()
	}
	board, err = l.Boards.Baseboard(reading, c.Node)
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	decl, _ := step.Find(step.ReadBoard)
	last := c.Try >= decl.Tries
	switch kind := fleet.KindOf(err); {
	case err == nil && board != nil && len(board.Missing) > 0 && !last:
		m := board.Missing[0]
		return nil, nil, fleet.Errorf(fleet.Unavailable, "MC-BOARD-UNREAD", "%s could not be read: %s", m.What, m.Why)
	case err == nil:
		return board, nil, nil
	case kind == fleet.Broken || kind == fleet.NotFound || last && (kind == fleet.Unavailable || kind == fleet.Timeout):
		return nil, err, nil
	}
	return nil, nil, err
}

// boardFaults makes faults of the differences that block. A look that is not whole leaves those that were found before.
func boardFaults(n fleet.Node, ds []fleet.Difference, whole bool) []fleet.Fault {
	out := few(faultsOf(ds, n.Name), n.Name, "board", mostBoardFaults)
	if whole {
		return out
	}
	for _, x := range n.Faults {
		again := slices.ContainsFunc(out, func(y fleet.Fault) bool { return y.Code == x.Code && y.Component == x.Component })
		if x.Step == step.ReadBoard && x.Code != "MC-BOARD-UNREAD" && !again {
			out = append(out, x)
		}
	}
	return out
}

// mostBoardFaults bounds the faults of one look at a baseboard: they stand beside those of the inventory, in 4 KiB.
const mostBoardFaults = 6

// tookBoard keeps on the record what a look at the baseboard read.
func (v *view) tookBoard(evidence []byte) error {
	var seen boardEvidence
	if err := json.Unmarshal(evidence, &seen); err != nil {
		return fmt.Errorf("evidence of %s: %w", step.ReadBoard, err)
	}
	if n := v.node.v; !seen.Kept && seen.Board != n.Board {
		n.LastBoard, n.Board = n.Board, seen.Board
	}
	return nil
}
