package reconcile

import (
	"fmt"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// LeaseMoveKind says what the one next move of a lease is.
type LeaseMoveKind uint8

const (
	// LeaseRest: nothing to do until something happens.
	LeaseRest LeaseMoveKind = iota
	// LeaseVerb: the lease's own table moves it, by Verb.
	LeaseVerb
	// MemberAllocate, MemberDeploy, MemberRelease: Node is to be reserved, deployed, given back.
	MemberAllocate
	MemberDeploy
	MemberRelease
	// MemberGone: Node is not held (any more), so the member is released.
	MemberGone
	// MemberReplace: Node failed on the way, and another is to take its place.
	MemberReplace
	// LeaseWarn: the lease ends soon.
	LeaseWarn
	// LeaseOverdue: the lease goes on beyond its end; Why says what keeps it.
	LeaseOverdue
)

// LeaseMove is what DecideLease answers. Fault is set where the lease cannot become what was asked for.
type LeaseMove struct {
	Kind  LeaseMoveKind
	Verb  string
	Node  fleet.NodeID
	Why   string
	Fault bool
	// Ends: only time made the move due. It is not made while the lease's nodes are frozen.
	Ends bool
	// ofActive: the end of a lease whose nodes are in use, which the fence must let through.
	ofActive bool
}

// leaseWarning is how long before its end watchers are told; half of its time where that is less.
const leaseWarning = 24 * time.Hour

// DecideLease says what the one next move of a lease is. It is pure; nodes are those of its members that still exist. now is the earlier of all clocks.
func DecideLease(l fleet.Lease, nodes map[fleet.NodeID]*fleet.Node, now time.Time) LeaseMove {
	switch l.State {
	case fleet.LeasePending:
		return LeaseMove{Kind: LeaseVerb, Verb: "allocate", Why: "its nodes are claimed"}
	case fleet.LeaseAllocating:
		return decideAllocating(l, nodes, now)
	case fleet.LeaseDeploying:
		return decideDeploying(l, nodes, now)
	case fleet.LeaseActive:
		return decideActive(l, nodes, now)
	case fleet.LeaseReleasing:
		return decideReleasing(l, nodes)
	}
	return LeaseMove{}
}

// need is how many members must be ready; alive counts those that still can be.
func need(l fleet.Lease) int {
	if l.Request.MinReady > 0 {
		return l.Request.MinReady
	}
	n := 0
	for _, m := range l.Members {
		if !m.Out() {
			n++
		}
	}
	return n
}

// replaceable reports whether another node may take the place of a member that failed before it was ever ready. What it failed at after it came back from its
// grace time, its data are on it.
func replaceable(l fleet.Lease, m fleet.Member) bool {
	return l.Request.Count > 0 && m.State == fleet.MemberFailed && !m.Out() && m.Unreplaced == "" && (l.GraceEnds.IsZero() || m.Undeployed)
}

func alive(l fleet.Lease) (alive, ready int, failure string) {
	for _, m := range l.Members {
		switch {
		case m.Out():
		case m.State == fleet.MemberReady:
			alive, ready = alive+1, ready+1
		case m.State == fleet.MemberReserved || m.State == fleet.MemberDeploying || replaceable(l, m):
			alive++
		case m.State == fleet.MemberFailed && failure == "":
			failure = fmt.Sprintf("%s: %s", m.Name, m.Proof)
			if m.Unreplaced != "" {
				failure += "; no other node takes its place: " + m.Unreplaced
			}
		}
	}
	return alive, ready, failure
}

// deadlineOf is when enough members must be ready.
func deadlineOf(l fleet.Lease) time.Time {
	if l.Request.DeadlineSeconds > 0 {
		return l.CreatedAt.Add(seconds(l.Request.DeadlineSeconds))
	}
	return l.CreatedAt.Add(leaseDeadline)
}

// hopeless says why too few members can become ready, or "", and whether that is only a matter of time.
func hopeless(l fleet.Lease, now time.Time) (why string, ends bool) {
	deadline := deadlineOf(l)
	a, ready, failure := alive(l)
	switch {
	case a < need(l):
		return fmt.Sprintf("%d of the %d members that are needed can become ready; %s", a, need(l), failure), false
	case l.GraceEnds.IsZero() && !now.Before(deadline) && ready < need(l):
		return fmt.Sprintf("%d of the %d members that are needed were ready at the deadline %s", ready, need(l), deadline.UTC().Format(time.RFC3339)), true
	}
	return "", false
}

func decideAllocating(l fleet.Lease, nodes map[fleet.NodeID]*fleet.Node, now time.Time) LeaseMove {
	if why, ends := hopeless(l, now); why != "" {
		for _, n := range nodes {
			if n.Lease == l.ID {
				return LeaseMove{Kind: LeaseVerb, Verb: "release", Why: why, Fault: true, Ends: ends}
			}
		}
		return LeaseMove{Kind: LeaseVerb, Verb: "fail", Why: why, Fault: true, Ends: ends}
	}
	if m := reserve(l, nodes); m.Kind != LeaseRest {
		return m
	}
	return LeaseMove{Kind: LeaseVerb, Verb: "deploy", Why: "every member is reserved"}
}

// reserve finds a member that failed and whose place another node takes, else one that the lease has claimed and whose node does not say so yet.
func reserve(l fleet.Lease, nodes map[fleet.NodeID]*fleet.Node) LeaseMove {
	for _, m := range l.Members {
		if replaceable(l, m) {
			return LeaseMove{Kind: MemberReplace, Node: m.Node, Why: m.Proof}
		}
	}
	for _, m := range l.Members {
		if n := nodes[m.Node]; m.State == fleet.MemberReserved && (n == nil || n.Lease != l.ID) {
			return LeaseMove{Kind: MemberAllocate, Node: m.Node, Why: "it is reserved"}
		}
	}
	return LeaseMove{}
}

// leave finds a member whose place another node has taken and that is not given back yet. A person's hold keeps one that failed as it is.
func leave(l fleet.Lease, nodes map[fleet.NodeID]*fleet.Node) LeaseMove {
	for _, m := range l.Members {
		n := nodes[m.Node]
		switch {
		case !m.Out() || m.State == fleet.MemberReplaced:
		case n == nil || n.Lease != l.ID || n.State == fleet.Grace:
			return LeaseMove{Kind: MemberGone, Node: m.Node, Why: "another node has its place"}
		case n.State == fleet.Releasing || n.Wish != nil || n.Protected || n.Hold != nil && m.Replaced == "":
		default:
			return LeaseMove{Kind: MemberRelease, Node: m.Node, Why: "another node has its place"}
		}
	}
	return LeaseMove{}
}

// inherits returns the member whose identity m has and whose node may still run with it, or nil: two machines never answer to one name.
func inherits(l fleet.Lease, m fleet.Member) *fleet.Member {
	for i := range l.Members {
		if p := &l.Members[i]; m.Identity != "" && p.ReplacedBy == m.Node && p.State != fleet.MemberReplaced && p.State != fleet.MemberReleased {
			return p
		}
	}
	return nil
}

// nextMember finds a member that failed and whose node goes back at once, as the lease goes on without it; else a reserved one whose node nobody has
// begun to deploy. A person's hold keeps a failed node as it is.
func nextMember(l fleet.Lease, nodes map[fleet.NodeID]*fleet.Node) LeaseMove {
	for _, find := range []func(fleet.Lease, map[fleet.NodeID]*fleet.Node) LeaseMove{reserve, leave} {
		if m := find(l, nodes); m.Kind != LeaseRest {
			return m
		}
	}
	for _, m := range l.Members {
		n := nodes[m.Node]
		if m.State == fleet.MemberFailed && n != nil && n.Lease == l.ID && n.State == fleet.Allocated && n.Wish == nil && n.Hold == nil && !n.Protected {
			return LeaseMove{Kind: MemberRelease, Node: m.Node, Why: "it failed, and the lease goes on without it"}
		}
	}
	for _, m := range l.Members {
		n := nodes[m.Node]
		if m.State == fleet.MemberReserved && n != nil && n.State == fleet.Allocated && n.Wish == nil && n.Operation == "" && n.Hold == nil && inherits(l, m) == nil {
			return LeaseMove{Kind: MemberDeploy, Node: m.Node, Why: "the lease asks for image " + l.Request.Image}
		}
	}
	return LeaseMove{}
}

func decideDeploying(l fleet.Lease, nodes map[fleet.NodeID]*fleet.Node, now time.Time) LeaseMove {
	if why, ends := hopeless(l, now); why != "" {
		return LeaseMove{Kind: LeaseVerb, Verb: "release", Why: why, Fault: true, Ends: ends}
	}
	if _, ready, _ := alive(l); ready >= need(l) {
		return LeaseMove{Kind: LeaseVerb, Verb: "ready", Why: fmt.Sprintf("%d members are ready", ready)}
	}
	return nextMember(l, nodes)
}

func decideActive(l fleet.Lease, nodes map[fleet.NodeID]*fleet.Node, now time.Time) LeaseMove {
	held := 0
	for _, m := range l.Members {
		if m.State != fleet.MemberReleased && m.State != fleet.MemberReplaced {
			held++
		}
	}
	if held == 0 {
		return LeaseMove{Kind: LeaseVerb, Verb: "release", Why: "its last node was given back"}
	}
	until := l.Request.Until
	if until.IsZero() {
		return nextMember(l, nodes)
	}
	if !now.Before(until) {
		if l.Protected || protectedMember(l, nodes) {
			return LeaseMove{Kind: LeaseOverdue, Why: "its time is over, but " + protects(l, nodes)}
		}
		return LeaseMove{Kind: LeaseVerb, Verb: "release", Ends: true, Why: "its time was over at " + until.UTC().Format(time.RFC3339)}
	}
	lead := min(leaseWarning, until.Sub(l.CreatedAt)/2)
	if l.WarnedAt.IsZero() && !now.Before(until.Add(-lead)) {
		return LeaseMove{Kind: LeaseWarn, Why: "ends at " + until.UTC().Format(time.RFC3339)}
	}
	return nextMember(l, nodes)
}

// protects names what keeps a lease from ending by time.
func protects(l fleet.Lease, nodes map[fleet.NodeID]*fleet.Node) string {
	if l.Protected {
		return "it is protected: metalctl lease unprotect " + firstOf(l.Name, string(l.ID))
	}
	for _, m := range l.Members {
		if n := nodes[m.Node]; n != nil && n.Protected && n.Lease == l.ID {
			return n.Name + " is protected: metalctl node unprotect " + n.Name
		}
	}
	return ""
}

func protectedMember(l fleet.Lease, nodes map[fleet.NodeID]*fleet.Node) bool {
	for _, n := range nodes {
		if n.Protected && n.Lease == l.ID {
			return true
		}
	}
	return false
}

func decideReleasing(l fleet.Lease, nodes map[fleet.NodeID]*fleet.Node) LeaseMove {
	waits := ""
	for _, m := range l.Members {
		if m.State == fleet.MemberReleased || m.State == fleet.MemberReplaced {
			continue
		}
		n := nodes[m.Node]
		switch {
		case n == nil || n.Lease != l.ID || n.State == fleet.Grace:
			return LeaseMove{Kind: MemberGone, Node: m.Node, Why: "the node is not held"}
		case n.State == fleet.Releasing || n.Wish != nil:
			waits = m.Name + " is being released"
		case n.Protected:
			waits = m.Name + " is protected"
		default:
			return LeaseMove{Kind: MemberRelease, Node: m.Node, Why: "the lease is over"}
		}
	}
	if waits != "" {
		return LeaseMove{Why: waits}
	}
	if l.Fault != "" && l.GraceEnds.IsZero() {
		return LeaseMove{Kind: LeaseVerb, Verb: "failed", Why: l.Fault}
	}
	return LeaseMove{Kind: LeaseVerb, Verb: "released", Why: "every member is isolated"}
}
