package redfish

import (
	"context"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// enableLimit is how long slots may take to appear: 4 to 5 s were seen on AMI, more under load. After enableEffect without any
// slot their number is set.
const (
	enableLimit  = 45 * time.Second
	enableEffect = 6 * time.Second
)

// enableMedia turns remote media on where the collection is empty and a manager has the vendor's actions for it (AMI MegaRAC, so
// DGX H100). It returns the slots that appeared, or none. The actions answer 200 with an error body of severity OK.
func (b *BMC) enableMedia(ctx context.Context) ([]*slot, error) {
	s, err := b.look(ctx)
	if err != nil {
		return nil, err
	}
	for _, uri := range append([]string{s.host}, s.managers...) {
		m, err := b.get(ctx, uri)
		if err != nil {
			return nil, explain(err, "read "+uri)
		}
		enable, _ := m.action("VirtualMedia.EnableRMedia")
		if enable == "" {
			continue
		}
		b.log().InfoContext(ctx, "turning on remote media, as the BMC shows no virtual media slot", "uri", uri)
		if err := b.post(ctx, enable, map[string]string{"RMediaState": "Enable"}); err != nil {
			return nil, explain(err, "turn on remote media")
		}
		slots, err := b.slotsAppear(ctx, enableEffect)
		if err != nil || len(slots) > 0 {
			return slots, err
		}
		if configure, _ := m.action("VirtualMedia.ConfigureCDInstance"); configure != "" {
			if err := b.post(ctx, configure, map[string]int{"CDInstance": 1}); err != nil {
				return nil, explain(err, "configure a CD slot")
			}
		}
		return b.slotsAppear(ctx, enableLimit)
	}
	return nil, nil
}

// slotsAppear polls until a fit slot is there or the time is over.
func (b *BMC) slotsAppear(ctx context.Context, limit time.Duration) ([]*slot, error) {
	var found []*slot
	_, err := b.until(ctx, limit, 2*time.Second, func() (bool, error) {
		slots, err := b.slots(ctx)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(slots, func(s *slot) bool { return s.unfit == "" }) {
			found = slots
		}
		return found != nil, nil
	})
	return found, err
}

// canEnable names the object whose OEM action could make slots appear, or "".
func (b *BMC) canEnable(ctx context.Context) (string, error) {
	s, err := b.look(ctx)
	if err != nil {
		return "", err
	}
	for _, uri := range append([]string{s.host}, s.managers...) {
		r, err := b.get(ctx, uri)
		if err != nil {
			return "", explain(err, "read "+uri)
		}
		if enable, _ := r.action("VirtualMedia.EnableRMedia"); enable != "" {
			return uri, nil
		}
	}
	return "", nil
}

// offerHTTP gives the host's firmware the image's URL for an HTTP boot, where it knows that target and the property.
func (b *BMC) offerHTTP(ctx context.Context, image string) (MediaState, error) {
	plan, err := b.bootPlan(ctx)
	if err != nil {
		return MediaState{}, err
	}
	if !plan.canHTTP() {
		return MediaState{}, fleet.Errorf(fleet.Broken, "MC-BMC-NO-MEDIA", "the host's firmware offers no HTTP boot from an address (UefiHttp with HttpBootUri)")
	}
	if err := b.patchBoot(ctx, plan, map[string]any{"HttpBootUri": image}); err != nil {
		return MediaState{}, err
	}
	over, err := b.until(ctx, b.settle()+20*time.Second, time.Second, func() (bool, error) {
		now, err := b.bootPlan(ctx)
		if err != nil {
			return false, err
		}
		return now.httpURI() == image, nil
	})
	if err != nil {
		return MediaState{}, err
	}
	if over {
		return MediaState{}, fleet.Errorf(fleet.Broken, "MC-BMC-BOOT", "the BMC took the HTTP boot address but does not keep it")
	}
	b.mu.Lock()
	b.inserted = inserted{image: image}
	b.mu.Unlock()
	return MediaState{Method: UefiHTTP, URI: plan.system.uri, Inserted: true, Image: image, Target: UefiHttp}, nil
}

// withdrawHTTP clears the HTTP boot address where it is ours.
func (b *BMC) withdrawHTTP(ctx context.Context, ours func(string) bool) error {
	plan, err := b.bootPlan(ctx)
	if err != nil {
		return err
	}
	if uri := plan.httpURI(); uri == "" || !ours(uri) {
		return nil
	}
	return b.patchBoot(ctx, plan, map[string]any{"HttpBootUri": ""})
}
