package verdict

import (
	"fmt"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

// burnFault is one misfortune under load: what it does to a healthy node's burn-in, and the one check that fails for it: code, component, action. $G is the
// GPU at index 3, $H the HCA of its rail, by name. class is what rates are counted by.
type burnFault struct {
	class, name string
	does        func(b *burned)
	verdict     fleet.Outcome
	code, at    string
	do          string
	only        string // kinds that it is about; "" all
}

// from changes all readings from that before stage i on; those before it stay as they were.
func (b *burned) from(i int, do func(inv *fleet.Inventory)) {
	for k := i; k < len(b.parts); k++ {
		if k > i {
			do(b.parts[k].Before)
		}
		do(b.parts[k].After)
	}
}

// scale multiplies what was measured; component "" is all of the check.
func (b *burned) scale(check, component string, by float64) {
	for i := range b.parts {
		for k := range b.parts[i].Measured {
			if m := &b.parts[i].Measured[k]; m.Check == check && (component == "" || m.Component == component) {
				m.Value *= by
			}
		}
	}
}

// set sets what was measured in the first part that measured it.
func (b *burned) set(check, component string, value float64, details ...string) {
	for i := range b.parts {
		for k := range b.parts[i].Measured {
			if m := &b.parts[i].Measured[k]; m.Check == check && m.Component == component {
				m.Value, m.Details = value, details
				return
			}
		}
	}
	panic("nobody measured " + check + " of " + component)
}

func (b *burned) gpu() string { return Component(b.parts[0].Before, 3) }

func (b *burned) kernel(stage int, k fleet.KernelFinding) {
	k.Count = max(1, k.Count)
	b.parts[stage].Kernel = append(b.parts[stage].Kernel, k)
}

var burnFaults = []burnFault{
	{"wrong data", "a GPU computes wrongly", func(b *burned) {
		b.set("gpu-mismatches", b.gpu(), 4, "int32 pass 7 SM 61 tile 12: 2 words differ")
	}, fleet.Fail, "MC-BURN-DATA", "$G", "retest", ""},
	{"wrong data", "HBM returns other words", func(b *burned) { b.set("gpu-memory-mismatches", b.gpu(), 1) }, fleet.Fail, "MC-BURN-DATA", "$G", "reset", ""},
	{"wrong data", "a core computes wrongly", func(b *burned) { b.set("cpu-mismatches", "core/14", 1) }, fleet.Fail, "MC-BURN-DATA", "core/14", "retest", ""},
	{"slow part", "tensor cores are 12 % slower than those of the others", func(b *burned) { b.scale("gpu-bf16", b.gpu(), 0.88) }, fleet.Fail, "MC-BURN-SLOW", "$G", "retest", ""},
	{"counters", "HBM errors that could not be corrected", func(b *burned) {
		b.from(2, func(inv *fleet.Inventory) { inv.GPUs[3].ECC.Volatile.Uncorrected++ })
	}, fleet.Fail, "MC-GPU-ECC", "$G", "reset", ""},
	{"lost parts", "a GPU falls off the bus", func(b *burned) {
		b.kernel(2, fleet.KernelFinding{Kind: "xid", Code: 79, Component: "pci/" + b.parts[0].Before.GPUs[3].PCIAddress, Line: "NVRM: Xid 79"})
		b.from(2, func(inv *fleet.Inventory) { blind(&inv.GPUs[3], fleet.GPULostBus+": GPU is lost") })
		for i := 2; i < len(b.parts); i++ {
			b.unmeasure(i, b.gpu(), "no-device", "cuDeviceGet: no such device")
		}
	}, fleet.Fail, "MC-GPU-LOST", "$G", "cold-cycle", ""},
	{"platform", "the fabric never gets ready", func(b *burned) {
		for i := 1; i < len(b.parts); i++ {
			b.parts[i].Measured = nil
			b.parts[i].Untold = []fleet.Untold{{Check: burnProfile.Stages[i].Stress[0], Component: "node", Cause: "fabric-not-ready", Words: "cuInit: 802, system not yet initialized"}}
			if i == 2 {
				b.parts[i].Untold = append(b.parts[i].Untold, fleet.Untold{Check: fleet.StressGPUTensor, Component: "node", Cause: "fabric-not-ready", Words: "cuInit: 802, system not yet initialized"})
			}
		}
	}, fleet.CouldNotTell, "MC-BURN-PLATFORM", "platform", "reboot", ""},
}

// unmeasure takes away what a stage measured of a GPU, and says why.
func (b *burned) unmeasure(stage int, gpu, cause, words string) {
	p := &b.parts[stage]
	left := p.Measured[:0:0]
	told := map[string]bool{}
	for _, m := range p.Measured {
		in := false
		for _, r := range roots(m.Component) {
			in = in || r == gpu
		}
		if !in {
			left = append(left, m)
			continue
		}
		if k := m.Check + m.Component; !told[k] {
			told[k] = true
			p.Untold = append(p.Untold, fleet.Untold{Check: m.Check, Component: m.Component, Cause: cause, Words: words})
		}
	}
	p.Measured = left
}

// TestBurnFaults injects each fault into the burn-in of a node of each kind: one check fails, at the right part, with the right action.
func TestBurnFaults(t *testing.T) {
	for _, k := range kinds {
		for i, f := range burnFaults {
			if f.only != "" && !strings.Contains(f.only, k.name) {
				continue
			}
			t.Run(k.name+"/"+f.name, func(t *testing.T) {
				b := newNature(uint64(i)).healthy(k)
				place := strings.NewReplacer("$G", b.gpu(), "$H", b.parts[0].Before.HCAs[3].Name)
				f.does(b)
				r := BurnIn(b.input())
				if r.Verdict != f.verdict {
					t.Errorf("verdict %s, not %s: %s", r.Verdict, f.verdict, r.Headline)
				}
				want := fmt.Sprintf("%s %s %s", f.code, place.Replace(f.at), f.do)
				var got []string
				for _, c := range r.Checks {
					if c.Outcome == fleet.Fail || c.Outcome == fleet.CouldNotTell {
						got = append(got, fmt.Sprintf("%s %s %s", c.Code, c.Component, c.Do))
						if _, ok := fleet.Codes[c.Code]; !ok || c.Words == "" {
							t.Errorf("not whole: %+v", c)
						}
					}
				}
				if len(got) != 1 || got[0] != want {
					t.Errorf("alarms %q, not %q", got, want)
				}
			})
		}
	}
}

// TestHealthyNodes burns in nodes of each kind on which nothing is wrong, with the noise that real ones have.
func TestHealthyNodes(t *testing.T) {
	for _, k := range kinds {
		for seed := range uint64(10) {
			r := BurnIn(newNature(seed).healthy(k).input())
			if r.Verdict == fleet.Fail || r.Verdict == fleet.CouldNotTell {
				t.Errorf("%s, seed %d: %s: %s", k.name, seed, r.Verdict, r.Headline)
			}
		}
	}
}
