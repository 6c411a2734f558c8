package reconcile

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

// TestNodeRecordFits: faults of many kinds are shortened until the record fits, and none is lost.
func TestNodeRecordFits(t *testing.T) {
	n := &fleet.Node{Name: "n1"}
	for i := range 12 {
		n.RaiseFault(fleet.Fault{Code: fmt.Sprintf("MC-X-%d", i), Component: "c", Evidence: strings.Repeat("e", 300), Hint: strings.Repeat("h", 200), Blocks: fleet.BlocksAllocate})
	}
	b, err := fit(n)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := json.Marshal(n); err != nil || len(b) > maxNode || len(n.Faults) != 12 || string(b) != string(want) {
		t.Errorf("%d bytes, %d faults, %v", len(b), len(n.Faults), err)
	}
}
