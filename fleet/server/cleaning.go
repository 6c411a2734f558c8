package server

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/metalctl/metalctl/fleet"
)

type cleaningIn struct {
	Item
	Lease string `query:"lease" maxLength:"100" doc:"the record of the cleaning after this lease, by id or name, instead of the newest"`
}

func (s *Server) getCleaning(ctx context.Context, in *cleaningIn) (*plain[fleet.CleaningRecord], error) {
	n, _, err := s.node(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	digest, of := n.Cleaning, ""
	if in.Lease != "" {
		of = " after lease " + shortened(in.Lease)
		if digest, err = s.cleanedAfter(ctx, n.ID, in.Lease); err != nil {
			return nil, err
		}
	}
	if digest == "" {
		return nil, fleet.Errorf(fleet.NotFound, "MC-CLEANING-NONE", "there is no record of a cleaning of %s%s", n.Name, of).WithHint("metalctl node clean %s", n.Name)
	}
	rec, err := s.cleaningRecord(ctx, digest)
	return &plain[fleet.CleaningRecord]{rec}, err
}

// cleanedAfter is the digest of the record of the newest cleaning of what that lease left on the node; "" where there is none.
func (s *Server) cleanedAfter(ctx context.Context, id fleet.NodeID, lease string) (digest string, err error) {
	err = s.Store.View(ctx, func(sn fleet.Snapshot) error {
		l, _, err := findLease(sn, lease)
		if err != nil {
			return err
		}
		for _, m := range l.Members {
			if m.Node == id && m.Cleaning != "" {
				digest = m.Cleaning
			}
		}
		return nil
	})
	return digest, err
}

func (s *Server) cleaningRecord(ctx context.Context, digest string) (rec fleet.CleaningRecord, err error) {
	b, err := s.Blobs.OpenBlob(ctx, digest)
	if err != nil {
		return rec, fmt.Errorf("open the cleaning record: %w", err)
	}
	defer b.Close()
	if err := json.NewDecoder(b).Decode(&rec); err != nil {
		return rec, fleet.Errorf(fleet.Broken, "MC-STORE-BLOB", "the cleaning record %s cannot be read: %w", digest, err).WithHint("metalctl server check")
	}
	return rec, nil
}
