//go:build !ramdisk

package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"regexp"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

// blobKept is how long blobs of a kind stay after nothing names them any more. User-data is a tenant's secret and goes first; the day covers
// leases that are being made, and steps whose evidence is being journalled.
var blobKept = map[string]time.Duration{"inventory": 90 * 24 * time.Hour, "baseboard": 24 * time.Hour, store.BlobUserData: 24 * time.Hour, "evidence": 24 * time.Hour,
	"cleaning": 90 * 24 * time.Hour, "report": 24 * time.Hour}

// blobDigest is how a blob is named, wherever in a step's evidence that stands.
var blobDigest = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

// ramdiskSweeper removes boot media that no node boots any more.
type ramdiskSweeper interface {
	SweepRamdisks(context.Context) (int, error)
}

// sweepAfter is how long after a start blobs and media are swept first: it reads the whole store, and a server that starts has more urgent things to do.
const sweepAfter = 10 * time.Minute

// sweepDaily removes blobs that no record needs and media that no node boots, sweepAfter its begin and then every day, until ctx ends. What cannot be
// removed is logged and tried again.
func sweepDaily(ctx context.Context, db *store.DB, media ramdiskSweeper, log *slog.Logger) error {
	next := time.NewTimer(sweepAfter)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next.C:
			next.Reset(24 * time.Hour)
		}
		if n, err := sweepOnce(ctx, db); err != nil && ctx.Err() == nil {
			log.Error("remove blobs that nothing names", "err", err)
		} else if n > 0 {
			log.Info("blobs that nothing names were removed", "count", n)
		}
		if _, err := media.SweepRamdisks(ctx); err != nil && ctx.Err() == nil {
			log.Error("remove boot media that no node boots", "err", err)
		}
	}
}

// sweepOnce removes inventories and views of baseboards that are neither a node's newest nor the one before, user-data of leases that are over and hold no node in grace, and evidence that no journal
// names: that of tries that were overtaken, or whose worker was fenced. Cleaning records stay with the node whose newest they are, and with the lease whose data they are about.
func sweepOnce(ctx context.Context, db *store.DB) (removed int, err error) {
	used := map[string]bool{}
	type over struct {
		lease fleet.Lease
		rev   fleet.Revision
	}
	var spent []over
	err = db.View(ctx, func(s fleet.Snapshot) error {
		clear(used)
		spent = nil
		// Of a node no more is decoded than what is needed: there may be many.
		nodes, err := fleet.List[struct {
			Inventory     string        `json:"inventory"`
			LastInventory string        `json:"last_inventory"`
			AcceptedAs    string        `json:"accepted_as"`
			Cleaning      string        `json:"cleaning"`
			Board         string        `json:"board"`
			LastBoard     string        `json:"last_board"`
			Lease         fleet.LeaseID `json:"lease"`
		}](s, fleet.KindNode)
		if err != nil {
			return err
		}
		held := map[fleet.LeaseID]bool{}
		for _, n := range nodes {
			used[n.Inventory], used[n.LastInventory], used[n.AcceptedAs], used[n.Board], used[n.LastBoard], used[n.Cleaning], held[n.Lease] = true, true, true, true, true, true, true
		}
		leases, err := fleet.List[fleet.Lease](s, fleet.KindLease)
		if err != nil {
			return err
		}
		for _, l := range leases {
			for _, m := range l.Members {
				used[m.Cleaning], used[m.Wires], used[m.Probe] = true, true, true
			}
			if l.UserData == "" {
				continue
			}
			if !l.State.Over() || held[l.ID] { // a lease may come back while its nodes wait in grace
				used[l.UserData] = true
				continue
			}
			l, rev, err := fleet.Get[fleet.Lease](s, fleet.KeyOf(fleet.KindLease, l.ID))
			if err != nil {
				return err
			}
			spent = append(spent, over{l, rev})
		}
		return namedByJournals(s, used)
	})
	if err != nil {
		return 0, err
	}
	// A record names only blobs that are there, so that it lets go first. One that changed meanwhile may live again, and keeps what it has.
	for _, o := range spent {
		key, digest := fleet.KeyOf(fleet.KindLease, o.lease.ID), o.lease.UserData
		o.lease.UserData = ""
		_, err := db.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: key, Revision: o.rev}}, Writes: []fleet.Write{{Key: key, Value: o.lease}}})
		if fleet.CodeOf(err) == "MC-STORE-STALE" {
			used[digest] = true
		} else if err != nil {
			return 0, err
		}
	}
	for kind, keep := range blobKept {
		n, err := db.SweepBlobs(ctx, kind, keep, func(digest string) bool { return used[digest] })
		removed += n
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// namedByJournals marks the blobs that the steps of any operation name in their evidence, and those that earlier tries left.
func namedByJournals(s fleet.Snapshot, used map[string]bool) error {
	var bad error
	err := s.List(fleet.KindOperation, func(r fleet.Record) bool {
		var op struct {
			Steps []struct {
				Evidence json.RawMessage `json:"evidence"`
				Left     []string        `json:"left"`
			} `json:"steps"`
		}
		if err := json.Unmarshal(r.Data, &op); err != nil {
			bad = fleet.Errorf(fleet.Broken, "MC-STORE-DECODE", "decode record %s: %w", r.Key, err)
			return false
		}
		for _, step := range op.Steps {
			for _, digest := range blobDigest.FindAll(step.Evidence, -1) {
				used[string(digest)] = true
			}
			for _, digest := range step.Left {
				used[digest] = true
			}
		}
		return true
	})
	return errors.Join(bad, err)
}
