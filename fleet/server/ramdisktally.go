package server

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// tallyKey holds the newest event whose outcome was counted, so that each counts once, whatever restarts.
const tallyKey fleet.Key = fleet.KindMeta + "/ramdisk-tally"

// noteOutcome puts what became of a ramdisk into the last event of a change, for the tally.
func noteOutcome(c *fleet.Change, o fleet.RamdiskOutcome) {
	if o.SHA256 == "" {
		return
	}
	c.Events[len(c.Events)-1].Data, _ = json.Marshal(o) // strings and numbers always encode
}

// beginTally notes where counting begins, on a store where nobody counted yet.
func (s *Server) beginTally(ctx context.Context) error {
	err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
		_, err := sn.Get(tallyKey)
		return err
	})
	if fleet.KindOf(err) != fleet.NotFound {
		return err
	}
	newest, err := s.Store.LastEvent(ctx)
	if err == nil {
		_, err = s.Store.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: tallyKey}}, Writes: []fleet.Write{{Key: tallyKey, Value: newest}}})
	}
	return err
}

// tally counts what became of each ramdisk's boots until ctx ends, and ends a canary that fails.
func (s *Server) tally(ctx context.Context) error {
	var seen int64 // events up to here hold nothing that is not counted
	for ctx.Err() == nil {
		changed := s.Store.Changed()
		more, err := s.tallyOnce(ctx, &seen)
		switch {
		case err != nil && ctx.Err() == nil:
			s.Log.Warn("the boots of ramdisks cannot be counted; trying again", "err", err)
			waitFor(ctx, 5*time.Second, nil)
		case !more:
			waitFor(ctx, 0, changed)
		}
	}
	return nil
}

// tallyBatch is how many outcomes are counted in one commit; it bounds the records that change.
const tallyBatch = 20

// tallyOnce counts the next outcomes, in one commit with the note that they were, and reports whether there may be more. Where there is nothing to count it
// writes nothing.
func (s *Server) tallyOnce(ctx context.Context, seen *int64) (more bool, err error) {
	var after int64
	var at fleet.Revision
	err = s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		after, at, err = fleet.Get[int64](sn, tallyKey)
		return err
	})
	if err != nil {
		return false, err
	}
	events, err := s.Store.Events(ctx, max(after, *seen), 500)
	if fleet.CodeOf(err) == "MC-EVENTS-GONE" { // nobody counted for longer than events are kept
		*seen, err = s.Store.LastEvent(ctx)
		return true, err
	}
	if err != nil || len(events) == 0 {
		return false, err
	}
	var counted []fleet.RamdiskOutcome
	var last int64
	for _, e := range events {
		last = e.ID
		var o fleet.RamdiskOutcome
		if len(e.Data) > 0 && e.Node != "" && json.Unmarshal(e.Data, &o) == nil && o.SHA256 != "" && o.Kind != "" {
			o.Node = e.Node
			counted = append(counted, o)
		}
		if len(counted) == tallyBatch {
			break
		}
	}
	if len(counted) > 0 {
		if err := s.count(ctx, counted, last, at); err != nil {
			return false, err
		}
	}
	*seen = last
	return true, nil
}

// count takes outcomes into the records of media and rollouts. Whoever changed one of them meanwhile was first, and all is read again.
func (s *Server) count(ctx context.Context, outcomes []fleet.RamdiskOutcome, after int64, at fleet.Revision) error {
	for try := 1; ; try++ {
		c := fleet.Change{If: []fleet.Precondition{{Key: tallyKey, Revision: at}}, Writes: []fleet.Write{{Key: tallyKey, Value: after}}}
		var said []string
		err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
			said = nil
			media, revs := map[string]fleet.Ramdisk{}, map[string]fleet.Revision{}
			rollouts, rolloutRevs := map[string]*fleet.Rollout{}, map[string]fleet.Revision{}
			if err := eachRecord(sn, fleet.KindRollout, func(r fleet.Rollout, rev fleet.Revision) { rollouts[r.Class], rolloutRevs[r.Class] = &r, rev }); err != nil {
				return err
			}
			touched := map[string]bool{}
			for _, o := range outcomes {
				m, known := media[o.SHA256]
				if !known {
					var err error
					if m, revs[o.SHA256], err = fleet.Get[fleet.Ramdisk](sn, fleet.KeyOf(fleet.KindRamdisk, o.SHA256)); fleet.KindOf(err) == fleet.NotFound {
						continue
					} else if err != nil {
						return err
					}
				}
				m.Count(o)
				media[o.SHA256] = m
				for _, class := range sortedKeys(rollouts) {
					r := rollouts[class]
					before := r.Canary
					if before == nil || before.Stopped != "" || before.Ramdisk != o.SHA256 {
						continue
					}
					touched[class] = true
					switch r.Count(o, s.Now().UTC()) {
					case "stopped":
						text := fmt.Sprintf("MC-RAMDISK-CANARY: the canary of ramdisk %s was stopped: %s", m.Name(), r.Canary.Stopped)
						c.Events, said = append(c.Events, rolloutEvent(*r, s.Now(), "ramdisk.canary-stopped", "%s", text)), append(said, rolloutName(class)+": "+text)
					case "promoted":
						c.Events = append(c.Events, rolloutEvent(*r, s.Now(), "ramdisk.promoted", "ramdisk %s is booted from now on, by %s", m.Name(), r.By))
					}
				}
			}
			for sum, m := range media {
				key := fleet.KeyOf(fleet.KindRamdisk, sum)
				c.If, c.Writes = append(c.If, fleet.Precondition{Key: key, Revision: revs[sum]}), append(c.Writes, fleet.Write{Key: key, Value: m})
			}
			for class := range touched {
				key := fleet.KeyOf(fleet.KindRollout, fleet.RolloutID(class))
				c.If, c.Writes = append(c.If, fleet.Precondition{Key: key, Revision: rolloutRevs[class]}), append(c.Writes, fleet.Write{Key: key, Value: rollouts[class]})
			}
			return nil
		})
		if err != nil {
			return err
		}
		_, err = s.Store.Commit(ctx, c)
		if fleet.CodeOf(err) == "MC-STORE-STALE" && try < 20 {
			continue
		}
		for _, text := range said {
			if err == nil {
				s.Log.Error("a canary was stopped", "why", text)
			}
		}
		return err
	}
}
