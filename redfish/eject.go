package redfish

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/stmcginnis/gofish/schemas"
)

// inserted is what this BMC object put in and did not take out yet.
type inserted struct{ slot, image string }

// EjectMedia ejects what this BMC object inserted and every image whose address begins with one of Options.Ours; where neither is
// known (a restarted program without Ours), every image that the BMC fetched from a URL. Images held by a remote console stay.
// It polls until the slots are empty and clears our HTTP boot address. Nothing there is no error.
func (b *BMC) EjectMedia(ctx context.Context) error {
	release, err := b.writing(ctx)
	if err != nil {
		return err
	}
	defer release()
	slots, err := b.slots(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	mine := b.inserted
	b.mu.Unlock()
	ours := func(uri, shown string) bool {
		switch {
		case mine.slot != "" && uri == mine.slot, mine.image != "" && shown == mine.image:
			return true
		case len(b.opts.Ours) > 0 || mine.image != "":
			return hasAnyPrefix(shown, b.opts.Ours)
		}
		scheme := schemeOf(shown)
		return scheme == "http" || scheme == "https"
	}
	var failures []error
	for _, s := range slots {
		if s.res == nil || s.media.ConnectedVia == schemas.AppletConnectedVia || !ours(s.uri, s.media.Image) {
			continue
		}
		// the same device may be listed under system and manager; a former eject may have emptied it
		fresh, err := b.slotAt(ctx, s.uri)
		if err == nil {
			err = b.eject(ctx, fresh)
		}
		if err != nil {
			failures = append(failures, explain(err, "eject "+s.uri))
		}
	}
	if err := b.withdrawHTTP(ctx, func(shown string) bool { return ours("", shown) }); err != nil {
		failures = append(failures, explain(err, "clear the HTTP boot address"))
	}
	if err := errors.Join(failures...); err != nil {
		return err
	}
	b.mu.Lock()
	b.inserted = inserted{}
	b.mu.Unlock()
	return nil
}

// eject empties one slot and polls until it shows so. A BMC may answer an eject with an error although it ejected (iLO), and may
// show the image for a while after it said yes (iDRAC).
func (b *BMC) eject(ctx context.Context, s *slot) error {
	byConnection := b.profile().EmptyByConnection
	if !s.occupied(byConnection) {
		return nil
	}
	target, _ := s.res.action("VirtualMedia.EjectMedia")
	var err error
	if target != "" {
		err = b.post(ctx, target, nil)
	}
	if st := statusOf(err); target == "" || st == http.StatusNotFound || st == http.StatusMethodNotAllowed {
		err = b.patch(ctx, s.uri, map[string]any{"Image": nil, "Inserted": false})
		if e := AsError(err); e != nil && e.Status == http.StatusBadRequest {
			err = b.patch(ctx, s.uri, map[string]any{"Image": nil})
		}
	}
	if err != nil && statusOf(err) == 0 && fleet.KindOf(err) != fleet.Unavailable {
		return err
	}
	limit := b.settle() + 20*time.Second
	if err != nil {
		limit = b.settle()
	}
	over, perr := b.until(ctx, limit, time.Second, func() (bool, error) {
		now, err := b.slotAt(ctx, s.uri)
		if err != nil {
			return false, err
		}
		return !now.occupied(byConnection), nil
	})
	switch {
	case perr != nil:
		return perr
	case !over:
		return nil
	case err != nil:
		return err
	}
	return fleet.Errorf(fleet.Timeout, "MC-BMC-EJECT", "the slot %s still shows an image %s after its eject", s.uri, limit).
		WithHint("power the host off, then: metalctl node retry NODE; if it stays, restart the BMC")
}

func hasAnyPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if p != "" && strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
