// Package verdict says in which ways a machine is not what it should be: what is wrong by itself, not what its class says, not what it was, not what its
// fellows are.
//
// It is pure. One cause gives one difference: what follows from a reported cause is not reported again, and the cause's words say so. What a class expects
// and the inventory could not read is a difference that blocks, too: an error makes no node healthier.
package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Judge compares an inventory with itself and with the class, whose zero value expects nothing. Blocking differences come first, then by component.
func Judge(inv fleet.Inventory, class fleet.Class) []fleet.Difference {
	j := newJudge(&inv, class)
	j.gpuPresence()
	j.switches()
	j.fabric()
	j.gpuHealth()
	j.links()
	j.hcas()
	j.disks()
	j.memory()
	j.pcie()
	j.kernel()
	j.recovery()
	j.mixed()
	j.counts()
	j.placement()
	j.firmware()
	return sorted(j.out)
}

// judge gathers differences in an order that finds causes before what follows from them.
type judge struct {
	inv   *fleet.Inventory
	class fleet.Class
	board *board
	names *names
	out   []fleet.Difference
	// covered holds components that a reported cause explains, with all below them.
	covered map[string]bool
	// darkLinks is how many links of each GPU a missing NVSwitch takes along.
	darkLinks int
	noFabric  bool // the fabric manager does not run: links, fabric state and peers follow from it
	missing   int  // GPUs that are not on PCI
	goneHCAs  int  // rails that are missing; their network interfaces are, too
}

func newJudge(inv *fleet.Inventory, class fleet.Class) *judge {
	j := &judge{inv: inv, class: class, names: nameParts(inv), covered: map[string]bool{}}
	j.board = boardOf(inv)
	return j
}

// finding is a difference before its words are filled in.
type finding struct {
	code, component, against, want, got, do string
}

// block reports what forbids handing the node out, warn what does not. Both report whether it was said, as what a cause explains is not.
func (j *judge) block(f finding, words string, args ...any) bool {
	return j.add(f, fleet.Critical, fleet.BlocksAllocate, words, args...)
}

func (j *judge) warn(f finding, words string, args ...any) bool {
	return j.add(f, fleet.Warning, fleet.BlocksNothing, words, args...)
}

func (j *judge) add(f finding, s fleet.Severity, b fleet.Blocks, words string, args ...any) bool {
	if j.explained(f.component) {
		return false
	}
	if f.against == "" {
		f.against = fleet.AgainstSelf
	}
	j.out = append(j.out, fleet.Difference{Code: f.code, Component: f.component, Severity: s, Blocks: b, Against: f.against, Want: f.want, Got: f.got, Words: fmt.Sprintf(words, args...), Do: f.do})
	return true
}

// cover marks components as explained, with all that is below them.
func (j *judge) cover(components ...string) {
	for _, c := range components {
		j.covered[c] = true
	}
}

func (j *judge) explained(component string) bool {
	for at := component; at != ""; {
		if j.covered[at] {
			return true
		}
		i := strings.LastIndexByte(at, '/')
		if i < 0 {
			break
		}
		at = at[:i]
	}
	return false
}

// said returns the first difference of a component or of what is below it that has one of the codes, or nil. No codes means any that blocks.
func (j *judge) said(component string, codes ...string) *fleet.Difference {
	for i := range j.out {
		d := &j.out[i]
		if d.Component != component && !strings.HasPrefix(d.Component, component+"/") {
			continue
		}
		if len(codes) == 0 && d.Blocks != fleet.BlocksNothing || slices.Contains(codes, d.Code) {
			return d
		}
	}
	return nil
}

// unread reports a part that the class has an opinion of and nobody could read; why is looked up under the names that readers use.
func (j *judge) unread(component, what string, keys ...string) {
	why := ""
	for _, k := range append(keys, component) { // the names that tell most come first
		for _, m := range j.inv.Missing {
			if why == "" && (m.What == k || strings.HasPrefix(m.What, k+"/") || strings.HasPrefix(m.What, k+" ")) {
				why = ": " + m.Why
			}
		}
	}
	j.block(finding{code: "MC-INVENTORY-UNREAD", component: component, against: fleet.AgainstClass, want: what, do: "retest"},
		"%s could not be told of %s%s, and class %s has an opinion of it", what, component, why, j.class.Name)
}

// sorted puts what blocks first, then orders by component with its numbers as numbers.
func sorted(ds []fleet.Difference) []fleet.Difference {
	slices.SortStableFunc(ds, func(a, b fleet.Difference) int {
		if x, y := a.Blocks == fleet.BlocksNothing, b.Blocks == fleet.BlocksNothing; x != y {
			if x {
				return 1
			}
			return -1
		}
		if c := fleet.CompareNatural(a.Component, b.Component); c != 0 {
			return c
		}
		return strings.Compare(a.Code, b.Code)
	})
	return ds
}
