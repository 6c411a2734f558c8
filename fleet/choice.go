package fleet

// Choice is which nodes a lease by count would get and why each of them, or why it gets none.
type Choice struct {
	// Fits reports whether as many nodes as were asked for were chosen. None is where it does not.
	Fits   bool   `json:"fits"`
	Count  int    `json:"count"`
	Class  string `json:"class"`
	Chosen []Pick `json:"chosen,omitempty"`
	// Considered are the nodes of the class, Free those of them that could be handed out, each by itself.
	Considered int `json:"considered"`
	Free       int `json:"free"`
	// Fell are the others, each under the first thing that forbids it, in the order in which the lifecycle's guard asks.
	Fell []Fall `json:"fell,omitempty"`
	// Relaxations are what would make it fit, the smallest first.
	Relaxations []Relaxation `json:"relaxations,omitempty"`
}

// Pick is one chosen node.
type Pick struct {
	Node NodeID `json:"node"`
	Name string `json:"name"`
	Why  string `json:"why"`
}

// FallReason is why a node cannot be chosen.
type FallReason string

const (
	FellState     FallReason = "state"
	FellFault     FallReason = "fault"
	FellHold      FallReason = "hold"
	FellFrozen    FallReason = "frozen"
	FellProtected FallReason = "protected"
	FellDirty     FallReason = "dirty"
	FellErased    FallReason = "freshness"
	FellClass     FallReason = "class"
	FellBurnIn    FallReason = "burn-in"
	FellIsolation FallReason = "isolation"
	FellWires     FallReason = "wires"
	FellTopology  FallReason = "topology"
	FellLabels    FallReason = "labels"
)

// Fall is how many nodes cannot be chosen for one reason.
type Fall struct {
	Reason FallReason `json:"reason"`
	Count  int        `json:"count"`
	Text   string     `json:"text"`
	// Nodes are the first of them by name.
	Nodes []string `json:"nodes"`
}

// Relaxation is a change of the request or of the fleet with which the lease would fit.
type Relaxation struct {
	Text string `json:"text"`
	// Command is what to type for it, "" where it only takes time.
	Command string `json:"command,omitempty"`
}
