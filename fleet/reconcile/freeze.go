package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// maxFreezes bounds how many freezes there are at once: one commit changes them all.
const maxFreezes = 32

// Freeze stops every write to the outside for what r names, from its commit on, and over restarts. It returns the freeze.
func (l *Loop) Freeze(ctx context.Context, r api.FreezeCreate, by string) (fleet.Freeze, error) {
	f := fleet.Freeze{ID: fleet.FreezeID(l.NewID()), Reason: strings.TrimSpace(r.Reason), By: by, Since: l.Now().UTC(), Source: fleet.FrozenByPerson, Site: r.Site}
	named := 0
	for _, x := range []struct {
		given bool
		scope fleet.FreezeScope
	}{{r.All, fleet.FreezeAll}, {r.Site != "", fleet.FreezeSite}, {r.Selector != "", fleet.FreezeLabels}, {len(r.Nodes) > 0, fleet.FreezeNodes}} {
		if x.given {
			f.Scope = x.scope
			named++
		}
	}
	if named != 1 {
		return f, invalidFreeze("scope", fmt.Sprintf("exactly one of all, site, selector and nodes says what is frozen; %d were given", named))
	}
	var err error
	if f.Labels, err = equalLabels(r.Selector); err != nil {
		return f, err
	}
	for try := 1; ; try++ {
		var freezes []fleet.Freeze
		err := l.Store.View(ctx, func(s fleet.Snapshot) error {
			var err error
			if freezes, err = fleet.Freezes(s); err != nil {
				return err
			}
			f.Nodes, err = freezeNodes(s, f, r.Nodes)
			return err
		})
		if err == nil {
			err = f.Check()
		}
		if err != nil {
			return f, err
		}
		if len(freezes) >= maxFreezes {
			return f, invalidFreeze("scope", fmt.Sprintf("there are %d freezes already: thaw one, or freeze everything", len(freezes)))
		}
		key := fleet.KeyOf(fleet.KindFreeze, f.ID)
		_, err = l.Store.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: key}}, Writes: []fleet.Write{{Key: key, Value: f}},
			Events: []fleet.Event{{Type: "freeze.begun", At: f.Since, Subject: key, Text: fmt.Sprintf("%s frozen by %s: %s", f.What(), by, f.Reason)}}})
		if err == nil {
			l.Log.Warn("frozen", "what", f.What(), "by", by, "reason", f.Reason)
			l.Bell()
			return f, nil
		}
		if fleet.CodeOf(err) != "MC-STORE-STALE" || try == most {
			return f, err
		}
	}
}

func invalidFreeze(field, message string) error {
	e := fleet.Errorf(fleet.Invalid, "MC-FREEZE-INVALID", "this cannot be frozen")
	e.Fields = []fleet.FieldError{{Field: field, Message: message}}
	return e.WithHint("metalctl freeze --all --reason TEXT, or name nodes, or -l LABEL=VALUE")
}

// equalLabels reads a selector that only compares: what else selects could let a node out when another label is set.
func equalLabels(selector string) (map[string]string, error) {
	rs, err := fleet.ParseSelector(selector)
	if err != nil {
		return nil, invalidFreeze("selector", err.Error())
	}
	if len(rs) == 0 {
		return nil, nil
	}
	out := map[string]string{}
	for _, r := range rs {
		if r.Op != fleet.LabelEquals {
			return nil, invalidFreeze("selector", fmt.Sprintf("%q is not asked as LABEL=VALUE; a freeze selects by nothing else", r.Key))
		}
		if v, twice := out[r.Key]; twice && v != r.Value {
			return nil, invalidFreeze("selector", fmt.Sprintf("no node has %s=%s and %s=%s; freeze the two one after the other", r.Key, v, r.Key, r.Value))
		}
		out[r.Key] = r.Value
	}
	return out, nil
}

// freezeNodes are the nodes that a freeze names, or matches at this moment.
func freezeNodes(s fleet.Snapshot, f fleet.Freeze, names []string) ([]fleet.NodeID, error) {
	switch f.Scope {
	case fleet.FreezeNodes:
		return nodesNamed(s, names)
	case fleet.FreezeAll:
		return nil, nil
	}
	var out []fleet.NodeID
	f.Nodes = nil
	nodes, err := fleet.List[fleet.Node](s, fleet.KindNode)
	for _, n := range nodes {
		if f.Matches(n) {
			out = append(out, n.ID)
		}
	}
	return out, err
}

// nodesNamed finds nodes by names or ids, each once; Invalid with every name that is none.
func nodesNamed(s fleet.Snapshot, names []string) ([]fleet.NodeID, error) {
	byName, err := namesOf(s)
	if err != nil {
		return nil, err
	}
	var out []fleet.NodeID
	unknown := fleet.Errorf(fleet.NotFound, "MC-NODE-UNKNOWN", "not every node that was named exists").WithHint("metalctl node list")
	for i, name := range names {
		id, ok := byName[name]
		switch {
		case !ok:
			unknown.Fields = append(unknown.Fields, fleet.FieldError{Field: fmt.Sprintf("nodes[%d]", i), Message: fmt.Sprintf("there is no node %q", name)})
		case !slices.Contains(out, id):
			out = append(out, id)
		}
	}
	if len(unknown.Fields) > 0 {
		return nil, unknown
	}
	return out, nil
}

// Thaw ends freezes, or lets nodes out of those that cover them. What waited goes on.
func (l *Loop) Thaw(ctx context.Context, r api.Thaw, by string) error {
	named := 0
	for _, given := range []bool{r.All, r.Freeze != "", len(r.Nodes) > 0} {
		if given {
			named++
		}
	}
	if named != 1 {
		return invalidThaw("scope", fmt.Sprintf("exactly one of all, freeze and nodes says what is thawed; %d were given", named))
	}
	if strings.TrimSpace(r.Reason) == "" {
		return invalidThaw("reason", "is empty: a thaw says why the reason of the freeze is gone")
	}
	for try := 1; ; try++ {
		var c fleet.Change
		err := l.Store.View(ctx, func(s fleet.Snapshot) (err error) {
			c, err = l.thawing(s, r, by)
			return err
		})
		if err != nil || len(c.Writes) == 0 {
			return err
		}
		if _, err = l.Store.Commit(ctx, c); err == nil {
			for _, e := range c.Events {
				l.Log.Warn("thawed", "text", e.Text)
			}
			l.Bell()
			l.bells.ringLeases()
			return nil
		}
		if fleet.CodeOf(err) != "MC-STORE-STALE" || try == most {
			return err
		}
	}
}

func invalidThaw(field, message string) error {
	e := fleet.Errorf(fleet.Invalid, "MC-FREEZE-INVALID", "this cannot be thawed")
	e.Fields = []fleet.FieldError{{Field: field, Message: message}}
	return e.WithHint("metalctl freeze status, then: metalctl thaw NODE --reason TEXT, or: metalctl thaw --all --reason TEXT")
}

// thawing is the one commit that does what r asks.
func (l *Loop) thawing(s fleet.Snapshot, r api.Thaw, by string) (fleet.Change, error) {
	var c fleet.Change
	ids, err := nodesNamed(s, r.Nodes)
	if err != nil {
		return c, err
	}
	var nodes []fleet.Node
	for _, id := range ids {
		n, _, err := fleet.Get[fleet.Node](s, fleet.KeyOf(fleet.KindNode, id))
		if err != nil {
			return c, err
		}
		nodes = append(nodes, n)
	}
	var docs []doc[fleet.Freeze]
	freezes, err := fleet.Freezes(s)
	if err != nil {
		return c, err
	}
	for _, f := range freezes {
		d, err := load[fleet.Freeze](s, fleet.KeyOf(fleet.KindFreeze, f.ID))
		if err != nil {
			return c, err
		}
		docs = append(docs, d)
	}
	found := false
	for _, d := range docs {
		what := ""
		switch {
		case r.All, r.Freeze == d.v.ID:
			found, d.drop, what = true, true, d.v.What()
		case len(nodes) > 0:
			what = letOut(d.v, nodes)
			d.drop = d.v.Scope == fleet.FreezeNodes && len(d.v.Nodes) == 0
		}
		if what == "" {
			continue
		}
		if err := d.put(&c); err != nil {
			return c, err
		}
		c.Events = append(c.Events, fleet.Event{Type: "freeze.ended", At: l.Now().UTC(), Subject: d.key, Text: fmt.Sprintf("%s thawed by %s: %s", what, by, strings.TrimSpace(r.Reason))})
	}
	if r.Freeze != "" && !found {
		return c, fleet.Errorf(fleet.NotFound, "MC-FREEZE-UNKNOWN", "there is no freeze %q", cut(string(r.Freeze), 100)).WithHint("metalctl freeze status")
	}
	return c, nil
}

// letOut takes nodes out of a freeze and names those that it covered.
func letOut(f *fleet.Freeze, nodes []fleet.Node) string {
	var names []string
	for _, n := range nodes {
		if !f.Covers(n) {
			continue
		}
		names = append(names, n.Name)
		if f.Scope == fleet.FreezeNodes {
			f.Nodes = slices.DeleteFunc(f.Nodes, func(id fleet.NodeID) bool { return id == n.ID })
			continue
		}
		f.Thawed = append(f.Thawed, n.ID)
	}
	if len(names) > 10 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:10], ", "), len(names)-10)
	}
	return strings.Join(names, ", ")
}
