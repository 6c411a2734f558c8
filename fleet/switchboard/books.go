package switchboard

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

// tries is how often a commit is made anew where somebody else was first.
const tries = 20

// errNothing ends commit without one.
var errNothing = errors.New("nothing to write")

// commit lets make read a snapshot and say what to write, and writes it; again from the start where somebody else was first.
func (b *Board) commit(ctx context.Context, make func(fleet.Snapshot) (fleet.Change, error)) error {
	for try := 1; ; try++ {
		var c fleet.Change
		err := b.Store.View(ctx, func(s fleet.Snapshot) (err error) {
			c, err = make(s)
			return err
		})
		if errors.Is(err, errNothing) {
			return nil
		}
		if err == nil {
			_, err = b.Store.Commit(ctx, c)
		}
		if err == nil || fleet.CodeOf(err) != "MC-STORE-STALE" || try == tries {
			return err
		}
	}
}

// maybe reads a record; nil and revision 0 where there is none.
func maybe[T any](s fleet.Snapshot, key fleet.Key) (*T, fleet.Revision, error) {
	v, rev, err := fleet.Get[T](s, key)
	if fleet.KindOf(err) == fleet.NotFound {
		return nil, 0, nil
	}
	return &v, rev, err
}

// put adds a record to a change, under the revision that it was read at.
func put(c *fleet.Change, key fleet.Key, rev fleet.Revision, v any) {
	c.If = append(c.If, fleet.Precondition{Key: key, Revision: rev})
	c.Writes = append(c.Writes, fleet.Write{Key: key, Value: v})
}

func wiresKey(id fleet.NodeID) fleet.Key { return fleet.KeyOf(fleet.KindWires, id) }

func partitionKey(name string) fleet.Key { return fleet.KeyOf(fleet.KindPartition, name) }

func switchKey(name string) fleet.Key { return fleet.KeyOf(fleet.KindSwitch, name) }

func networkKey(name string) fleet.Key { return fleet.KeyOf(fleet.KindNetwork, name) }

func vlansKey(domain string) fleet.Key { return fleet.KeyOf(fleet.KindVLANs, domain) }

func poolKey(fabric string) fleet.Key { return fleet.KeyOf(fleet.KindPKeys, fabric) }

// users are the nodes whose ports are in something, or may still be.
func users(s fleet.Snapshot, in func(fleet.NodeWires) bool) ([]fleet.NodeID, error) {
	all, err := fleet.List[fleet.NodeWires](s, fleet.KindWires)
	var out []fleet.NodeID
	for _, w := range all {
		if in(w) {
			out = append(out, w.Node)
		}
	}
	slices.Sort(out)
	return out, err
}

func (b *Board) event(kind string, key fleet.Key, format string, args ...any) []fleet.Event {
	return []fleet.Event{{Type: kind, At: b.Now().UTC(), Subject: key, Text: fmt.Sprintf(format, args...)}}
}

func invalid(what string, f []fleet.FieldError) error {
	return &fleet.Error{Kind: fleet.Invalid, Code: "MC-NET-INVALID", Msg: what + " is not valid", Fields: f}
}

// unlike is an error where the name is that of a device of the other kind: nodes name devices by name alone.
func unlike(s fleet.Snapshot, key fleet.Key, what string) error {
	_, err := s.Get(key)
	if fleet.KindOf(err) == fleet.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	return fleet.Errorf(fleet.Conflict, "MC-NET-NAME", "that is the name of a %s", what).WithHint("metalctl %s list", what)
}

// keptPorts is an error where a port of the device would not be managed any more, and its node's record has it elsewhere than in quarantine.
func keptPorts(s fleet.Snapshot, device string, managed func(port string) bool) error {
	all, err := fleet.List[fleet.NodeWires](s, fleet.KindWires)
	if err != nil {
		return err
	}
	var errs []error
	for _, w := range all {
		for _, p := range w.Ports {
			if p.Device() == device && !managed(p.Port) && (p.Where != "" || p.Was != "" || w.Lease != "") {
				errs = append(errs, fleet.Errorf(fleet.Conflict, "MC-NET-MANAGED", "port %s of %s stays managed: its node %s is on a tenant's wires, or open to the agent", p.Port, device, w.Node).WithHint("metalctl node show %s", w.Node))
			}
		}
	}
	return errors.Join(errs...)
}
