package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of a burn-in profile. A plan has a step for each stage of each round, so that a crash costs one of them; its journal is one record.
const (
	// MaxBurnStages is the most stages of all rounds together.
	MaxBurnStages = 60
	// MaxStageSeconds is the longest stage: what a crash may cost.
	MaxStageSeconds = 3 * 60 * 60
)

// NoBurnIn is what a class says that wants no burn-in, and therefore no profile's name.
const NoBurnIn = "none"

// Names of standard profiles that something else than a class's file names.
const (
	// ProfileHandover runs after every tenancy where the class names no other.
	ProfileHandover = "handover"
	// ProfileRepair runs after a part was replaced.
	ProfileRepair = "repair"
)

// StandardProfiles are the names of the profiles that ship; no site's own has one of them.
var StandardProfiles = []string{"acceptance", "acceptance-48h", "acceptance-72h", ProfileHandover, ProfileRepair, "smoke"}

// Validate lists all that is wrong with the profile by itself, sorted by field.
func (p BurnProfile) Validate() []FieldError {
	var f faults
	f.check(ValidName(p.Name) && p.Name != NoBurnIn, "name", "must be 1 to 63 of a-z, 0-9, . _ -, and is not none")
	f.check(len(p.Doc) <= 300, "doc", "is longer than 300 characters")
	f.check(p.Rounds >= 1, "rounds", "is less than 1")
	f.check(len(p.Stages) >= 1, "stages", "are missing")
	f.check(p.Rounds*len(p.Stages) <= MaxBurnStages, "rounds", "make "+strconv.Itoa(p.Rounds*len(p.Stages))+" stages together, more than "+strconv.Itoa(MaxBurnStages)+"; make stages longer instead")
	seen := map[string]bool{}
	for i, s := range p.Stages {
		at := "stages[" + strconv.Itoa(i) + "]."
		f.check(ValidName(s.Name), at+"name", "must be 1 to 63 of a-z, 0-9, . _ -")
		f.check(!seen[s.Name], at+"name", "is that of a stage before")
		seen[s.Name] = true
		f.check(s.Seconds >= 1 && s.Seconds <= MaxStageSeconds, at+"seconds", "is not 1 to "+strconv.Itoa(MaxStageSeconds))
		gpus := 0
		for k, name := range s.Stress {
			x, known := FindStressor(name)
			if x.Part == "gpu" {
				gpus++
			}
			f.check(known, at+"stress["+strconv.Itoa(k)+"]", "is none of "+strings.Join(StressorNames(), ", "))
			f.check(slices.Index(s.Stress, name) == k, at+"stress["+strconv.Itoa(k)+"]", "is named twice")
		}
		f.check(gpus <= 1, at+"stress", "loads the GPUs in "+strconv.Itoa(gpus)+" ways at once, so that the rates of none mean anything; make them stages of their own")
	}
	checkLimits(&f, "limits", p.Limits)
	slices.SortFunc(f, func(a, b FieldError) int { return strings.Compare(a.Field, b.Field) })
	return f
}

// StressorNames are those of Stressors.
func StressorNames() []string {
	names := make([]string, len(Stressors))
	for i, s := range Stressors {
		names[i] = s.Name
	}
	return names
}

// Duration is how long the profile's stages are to run, all rounds together.
func (p BurnProfile) Duration() time.Duration {
	seconds := 0
	for _, s := range p.Stages {
		seconds += s.Seconds
	}
	return time.Duration(seconds*p.Rounds) * time.Second
}

// Destroys reports whether a stage overwrites disks.
func (p BurnProfile) Destroys() bool { return slices.ContainsFunc(p.Stages, BurnStage.Destroys) }

// Destroys reports whether the stage overwrites disks.
func (s BurnStage) Destroys() bool {
	return slices.ContainsFunc(s.Stress, func(name string) bool { d, _ := FindStressor(name); return d.Destroys })
}

// Digest names exactly this profile: "sha256:" and 16 hex digits.
func (p BurnProfile) Digest() string {
	b, err := json.Marshal(p)
	if err != nil {
		return "" // strings and numbers always encode
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:8])
}

// FindProfile returns the profile of that name.
func FindProfile(all []BurnProfile, name string) (BurnProfile, bool) {
	i := slices.IndexFunc(all, func(p BurnProfile) bool { return p.Name == name })
	if i < 0 {
		return BurnProfile{}, false
	}
	return all[i], true
}

// NextBurn is the profile that the next burn-in of a node of the class has to run, "" where the class wants none: the class's own until that has
// passed, then what a repair asked for, then what follows a tenancy.
func (c Class) NextBurn(n Node) string {
	switch {
	case c.BurnIn == NoBurnIn || c.BurnIn == "":
		return ""
	case !c.proven(n):
		return c.BurnIn
	case n.BurnNext != "":
		return n.BurnNext
	case c.AfterTenant != "":
		return c.AfterTenant
	}
	return ProfileHandover
}

// BurnInDue reports whether a node of the class must be burned in before it is handed out.
func (c Class) BurnInDue(n Node) bool {
	return c.BurnIn != NoBurnIn && (n.BurnedAt.IsZero() || !c.proven(n))
}

// proven reports whether what the class wants of a new node has passed: what another profile, or another class's, has proven does not count.
func (c Class) proven(n Node) bool { return !n.ProvenAt.IsZero() && n.ProvenBy == c.BurnIn }

// Covers reports whether a burn-in by p loads everything that one by q loads, for as long.
func (p BurnProfile) Covers(q BurnProfile) bool {
	seconds := func(p BurnProfile) map[string]int {
		out := map[string]int{}
		for _, s := range p.Stages {
			for _, stress := range s.Stress {
				out[stress] += p.Rounds * s.Seconds
			}
		}
		return out
	}
	mine := seconds(p)
	for stress, n := range seconds(q) {
		if mine[stress] < n {
			return false
		}
	}
	return p.Duration() >= q.Duration()
}
