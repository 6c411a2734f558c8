package verdict

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

const (
	burnPage = "../../docs/burn-in-faults.md"
	// ratesDate is when the rates of the page were counted last; they are the same each time, as all chance is seeded.
	ratesDate = "2026-11-22"
	// healthyRuns and faultSeeds are what the page's rates are counted over.
	healthyRuns = 30000
	faultSeeds  = 15
)

// wilson is the interval in which a share lies with 95 % confidence when k of n were seen (E. B. Wilson, JASA 22, 1927).
func wilson(k, n int) (low, high float64) {
	const z = 1.959964
	p, m := float64(k)/float64(n), float64(n)
	mid, half := (p+z*z/(2*m))/(1+z*z/m), z/(1+z*z/m)*math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return max(0, mid-half), min(1, mid+half)
}

// onAllCores runs n trials on all processors.
func onAllCores(n int, do func(i int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				do(int(i))
			}
		})
	}
	all.Wait()
}

// unaware counts what healthy nodes of all kinds come to, and keeps some headlines of those that were not let pass.
func unaware(n int) (verdicts map[fleet.Outcome]int, why []string) {
	verdicts = map[fleet.Outcome]int{}
	var mu sync.Mutex
	onAllCores(n, func(i int) {
		k := kinds[i%len(kinds)]
		r := BurnIn(newNature(uint64(i) + 1<<32).healthy(k).input())
		mu.Lock()
		defer mu.Unlock()
		verdicts[r.Verdict]++
		if severity(r.Verdict) > severity(fleet.Warn) && len(why) < 10 {
			why = append(why, fmt.Sprintf("seed %d, %s: %s", i, k.name, r.Headline))
		}
	})
	return verdicts, why
}

func long() bool { return os.Getenv("METALCTL_LONG") != "" }

// TestFalseAlarms burns in healthy nodes with honest noise: at most one in 10,000 may be called sick.
func TestFalseAlarms(t *testing.T) {
	if long() {
		t.Skip("long: TestBurnDocs counts more of them")
	}
	n := 1000
	if testing.Short() {
		n = 60
	}
	verdicts, why := unaware(n)
	if got := verdicts[fleet.Pass] + verdicts[fleet.Warn]; got != n {
		t.Errorf("%d of %d healthy nodes were called sick:\n%s", n-got, n, strings.Join(why, "\n"))
	}
	if w := verdicts[fleet.Warn]; 5*w > n { // who is warned of everything reads no warning
		t.Errorf("%d of %d healthy nodes were warned of", w, n)
	}
}

// told counts for a class of faults how many were told, and of how many of these the part and the action were right.
type told struct{ n, told, right, alike int }

// detect injects each fault of the list into nodes of each kind with so many seeds.
func detect(list []burnFault, seeds int) map[string]*told {
	type trial struct {
		f    burnFault
		k    kind
		seed uint64
	}
	var trials []trial
	out := map[string]*told{}
	for i, f := range list {
		out[f.class] = &told{}
		for m, k := range kinds {
			for s := range seeds {
				if f.about(k) && f.outcome != fleet.Pass {
					trials = append(trials, trial{f, k, uint64(i*1000+m*100+s) + 1<<33})
				}
			}
		}
	}
	var mu sync.Mutex
	onAllCores(len(trials), func(i int) {
		x := trials[i]
		n := newNature(x.seed)
		b := n.healthy(x.k)
		want := strings.Fields(x.f.expects(b))
		x.f.does(n, b)
		got := alarms(BurnIn(b.input()), x.f.outcome)
		mu.Lock()
		defer mu.Unlock()
		c := out[x.f.class]
		c.n++
		if len(got) == 0 {
			return
		}
		c.told++
		first := strings.Fields(got[0])
		if x.f.outcome == fleet.Warn { // a healthy node may be warned of, too
			if k := slices.IndexFunc(got, func(a string) bool { return strings.Fields(a)[1] == want[1] }); k >= 0 {
				first = strings.Fields(got[k])
			}
		}
		if first[1] == want[1] {
			c.right++
			if first[2] == want[2] && (len(got) == 1 || x.f.outcome == fleet.Warn) {
				c.alike++
			}
		}
	})
	return out
}

// rates is the part of the page that takes minutes to count.
func rates(t *testing.T) string {
	var b strings.Builder
	found := detect(burnFaults, faultSeeds)
	for class, c := range detect(underLoad(), 1) {
		found[class] = c
	}
	fmt.Fprintf(&b, "Counted on %s by `METALCTL_LONG=1 go test -run TestBurnDocs ./fleet/verdict`: each fault of the first table in burn-ins of each kind of node with %d seeds, those of an inventory with one.\n\n", ratesDate, faultSeeds)
	b.WriteString("| faults | injected | told | with 95 % confidence | the right part | part, action and nothing else |\n| --- | --- | --- | --- | --- | --- |\n")
	all := told{}
	for _, f := range slices.Concat(burnFaults, underLoad()) {
		c := found[f.class]
		if c == nil {
			continue
		}
		delete(found, f.class)
		low, high := wilson(c.told, c.n)
		fmt.Fprintf(&b, "| %s | %d | %d | %.1f to %.1f %% | %d | %d |\n", f.class, c.n, c.told, 100*low, 100*high, c.right, c.alike)
		all.n, all.told, all.right, all.alike = all.n+c.n, all.told+c.told, all.right+c.right, all.alike+c.alike
	}
	low, high := wilson(all.told, all.n)
	fmt.Fprintf(&b, "| all | %d | %d | %.1f to %.1f %% | %d | %d |\n\n", all.n, all.told, 100*low, 100*high, all.right, all.alike)
	if 100*all.right < 99*all.told {
		t.Errorf("of %d alarms only %d named the right part", all.told, all.right)
	}
	verdicts, why := unaware(healthyRuns)
	sick := healthyRuns - verdicts[fleet.Pass] - verdicts[fleet.Warn]
	fmt.Fprintf(&b, "Of %d burn-ins of healthy nodes %d were called sick: at most %.2g in 10,000 with 95 %% confidence. %d (%.1f %%) were let pass with a warning.\n", healthyRuns, sick, 1e4*poissonUpper(int64(sick), 0.95)/healthyRuns,
		verdicts[fleet.Warn], 100*float64(verdicts[fleet.Warn])/healthyRuns)
	if 10000*sick > healthyRuns {
		t.Errorf("%d healthy nodes were called sick:\n%s", sick, strings.Join(why, "\n"))
	}
	return b.String()
}

// TestBurnDocs compares docs/burn-in-faults.md with the matrix; METALCTL_UPDATE=1 writes it anew, with METALCTL_LONG=1 the rates as well.
func TestBurnDocs(t *testing.T) {
	old, err := os.ReadFile(burnPage)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	const head = "## How well it tells\n\n"
	_, counted, _ := strings.Cut(string(old), head)
	if long() {
		counted = rates(t)
	}
	var b strings.Builder
	b.WriteString(`# What a burn-in finds

A burn-in ends with a report: a verdict, a headline that names part, slot and serial and the next action, and all that was looked at. ` + "`metalctl burnin report NODE`" + ` shows it; each code has a page:
` + "`metalctl help CODE`" + `.

- **pass** and **warn** let the node be handed out. **fail** keeps it back for a part, **error** because something kept the burn-in from telling: the node's software, mostly, for which no part is
  condemned. **skip** says what was not looked at, and why. The verdict is the worst of the checks; a burn-in that did not finish is never a pass.
- One cause fails one check. What follows from it is a warning that says so.
- Counters are judged by what they grew by under load. Where one event is too many it fails; where it is the rate that counts, a part fails when the rate is above the limit with 99.9 % confidence (the
  exact bound of a Poisson process), is warned of when it is likely above, and the report says in any case what the rate is below at 95 %.
- Measurements are held against the limits of profile and class, then against the fellows in the node (more than 4 robust deviations *and* more than the share below), then against the other nodes of
  the class: with 8 of them a part is warned of, and never fails by that alone.
- A fault that a retest, reset or reseat may cure asks for that first. The same fault in the same part, by serial, in a later burn-in condemns it: the report says what to replace.

## Faults and what follows

The table is made from the tests' matrix, which injects each fault into burn-ins of nodes of each kind (DGX A100, HGX H100, HGX H200, HGX B200) with the noise of healthy ones, and expects this one check.
$G is the GPU that suffers, by module id.

| fault | outcome | code | part | what to do |
| --- | --- | --- | --- | --- |
`)
	for _, f := range burnFaults {
		w := strings.Fields(f.want)
		name := f.name
		if f.only != "" {
			name += " (" + strings.Join(strings.Fields(f.only), ", ") + ")"
		}
		fmt.Fprintf(&b, "| %s: %s | %s | %s | %s | %s |\n", f.class, name, f.outcome, w[0], strings.NewReplacer("$0", "OTHER").Replace(w[1]), w[2])
	}
	b.WriteString("\nThe faults of [gpu-faults.md](gpu-faults.md) are found under load as well, with these differences:\n\n| fault | outcome | code | part | what to do |\n| --- | --- | --- | --- | --- |\n")
	for _, name := range sortedKeys(burnOutcomes) {
		f := burnOutcomes[name]
		w := append(strings.Fields(f.want), "", "", "")
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, f.outcome, w[0], w[1], w[2])
	}
	b.WriteString("\n## Counters\n\nA profile or class may give another limit for those that name one.\n\n| counter | fails at | limit | outcome | what to do | source |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, r := range counterRules {
		at := "the first"
		if !r.fatal {
			at = fmt.Sprintf("surely more than %.4g per hour", r.most)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.id, at, r.limit, r.worst, r.do, r.source)
	}
	b.WriteString("\n## Fellows\n\nBy how much a part must be worse than the median of its fellows, of which there must be four at least.\n\n| check | warns at | fails at |\n| --- | --- | --- |\n")
	for _, o := range oddnesses {
		size := func(v float64) string {
			switch {
			case v == 0:
				return "never"
			case o.kelvin:
				return fmt.Sprintf("%g K", v)
			}
			return fmt.Sprintf("%g %%", 100*v)
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", o.check, size(o.warn), size(o.fail))
	}
	b.WriteString("\n## The noise of healthy nodes\n\nWhere the figures are from that the tests' healthy nodes are made with:\n\n" + noiseSources + "\n" + head + counted)
	if os.Getenv("METALCTL_UPDATE") != "" {
		if err := os.WriteFile(burnPage, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(string(old), b.String()); d != "" {
		t.Errorf("docs/burn-in-faults.md is not what the matrix says; make generate writes it, METALCTL_LONG=1 the rates as well:\n%s", d)
	}
	if !strings.Contains(counted, "| all |") {
		t.Error("docs/burn-in-faults.md has no rates; METALCTL_LONG=1 METALCTL_UPDATE=1 counts them")
	}
}
