package step

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// burn runs the stages of a profile round by round. What stages do to the disks is done to accepted devices alone.
func (c *composer) burn(f PlanFacts, r Request) error {
	p, why, err := ProfileFor(f, r)
	if err != nil {
		return err
	}
	if p.Destroys() {
		c.plan.Erases = f.Node.Accepted
		c.plan.Destroys = true
	}
	c.boot(f, "no agent is up on the machine")
	c.packs(f)
	c.look("the report counts for the parts that are there now")
	for round := 1; round <= p.Rounds; round++ {
		for i, s := range p.Stages {
			params := BurnParams{Profile: p.Name, Digest: p.Digest(), Stage: s, Round: round}
			if s.Destroys() {
				params.Accepted = f.Node.Accepted
			}
			text := fmt.Sprintf("round %d of %d, stage %s: %s for %s", round, p.Rounds, s.Name, stressWords(s), seconds(s.Seconds))
			if round == 1 && i == 0 {
				text = why + "; " + text
			}
			c.step(BurnStage, text, params)
			c.plan.Steps[len(c.plan.Steps)-1].Destroys = s.Destroys()
		}
	}
	c.step(JudgeBurnIn, "what was measured decides whether the node is handed out", JudgeParams{Profile: p})
	c.rest(f)
	return nil
}

func stressWords(s fleet.BurnStage) string {
	if len(s.Stress) == 0 {
		return "no load"
	}
	return strings.Join(s.Stress, " and ")
}

func seconds(n int) string { return short((time.Duration(n) * time.Second).String()) }

// ProfileFor is the profile that a burn-in runs under these facts, and why that one.
func ProfileFor(f PlanFacts, r Request) (fleet.BurnProfile, string, error) {
	name, why := r.Profile, fmt.Sprintf("profile %s was asked for", r.Profile)
	switch {
	case name != "":
	case f.Class.Name == "":
		return fleet.BurnProfile{}, "", fleet.Errorf(fleet.Conflict, "MC-NODE-CLASS", "%s has no class, so nothing says how it is burned in", f.Node.Name).
			WithHint("name a profile: metalctl burnin run %s --profile handover", f.Node.Name)
	default:
		if name = f.Class.NextBurn(f.Node); name == "" {
			return fleet.BurnProfile{}, "", fleet.Errorf(fleet.Conflict, "MC-BURN-PROFILE", "class %s says burnin: none, so no burn-in is due", f.Class.Name).
				WithHint("name a profile: metalctl burnin run %s --profile handover", f.Node.Name)
		}
		switch why = fmt.Sprintf("class %s wants profile %s of a new node", f.Class.Name, name); {
		case name == f.Class.BurnIn:
		case f.Node.BurnNext != "":
			why = fmt.Sprintf("a part was replaced, so profile %s runs", name)
		default:
			why = fmt.Sprintf("class %s wants profile %s after a tenancy", f.Class.Name, name)
		}
	}
	p, ok := fleet.FindProfile(f.Profiles, name)
	if !ok {
		return p, "", fleet.Errorf(fleet.Conflict, "MC-BURN-PROFILE", "%s, and no profile of that name exists", why).
			WithHint("metalctl profile list; make one with metalctl profile apply -f FILE, or name another in the class")
	}
	return p, why, nil
}

// ReportOf is the digest of the newest report of a burn-in, "" where there is none yet.
func ReportOf(op fleet.Operation) (digest string) {
	for _, r := range op.Steps {
		var seen struct {
			Report string `json:"report"`
		}
		if (r.Name == BurnStage || r.Name == JudgeBurnIn) && json.Unmarshal(r.Evidence, &seen) == nil && seen.Report != "" {
			digest = seen.Report
		}
	}
	return digest
}

// BootPlan are the steps that bring an agent up on the node's machine, with its packs, under facts in which none is up.
func BootPlan(f PlanFacts, why string) ([]Planned, error) {
	c := &composer{plan: Plan{Use: Burn, Node: f.Node.ID, Catalogue: CatalogueVersion}}
	c.boot(f, why)
	c.packs(f)
	return c.plan.Steps, c.err
}

// Inserted journals that further steps run before step i, whose try that had started nobody saw end.
func Inserted(op fleet.Operation, i int, steps []Planned, now time.Time) fleet.Operation {
	op = clone(op)
	r := &op.Steps[i]
	r.Resumed = r.Resumed || r.Try > 0
	r.State, r.NotBefore, r.FinishedAt, r.Error = fleet.StepPending, time.Time{}, now, nil
	r.Spared = r.Try
	more := make([]fleet.StepRun, len(steps))
	for k, s := range steps {
		more[k] = fleet.StepRun{Name: s.Name, State: fleet.StepPending, Side: s.Side, Why: s.Why, Params: s.Params}
	}
	op.Steps = slices.Insert(op.Steps, i, more...)
	return op
}
