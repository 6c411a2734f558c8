package verdict

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

const faultsPage = "../../docs/gpu-faults.md"

// TestFaultsDocs compares docs/gpu-faults.md with the matrix; METALCTL_UPDATE=1 writes it anew.
func TestFaultsDocs(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# What is found wrong with a GPU node

An inspection ends with a verdict: in which ways the machine is not what it should be, by itself, by its class, and since the last inspection. ` + "`metalctl node inventory NODE --diff`" + ` prints it, with
the fellows of its class as well; each code has a page: ` + "`metalctl help CODE`" + `. What blocks is a fault of the node. One cause gives one difference: what follows from it is not
reported again.

The table is made from the matrix of the tests, which injects each fault into machines of each kind (DGX A100, HGX H100, HGX H200, HGX B200) and expects exactly these differences. $G is the
GPU that suffers, by module id. *critical* keeps the node from being handed out. The faults that ship for trying (` + "`metalctl sim profile --faults`" + `, table in inventory.md) go the whole way: files of a
machine, the agent's readers with NVIDIA's library in child processes, verdict. What a burn-in finds beyond that is in [burn-in-faults.md](burn-in-faults.md).

| the machine | difference | part | severity | what to do |
| --- | --- | --- | --- | --- |
`)
	for _, f := range faults {
		name := f.name
		if f.only != "" {
			name += " (" + strings.Join(strings.Fields(f.only), ", ") + ")"
		}
		if len(f.want) == 0 {
			fmt.Fprintf(&b, "| %s | none | | | |\n", name)
		}
		for i, w := range f.want {
			if i > 0 {
				name = ""
			}
			x := strings.Fields(w)
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, x[0], strings.Replace(x[1], "$B", "ADDRESS", 1), x[2], x[3])
		}
	}
	b.WriteString("\n## Limits\n\nA class may bound these; each limit names its source. A limit that is a thousand times off those of all other classes is refused.\n\n| check | unit | bounds | what |\n| --- | --- | --- | --- |\n")
	for _, c := range fleet.LimitChecks {
		bounds := "the most"
		if c.Least {
			bounds = "the least"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", c.Name, c.Unit, bounds, c.Doc)
	}
	b.WriteString("\n## Messages of the driver\n\nXIDs that no other difference explains, as they are judged on a node that nobody uses. Numbers that are not listed should never be seen, and block.\n\n| XID | what | verdict | what to do |\n| --- | --- | --- | --- |\n")
	var numbers []int
	for n := range xidTable {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		x := xidTable[n]
		fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", n, x.words, [...]string{"nothing", "warning", "blocks", "blocks", "blocks"}[x.rank], x.do)
	}
	if os.Getenv("METALCTL_UPDATE") != "" {
		if err := os.WriteFile(faultsPage, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(faultsPage)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("docs/gpu-faults.md is not what the matrix says; make generate writes it:\n%s", d)
	}
}
