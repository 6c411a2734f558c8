package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kinds of records of ramdisks: the media, under their SHA-256, and who boots which of them, under RolloutID.
const (
	KindRamdisk = "ramdisk"
	KindRollout = "rollout"
)

// Ramdisk is a boot medium that the server has.
type Ramdisk struct {
	// SHA256 is the digest of the medium without a credential, 64 hex digits.
	SHA256 string `json:"sha256"`
	// Program is the version of metalctl in it and Protocol that of its agent's protocol; "" and 0 until an agent that it booted has said so.
	Program  string `json:"program,omitempty"`
	Protocol int    `json:"protocol,omitempty"`
	// Kernel is the release of its kernel; Signed: it carries a signature for Secure Boot.
	Kernel    string    `json:"kernel"`
	Signed    bool      `json:"signed,omitempty"`
	SizeBytes int64     `json:"size_bytes"`
	AddedAt   time.Time `json:"added_at"`
	RamdiskCounts
}

// RamdiskCounts is what came of boots.
type RamdiskCounts struct {
	// Boots were begun, Arrived are those whose agent registered.
	Boots   int64 `json:"boots,omitempty"`
	Arrived int64 `json:"arrived,omitempty"`
	// Done are plans that ended well on an agent that it booted; Failed are those that failed because no agent came, or at the agent itself. A plan that
	// failed for what it found on the machine is neither.
	Done   int64 `json:"done,omitempty"`
	Failed int64 `json:"failed,omitempty"`
}

// Name is what people call it: the first 12 digits.
func (r Ramdisk) Name() string { return ramdiskName(r.SHA256) }

func ramdiskName(sha256 string) string { return sha256[:min(len(sha256), 12)] }

// FindRamdisk finds a ramdisk by "sha256:" and its digest, by at least 6 digits that begin it, or by a program's version that only one has.
func FindRamdisk(all []Ramdisk, ref string) (Ramdisk, error) {
	digits := strings.TrimPrefix(ref, "sha256:")
	var found []Ramdisk
	for _, r := range all {
		if len(digits) >= 6 && strings.HasPrefix(r.SHA256, digits) || r.Program != "" && r.Program == ref {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Ramdisk{}, Errorf(NotFound, "MC-RAMDISK-UNKNOWN", "there is no ramdisk %q", ref).WithHint("metalctl ramdisk list")
	}
	return Ramdisk{}, Errorf(Conflict, "MC-RAMDISK-UNKNOWN", "%q names %d ramdisks", ref, len(found)).WithHint("give more digits: metalctl ramdisk list")
}

// Rollout says what the nodes of a class boot, or all whose class has none of its own.
type Rollout struct {
	// Class is "" for all nodes whose class has no rollout of its own.
	Class string `json:"class,omitempty"`
	// Current is the digest of what they boot, Previous of what they booted before it: rolling back exchanges them.
	Current  string    `json:"current"`
	Previous string    `json:"previous,omitempty"`
	Since    time.Time `json:"since"`
	By       string    `json:"by"`
	Canary   *Canary   `json:"canary,omitempty"`
}

// Canary is a ramdisk that a few nodes boot before the others do.
type Canary struct {
	Ramdisk string `json:"ramdisk"`
	// Nodes boot it; a boot that has begun is not changed by it.
	Nodes []NodeID `json:"nodes"`
	// StopAfter failures end it by itself; AutoAfter plans that ended well make it Current by itself, 0: only a person does.
	StopAfter int       `json:"stop_after"`
	AutoAfter int       `json:"auto_after,omitempty"`
	Since     time.Time `json:"since"`
	By        string    `json:"by"`
	RamdiskCounts
	// Stopped says why it ended by itself, "" while it goes on. Its nodes boot Current again.
	Stopped string `json:"stopped,omitempty"`
}

// MaxCanaryNodes bounds the nodes of a canary: its record stays small.
const MaxCanaryNodes = 256

// RolloutID is the id of a class's rollout; no class has the name of the one for all others.
func RolloutID(class string) string {
	if class == "" {
		return "-"
	}
	return class
}

// Boots is the digest of the ramdisk that a node boots next, and why. rollouts are all that there are, by class; pin is what the node's class names.
func Boots(n Node, pin string, rollouts map[string]Rollout) (sha256, why string) {
	if pin != "" {
		return strings.TrimPrefix(pin, "sha256:"), "class " + n.Class + " is pinned to it"
	}
	r, own := rollouts[n.Class]
	if !own || r.Current == "" {
		r = rollouts[""]
	}
	if c := r.Canary; c != nil && c.Stopped == "" && slices.Contains(c.Nodes, n.ID) {
		return c.Ramdisk, "canary"
	}
	return r.Current, "current"
}

// Follows reports whether the node boots what the rollout of class says.
func Follows(n Node, class, pin string, rollouts map[string]Rollout) bool {
	if pin != "" {
		return false
	}
	if r, own := rollouts[n.Class]; own && n.Class != "" && r.Current != "" {
		return class == n.Class
	}
	return class == "" || class == n.Class
}

// RamdiskOutcome is what became of one thing that a ramdisk was booted for.
type RamdiskOutcome struct {
	SHA256     string `json:"ramdisk"`
	Node       NodeID `json:"-"`
	Generation int64  `json:"generation,omitempty"`
	// Kind is "boot", "arrived", "done" or "failed".
	Kind string `json:"outcome"`
	Why  string `json:"why,omitempty"`
	// Program and Protocol are what the agent said.
	Program  string `json:"program,omitempty"`
	Protocol int    `json:"protocol,omitempty"`
}

func (c *RamdiskCounts) count(kind string) {
	switch kind {
	case "boot":
		c.Boots++
	case "arrived":
		c.Arrived++
	case "done":
		c.Done++
	case "failed":
		c.Failed++
	}
}

// Count takes an outcome into the counts of the medium.
func (r *Ramdisk) Count(o RamdiskOutcome) {
	r.count(o.Kind)
	if o.Program != "" {
		r.Program, r.Protocol = o.Program, o.Protocol
	}
}

// Count takes an outcome into a canary that is on, and says what it led to: "stopped", "promoted" or "".
func (r *Rollout) Count(o RamdiskOutcome, now time.Time) string {
	c := r.Canary
	if c == nil || c.Stopped != "" || c.Ramdisk != o.SHA256 || !slices.Contains(c.Nodes, o.Node) {
		return ""
	}
	c.count(o.Kind)
	switch {
	case o.Kind == "failed" && c.Failed >= int64(c.StopAfter):
		c.Stopped = fmt.Sprintf("%d boots failed, the last: %s", c.Failed, o.Why)
		if len(c.Stopped) > 300 {
			c.Stopped = c.Stopped[:297] + "..."
		}
		return "stopped"
	case o.Kind == "done" && c.AutoAfter > 0 && c.Failed == 0 && c.Done >= int64(c.AutoAfter):
		r.Promote(c.Ramdisk, fmt.Sprintf("the server, after %d plans that ended well", c.Done), now)
		return "promoted"
	}
	return ""
}

// Promote makes a medium what the rollout's nodes boot from now on.
func (r *Rollout) Promote(sha256, by string, now time.Time) {
	if r.Current != sha256 {
		r.Previous = r.Current
	}
	r.Current, r.Since, r.By, r.Canary = sha256, now, by, nil
}

// InUseRamdisks are the digests that may be booted again, or are being read: pinned, current, the one before, canaries, and those of boots whose medium
// is still announced.
func InUseRamdisks(nodes []Node, classes []Class, rollouts map[string]Rollout) map[string]bool {
	used := map[string]bool{}
	for _, c := range classes {
		used[strings.TrimPrefix(c.Ramdisk, "sha256:")] = true
	}
	for _, r := range rollouts {
		used[r.Current], used[r.Previous] = true, true
		if r.Canary != nil {
			used[r.Canary.Ramdisk] = true
		}
	}
	for _, n := range nodes {
		if n.Boot.MediaID != "" {
			used[n.Boot.Ramdisk] = true
		}
	}
	delete(used, "")
	return used
}
