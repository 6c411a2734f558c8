package verdict

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

func checkOf(r fleet.BurnReport, id string) *fleet.Check {
	i := slices.IndexFunc(r.Checks, func(c fleet.Check) bool { return c.ID == id })
	if i < 0 {
		return nil
	}
	return &r.Checks[i]
}

// TestStoppedNeedsAReason: a stage that ended before its time has proven what it was to prove only where what was found says why.
func TestStoppedNeedsAReason(t *testing.T) {
	for name, c := range map[string]struct {
		stopped string
		wrong   bool // data of a GPU is wrong
		again   bool // the stage was run again, whole
		want    fleet.Outcome
	}{
		"wrong data that shows":       {"wrong data: gpu/3: 4 words", true, false, fleet.Fail},
		"wrong data that nobody sees": {"wrong data: gpu/3: 4 words", false, false, fleet.CouldNotTell},
		"a line that condemns nobody": {"kernel log: gpu/3: NVRM", false, false, fleet.CouldNotTell},
		"an agent of its own mind":    {"bored", false, false, fleet.CouldNotTell},
		"aborted and not run again":   {fleet.StoppedAborted, false, false, fleet.CouldNotTell},
		"at its limit, then run":      {fleet.StoppedLimit, false, true, fleet.Pass},
		"not at all":                  {"", false, false, fleet.Pass},
	} {
		t.Run(name, func(t *testing.T) {
			b := newNature(7).healthy(kinds[2])
			if c.wrong {
				b.set("gpu-mismatches", "gpu/3", 4)
			}
			in := b.input()
			last := &in.Parts[len(in.Parts)-1]
			if c.again {
				in.Parts = append(in.Parts, *last)
				last = &in.Parts[len(in.Parts)-2]
			}
			last.Stopped = c.stopped
			r := BurnIn(in)
			if got := max(severity(r.Verdict), severity(fleet.Pass)); got != severity(c.want) && !(c.want == fleet.Pass && r.Verdict == fleet.Warn) {
				t.Errorf("verdict %s, want %s: %s", r.Verdict, c.want, r.Headline)
			}
			whole(t, r)
		})
	}
}

// TestEarlierTriesCount: what a try measured before it was given up is judged with the rest, and its stage is counted once.
func TestEarlierTriesCount(t *testing.T) {
	b := newNature(7).healthy(kinds[2])
	in := b.input()
	first := in.Parts[0]
	first.Stopped = fleet.StoppedLimit
	first.Measured = []fleet.Measured{{Check: "gpu-memory-mismatches", Component: "gpu/3", Unit: "words", Value: 2, N: 1}}
	in.Parts = append([]fleet.BurnPart{first}, in.Parts...)
	if r := BurnIn(in); r.Verdict != fleet.Fail || checkOf(r, "gpu-memory-mismatches").Component != "gpu/3" {
		t.Errorf("%s: %s", r.Verdict, r.Headline)
	}
	in.Parts, in.Finished = []fleet.BurnPart{first, first}, false
	if c := checkOf(BurnIn(in), "finished"); c == nil || c.Words[:len("the burn-in is not over: 1 of")] != "the burn-in is not over: 1 of" {
		t.Errorf("two tries of a stage are counted: %+v", c)
	}
}

// TestNobodyLoaded: what nobody could load has proven nothing; the network is asked for by limits alone.
func TestNobodyLoaded(t *testing.T) {
	for name, c := range map[string]struct {
		stress  string
		skipped bool // as older agents say it
		limit   string
		want    fleet.Outcome
	}{
		"an old agent has no such stressor": {fleet.StressGPUTensor, true, "", fleet.CouldNotTell},
		"an agent has no such stressor":     {fleet.StressCPU, false, "", fleet.CouldNotTell},
		"nobody asks for the network":       {fleet.StressNetwork, true, "", fleet.Skip},
		"nor of a newer agent":              {fleet.StressNetwork, false, "", fleet.Skip},
		"the class asks for the network":    {fleet.StressNetwork, true, "hca-bandwidth", fleet.CouldNotTell},
	} {
		t.Run(name, func(t *testing.T) {
			in := newNature(3).healthy(kinds[1]).input()
			in.Parts[0].Untold = append(in.Parts[0].Untold, fleet.Untold{Check: c.stress, Component: "node", Skipped: c.skipped, Cause: "no-tool", Words: "nothing here can do it"})
			if c.limit != "" {
				in.Class.Expect.Limits = append(in.Class.Expect.Limits, fleet.Limit{Check: c.limit, Value: 380, Unit: "Gb/s", Source: "test"})
			}
			r := BurnIn(in)
			got := fleet.Skip
			if x := checkOf(r, "platform-no-tool"); x != nil {
				got = x.Outcome
			}
			if got != c.want || (c.want == fleet.CouldNotTell) != (r.Verdict == fleet.CouldNotTell) {
				t.Errorf("%s, verdict %s: %s", got, r.Verdict, r.Headline)
			}
			whole(t, r)
		})
	}
}

// TestRestarts: a machine that went down once is warned of, one that did so again failed, and the same in a later burn-in condemns what the BMC names.
func TestRestarts(t *testing.T) {
	in := newNature(3).healthy(kinds[1]).input()
	if c := checkOf(BurnIn(in), "restarts"); c == nil || c.Outcome != fleet.Pass || *c.Value != 0 {
		t.Errorf("none: %+v", c)
	}
	fall := fleet.BurnRestart{Stage: "gpu-memory", Round: 1, At: time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC), Why: "the agent was not heard of for 5 minutes"}
	in.Restarts = []fleet.BurnRestart{fall}
	once := BurnIn(in)
	if c := checkOf(once, "restarts"); c.Outcome != fleet.Warn || c.Stage != "gpu-memory" || len(c.Evidence) != 1 || once.Verdict != fleet.Warn {
		t.Errorf("once: %+v, %s", c, once.Headline)
	}
	in.Restarts = append(in.Restarts, fall)
	twice := BurnIn(in)
	if c := checkOf(twice, "restarts"); c.Outcome != fleet.Fail || c.Code != "MC-BURN-RESTART" || c.Component != "system" || c.Do != "cold-cycle" || *c.Value != 2 {
		t.Errorf("twice: %+v", c)
	}
	whole(t, twice)
	in.Earlier = []fleet.BurnReport{twice}
	if c := checkOf(BurnIn(in), "restarts"); c.Do != "replace" || c.Replace == "" {
		t.Errorf("again: %+v", c)
	}
}

// TestLooked: a pass takes back what it looked at, by check and part.
func TestLooked(t *testing.T) {
	all := newNature(5).healthy(kinds[2]).input()
	for i := range all.Parts {
		for _, stress := range burnProfile.Stages[i%len(burnProfile.Stages)].Stress {
			all.Parts[i].Ran = append(all.Parts[i].Ran, fleet.StressRun{Stress: stress, Engine: "builtin", Seconds: 60})
		}
	}
	r := BurnIn(all)
	cpu := newNature(5).healthy(kinds[2]).input()
	for i := range cpu.Parts {
		p := &cpu.Parts[i]
		p.Measured = slices.DeleteFunc(p.Measured, func(m fleet.Measured) bool { return m.Check != "cpu-mismatches" })
		p.Ran = []fleet.StressRun{{Stress: fleet.StressCPU, Engine: "builtin", Seconds: 60}}
	}
	short := BurnIn(cpu)
	for _, c := range []struct {
		component, check string
		whole, short     bool
	}{
		{"gpu/3", "gpu-mismatches", true, false},
		{"gpu/3/peer/5", "gpu-peer-mismatches", true, false},
		{"core/14", "cpu-mismatches", true, true},
		{"gpu/3/nvlink/7", "nvlink-recovery", true, true}, // counters are read whatever is loaded
		{"nvswitch/2", "nvswitch-links", true, true},
		{"pci/0000:01:00.0", "pcie-aer-fatal", true, true},
		{"gpu/12", "gpu-mismatches", false, false},
		{"gpu/12", "gpu-lost", false, false},
		{"gpu/3", "gpu-xid", true, true},
		{"node", fleet.StressGPUTensor, true, false},
		{"system", "restarts", true, true},
		{"platform", "platform-no-library", true, true},
		{"disk/nvme2n1", "disk-media-errors", true, true},
		{"disk/nvme77n1", "disk-mismatches", false, false},
	} {
		f := fleet.Fault{Component: c.component, Check: c.check}
		if got := Looked(&r, f); got != c.whole {
			t.Errorf("whole: %s on %s: %v", c.check, c.component, got)
		}
		if got := Looked(&short, f); got != c.short {
			t.Errorf("short: %s on %s: %v", c.check, c.component, got)
		}
	}
}

// TestSilenceIsNoPass: a stage whose time was over before any GPU had said what it found has proven nothing of them.
func TestSilenceIsNoPass(t *testing.T) {
	b := newNature(7).healthy(kinds[2])
	for _, g := range b.parts[0].Before.GPUs {
		b.unmeasure(1, fmt.Sprintf("gpu/%d", g.Index), "aborted", "it was stopped, and did not say in time what it had found")
	}
	if r := BurnIn(b.input()); r.Verdict != fleet.CouldNotTell {
		t.Errorf("verdict %s: %s", r.Verdict, r.Headline)
	}
}
