package standby

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// mute is a primary that does not answer.
type mute struct{ Primary }

func (mute) Role(context.Context) (api.Role, error) {
	return api.Role{}, errors.New("no route to host")
}

// held is a copy that is there.
type held struct {
	Copy
	promoted, handsOff bool
}

func (h *held) State(context.Context) (fleet.Position, fleet.StoreIdentity, fleet.StoreRole, bool, error) {
	return fleet.Position{}, fleet.StoreIdentity{}, fleet.StoreRole{Kind: fleet.RoleFollows}, true, nil
}

func (h *held) Promote(_ context.Context, _ string, handsOff bool) (fleet.StoreIdentity, error) {
	h.promoted, h.handsOff = true, handsOff
	return fleet.StoreIdentity{}, nil
}

// TestForceListensFirst: a server that answers nothing, and whose stream is heard all the same, lives. What was heard before is no sign of it.
func TestForceListensFirst(t *testing.T) {
	for name, lives := range map[string]bool{"its stream goes on": true, "its last word was a moment ago": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &held{}
				f := &Follower{Primary: mute{}, Copy: h, Peer: "https://mc1:8443", Log: slog.New(slog.DiscardHandler)}
				ctx, cancel := context.WithCancel(t.Context())
				if err := f.Begin(ctx); err != nil {
					t.Fatal(err)
				}
				var stream sync.WaitGroup
				defer stream.Wait()
				defer cancel()
				stream.Go(func() {
					ticks := time.NewTicker(tickEvery)
					defer ticks.Stop()
					for lives {
						select {
						case <-ctx.Done():
							return
						case <-ticks.C:
						}
						if err := f.heard(tick{}); err != nil {
							t.Error(err)
						}
					}
				})
				began := time.Now()
				_, err := f.Promote(ctx, true, "admin")
				if lives {
					if fleet.CodeOf(err) != "MC-STANDBY-PRIMARY-ACTS" || h.promoted {
						t.Errorf("taken over from one that lives: %v", err)
					}
					return
				}
				if err != nil || !h.promoted || !h.handsOff {
					t.Errorf("%v, %+v", err, h)
				}
				if took := time.Since(began); took < Gone || took > 2*Gone {
					t.Errorf("it listened for %s", took)
				}
			})
		})
	}
}
