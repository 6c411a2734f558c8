package witness

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Verdict is what logs say of a store.
type Verdict struct {
	Testimony fleet.Testimony
	Text      string
	// Newest is the newest line that the store does not know; zero where there is none.
	Newest Line
	// Nodes are the nodes with which something was done that the store does not know, by the newest such line.
	Nodes map[fleet.NodeID]Line
	// Read is how many logs could be read.
	Read int
	// Reaches: a log that could be read goes back to before the store's present life began, so that what it does not tell was not done. One that was
	// begun since tells nothing of what a restored store may have lost.
	Reaches bool
}

// Compare asks every log that can be read whether the store knows all that it does. One that knows more makes the store stale. Where none can be read,
// the witness is silent.
func Compare(ctx context.Context, id fleet.StoreIdentity, logs []Log) Verdict {
	v := Verdict{Testimony: fleet.Silent, Text: "no witness is kept outside of the store", Nodes: map[fleet.NodeID]Line{}}
	var newest Line
	var unreadable error
	for _, log := range logs {
		lines, reaches := 0, false
		err := log.Read(ctx, func(l Line) {
			lines++
			reaches = reaches || len(id.Lives) < 2 || l.Epoch != id.Epoch() && id.Knows(l.Epoch, l.Revision)
			if id.Knows(l.Epoch, l.Revision) {
				return
			}
			if l.At.After(newest.At) || newest.Epoch == "" {
				newest = l
			}
			if old, ok := v.Nodes[l.Node]; l.Node != "" && (!ok || !l.At.Before(old.At)) {
				v.Nodes[l.Node] = l
			}
		})
		switch {
		case err != nil:
			v.Text = fmt.Sprintf("%s cannot tell: %v", log, err)
			if !errors.Is(err, ErrWriteOnly) {
				unreadable = errors.Join(unreadable, fmt.Errorf("%s: %w", log, err))
			}
		case lines == 0:
			v.Text = fmt.Sprintf("%s holds nothing yet", log)
		case !reaches:
			v.Text = fmt.Sprintf("%s was begun after the restore, and cannot tell what was lost", log)
		default:
			v.Read++
			v.Reaches = true
		}
	}
	switch {
	case newest.Epoch != "":
		v.Testimony, v.Newest = fleet.Stale, newest
		v.Text = fmt.Sprintf("the witness of %s names revision %d of life %s (generation %d); this store is at revision %d, generation %d, and does not know it",
			newest.At.UTC().Format(time.RFC3339), newest.Revision, newest.Epoch, newest.Generation, id.Revision, id.Generation())
	case v.Read > 0 && unreadable == nil:
		v.Testimony, v.Text = fleet.Agrees, "the store knows everything that its witness does"
	case v.Read > 0:
		v.Testimony, v.Text = fleet.Agrees, fmt.Sprintf("the store knows everything that the witness does that can be read; %v", unreadable)
	}
	return v
}
