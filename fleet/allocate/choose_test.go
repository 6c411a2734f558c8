package allocate

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// good is a node that can be handed out, available for so many hours.
func good(name, rack string, hours int) Candidate {
	n := &fleet.Node{ID: fleet.NodeID("id-" + name), Name: name, Class: "h", State: fleet.Available, StateSince: now.Add(-time.Duration(hours) * time.Hour), Labels: map[string]string{"rack": rack}}
	return Candidate{Node: n, Place: PlaceOf(n, nil), Facts: fleet.Facts{Fresh: true, ClassMatches: true, IsolationWaived: true}}
}

func chosen(c fleet.Choice) string {
	var names []string
	for _, p := range c.Chosen {
		names = append(names, p.Name)
	}
	return strings.Join(names, " ")
}

func TestPacks(t *testing.T) {
	for name, c := range map[string]struct {
		// racks are how many free nodes stand in each.
		racks    map[string]int
		groups   map[string]string
		count    int
		topology fleet.Topology
		want     string
	}{
		"the smallest rack that suffices":         {racks: map[string]int{"a": 4, "b": 3, "c": 2}, count: 3, want: "b0 b1 b2"},
		"the fewest racks, the rest fits best":    {racks: map[string]int{"a": 4, "b": 3, "c": 1}, count: 5, want: "a0 a1 a2 a3 c0"},
		"nobody knows where, last":                {racks: map[string]int{"": 2, "b": 4}, count: 2, want: "b0 b1"},
		"one rack":                                {racks: map[string]int{"a": 2, "b": 3}, count: 3, topology: fleet.TopologySameLeaf, want: "b0 b1 b2"},
		"no rack has enough":                      {racks: map[string]int{"a": 2, "b": 2}, count: 3, topology: fleet.TopologySameLeaf},
		"nodes of no known place are not near":    {racks: map[string]int{"": 3}, count: 3, topology: fleet.TopologySameLeaf},
		"a rail group has enough":                 {racks: map[string]int{"a": 2, "b": 2, "c": 2}, groups: map[string]string{"a": "1", "c": "1"}, count: 3, topology: fleet.TopologySameRailGroup, want: "a0 a1 c0"},
		"a rail group is the leaf where none set": {racks: map[string]int{"a": 2, "b": 3}, count: 3, topology: fleet.TopologySameRailGroup, want: "b0 b1 b2"},
	} {
		t.Run(name, func(t *testing.T) {
			var all []Candidate
			for rack, n := range c.racks {
				for i := range n {
					x := good(fmt.Sprint(rack, i), rack, 10-i)
					x.Node.Labels[LabelRailGroup] = c.groups[rack]
					x.Place = PlaceOf(x.Node, nil)
					all = append(all, x)
				}
			}
			got := Choose(all, Request{Count: c.count, Class: "h", Topology: c.topology}, now)
			if chosen(got) != c.want || got.Fits != (c.want != "") {
				t.Errorf("got %q, want %q: %+v", chosen(got), c.want, got)
			}
		})
	}
}

func TestLongestAvailable(t *testing.T) {
	all := []Candidate{good("young", "r", 1), good("old", "r", 9), good("b", "r", 5), good("a", "r", 5)}
	got := Choose(all, Request{Count: 3, Class: "h"}, now)
	if chosen(got) != "old a b" {
		t.Errorf("got %q", chosen(got))
	}
	want := "rack r (3 of 4 free there), available since 2026-11-22T03:00:00Z"
	if got.Chosen[0].Why != want {
		t.Errorf("got %q, want %q", got.Chosen[0].Why, want)
	}
}

// TestBeside: a node that joins a lease is near those that it has.
func TestBeside(t *testing.T) {
	all := []Candidate{good("a", "r1", 9), good("b", "r2", 1)}
	r := Request{Count: 1, Class: "h", Beside: []Place{{Leaf: "rack r2", Group: "rack r2"}}}
	if got := Choose(all, r, now); chosen(got) != "b" {
		t.Errorf("any: got %q, want the rack that is used already", chosen(got))
	}
	r.Topology = fleet.TopologySameLeaf
	if got := Choose(all[:1], r, now); got.Fits || len(got.Fell) != 1 || got.Fell[0].Reason != fleet.FellTopology {
		t.Errorf("same-leaf: got %+v", got)
	}
}

func TestPlaceOf(t *testing.T) {
	rail := func(guid, sw string) fleet.Port {
		return fleet.Port{GUID: fleet.GUID(guid), Role: fleet.PortFabric, Switch: sw}
	}
	n := &fleet.Node{Labels: map[string]string{"rack": "r1", "rail_group": "su2"}, Ports: []fleet.Port{rail("0x1", "leaf-a"), rail("0x2", "leaf-b"), {MAC: "m", Role: "tenant", Switch: "eth-1"}}}
	for name, c := range map[string]struct {
		node *fleet.Node
		w    *fleet.NodeWires
		want Place
	}{
		"from the record":           {n, nil, Place{"leaf leaf-a leaf-b", "rail group su2"}},
		"from what was seen":        {n, &fleet.NodeWires{Ports: []fleet.WireProof{{Port: "0x1", Peer: "0xff/3"}, {Port: "0x2", Peer: "0xff/4"}}}, Place{"leaf 0xff", "rail group su2"}},
		"Ethernet, where no fabric": {&fleet.Node{Ports: n.Ports[2:]}, nil, Place{"leaf eth-1", "leaf eth-1"}},
		"labels, where no wires":    {&fleet.Node{Labels: n.Labels}, nil, Place{"rack r1", "rail group su2"}},
		"nothing":                   {&fleet.Node{}, nil, Place{}},
	} {
		if got := PlaceOf(c.node, c.w); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
	if got := PlaceOf(n, nil).String(); got != "leaf leaf-a and 1 more" {
		t.Errorf("in words: %q", got)
	}
}

// TestFalls: each node is counted once, under the first thing that forbids it, in the order in which the lifecycle's guard asks.
func TestFalls(t *testing.T) {
	bad := map[fleet.FallReason]func(*Candidate){
		fleet.FellState:     func(c *Candidate) { c.Node.State = fleet.Cleaning },
		fleet.FellFault:     func(c *Candidate) { c.Facts.Blocked = true },
		fleet.FellHold:      func(c *Candidate) { c.Facts.Held = true },
		fleet.FellFrozen:    func(c *Candidate) { c.Frozen = "it is" },
		fleet.FellProtected: func(c *Candidate) { c.Facts.Protected = true },
		fleet.FellDirty:     func(c *Candidate) { c.Facts.Dirty = fleet.DirtyUnknown },
		fleet.FellErased:    func(c *Candidate) { c.Facts.Fresh = false },
		fleet.FellClass:     func(c *Candidate) { c.Facts.ClassMatches, c.Class = false, "two GPUs" },
		fleet.FellBurnIn:    func(c *Candidate) { c.Facts.BurnInDue = true },
		fleet.FellIsolation: func(c *Candidate) { c.Facts.IsolationWaived = false },
		fleet.FellWires:     func(c *Candidate) { c.Wires = "nobody knows" },
		fleet.FellTopology:  func(c *Candidate) { c.Place = Place{} },
		fleet.FellLabels:    func(c *Candidate) { c.Node.Labels["old"] = "yes" },
	}
	selector, err := fleet.ParseSelector("!old")
	if err != nil {
		t.Fatal(err)
	}
	r := Request{Count: 1, Class: "h", Topology: fleet.TopologySameLeaf, Selector: selector}
	var all []Candidate
	for i, why := range reasons {
		c := good(fmt.Sprint("n", i), "r", 1)
		for _, also := range reasons[i:] { // what comes later does not count
			bad[also](&c)
		}
		all = append(all, c)
		got := Choose(all[i:], r, now)
		if got.Fits || len(got.Fell) != 1 || got.Fell[0].Reason != why || got.Fell[0].Count != 1 || got.Free != 0 {
			t.Errorf("%s: got %+v", why, got.Fell)
		}
		c = good("alone", "r", 1)
		bad[why](&c)
		got = Choose([]Candidate{c}, r, now)
		if got.Fits || len(got.Fell) != 1 || got.Fell[0].Reason != why {
			t.Errorf("%s alone: got %+v", why, got.Fell)
		}
	}
	got := Choose(all, r, now)
	if len(got.Fell) != len(reasons) || got.Considered != len(reasons) {
		t.Errorf("all: %+v", got.Fell)
	}
	other := good("other", "r", 1)
	other.Node.Class = "x"
	if got := Choose([]Candidate{other}, r, now); got.Considered != 0 || len(got.Fell) != 0 {
		t.Errorf("a node of another class is none of the class's: %+v", got)
	}
}

func TestRelaxations(t *testing.T) {
	burning := func(name string, hours int) Candidate {
		c := good(name, "r1", 1)
		c.Node.State, c.Facts.Dirty, c.Facts.BurnInDue = fleet.Burning, fleet.DirtyUnknown, true
		c.Free, c.After = now.Add(time.Duration(hours)*time.Hour), "the burn-in"
		return c
	}
	held := good("held", "r1", 1)
	held.Facts.Held = true
	held.Node.Hold = &fleet.Hold{By: "ann"}
	for name, c := range map[string]struct {
		all  []Candidate
		r    Request
		want []string
	}{
		"a wider topology": {[]Candidate{good("a", "r1", 1), good("b", "r2", 1)}, Request{Count: 2, Topology: fleet.TopologySameLeaf}, []string{"with --topology any 2 would do", "with --count 1"}},
		"no selector":      {[]Candidate{good("a", "r1", 1), good("b", "r2", 1)}, Request{Count: 2, Selector: []fleet.Requirement{{Key: "rack", Value: "r1", Op: fleet.LabelEquals}}}, []string{"without the label selector 2 would do", "with --count 1"}},
		"both": {[]Candidate{good("a", "r1", 1), good("b", "r2", 1)}, Request{Count: 2, Topology: fleet.TopologySameLeaf, Selector: []fleet.Requirement{{Key: "rack", Value: "r1", Op: fleet.LabelEquals}}},
			[]string{"with --topology any and without the label selector 2 would do", "with --count 1"}},
		"time, the soonest": {[]Candidate{good("a", "r1", 1), burning("hgx-009", 2), burning("hgx-004", 1), burning("late", 9)}, Request{Count: 3},
			[]string{"2 more when the burn-in of hgx-004, hgx-009 ends, at 2026-11-22T14:00:00Z", "with --count 1"}},
		"a hold":            {[]Candidate{held}, Request{Count: 1}, []string{"1 more if nobody held held"}},
		"nothing would":     {[]Candidate{good("a", "r1", 1)}, Request{Count: 2}, []string{"with --count 1"}},
		"nothing at all":    {nil, Request{Count: 2}, nil},
		"time, but too few": {[]Candidate{burning("x", 1)}, Request{Count: 2}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c.r.Class, c.r.Options = "h", true
			got := Choose(c.all, c.r, now)
			var texts []string
			for _, x := range got.Relaxations {
				texts = append(texts, x.Text)
			}
			if diff := cmp.Diff(texts, c.want); diff != "" || got.Fits {
				t.Errorf("got (-), want (+):\n%s", diff)
			}
		})
	}
}

// random is a fleet and a request that nobody thought of.
func random(r *rand.Rand, most int) ([]Candidate, Request) {
	var all []Candidate
	for i := range r.IntN(most) {
		c := good(fmt.Sprintf("n%03d", i), fmt.Sprint("r", r.IntN(5)), r.IntN(4))
		if r.IntN(6) == 0 {
			delete(c.Node.Labels, "rack")
		}
		if r.IntN(3) == 0 {
			c.Node.Labels[LabelRailGroup] = fmt.Sprint("g", r.IntN(2))
		}
		c.Place = PlaceOf(c.Node, nil)
		switch r.IntN(12) {
		case 0:
			c.Node.State = fleet.Active
			c.Free, c.After = now.Add(time.Duration(r.IntN(9)-3)*time.Hour), "a lease"
		case 1:
			c.Facts.Blocked = true
		case 2:
			c.Facts.Held = true
		case 3:
			c.Facts.BurnInDue = true
		case 4:
			c.Holder = "l1"
		case 5:
			c.Node.Class = "x"
		}
		all = append(all, c)
	}
	q := Request{Count: 1 + r.IntN(8), Class: "h", Topology: append(fleet.Topologies, "")[r.IntN(4)], Options: r.IntN(2) == 0}
	if r.IntN(3) == 0 {
		q.Selector = []fleet.Requirement{{Key: "rack", Value: "r1", Op: []fleet.SelectorOp{fleet.LabelEquals, fleet.LabelDiffers}[r.IntN(2)]}}
	}
	if r.IntN(4) == 0 && len(all) > 0 {
		q.Beside = []Place{all[r.IntN(len(all))].Place}
	}
	return all, q
}

// holds says which property of a choice does not hold, or "".
func holds(all []Candidate, q Request, r *rand.Rand) string {
	got := Choose(all, q, now)
	shuffled := slices.Clone(all)
	r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	if diff := cmp.Diff(Choose(shuffled, q, now), got); diff != "" {
		return "P1: the order of the candidates decides: " + diff
	}
	if q.Topology == "" {
		q.Topology = fleet.TopologyAny
	}
	by := map[fleet.NodeID]*Candidate{}
	free := map[string]int{}
	of, fell, most := 0, 0, 0
	for i := range all {
		c := &all[i]
		by[c.Node.ID] = c
		if c.Node.Class != q.Class {
			continue
		}
		of++
		if c.falls(q, nil) == "" {
			at := c.Place.of(q.Topology)
			free[at]++
			most = max(most, free[at])
		}
	}
	for _, f := range got.Fell {
		fell += f.Count
	}
	if got.Fits != (most >= q.Count) {
		return fmt.Sprintf("P2: it fits: %t, and %d of %d are together", got.Fits, most, q.Count)
	}
	if !got.Fits {
		if len(got.Chosen) > 0 || fell+most != of || got.Considered != of {
			return fmt.Sprintf("P3: %d fell out, %d are together, of %d", fell, most, of)
		}
		return ""
	}
	if len(got.Chosen) != q.Count || len(got.Relaxations) > 0 {
		return fmt.Sprintf("P4: %d chosen", len(got.Chosen))
	}
	leaves, sizes := map[string]int{}, map[string]int{}
	seen := map[fleet.NodeID]bool{}
	group := by[got.Chosen[0].Node].Place.of(q.Topology)
	for _, p := range got.Chosen {
		c := by[p.Node]
		// The lifecycle's own guard has the last word.
		f := c.Facts
		f.Lease = "new"
		if _, err := fleet.Move(c.Node.State, fleet.VerbAllocate, f); err != nil || seen[p.Node] || c.Holder != "" || !fleet.Selects(q.Selector, c.Node.Labels) || !c.Place.near(q) || c.Place.of(q.Topology) != group {
			return fmt.Sprintf("P5: %s is chosen: %v", p.Name, err)
		}
		seen[p.Node] = true
		leaves[c.Place.Leaf]++
	}
	for i := range all {
		c := &all[i]
		if c.Node.Class != q.Class || c.falls(q, nil) != "" || c.Place.of(q.Topology) != group {
			continue
		}
		sizes[c.Place.Leaf]++
		for _, p := range got.Chosen {
			if x := by[p.Node]; !seen[c.Node.ID] && x.Place.Leaf == c.Place.Leaf && c.Node.StateSince.Before(x.Node.StateSince) {
				return fmt.Sprintf("P6: %s was available longer than %s", c.Node.Name, p.Name)
			}
		}
	}
	least, left := 0, q.Count
	for _, n := range slices.SortedFunc(maps.Values(sizes), func(a, b int) int { return b - a }) {
		if left <= 0 {
			break
		}
		least, left = least+1, left-n
	}
	if len(leaves) != least {
		return fmt.Sprintf("P7: %d leaves are used, %d suffice", len(leaves), least)
	}
	return ""
}

// TestProperties: a choice does not depend on order (P1), is made where and only where one can be (P2), counts every node once (P3), is of as many as were asked for (P4), and of
// nodes that the lifecycle hands out, near to each other (P5), that were available longest (P6), on the fewest leaves (P7).
func TestProperties(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		all, q := random(r, 40)
		if why := holds(all, q, r); why != "" {
			t.Fatalf("seed %d: %s\n%+v", seed, why, q)
		}
	}
}

func FuzzChoose(f *testing.F) {
	for _, seed := range []uint64{0, 1, 77} {
		f.Add(seed, seed+1, uint8(40))
	}
	f.Fuzz(func(t *testing.T, a, b uint64, most uint8) {
		r := rand.New(rand.NewPCG(a, b))
		all, q := random(r, int(most)+1)
		if why := holds(all, q, r); why != "" {
			t.Fatalf("%s\n%+v", why, q)
		}
	})
}
