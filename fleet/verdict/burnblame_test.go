package verdict

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// TestTwoPasses: what a reset might cure is tried first, and the same fault in the same part condemns it, wherever the part sits then.
func TestTwoPasses(t *testing.T) {
	k := kinds[2]
	run := func(seed uint64, does func(n nature, b *burned), earlier ...fleet.BurnReport) fleet.BurnReport {
		n := newNature(seed)
		b := n.healthy(k)
		does(n, b)
		in := b.input()
		in.Earlier = earlier
		return BurnIn(in)
	}
	fault := func(name string) func(n nature, b *burned) {
		return burnFaults[slices.IndexFunc(burnFaults, func(f burnFault) bool { return f.name == name })].does
	}
	swap := func(i, k int) func(n nature, b *burned) { // GPUs i and k have changed places
		return func(_ nature, b *burned) {
			for _, p := range b.parts {
				for _, inv := range []*fleet.Inventory{p.Before, p.After} {
					x, y := &inv.GPUs[i], &inv.GPUs[k]
					x.Serial, y.Serial = y.Serial, x.Serial
				}
			}
		}
	}
	both := func(fs ...func(n nature, b *burned)) func(n nature, b *burned) {
		return func(n nature, b *burned) {
			for _, f := range fs {
				f(n, b)
			}
		}
	}
	wrong := func(_ nature, b *burned) { b.set("gpu-mismatches", b.gpu(), 4) }
	wrongAt := func(i int) func(n nature, b *burned) {
		return func(_ nature, b *burned) { b.set("gpu-mismatches", Component(b.parts[0].Before, i), 4) }
	}
	for _, c := range []struct {
		name         string
		first, again func(n nature, b *burned)
		want         string // code component do
		replace      string // part of what to replace
	}{
		{"a GPU computes wrongly twice", wrong, wrong, "MC-BURN-DATA gpu/3 replace", "GPU 3 (serial 1650000003, at 0000:5d:00.0)"},
		{"two GPUs compute wrongly once each", wrongAt(0), wrong, "MC-BURN-DATA gpu/3 retest", ""},
		{"a GPU that was moved takes its fault along", wrongAt(0), both(swap(0, 3), wrong), "MC-BURN-DATA gpu/3 replace", "serial 1650000000"},
		{"another GPU in the place of a sick one is no second time", wrong, both(swap(0, 3), wrong), "MC-BURN-DATA gpu/3 retest", ""},
		{"another fault of the same GPU is no second time", wrong, fault("a row of HBM is replaced after an error"), "MC-BURN-ECC gpu/3 reset", ""},
		{"the same XID after a reset", fault("a GPU's system processor does not answer, and its load crashes"), fault("a GPU's system processor does not answer, and its load crashes"), "MC-GPU-XID gpu/3 replace", "serial 1650000003"},
		{"an NVLink twice", fault("an NVLink recovers"), fault("an NVLink recovers"), "MC-BURN-NVLINK gpu/3/nvlink/7 replace", "GPU 3 (serial 1650000003"},
		{"a port twice", fault("a link of InfiniBand is lost"), fault("a link of InfiniBand is lost"), "MC-BURN-HCA hca/mlx5_3/port/1 replace", "the cable or module at hca mlx5_3/port/1 (serial CBL3)"},
		{"a core twice", fault("a core computes wrongly"), fault("a core computes wrongly"), "MC-BURN-DATA core/14 replace", "the processor of socket 0"},
		{"a load that hangs twice", fault("a load hangs, and nobody says why"), fault("a load hangs, and nobody says why"), "MC-BURN-UNTOLD gpu/3 replace", "serial 1650000003"},
		{"software is never replaced", fault("the fabric never gets ready"), fault("the fabric never gets ready"), "MC-BURN-PLATFORM platform reboot", ""},
		{"a slow GPU twice", fault("tensor cores 10 to 40 % slower"), fault("tensor cores 10 to 40 % slower"), "MC-BURN-SLOW gpu/3 replace", "serial 1650000003"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := run(1, c.first)
			after := run(2, c.again, run(3, func(nature, *burned) {}), before)
			if d := cmp.Diff([]string{c.want}, alarms(after, fleet.CouldNotTell)); d != "" {
				t.Fatalf("(-want +got)\n%s", d)
			}
			got := after.Checks[0]
			if !strings.Contains(got.Replace, c.replace) || (got.Replace == "") != (c.replace == "") || c.replace != "" && !strings.Contains(after.Headline, "next: replace "+got.Replace) {
				t.Errorf("replaces %q, not %q: %s", got.Replace, c.replace, after.Headline)
			}
			whole(t, after)
		})
	}
}

// TestFatal ends a burn-in where going on is useless, and nowhere else.
func TestFatal(t *testing.T) {
	ends := map[string]bool{"wrong data": true, "lost parts": true, "messages of the driver": true, "slow parts": false, "slightly slow parts": false, "platform": false}
	goesOn := []string{"a load hangs, and nobody says why", "a load does not say in time what it found", "the driver asks for a restart of the node"}
	for i, f := range burnFaults {
		want, judged := ends[f.class]
		if !judged || f.name == "a PCIe link of a lower generation under load" || f.only == olderLinks || slices.Contains(goesOn, f.name) {
			continue
		}
		n := newNature(uint64(i))
		b := n.healthy(kinds[i%len(kinds)])
		f.does(n, b)
		got := ""
		for i := range b.parts {
			if c := Fatal(&b.parts[i], classOf(b.kind)); c != nil {
				got = c.Words
			}
		}
		if (got != "") != want {
			t.Errorf("%s: ends %t by %q", f.name, want, got)
		}
	}
	old := newNature(1).healthy(kinds[2])
	old.parts[0].Before.Disks[2].Smart.MediaErrors, old.parts[0].After.Disks[2].Smart.MediaErrors = 3, 3
	if c := Fatal(&old.parts[0], classOf(kinds[2])); c != nil {
		t.Errorf("what was so before ends it: %+v", c)
	}
	for _, p := range newNature(1).healthy(kinds[0]).parts {
		if c := Fatal(&p, classOf(kinds[0])); c != nil {
			t.Errorf("a healthy node ends it: %+v", c)
		}
	}
}

// TestBurnInFaults: what is no pass keeps the node back, and says what to type; that a burn-in did not finish is no fault of the node.
func TestBurnInFaults(t *testing.T) {
	b := newNature(1).healthy(kinds[2])
	b.set("gpu-mismatches", "gpu/3", 4)
	b.set("disk-io-errors", "disk/nvme2n1", 1)
	b.scale("gpu-memory-bandwidth", "gpu/1", 0.96) // only a warning
	in := b.input()
	in.Finished, in.Stopped = false, "aborted by an operator"
	r := BurnIn(in)
	var got []string
	for _, f := range Faults(&r) {
		got = append(got, f.Code+" "+f.Component)
		if f.Severity != fleet.Critical || f.Blocks != fleet.BlocksAllocate || f.Step != StepJudgeBurnIn || f.Since.IsZero() || f.Hint != "metalctl burnin report hgx001" || f.Evidence == "" {
			t.Errorf("%+v", f)
		}
	}
	if d := cmp.Diff([]string{"MC-BURN-DISK disk/nvme2n1", "MC-BURN-DATA gpu/3"}, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if r.Verdict != fleet.Fail || !slices.ContainsFunc(r.Checks, func(c fleet.Check) bool { return c.Code == "MC-BURN-UNFINISHED" }) {
		t.Errorf("%s: %s", r.Verdict, r.Headline)
	}
}

// TestUnfinished is never a pass, at no point of a run.
func TestUnfinished(t *testing.T) {
	b := newNature(4).healthy(kinds[1])
	for n := range len(b.parts) + 1 {
		in := b.input()
		in.Parts, in.Finished, in.Now = b.parts[:n], false, burnStart
		r := BurnIn(in)
		if r.Verdict != fleet.CouldNotTell || !strings.Contains(r.Headline, fmt.Sprintf("%d of 4 stages", n)) {
			t.Errorf("after %d parts: %s: %s", n, r.Verdict, r.Headline)
		}
		whole(t, r)
	}
	b.parts[2].Stopped, b.parts[2].After = "aborted", nil
	b.parts[2].Measured = b.parts[2].Measured[:9]
	in := b.input()
	in.Parts, in.Finished, in.Stopped = b.parts[:3], false, "aborted"
	if r := BurnIn(in); r.Verdict != fleet.CouldNotTell || strings.Join(alarms(r, fleet.CouldNotTell), " ") != "MC-BURN-UNFINISHED node retest" {
		t.Errorf("aborted: %s: %s", r.Verdict, r.Headline)
	}
}

// TestReset: a counter that went down was reset, and counts from zero.
func TestReset(t *testing.T) {
	b := newNature(5).healthy(kinds[2])
	at := func(i int, before, after int64) {
		*b.parts[i].Before.Memory.DIMMs[5].Corrected, *b.parts[i].After.Memory.DIMMs[5].Corrected = before, after
	}
	at(0, 70, 71)
	at(1, 71, 71)
	at(2, 0, 1) // rebooted
	at(3, 1, 1)
	r := BurnIn(b.input())
	i := slices.IndexFunc(r.Checks, func(c fleet.Check) bool { return c.ID == "dimm-corrected" && c.Component == "dimm/A6" })
	if c := r.Checks[i]; c.Outcome != fleet.Warn || !strings.Contains(c.Words, "2 corrected errors") || !strings.Contains(strings.Join(c.Evidence, " "), "reset once") || c.Stage != "host" {
		t.Errorf("%+v", c)
	}
}

// TestFleet: where all parts of a node are alike and slow only other nodes tell, and where one part is unlike its place on other nodes they do, too.
func TestFleet(t *testing.T) {
	var all []fleet.BurnValues
	for i := range 24 {
		b := newNature(uint64(100 + i)).healthy(kinds[2])
		for _, p := range b.parts {
			p.Before.System.Serial, p.After.System.Serial = fmt.Sprint("SYS", i), fmt.Sprint("SYS", i)
		}
		r := BurnIn(b.input())
		x := ValuesOf(&r)
		old := fleet.BurnValues{Machine: x.Machine, At: x.At.Add(-time.Hour), Values: map[string]map[string]float64{"gpu-bf16": {"gpu/3": 1}}} // an older one counts for nothing
		all = append(all, x, old)
	}
	history := FleetOf(all, burnProfile.Name)
	if n := FleetOf(all, "smoke").norm("gpu-temperature-max", "gpu/3"); n != nil {
		t.Errorf("heat of another profile counts: %+v", n)
	}
	if n := history.norm("gpu-temperature-max", "gpu/3"); n == nil || n.N != 24 {
		t.Errorf("heat of this profile: %+v", n)
	}
	if n := history.norm("gpu-bf16", "gpu/3"); n == nil || n.N != 24 || n.Median < 500 || n.Median > 580 || n.MAD <= 0 {
		t.Fatalf("%+v", n)
	}
	slow := func(by float64, h *BurnFleet) fleet.BurnReport {
		b := newNature(7).healthy(kinds[2])
		b.scale("gpu-bf16", "", by)
		in := b.input()
		in.Fleet = h
		return BurnIn(in)
	}
	if r := slow(1, history); severity(r.Verdict) > severity(fleet.Warn) {
		t.Errorf("a healthy node: %s", r.Headline)
	}
	if r := slow(0.8, nil); severity(r.Verdict) > severity(fleet.Warn) {
		t.Errorf("without a history nothing tells: %s", r.Headline)
	}
	if r := slow(0.8, history); r.Verdict != fleet.Warn || !slices.Contains(alarms(r, fleet.Warn), "MC-BURN-SLOW node configure") {
		t.Errorf("a slow node: %q: %s", alarms(r, fleet.Warn), r.Headline)
	}
	if r := slow(0.8, FleetOf(all[:24], burnProfile.Name)); r.Verdict != fleet.Warn { // of twelve nodes
		t.Errorf("a slow node beside few others: %s: %s", r.Verdict, r.Headline)
	}
	if r := slow(0.8, FleetOf(all[:8], burnProfile.Name)); strings.Contains(r.Headline, "other nodes") {
		t.Errorf("a slow node beside four others: %s", r.Headline)
	}
}

// TestLimits: a profile's limit comes before the class's, and both before fellows.
func TestLimits(t *testing.T) {
	b := newNature(8).healthy(kinds[2])
	in := b.input()
	limit := fleet.Limit{Check: "gpu-memory-bandwidth", Value: 5000, Unit: "GB/s", Source: "test"}
	in.Class.Expect.Limits = append(in.Class.Expect.Limits, limit)
	r := BurnIn(in)
	if got := alarms(r, fleet.Fail); len(got) != 8 || got[0] != "MC-BURN-SLOW gpu/1 retest" || r.Checks[0].Limit.Against != "class" {
		t.Errorf("the class's limit: %q", got)
	}
	limit.Value = 3000
	in.Profile.Limits = []fleet.Limit{limit}
	if r := BurnIn(in); severity(r.Verdict) > severity(fleet.Warn) {
		t.Errorf("the profile's limit: %s", r.Headline)
	}
	in.Profile.Limits = []fleet.Limit{{Check: "gpu-temperature-max", Value: 20, Unit: "C", Source: "test"}}
	if got := alarms(BurnIn(in), fleet.Fail); !slices.Contains(got, "MC-BURN-HOT gpu/1 retest") {
		t.Errorf("a limit from above: %q", got)
	}
}

// TestOddMeasurements: what is no value of its check, and what nobody knows, is told and condemns nobody.
func TestOddMeasurements(t *testing.T) {
	b := newNature(9).healthy(kinds[2])
	b.parts[1].Measured = append(b.parts[1].Measured, fleet.Measured{Check: "gpu-charm", Component: "gpu/1", Value: 1, Unit: "q"}, fleet.Measured{Check: "gpu-fp8", Component: "gpu/1", Value: 1, Unit: "TFLOP/s"},
		fleet.Measured{Check: "gpu-bf16", Component: "gpu/1", Value: -1, Unit: "TFLOP/s"}, fleet.Measured{Check: "gpu-h2d", Component: "gpu/1", Value: 1, Unit: "MB/s"})
	r := BurnIn(b.input())
	if got := alarms(r, fleet.CouldNotTell); len(got) != 2 || got[0] != "MC-BURN-UNTOLD gpu/1 retest" {
		t.Errorf("%q", got)
	}
	if r := BurnIn(BurnInput{Finished: true, Now: burnStart}); r.Verdict == fleet.Pass {
		t.Errorf("nothing was measured: %s: %s", r.Verdict, r.Headline)
	}
}
