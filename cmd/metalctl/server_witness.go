//go:build !ramdisk

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
	"github.com/metalctl/metalctl/fleet/witness"
)

// witnesses opens the logs that the configuration names.
func (c serverConfig) witnesses() ([]witness.Log, error) {
	var token fleet.Secret
	if c.WitnessTokenFile != "" {
		b, err := os.ReadFile(c.WitnessTokenFile)
		if err != nil {
			return nil, fmt.Errorf("read witness_token_file: %w", err)
		}
		token = fleet.NewSecret(strings.TrimSpace(string(b)))
	}
	var logs []witness.Log
	for _, target := range c.Witness {
		l, err := witness.Open(target, token)
		if err != nil {
			return nil, err
		}
		logs = append(logs, l)
	}
	return logs, nil
}

// hearWitness compares the store with the logs outside before anything acts on it. One that is older than they are starts frozen, and so does each node
// that they know more of. A witness that cannot be heard stops nothing by itself: what was frozen stays so.
func hearWitness(ctx context.Context, db *store.DB, logs []witness.Log, now func() time.Time, log *slog.Logger) error {
	if len(logs) == 0 {
		return nil
	}
	id, err := db.Identity(ctx)
	if err != nil {
		return err
	}
	var freezes []fleet.Freeze
	var nodes []fleet.Node
	err = db.View(ctx, func(s fleet.Snapshot) (err error) {
		if freezes, err = fleet.Freezes(s); err != nil {
			return err
		}
		nodes, err = fleet.List[fleet.Node](s, fleet.KindNode)
		return err
	})
	if err != nil {
		return err
	}
	v, _ := unresolved(witness.Compare(ctx, id, logs), nodes)
	if v.Testimony != fleet.Stale {
		log.Info("the witness was heard", "testimony", v.Testimony, "text", v.Text)
		return nil
	}
	log.Error("the store is older than its witness; everything is frozen", "text", v.Text)
	lost := map[fleet.NodeID]stale{}
	for id, l := range v.Nodes {
		lost[id] = stale{tagOf(l), witnessed(l)}
	}
	if err := markStale(ctx, db, now, lost); err != nil {
		return err
	}
	mark := fmt.Sprintf("%s/%d", v.Newest.Epoch, v.Newest.Revision)
	c := fleet.Change{Writes: []fleet.Write{{Key: heardKey, Value: mark}}}
	frozen := slices.ContainsFunc(freezes, func(f fleet.Freeze) bool { return f.Scope == fleet.FreezeAll })
	switch {
	case heard(ctx, db, mark):
		return nil // whoever thawed it since has seen what the witness says
	case !frozen:
		f := fleet.Freeze{ID: newFreezeID(), Scope: fleet.FreezeAll, Reason: v.Text, By: "the server", Since: now().UTC().Truncate(time.Second), Source: fleet.FrozenByWitness}
		c.Writes = append(c.Writes, fleet.Write{Key: fleet.KeyOf(fleet.KindFreeze, f.ID), Value: f})
		c.Events = append(c.Events, fleet.Event{Type: "store.stale", At: now().UTC(), Subject: fleet.KeyOf(fleet.KindFreeze, f.ID), Text: v.Text + "; everything is frozen"})
	}
	_, err = db.Commit(ctx, c)
	return err
}

// heardKey holds what the witness said last, so that a restart after a thaw does not freeze everything for the same words again.
const heardKey fleet.Key = fleet.KindMeta + "/witness"

func heard(ctx context.Context, db *store.DB, mark string) bool {
	var old string
	err := db.View(ctx, func(s fleet.Snapshot) (err error) {
		old, _, err = fleet.Get[string](s, heardKey)
		return err
	})
	return err == nil && old == mark
}

// unresolved keeps of a verdict what the records do not show by now, and tells the nodes that the store does not know at all. What a person has
// cleared is in the records; a node that was enrolled again counts by its name.
func unresolved(v witness.Verdict, nodes []fleet.Node) (witness.Verdict, []witness.Line) {
	if v.Testimony != fleet.Stale {
		return v, nil
	}
	byID, names := map[fleet.NodeID]fleet.Node{}, map[string]bool{}
	for _, n := range nodes {
		byID[n.ID], names[n.Name] = n, true
	}
	open, strangers := map[fleet.NodeID]witness.Line{}, []witness.Line{}
	for id, l := range v.Nodes {
		n, known := byID[id]
		switch {
		case !known && !names[l.Name]:
			strangers = append(strangers, l)
		case known && (l.Boots > max(n.Boot.Generation, n.Boot.Witnessed) || l.Handovers > n.Handovers):
			open[id] = l
		}
	}
	v.Nodes = open
	if len(open)+len(strangers) == 0 {
		v.Testimony, v.Text = fleet.Agrees, "the store was older than its witness; all that it had lost was taken over since"
	}
	return v, strangers
}

// tagOf is a line as the mark of a BMC that says the same.
func tagOf(l witness.Line) fleet.WitnessTag {
	return fleet.TagOf(l.Epoch, &fleet.Node{Boot: fleet.BootRecord{Generation: l.Boots}, Handovers: l.Handovers})
}

// witnessed is a line in words.
func witnessed(l witness.Line) string {
	what := fmt.Sprintf("boot generation %d began", l.Boots)
	switch l.Event {
	case witness.Handover:
		what = fmt.Sprintf("it was handed to lease %s", l.Lease)
	case witness.Clean:
		what = "it was erased"
	}
	return fmt.Sprintf("the witness of %s says that %s, at revision %d, which this store does not know", l.At.UTC().Format(time.RFC3339), what, l.Revision)
}
