package fleet

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestManyFaultsStaySmall: a shelf of broken disks is a few faults and one that counts the others and blocks as they do.
func TestManyFaultsStaySmall(t *testing.T) {
	var n Node
	for i := range 40 {
		blocks := BlocksAllocate
		if i == 20 {
			blocks = BlocksEverything
		}
		n.RaiseFault(Fault{Code: "MC-X", Component: fmt.Sprintf("disk/%d", i), Severity: Critical, Evidence: strings.Repeat("x", 400), Hint: "h", Blocks: blocks})
	}
	b, err := json.Marshal(n.Faults)
	if err != nil || len(b) > 3<<10 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	m := n.Fault("MC-X", MoreComponents)
	if m == nil || m.Seen != 37 || m.Blocks != BlocksEverything || !strings.Contains(m.Evidence, "37 more") || len(m.Evidence) > 300 {
		t.Fatalf("%+v", m)
	}
}
