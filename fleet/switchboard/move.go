package switchboard

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// request is a wish for some ports of a device that waits for its turn.
type request struct {
	want map[string]fleet.Carries
	// alone: it was refused together with others, and is judged by itself.
	alone bool
	done  chan outcome
}

type outcome struct {
	view fleet.WireView
	err  error
}

// errAgain sends a request that failed among others through the queue once more, by itself.
var errAgain = errors.New("once more, alone")

// goBack is how long a change that was not proven may take to be taken back, when nobody waits for it any more.
const goBack = 90 * time.Second

// Move gives ports of a device what they shall carry and returns the reading that proves it. What waits for the device when its turn comes is one change, as
// each costs a sweep of the fabric. A change that is not proven is taken back, unless it only takes away.
func (b *Board) Move(ctx context.Context, name string, want map[string]fleet.Carries) (fleet.WireView, error) {
	d, err := b.device(ctx, name)
	if err != nil {
		return fleet.WireView{}, err
	}
	r := &request{want: want}
	for {
		r.done = make(chan outcome, 1)
		d.queue(r)
		select {
		case o := <-r.done:
			if errors.Is(o.err, errAgain) {
				continue
			}
			return o.view, o.err
		case d.turn <- struct{}{}:
			func() {
				defer func() { <-d.turn }()
				b.serve(ctx, d, r)
			}()
			o := <-r.done
			if errors.Is(o.err, errAgain) {
				continue
			}
			return o.view, o.err
		case <-ctx.Done():
			d.unqueue(r)
			return fleet.WireView{}, fleet.Errorf(fleet.Unavailable, "MC-NET-BUSY", "another change of %s goes on", name).WithHint("try again when it has ended")
		}
	}
}

func (d *device) queue(r *request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting = append(d.waiting, r)
}

func (d *device) unqueue(r *request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, x := range d.waiting {
		if x == r {
			d.waiting = append(d.waiting[:i], d.waiting[i+1:]...)
			return
		}
	}
}

// batch takes mine out of the queue, with all others that may go with it; none where mine was served meanwhile.
func (d *device) batch(mine *request) (out []*request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var rest []*request
	there := false
	for _, r := range d.waiting {
		there = there || r == mine
		if r == mine || !mine.alone && !r.alone {
			out = append(out, r)
		} else {
			rest = append(rest, r)
		}
	}
	if !there {
		return nil
	}
	d.waiting = rest
	return out
}

// serve does the requests that wait, mine among them, as one change.
func (b *Board) serve(ctx context.Context, d *device, mine *request) {
	batch := d.batch(mine)
	want := map[string]fleet.Carries{}
	for _, r := range batch {
		maps.Copy(want, r.want)
	}
	if len(batch) == 0 {
		return
	}
	view, err := b.change(ctx, d, want)
	for _, r := range batch {
		if err != nil && len(batch) > 1 {
			r.alone = true
			r.done <- outcome{err: errAgain}
			continue
		}
		r.done <- outcome{view, err}
	}
}

// change is the whole way of one change: read, plan, apply with what is expected, verify by reading back. The caller has the device's turn.
func (b *Board) change(ctx context.Context, d *device, want map[string]fleet.Carries) (fleet.WireView, error) {
	driver := d.bound()
	before, err := driver.Observe(ctx)
	if err == nil {
		err = b.may()
	}
	if err != nil {
		return fleet.WireView{}, err
	}
	plan, err := driver.Plan(before, want)
	if err != nil {
		return fleet.WireView{}, err
	}
	err = driver.Apply(ctx, plan)
	if fleet.KindOf(err) == fleet.Conflict {
		return fleet.WireView{}, err // nothing was written
	}
	var after fleet.WireView
	if err == nil {
		after, err = driver.Verify(ctx, plan)
	}
	if err == nil {
		d.believe(after)
		return after, nil
	}
	if plan.Takes {
		return fleet.WireView{}, err
	}
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), goBack)
	defer cancel()
	return fleet.WireView{}, errors.Join(err, driver.Rollback(back, plan))
}
