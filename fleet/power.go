package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SitePower is what a site says of its electricity.
type SitePower struct {
	// IdleWatts and LoadWatts are what a machine draws whose class does not say.
	IdleWatts int64 `json:"idle_watts,omitempty"`
	LoadWatts int64 `json:"load_watts,omitempty"`
	// Budgets bound what the nodes of a rack, a row or a feed draw together; a node counts in each whose label it has.
	Budgets []PowerBudget `json:"budgets,omitempty"`
}

// PowerBudget bounds what the nodes with one label draw together: rack=r1, row=3, feed=a.
type PowerBudget struct {
	Label string `json:"label"`
	Value string `json:"value"`
	Watts int64  `json:"watts"`
}

// Name is how the budget is called: "rack=r1".
func (b PowerBudget) Name() string { return b.Label + "=" + b.Value }

// Covers reports whether what a node draws counts in the budget.
func (b PowerBudget) Covers(n Node) bool {
	v, has := n.Labels[b.Label]
	return has && v == b.Value
}

// ClassPower is what a machine of a class draws at most; 0 is what the site says.
type ClassPower struct {
	// IdleWatts is what it draws switched on without load, LoadWatts under full load.
	IdleWatts int64 `json:"idle_watts,omitempty"`
	LoadWatts int64 `json:"load_watts,omitempty"`
}

// maxBudgets bounds what the site's record holds, maxWatts what one number may say: more is a slip of the unit.
const (
	maxBudgets = 2000
	maxWatts   = 1_000_000_000
)

func (p SitePower) validate(f *faults) {
	ClassPower{p.IdleWatts, p.LoadWatts}.validate(f)
	f.check(len(p.Budgets) == 0 || p.LoadWatts > 0, "power.load_watts", "is missing: budgets are drawn from by every node, and not every class says what its nodes draw")
	f.check(len(p.Budgets) <= maxBudgets, "power.budgets", "are more than "+strconv.Itoa(maxBudgets))
	seen := map[string]bool{}
	for i, b := range p.Budgets {
		at := "power.budgets[" + strconv.Itoa(i) + "]"
		key, value := ValidLabel(b.Label, b.Value)
		f.check(key && value && b.Value != "", at+".of", "is no label with its value, such as rack=r1")
		f.check(!seen[b.Name()], at+".of", "is that of a budget before")
		f.check(b.Watts > 0 && b.Watts <= maxWatts, at+".watts", "is not 1 to "+strconv.Itoa(maxWatts))
		seen[b.Name()] = true
	}
}

func (p ClassPower) validate(f *faults) {
	f.check(p.IdleWatts >= 0 && p.IdleWatts <= maxWatts, "power.idle_watts", "is not 0 to "+strconv.Itoa(maxWatts))
	f.check(p.LoadWatts >= 0 && p.LoadWatts <= maxWatts, "power.load_watts", "is not 0 to "+strconv.Itoa(maxWatts))
	f.check(p.LoadWatts == 0 || p.IdleWatts <= p.LoadWatts, "power.idle_watts", "is more than load_watts")
}

// PowerOf is what a machine of the class draws at this site.
func (s Site) PowerOf(c Class) ClassPower {
	p := c.Power
	if p.LoadWatts == 0 {
		p.LoadWatts = s.Power.LoadWatts
	}
	if p.IdleWatts == 0 {
		p.IdleWatts = min(s.Power.IdleWatts, p.LoadWatts)
	}
	return p
}

// Watts says a power as people do: "950 W", "10.2 kW".
func Watts(w int64) string {
	if w > -1000 && w < 1000 {
		return strconv.FormatInt(w, 10) + " W"
	}
	return strings.TrimSuffix(strconv.FormatFloat(float64(w)/1000, 'f', 1, 64), ".0") + " kW"
}

// KindLoadStop holds the stops of load in force; a resume deletes the record.
const KindLoadStop = "load-stop"

// LoadStopID is a UUIDv7 in its text form.
type LoadStopID string

// LoadStop ends the load of burn-ins for the nodes that it covers, and keeps load and power-on from beginning until somebody resumes. What a stage had
// measured is kept, and the stage runs again then.
type LoadStop struct {
	ID LoadStopID `json:"id"`
	// Labels are what a node must have to be covered; none covers every node there is and every one that comes.
	Labels map[string]string `json:"labels,omitempty"`
	// Nodes are those that had the labels when it began: a label that is changed later lets no node out.
	Nodes  []NodeID `json:"nodes,omitempty"`
	Reason string   `json:"reason"`
	By     string   `json:"by"`
	// Input is the file that asked for it, "" where somebody did.
	Input string    `json:"input,omitempty"`
	Since time.Time `json:"since"`
}

// Covers reports whether the stop holds for a node.
func (s LoadStop) Covers(n Node) bool {
	return len(s.Labels) == 0 || hasLabels(n, s.Labels) || slices.Contains(s.Nodes, n.ID)
}

// What says in words what it covers.
func (s LoadStop) What() string {
	if len(s.Labels) == 0 {
		return "everything"
	}
	var keys []string
	for _, k := range slices.Sorted(maps.Keys(s.Labels)) {
		keys = append(keys, k+"="+s.Labels[k])
	}
	return "nodes with " + strings.Join(keys, ",")
}

// Why says in words why nothing is loaded, and the command that ends it.
func (s LoadStop) Why() string {
	return fmt.Sprintf("load is stopped since %s by %s (%s): %s", s.Since.UTC().Format(time.RFC3339), s.By, s.Reason, s.Command())
}

// Command is what ends the stop.
func (s LoadStop) Command() string {
	return "metalctl burnin resume " + string(s.ID) + " --reason TEXT"
}

// LoadStops are all that are in force, by their ids, which is the order in which they began.
func LoadStops(s Snapshot) ([]LoadStop, error) { return List[LoadStop](s, KindLoadStop) }

// StoppedBy returns the oldest stop that covers the node, or nil.
func StoppedBy(n Node, stops []LoadStop) *LoadStop {
	for i := range stops {
		if stops[i].Covers(n) {
			return &stops[i]
		}
	}
	return nil
}
