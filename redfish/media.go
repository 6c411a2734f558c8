package redfish

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Method is how a host gets its boot image.
type Method string

const (
	// VirtualMedia: the BMC fetches the image and shows it to the host as a CD.
	VirtualMedia Method = "vmedia"
	// UefiHTTP: the host's firmware fetches the image from Boot.HttpBootUri.
	UefiHTTP Method = "uefi-http"
)

// MediaRequest is an image to boot from.
type MediaRequest struct {
	// URL is what the BMC fetches; treated as a secret, as its path is unguessable.
	URL string
	// CAPEM are certificates for an https URL; given to slots that can take them.
	CAPEM []byte
	// Plain is the same image over http, for slots that took it by URL in no way; "" where there is none.
	Plain string
	// Firmware is what the host's firmware fetches where no slot takes the image: it sits in another network than the BMC and rarely
	// holds our certificates. "" is URL.
	Firmware string
}

// MediaState is one slot as read from the BMC.
type MediaState struct {
	Method Method `json:"method"`
	// URI is the slot, or the system for UefiHTTP.
	URI      string `json:"uri"`
	Inserted bool   `json:"inserted"`
	// Image is the URL as the BMC shows it; whoever shows it to people cuts its path.
	Image        string   `json:"-"`
	ConnectedVia string   `json:"connected_via,omitempty"`
	MediaTypes   []string `json:"media_types,omitempty"`
	// Target is the boot target that starts this medium, for SetBootOnce.
	Target Target `json:"target"`
	// CertificateVerified says that the BMC was given our certificates and told to verify the image server. False leaves the
	// proof of the image to the image itself.
	CertificateVerified bool `json:"certificate_verified"`
}

// Learned is what an insertion found out; recorded, the next insertion starts there.
type Learned struct {
	Slot       string   `json:"slot,omitempty"`
	Parameters []string `json:"parameters,omitempty"`
}

// Learned returns the slot and the parameters that worked last.
func (b *BMC) Learned() Learned {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Learned{Slot: b.learned.Slot, Parameters: slices.Clone(b.learned.Parameters)}
}

// Media reads all slots.
func (b *BMC) Media(ctx context.Context) ([]MediaState, error) {
	slots, err := b.slots(ctx)
	if err != nil {
		return nil, err
	}
	var all []MediaState
	for _, s := range slots {
		if s.res != nil {
			all = append(all, s.state(b.profile().EmptyByConnection))
		}
	}
	return all, nil
}

func (s *slot) state(byConnection bool) MediaState {
	verify, _ := s.res.boolean("VerifyCertificate")
	return MediaState{
		Method: VirtualMedia, URI: s.uri, Inserted: s.occupied(byConnection), Image: s.media.Image,
		ConnectedVia: clean(string(s.media.ConnectedVia)), MediaTypes: s.res.strs("MediaTypes"), Target: Cd,
		CertificateVerified: verify && s.res.has("Certificates"),
	}
}

// InsertMedia makes the BMC hold the image and reads that back. The ladder: slots are enabled where there are none; the best
// slot is emptied and tried with the parameters that its ActionInfo and its errors ask for; then the next slot; then all with the
// plain address; where no slot takes it, the firmware is given an address for an HTTP boot. What worked is remembered. Nothing fits: MC-BMC-NO-MEDIA, or
// MC-BMC-LICENCE where the BMC says so.
func (b *BMC) InsertMedia(ctx context.Context, req MediaRequest) (MediaState, error) {
	for _, address := range []string{req.URL, req.Plain, req.Firmware} {
		u, err := url.Parse(address)
		if address == "" && req.URL != "" {
			continue
		}
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return MediaState{}, fleet.Errorf(fleet.Invalid, "MC-BMC-NO-MEDIA", "the boot image's address is not http or https")
		}
		b.wire.scrub.addURL(address)
	}
	release, err := b.writing(ctx)
	if err != nil {
		return MediaState{}, err
	}
	defer release()
	slots, err := b.slots(ctx)
	if err != nil {
		return MediaState{}, err
	}
	if !slices.ContainsFunc(slots, func(s *slot) bool { return s.unfit == "" }) {
		enabled, err := b.enableMedia(ctx)
		if err != nil {
			return MediaState{}, err
		}
		if len(enabled) > 0 {
			slots = enabled
		}
	}
	var reasons []string
	var failures []error
	for _, s := range slots {
		if s.unfit != "" {
			reasons = append(reasons, lastSegment(s.uri)+" "+s.unfit)
		}
	}
	rounds := []MediaRequest{req}
	if req.Plain != "" {
		rounds = append(rounds, MediaRequest{URL: req.Plain})
	}
	for _, round := range rounds {
		for _, s := range slots {
			if s.unfit != "" {
				continue
			}
			m, err := b.insertInto(ctx, s, round)
			if err == nil {
				return m, nil
			}
			if hopeless(ctx, err) {
				return MediaState{}, explain(err, "insert media into "+s.uri)
			}
			reasons = append(reasons, fmt.Sprintf("%s: %v", lastSegment(s.uri), err))
			failures = append(failures, err)
		}
	}
	m, err := b.offerHTTP(ctx, first(req.Firmware, req.URL))
	if err == nil {
		return m, nil
	}
	if hopeless(ctx, err) {
		return MediaState{}, explain(err, "set the HTTP boot address")
	}
	return MediaState{}, b.noMedia(append(reasons, err.Error()), failures)
}

// hopeless reports an error that the next slot would meet, too.
func hopeless(ctx context.Context, err error) bool {
	k := fleet.KindOf(err)
	return ctx.Err() != nil || fleet.IsFrozen(err) || k == fleet.Denied || k == fleet.Unavailable || fleet.CodeOf(err) == "MC-BMC-TLS" || statusOf(err) == http.StatusUnauthorized
}

func (b *BMC) noMedia(reasons []string, failures []error) error {
	all := strings.Join(reasons, "; ")
	cause := errors.Join(failures...)
	for _, f := range failures {
		if e := AsError(f); e != nil && e.licence() {
			return fleet.Errorf(fleet.Refused, "MC-BMC-LICENCE", "the BMC wants a licence for virtual media (%s): %w", first(b.profile().Licence.Need, "its vendor knows which"), cause).
				WithHint("metalctl bmc probe shows which licence is missing")
		}
	}
	if cause == nil {
		return fleet.Errorf(fleet.Broken, "MC-BMC-NO-MEDIA", "the BMC offers no way to boot from our image: %s", all).
			WithHint("metalctl bmc probe shows what the BMC can do; hosts without virtual media boot over the network")
	}
	e := fleet.Errorf(fleet.Broken, "MC-BMC-NO-MEDIA", "the BMC took our image into no slot: %s: %w", all, cause)
	e.Msg = "the BMC took our image into no slot: " + all
	return e.WithHint("metalctl bmc probe shows what the BMC can do, metalctl node timeline NODE each exchange")
}

// insertInto empties one slot, inserts and reads back.
func (b *BMC) insertInto(ctx context.Context, s *slot, req MediaRequest) (MediaState, error) {
	p := b.profile()
	info := b.actionInfo(ctx, s.action)
	if schemes := s.schemes(info, p.Schemes); schemes != nil && !slices.Contains(schemes, schemeOf(req.URL)) {
		return MediaState{}, fleet.Errorf(fleet.Broken, "MC-BMC-NO-MEDIA", "the slot fetches by %s only", strings.Join(schemes, ", ")).
			WithHint("give the server an https address that the BMC reaches (advertise)")
	}
	if err := b.eject(ctx, s); err != nil {
		return MediaState{}, fmt.Errorf("empty the slot: %w", err)
	}
	verified := b.giveCertificates(ctx, s, req)
	shape, err := b.insertLadder(ctx, s, info, req)
	if err != nil {
		return MediaState{}, err
	}
	m, err := b.readBack(ctx, s.uri, req.URL)
	if err != nil {
		b.undo(ctx, s.uri)
		return MediaState{}, err
	}
	m.CertificateVerified = verified
	b.mu.Lock()
	b.learned = Learned{Slot: s.uri, Parameters: shape}
	b.inserted = inserted{slot: s.uri, image: req.URL}
	b.mu.Unlock()
	return m, nil
}

// undo empties a slot that did not come to hold our image, so that it does not appear later by itself.
func (b *BMC) undo(ctx context.Context, uri string) {
	s, err := b.slotAt(ctx, uri)
	if err == nil {
		err = b.eject(ctx, s)
	}
	if err != nil {
		b.log().WarnContext(ctx, "a slot that took no image cannot be emptied", "uri", uri, "err", err)
	}
}

func (b *BMC) slotAt(ctx context.Context, uri string) (*slot, error) {
	r, err := b.get(ctx, uri)
	if err != nil {
		return nil, err
	}
	return b.slotOf(r, false), nil
}

func (b *BMC) settle() time.Duration {
	if d := b.profile().Settle; d > 0 {
		return d
	}
	return 10 * time.Second
}

// readBack polls until the slot holds the image. An answer of 204 proves nothing: newest iDRACs give it and mount nothing
// (terraform-provider-redfish#331). Fetching takes its time, so the wait is long.
func (b *BMC) readBack(ctx context.Context, uri, image string) (MediaState, error) {
	var m MediaState
	over, err := b.until(ctx, b.settle()+50*time.Second, time.Second, func() (bool, error) {
		s, err := b.slotAt(ctx, uri)
		if err != nil {
			return false, err
		}
		m = s.state(b.profile().EmptyByConnection)
		return m.Inserted && sameImage(m.Image, image), nil
	})
	if err != nil {
		return m, err
	}
	if over {
		if m.Inserted {
			return m, fleet.Errorf(fleet.Broken, "MC-BMC-NO-MEDIA", "the slot holds another image than ours")
		}
		return m, fleet.Errorf(fleet.Broken, "MC-BMC-NO-MEDIA", "the BMC took the request, but the slot stays empty: it could not fetch the image").
			WithHint("metalctl node timeline NODE shows whether the BMC asked for the image; check that it reaches the server's advertised address and trusts its certificate")
	}
	return m, nil
}

// sameImage compares an image's URL with what a BMC shows of it: the same, without its query, only the file's name, or nothing.
func sameImage(shown, image string) bool {
	if shown == "" || shown == image {
		return true
	}
	s, err1 := url.Parse(shown)
	i, err2 := url.Parse(image)
	if err1 != nil || err2 != nil {
		return false
	}
	if s.Host == "" {
		return path.Base(s.Path) == path.Base(i.Path) && s.Path != ""
	}
	return strings.EqualFold(s.Host, i.Host) && s.Path == i.Path
}
