package server

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

var stageName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// plausible are the seconds of a boot; JSON has no other odd numbers than large ones.
func plausible(seconds float64) bool { return seconds >= 0 && seconds < 1e8 }

// bootStages puts what an agent says of its boot in order. Registering is the last stage; an agent that tells no stages gets none.
func bootStages(b api.AgentBootInfo) []fleet.BootStage {
	if len(b.Stages) == 0 {
		return nil
	}
	var list []fleet.BootStage
	for _, name := range slices.Sorted(maps.Keys(b.Stages)) {
		list = append(list, fleet.BootStage{Name: name, Seconds: b.Stages[name]})
	}
	slices.SortStableFunc(list, func(a, b fleet.BootStage) int { return cmp.Compare(a.Seconds, b.Seconds) })
	return append(list, fleet.BootStage{Name: "registered", Seconds: b.Uptime})
}

// bootLine tells the stages of a boot whose agent registered now; the time is by the server's clock, the seconds are the machine's own.
func bootLine(now time.Time, stages []fleet.BootStage) string {
	var parts []string
	last := 0.0
	for _, s := range stages {
		parts = append(parts, fmt.Sprintf("%s %.2f s", s.Name, s.Seconds))
		last = s.Seconds
	}
	began := now.Add(-time.Duration(last * float64(time.Second)))
	return fmt.Sprintf("kernel started at %s; ended after that: %s", began.UTC().Format("15:04:05.00"), strings.Join(parts, ", "))
}
