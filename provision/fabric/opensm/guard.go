package opensm

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Guard looks once, and restores the last good file where the live one is missing, bad or somebody else's. Where the devices do not show the file it has the
// daemon read it again, once for each drift; tables of a few ports that still are not the file's are then written as the file has them. It returns what is
// seen after that, and whether it did anything. What it cannot mend stays among the findings.
func (d *Driver) Guard(ctx context.Context) (view fleet.WireView, mended bool, err error) {
	unlock, err := d.shelf.lock(ctx)
	if err != nil {
		return fleet.WireView{}, false, err
	}
	defer unlock()
	l, err := d.look(ctx)
	if err != nil {
		return fleet.WireView{}, false, err
	}
	if l.good == "" || l.has(findDaemon) || l.has(findSM) {
		return l.view, false, nil
	}
	if l.next != "" && l.next == l.live && d.onlyTakes(l) {
		// What was taken away is not given back because a device does not show it, and no other change waits for that device.
		if err := d.shelf.settle(); err != nil {
			return fleet.WireView{}, false, err
		}
		l.next = ""
	}
	var refused error
	switch {
	case l.has(findFile):
		err = d.restore(ctx, l.good)
	case len(l.drift) == 0:
		return l.view, false, d.tidy(l)
	case d.tell(mark(l.live + strings.Join(l.drift, " "))):
		err = d.reloaded(ctx, l)
	case l.few(len(l.drift)):
		refused = d.putBack(ctx, l, l.drift)
	default:
		return l.view, false, nil
	}
	after, lookErr := d.look(ctx)
	if lookErr != nil {
		return l.view, true, errors.Join(err, lookErr)
	}
	if refused != nil {
		for i, f := range after.view.Findings {
			if f.Code == findDrift {
				after.view.Findings[i].Text += "; " + refused.Error()
			}
		}
		return after.view, !slices.Equal(l.drift, after.drift), err
	}
	return after.view, true, err
}

// onlyTakes reports whether the change that is under way gives no managed port anything that it did not have.
func (d *Driver) onlyTakes(l *look) bool {
	before, err := Parse(l.good)
	if err != nil {
		return false
	}
	after, err := Parse(l.next)
	if err != nil {
		return false
	}
	had, has := d.managed(before), d.managed(after)
	return !slices.ContainsFunc(d.fabric.Managed, func(g fleet.GUID) bool { return !has[g].Within(had[g]) })
}

// tidy ends what somebody was interrupted in: a change that all devices show is settled, and one that never became the live file is dropped.
func (d *Driver) tidy(l *look) error {
	switch l.next {
	case "":
		return nil
	case l.live:
		return d.shelf.settle()
	}
	return d.shelf.forget()
}

// tell reports whether the daemon was not yet made to read its file for this drift.
func (d *Driver) tell(drift string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.told == drift {
		return false
	}
	d.told = drift
	return true
}

// reloaded has the daemon read its file again and gives it as long as a change has. That ports still drift after that is no error here: they are found.
func (d *Driver) reloaded(ctx context.Context, l *look) error {
	if err := d.reload(l); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, putBackAfter)
	defer cancel()
	_, err := d.await(waiting, fleet.WirePlan{Write: l.live})
	if fleet.KindOf(err) == fleet.Timeout && ctx.Err() == nil {
		return nil
	}
	return err
}

// few reports whether n ports of the fabric can have gone astray by themselves: up to eight, or one of a hundred. More is a reader that is broken, or
// somebody at work, and nothing is written on such grounds.
func (l *look) few(n int) bool { return n <= max(8, len(l.view.Ports)/100) }

// putBack writes the tables of those ports as the file has them, which is what the subnet manager believes that they are. The lock is held, file and subnet
// manager are ours, and a port that shows what it shall is left alone. One that refuses keeps no other from being written.
func (d *Driver) putBack(ctx context.Context, l *look, ports []string) error {
	var errs []error
	for _, e := range l.sweep.Ends {
		want, known := l.want[e.GUID]
		if !known || e.Err != nil || Carries(e).Equal(want) || !slices.Contains(ports, string(e.GUID)) || l.has(findTwice) || l.has(findSM) {
			continue
		}
		if err := d.sweeper.SetTable(ctx, e, arranged(e.Table, want)); err != nil {
			errs = append(errs, fleet.Errorf(fleet.Unavailable, findDrift, "put the table of %s back: %w", e.GUID, err).WithHint("a management key that the server does not have keeps it from writing"))
		}
	}
	return errors.Join(errs...)
}

// arranged is a table with what c says: keys that are there stay at their places, others go, and what is missing takes the first free ones.
func arranged(old []uint16, c fleet.Carries) []uint16 {
	table := make([]uint16, len(old))
	missing := slices.Clone(c.Partitions)
	first := slices.IndexFunc(missing, func(m fleet.Membership) bool { return m.PKey == c.Index0 })
	if first >= 0 && len(table) > 0 {
		table[0] = missing[first].Raw()
		missing = slices.Delete(missing, first, first+1)
	}
	for at, raw := range old {
		i := slices.IndexFunc(missing, func(m fleet.Membership) bool { return m.PKey == fleet.MembershipOf(raw).PKey })
		if i >= 0 && table[at] == 0 {
			table[at] = missing[i].Raw()
			missing = slices.Delete(missing, i, i+1)
		}
	}
	for at := 0; at < len(table) && len(missing) > 0; at++ {
		if table[at] == 0 {
			table[at], missing = missing[0].Raw(), missing[1:]
		}
	}
	return table
}
