package server

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func rolloutEvent(r fleet.Rollout, at time.Time, kind, format string, args ...any) fleet.Event {
	return fleet.Event{Type: kind, At: at.UTC(), Subject: fleet.KeyOf(fleet.KindRollout, fleet.RolloutID(r.Class)), Text: rolloutName(r.Class) + ": " + fmt.Sprintf(format, args...)}
}

func rolloutName(class string) string {
	if class == "" {
		return "all that follow"
	}
	return "class " + class
}

type canaryIn struct {
	Item
	Body api.RamdiskCanary
}

type promoteIn struct {
	Item
	Body api.RamdiskPromote
}

type rollbackIn struct {
	Body api.RamdiskPromote
}

// changeRollout changes what a class boots, or all that follow, and fails where somebody else was first until it is not.
func (s *Server) changeRollout(ctx context.Context, class string, change func(*fleetOfRamdisks, *fleet.Rollout) (fleet.Event, error)) (*plain[fleet.Rollout], error) {
	for try := 1; ; try++ {
		f, err := s.readRamdisks(ctx)
		if err != nil {
			return nil, err
		}
		if c, ok := f.classes[class]; class != "" && !ok {
			return nil, fleet.Errorf(fleet.NotFound, "MC-CLASS-UNKNOWN", "there is no class %q", shortened(class)).WithHint("metalctl class list")
		} else if c.Ramdisk != "" {
			return nil, fleet.Errorf(fleet.Conflict, "MC-RAMDISK-PINNED", "class %s is pinned to ramdisk %s", class, c.Ramdisk).
				WithHint("take ramdisk out of the class: metalctl class apply -f FILE")
		}
		r := f.rollouts[class]
		if r.Class = class; r.Current == "" {
			// A class that had none of its own begins with what its nodes boot now.
			r.Current = f.rollouts[""].Current
		}
		e, err := change(f, &r)
		if err != nil {
			return nil, err
		}
		key := fleet.KeyOf(fleet.KindRollout, fleet.RolloutID(class))
		_, err = s.Store.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: key, Revision: f.revs[class]}}, Writes: []fleet.Write{{Key: key, Value: r}}, Events: []fleet.Event{e}})
		if fleet.CodeOf(err) == "MC-STORE-STALE" && try < 20 {
			continue
		}
		return &plain[fleet.Rollout]{r}, err
	}
}

func (s *Server) canaryRamdisk(ctx context.Context, in *canaryIn) (*plain[fleet.Rollout], error) {
	b := in.Body
	return s.changeRollout(ctx, b.Class, func(f *fleetOfRamdisks, r *fleet.Rollout) (fleet.Event, error) {
		m, err := s.bootable(f, in.ID)
		if err != nil {
			return fleet.Event{}, err
		}
		if m.SHA256 == r.Current {
			return fleet.Event{}, fleet.Errorf(fleet.Conflict, "MC-RAMDISK-CURRENT", "ramdisk %s is what %s boots already", m.Name(), rolloutName(b.Class)).WithHint("metalctl ramdisk list")
		}
		nodes, err := f.canaries(b)
		if err != nil {
			return fleet.Event{}, err
		}
		now := s.Now().UTC()
		r.Canary = &fleet.Canary{Ramdisk: m.SHA256, Nodes: nodes, StopAfter: cmp.Or(b.StopAfter, 2), AutoAfter: b.AutoAfter, Since: now, By: callerOf(ctx)}
		return rolloutEvent(*r, now, "ramdisk.canary", "%d nodes boot ramdisk %s before the others, by %s", len(nodes), m.Name(), callerOf(ctx)), nil
	})
}

// bootable finds a medium that this server has and works with.
func (s *Server) bootable(f *fleetOfRamdisks, ref string) (fleet.Ramdisk, error) {
	m, err := fleet.FindRamdisk(f.media, ref)
	if err != nil {
		return m, err
	}
	if m.Protocol > 0 && !s.speaks(m.Protocol) {
		return m, fleet.Errorf(fleet.Refused, "MC-AGENT-VERSION", "ramdisk %s: %s", m.Name(), s.unspoken(m.Protocol, m.Program)).WithHint("metalctl ramdisk list")
	}
	_, err = s.Media.Medium(m.SHA256)
	return m, err
}

// canaries chooses the nodes of a canary: those that were named, else ones that no tenant uses before ones that somebody does, by name.
func (f *fleetOfRamdisks) canaries(b api.RamdiskCanary) ([]fleet.NodeID, error) {
	follows := func(n fleet.Node) bool { return fleet.Follows(n, b.Class, f.pin(n), f.rollouts) }
	var ids []fleet.NodeID
	var all []fleet.Node
	for _, n := range f.nodes {
		named := slices.Contains(b.Nodes, n.Name) || slices.Contains(b.Nodes, string(n.ID))
		if named && !follows(n) {
			return nil, fleet.Errorf(fleet.Conflict, "MC-RAMDISK-NODES", "node %s does not boot what is decided for %s", n.Name, rolloutName(b.Class)).
				WithHint("its class is pinned or has a rollout of its own: metalctl ramdisk list")
		}
		if named {
			ids = append(ids, n.ID)
		}
		if follows(n) {
			all = append(all, n)
		}
	}
	if len(b.Nodes) > 0 {
		if len(ids) != len(b.Nodes) {
			return nil, fleet.Errorf(fleet.NotFound, "MC-RAMDISK-NODES", "%d nodes were named and %d are there", len(b.Nodes), len(ids)).WithHint("metalctl node list")
		}
		return ids, nil
	}
	count := max(b.Count, 1)
	if b.Percent > 0 {
		count = max((len(all)*b.Percent+99)/100, 1)
	}
	if len(all) < count || count > fleet.MaxCanaryNodes {
		return nil, fleet.Errorf(fleet.Conflict, "MC-RAMDISK-NODES", "%d nodes were asked for, %d boot what is decided for %s, and a canary has at most %d", count, len(all), rolloutName(b.Class), fleet.MaxCanaryNodes).
			WithHint("ask for fewer, or name them: metalctl ramdisk canary %s --node NODE", "RAMDISK")
	}
	slices.SortFunc(all, func(x, y fleet.Node) int {
		return cmp.Or(cmp.Compare(leased(x), leased(y)), strings.Compare(x.Name, y.Name))
	})
	for _, n := range all[:count] {
		ids = append(ids, n.ID)
	}
	return ids, nil
}

func leased(n fleet.Node) int {
	if n.Lease != "" {
		return 1
	}
	return 0
}

func (s *Server) promoteRamdisk(ctx context.Context, in *promoteIn) (*plain[fleet.Rollout], error) {
	return s.changeRollout(ctx, in.Body.Class, func(f *fleetOfRamdisks, r *fleet.Rollout) (fleet.Event, error) {
		m, err := s.bootable(f, in.ID)
		if err != nil {
			return fleet.Event{}, err
		}
		now := s.Now().UTC()
		r.Promote(m.SHA256, callerOf(ctx), now)
		return rolloutEvent(*r, now, "ramdisk.promoted", "ramdisk %s is booted from now on, by %s", m.Name(), callerOf(ctx)), nil
	})
}

// rollbackRamdisk ends a canary; where there is none, the ramdisk before is booted again.
func (s *Server) rollbackRamdisk(ctx context.Context, in *rollbackIn) (*plain[fleet.Rollout], error) {
	return s.changeRollout(ctx, in.Body.Class, func(f *fleetOfRamdisks, r *fleet.Rollout) (fleet.Event, error) {
		now := s.Now().UTC()
		if c := r.Canary; c != nil {
			r.Canary = nil
			return rolloutEvent(*r, now, "ramdisk.rolled-back", "the canary of ramdisk %s is over, by %s", fleet.Ramdisk{SHA256: c.Ramdisk}.Name(), callerOf(ctx)), nil
		}
		if r.Previous == "" {
			return fleet.Event{}, fleet.Errorf(fleet.Conflict, "MC-RAMDISK-CURRENT", "%s booted no other ramdisk before", rolloutName(in.Body.Class)).WithHint("metalctl ramdisk list")
		}
		m, err := s.bootable(f, "sha256:"+r.Previous)
		if err != nil {
			return fleet.Event{}, err
		}
		r.Promote(m.SHA256, callerOf(ctx), now)
		return rolloutEvent(*r, now, "ramdisk.rolled-back", "ramdisk %s is booted again, by %s", m.Name(), callerOf(ctx)), nil
	})
}
