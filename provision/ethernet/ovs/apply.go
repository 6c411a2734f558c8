package ovs

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Apply makes the switch take the plan, and waits until it has. It is a Conflict, and nothing is written, where a managed port or the bridge is not as the
// plan expects. What Apply left half-done is brought to its end by Apply, or by Rollback, also by another process.
func (d *Driver) Apply(ctx context.Context, plan fleet.WirePlan) error {
	goals, err := d.goals(plan)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, d.o.Settle)
	defer cancel()
	name := plan.Digest()
	return d.converse(ctx, func(s *session) error {
		l, err := s.look(ctx)
		if err != nil {
			return err
		}
		if l.bridge.External[change] != name {
			if l.view.Mark != plan.Expect {
				return fleet.WireConflict("%s is not as it was when the plan was made", d.o.Switch.Name)
			}
			if stop := l.view.Stops(); stop != nil && !plan.Takes {
				return stop.Stopped()
			}
			if len(goals) == 0 {
				return nil
			}
		}
		return s.bring(ctx, l, name, goals)
	})
}

// goals are what the plan writes, where that is what it says that it changes.
func (d *Driver) goals(plan fleet.WirePlan) ([]goal, error) {
	for _, c := range plan.Changes {
		if f := d.o.Switch.May(c.To, c.Port); len(f) > 0 || !slices.Contains(d.o.Switch.Managed, c.Port) {
			return nil, &fleet.Error{Kind: fleet.Refused, Code: "MC-NET-INVALID", Msg: "the plan changes what is not ours: " + c.Port, Fields: f}
		}
	}
	goals := goalsOf(plan)
	text, err := render(goals)
	if err == nil && text != plan.Write {
		err = fleet.Errorf(fleet.Refused, "MC-NET-INVALID", "the plan of %s writes something else than it says", d.o.Switch.Name).WithHint("make a new plan: metalctl network plan")
	}
	return goals, err
}

// bring does what goals say under the name of a change: ports that go off first, then all VLANs by one transaction, and when the switch has those, ports that
// go on. It does nothing twice, so that it may be begun again after a reading. Before the change has its name in the database a Conflict means that nothing was
// written; after that there is none.
func (s *session) bring(ctx context.Context, l *look, name string, goals []goal) error {
	off, on := l.switched(goals)
	if len(off) > 0 && l.bridge.External[change] != name {
		if _, err := s.write(ctx, l, name, nil); err != nil {
			return err
		}
		l.bridge.External = dict{change: name}
	}
	if len(off) > 0 {
		if err := s.flow.power(ctx, off, true); err != nil {
			return err
		}
	}
	next, err := s.write(ctx, l, name, goals)
	if err != nil {
		return err
	}
	if err := s.taken(ctx, next); err != nil || len(on) == 0 {
		return err
	}
	return s.flow.power(ctx, on, false)
}

// switched are the links that are to be switched off, and on.
func (l *look) switched(goals []goal) (off, on []ofPort) {
	for _, g := range goals {
		p := l.ports[g.Port]
		if p == nil {
			continue
		}
		for _, k := range p.links {
			switch is := k.config&ofPortDown != 0; {
			case k.number == 0: // it is not in the bridge
			case g.Off && !is:
				off = append(off, k.ofPort)
			case !g.Off && is:
				on = append(on, k.ofPort)
			}
		}
	}
	return off, on
}

// write is one transaction: nothing where the bridge or one of the managed ports is not as it was read, else the name of the change, and the goals' VLANs. It
// returns which configuration the switch has to take.
func (s *session) write(ctx context.Context, l *look, name string, goals []goal) (next int, err error) {
	ops := []operation{s.expectBridge(l, name)}
	for _, n := range s.d.o.Switch.Managed {
		if p := l.ports[n]; p != nil {
			ops = append(ops, operation{"op": "wait", "timeout": 0, "table": "Port", "where": named(n), "until": "==", "columns": configColumns, "rows": []any{p.config}})
		}
	}
	begun := l.bridge.External[change] == name
	if !begun {
		ops = append(ops, s.mark(name))
	}
	for _, g := range goals {
		ops = append(ops, operation{"op": "update", "table": "Port", "where": named(g.Port), "row": g.config})
	}
	ops = append(ops,
		operation{"op": "mutate", "table": "Open_vSwitch", "where": []any{}, "mutations": []any{[]any{"next_cfg", "+=", 1}}},
		operation{"op": "select", "table": "Open_vSwitch", "where": []any{}, "columns": []string{"next_cfg"}},
		operation{"op": "comment", "comment": "metalctl: " + name},
		operation{"op": "commit", "durable": true})
	done, err := s.db.transact(ctx, ops...)
	switch {
	case errors.Is(err, errWait) && begun:
		return 0, fleet.Errorf(fleet.Unavailable, "MC-NET-UNPROVEN", "somebody else changed %s while it was changed", s.d.o.Switch.Name).WithHint("metalctl network plan shows what differs")
	case errors.Is(err, errWait):
		return 0, fleet.WireConflict("somebody else changed %s meanwhile", s.d.o.Switch.Name)
	case err != nil:
		return 0, err
	}
	after, err := decode[switchRow](done[len(done)-3])
	if err != nil || len(after) != 1 {
		return 0, errors.Join(err, garbled("no configuration was chosen"))
	}
	return after[0].Next, nil
}

var configColumns = []string{"vlan_mode", "tag", "trunks", "cvlans", "protected"}

func named(n string) []any { return []any{[]any{"name", "==", n}} }

// expectBridge holds while the bridge has the ports that were read, and no other change than name or the one that was read.
func (s *session) expectBridge(l *look, name string) operation {
	row, columns := map[string]any{"ports": l.bridge.Ports}, []string{"ports"}
	where := named(s.d.o.Bridge)
	if l.bridge.External[change] == name {
		where = append(where, []any{"external_ids", "includes", dict{change: name}})
	} else {
		row["external_ids"], columns = l.bridge.External, append(columns, "external_ids")
	}
	return operation{"op": "wait", "timeout": 0, "table": "Bridge", "where": where, "until": "==", "columns": columns, "rows": []any{row}}
}

// mark gives the bridge the name of the change that is on its way; "" takes it away.
func (s *session) mark(name string) operation {
	m := []any{[]any{"external_ids", "delete", []any{"set", []string{change}}}}
	if name != "" {
		m = append(m, []any{"external_ids", "insert", dict{change: name}})
	}
	return operation{"op": "mutate", "table": "Bridge", "where": named(s.d.o.Bridge), "mutations": m}
}

// taken waits until the switch has done what its database says up to next.
func (s *session) taken(ctx context.Context, next int) error {
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		rows, err := s.db.transact(ctx, operation{"op": "select", "table": "Open_vSwitch", "where": []any{}, "columns": []string{"cur_cfg"}})
		if err != nil {
			return err
		}
		now, err := decode[switchRow](rows[0])
		if err != nil || len(now) == 1 && now[0].Current >= next {
			return err
		}
		if pause(ctx, wait) != nil {
			return fleet.Errorf(fleet.Timeout, "MC-NET-UNPROVEN", "%s has not done what its database says: does ovs-vswitchd run?", s.d.o.Switch.Name).WithHint("look at ovs-vswitchd on the switch: systemctl status openvswitch-switch")
		}
	}
}

// Verify waits until two readings in a row show the plan, and closes the change. What is not shown in time is an error of kind Timeout that names the first
// port; then Rollback.
func (d *Driver) Verify(ctx context.Context, plan fleet.WirePlan) (view fleet.WireView, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.o.Settle)
	defer cancel()
	name, why, agreed := plan.Digest(), "it could not be read", 0
	err = d.converse(ctx, func(s *session) error {
		for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
			l, err := s.look(ctx)
			if err != nil {
				return err
			}
			if now := l.bridge.External[change]; now != name && now != "" {
				return fleet.WireConflict("another change of %s was begun", d.o.Switch.Name)
			}
			agreed++
			if why = l.shows(plan); why != "" {
				agreed = 0
			}
			if agreed == 2 {
				view = l.view
				view.Mark, _ = splitMark(view.Mark)
				return s.settle(ctx, name)
			}
			if why == "" {
				why = "two readings in a row did not agree"
			}
			if pause(ctx, wait) != nil {
				return errUnproven
			}
		}
	})
	if err != nil && ctx.Err() != nil {
		err = fleet.WireUnproven(d.o.Switch.Name, why)
	}
	if err != nil {
		return fleet.WireView{}, err
	}
	return view, nil
}

var errUnproven = errors.New("not proven in time")

// shows says what is not yet as it was meant, "" where all is.
func (l *look) shows(plan fleet.WirePlan) string {
	if l.behind() {
		return "the switch has not done yet what its database says"
	}
	if s := l.view.Stops(); s != nil && !plan.Takes {
		return s.Text
	}
	return plan.Unshown(l.view)
}

// settle closes the change of that name.
func (s *session) settle(ctx context.Context, name string) error {
	where := append(named(s.d.o.Bridge), []any{"external_ids", "includes", dict{change: name}})
	close := s.mark("")
	close["where"] = where
	_, err := s.db.transact(ctx, close)
	return err
}

// Rollback brings back what the plan replaced, and waits until the switch shows it. Where the plan was never written, or was taken back before, it does
// nothing. It is a Conflict where the plan was proven, or others came after it.
func (d *Driver) Rollback(ctx context.Context, plan fleet.WirePlan) error {
	before, err := parse(plan.Replaces)
	if err != nil {
		return err
	}
	back := fleet.WirePlan{Device: plan.Device, Takes: true}
	for _, c := range plan.Changes {
		if slices.ContainsFunc(before, func(g goal) bool { return g.Port == c.Port }) {
			back.Changes = append(back.Changes, fleet.WireChange{Port: c.Port, To: c.From})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, d.o.Settle)
	defer cancel()
	name := plan.Digest()
	return d.converse(ctx, func(s *session) error {
		l, err := s.look(ctx)
		if err != nil {
			return err
		}
		if l.bridge.External[change] != name {
			now, _ := splitMark(l.view.Mark)
			if was, _ := splitMark(plan.Expect); now != was {
				return fleet.WireConflict("%s has gone on since the plan", d.o.Switch.Name)
			}
			return nil
		}
		if err := s.bring(ctx, l, name, before); err != nil {
			return err
		}
		for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
			if l, err = s.look(ctx); err != nil {
				return err
			}
			why := l.shows(back)
			if why == "" {
				return s.settle(ctx, name)
			}
			if pause(ctx, wait) != nil {
				return fleet.Errorf(fleet.Timeout, "MC-NET-UNPROVEN", "%s does not show what was put back: %s", d.o.Switch.Name, why).WithHint("metalctl network plan shows what differs")
			}
		}
	})
}
