package fleet

import "time"

// KindBurned holds BurnValues by node.
const KindBurned = "burned"

// BurnValues are what a node measured in its newest burn-in that passed: the history that other nodes of its class are held against.
type BurnValues struct {
	Node  NodeID `json:"node"`
	Class string `json:"class"`
	// Machine tells one machine from another: its serial, or what else there is.
	Machine string    `json:"machine"`
	Profile string    `json:"profile"`
	At      time.Time `json:"at"`
	// Fixture names what the machine is made of where it is none.
	Fixture string `json:"fixture,omitempty"`
	// Values are by check and component, in the check's unit.
	Values map[string]map[string]float64 `json:"values"`
}

// MostBurnValues is how many values a node's record has at most.
const MostBurnValues = 1000
