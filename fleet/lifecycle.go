package fleet

import (
	"fmt"
	"slices"
)

// State says where a node is. Faults, hold, dirt and isolation are facts beside it, not more states.
type State string

const (
	Enrolled   State = "enrolled"
	Inspecting State = "inspecting"
	Managed    State = "managed"
	Cleaning   State = "cleaning"
	Burning    State = "burning"
	Available  State = "available"
	Allocated  State = "allocated"
	Deploying  State = "deploying"
	Active     State = "active"
	Rebuilding State = "rebuilding"
	Rescuing   State = "rescuing"
	Rescued    State = "rescued"
	Unrescuing State = "unrescuing"
	Servicing  State = "servicing"
	Releasing  State = "releasing"
	Grace      State = "grace"
	Resuming   State = "resuming"
	Retired    State = "retired"
	// Forgotten is no state of a record: the record is dropped.
	Forgotten State = "forgotten"
)

// Verb is what moves a node from one state to another.
type Verb string

const (
	VerbInspect  Verb = "inspect"
	VerbAdopt    Verb = "adopt"
	VerbForget   Verb = "forget"
	VerbDone     Verb = "done"
	VerbAbort    Verb = "abort"
	VerbAccept   Verb = "accept"
	VerbRetire   Verb = "retire"
	VerbClean    Verb = "clean"
	VerbBurn     Verb = "burn"
	VerbAllocate Verb = "allocate"
	VerbDeploy   Verb = "deploy"
	VerbRebuild  Verb = "rebuild"
	VerbRescue   Verb = "rescue"
	VerbUnrescue Verb = "unrescue"
	VerbService  Verb = "service"
	VerbRelease  Verb = "release"
	VerbResume   Verb = "resume"
)

// Facts are what guards may look at, gathered before the table is asked. All are about one node and one wish.
type Facts struct {
	Dirty    Dirty
	Isolated bool
	// IsolationWaived: the site says `isolation: none`, so there are no wires to read back.
	IsolationWaived bool
	Held, Protected bool
	// Blocked: a fault forbids what the verb would start. Barred: one blocks everything.
	Blocked, Barred bool

	MachineOff, RebootAllowed, OutOfBandOnly bool
	// FromAvailable and Matches describe an inspection: where it came from, and whether everything matches class and acceptance.
	FromAvailable, HasInventory, Matches bool
	// Agreed: the devices to erase were listed and agreed.
	Agreed bool
	// BurnInDue: the class wants a burn-in that is not fresh.
	BurnInDue bool
	// Fresh: there is an inventory, and the last erase reached what the class wants now. ClassMatches: it was compared with the class as it is now, and
	// nothing differed.
	Fresh, ClassMatches bool
	IdentityKnown       bool
	// Lease is the lease of the wish: whose node it is or would become.
	Lease LeaseID
	// LeaseGrantsGrace: the lease's disks stay untouched for a time after its end.
	LeaseGrantsGrace bool
	// GraceOver: that time is over or was waived. LeaseExtended: the lease got more time instead.
	GraceOver, LeaseExtended bool
	TenantConsents           bool
	// Destroyed: the media were recorded as destroyed, by serial.
	Destroyed bool
	// RootDiskOnly: the plan writes no other disk.
	RootDiskOnly bool
}

func (f Facts) isolated() bool { return f.Isolated || f.IsolationWaived }

func (f Facts) dirtyUnderAnother() bool {
	return f.Dirty != "" && f.Dirty != DirtyUnknown && f.Dirty != Dirty(f.Lease)
}

// Guard is a named condition over facts. Its text is the "why" that people read when it refuses.
type Guard struct {
	Name string
	Text string
	ok   func(Facts) bool
}

// Holds reports whether the guard lets f pass; a zero Guard always does.
func (g Guard) Holds(f Facts) bool { return g.ok == nil || g.ok(f) }

// Effect is what a transition does to the durable facts, in the same transaction.
type Effect uint16

const (
	// MarkDirty sets Dirty to the wish's lease: from here on the node may hold its data.
	MarkDirty Effect = 1 << iota
	// ClearDirty is done by `cleaning done` alone (I3).
	ClearDirty
	// DropLease ends the node's membership.
	DropLease
	// StaleBurn makes the last burn-in count no longer.
	StaleBurn
	// LoseIsolation: the wires will change, so the last read-back counts no longer.
	LoseIsolation
	// UndoBoot: the medium that the plan inserted goes out, the boot override that it set goes, and the provisioning network is closed.
	UndoBoot
	// UndoPower: the machine goes off where the plan had booted it, or used an agent that another plan had. While the agent answers it stays on for a
	// time, so that a retry goes on where the plan stopped.
	UndoPower
	// GoOff: the machine goes off at once, whoever started it.
	GoOff
	// UndoWires: the ports that the plan may have given to the tenant go back into quarantine.
	UndoWires
)

// Transition is one row of the lifecycle.
type Transition struct {
	From  []State
	Verb  Verb
	Guard Guard
	To    State
	Does  Effect
	Why   string
}

var (
	guardNone      = Guard{}
	guardHarmless  = Guard{"harmless", "out-of-band only, or machine off, or reboot allowed", func(f Facts) bool { return f.OutOfBandOnly || f.MachineOff || f.RebootAllowed }}
	guardAdopt     = Guard{"adoptable", "identity known, lease given, dirty under no other lease", func(f Facts) bool { return f.IdentityKnown && f.Lease != "" && !f.dirtyUnderAnother() }}
	guardNotOurs   = Guard{"not-ours", "not dirty under a lease of ours", func(f Facts) bool { return f.Dirty == "" || f.Dirty == DirtyUnknown }}
	guardStayed    = Guard{"still-available", "came from available and everything matches", func(f Facts) bool { return f.FromAvailable && f.Matches && f.Dirty == "" }}
	guardElse      = Guard{"otherwise", "did not come from available, or something differs", func(f Facts) bool { return !(f.FromAvailable && f.Matches && f.Dirty == "") }}
	guardKnown     = Guard{"has-inventory", "there is an inventory", func(f Facts) bool { return f.HasInventory }}
	guardUnknown   = Guard{"no-inventory", "before the first inventory", func(f Facts) bool { return !f.HasInventory }}
	guardAgreed    = Guard{"agreed", "the devices to erase were listed and agreed; no fault that blocks everything", func(f Facts) bool { return f.Agreed && !f.Held && !f.Protected && !f.Barred }}
	guardClean     = Guard{"clean", "not dirty, or destroyed media recorded", func(f Facts) bool { return f.Dirty == "" || f.Destroyed }}
	guardBurnDue   = Guard{"burn-in-due", "burn-in due", func(f Facts) bool { return f.BurnInDue }}
	guardBurnFresh = Guard{"burn-in-fresh", "burn-in fresh, or the class wants none", func(f Facts) bool { return !f.BurnInDue }}
	guardFree      = Guard{"free", "no hold, not protected, no fault that blocks everything", func(f Facts) bool { return !f.Held && !f.Protected && !f.Barred }}
	guardRetest    = Guard{"retest", "clean, its devices accepted; no hold, not protected, no fault that blocks everything", func(f Facts) bool {
		return f.Dirty == "" && f.Agreed && f.Fresh && !f.Held && !f.Protected && !f.Barred
	}}
	guardFreeClean = Guard{"free-clean", "no hold, not protected, not dirty", func(f Facts) bool { return !f.Held && !f.Protected && f.Dirty == "" }}
	guardFit       = Guard{"fit", "no blocking fault, no hold, not protected, not dirty, fresh, class matches, burn-in fresh, isolated", func(f Facts) bool {
		return !f.Blocked && !f.Held && !f.Protected && f.Dirty == "" && f.Fresh && f.ClassMatches && !f.BurnInDue && f.isolated() && f.Lease != ""
	}}
	guardDeploy = Guard{"deployable", "no blocking fault, no hold, dirty under no other lease", func(f Facts) bool {
		return !f.Blocked && !f.Held && f.Lease != "" && (f.Dirty == "" || f.Dirty == Dirty(f.Lease))
	}}
	guardRoot       = Guard{"root-disk-only", "root disk only, not protected", func(f Facts) bool { return f.RootDiskOnly && !f.Held && !f.Protected && !f.Blocked }}
	guardConsent    = Guard{"consent", "the tenant's consent", func(f Facts) bool { return f.TenantConsents && !f.Held }}
	guardUnheld     = Guard{"not-held", "no hold", func(f Facts) bool { return !f.Held }}
	guardRelease    = Guard{"not-protected", "not protected", func(f Facts) bool { return !f.Protected }}
	guardGrace      = Guard{"grace", "isolated; lease grants grace", func(f Facts) bool { return f.isolated() && f.LeaseGrantsGrace }}
	guardNoGrace    = Guard{"no-grace", "isolated; no grace", func(f Facts) bool { return f.isolated() && !f.LeaseGrantsGrace }}
	guardDestroyed  = Guard{"destroyed", "isolated, destroyed media recorded", func(f Facts) bool { return f.isolated() && f.Destroyed }}
	guardExtended   = Guard{"extended", "lease extended", func(f Facts) bool { return f.LeaseExtended && f.Dirty == Dirty(f.Lease) }}
	guardGraceEnded = Guard{"grace-over", "grace over or waived", func(f Facts) bool { return f.GraceOver && !f.LeaseExtended }}
)

// Lifecycle is the table of everything that may become of a node. Documentation, the verbs that errors offer, metric labels and 409 answers derive from it.
var Lifecycle = []Transition{
	{[]State{Enrolled}, VerbInspect, guardHarmless, Inspecting, 0, "first contact must do no harm: a running machine is not restarted unasked"},
	{[]State{Enrolled, Managed}, VerbAdopt, guardAdopt, Active, MarkDirty | StaleBurn | LoseIsolation, "a machine that already works for a tenant is observed, not touched"},
	{[]State{Enrolled, Managed}, VerbForget, guardNotOurs, Forgotten, 0, "the record is dropped and nothing is touched"},
	{[]State{Retired}, VerbForget, guardClean, Forgotten, 0, "it holds nothing any more: the record is dropped"},
	{[]State{Inspecting}, VerbDone, guardStayed, Available, 0, "an available node that still matches stays available"},
	{[]State{Inspecting}, VerbDone, guardElse, Managed, 0, "what was found waits for a person to accept it"},
	{[]State{Inspecting}, VerbAbort, guardKnown, Managed, UndoBoot | UndoPower, "an aborted inspection makes nothing better"},
	{[]State{Inspecting}, VerbAbort, guardUnknown, Enrolled, UndoBoot | UndoPower, "nothing is known of the machine yet"},
	{[]State{Managed}, VerbInspect, guardHarmless, Inspecting, 0, "look again"},
	{[]State{Managed}, VerbAccept, guardAgreed, Cleaning, StaleBurn, "the listed devices may be erased from now on"},
	{[]State{Managed}, VerbRetire, guardClean, Retired, 0, "a node leaves only without data"},
	{[]State{Cleaning}, VerbDone, guardBurnDue, Burning, ClearDirty, "clean, and its burn-in is due"},
	{[]State{Cleaning}, VerbDone, guardBurnFresh, Available, ClearDirty, "clean, and its burn-in is fresh or none is wanted"},
	{[]State{Cleaning}, VerbAbort, guardNone, Managed, UndoBoot | UndoPower, "quarantined; dirt stays unless it was cleaned"},
	{[]State{Burning}, VerbAbort, guardNone, Managed, UndoBoot | UndoPower | StaleBurn, "quarantined until a burn-in has passed"},
	{[]State{Managed}, VerbBurn, guardRetest, Burning, 0, "what was clean when its burn-in failed is tested again"},
	{[]State{Burning}, VerbDone, guardNone, Available, 0, "clean and judged healthy"},
	{[]State{Available}, VerbInspect, guardHarmless, Inspecting, 0, "look again"},
	{[]State{Available}, VerbClean, guardFree, Cleaning, 0, "clean again"},
	{[]State{Available}, VerbBurn, guardFree, Burning, 0, "burn in again"},
	{[]State{Available}, VerbAllocate, guardFit, Allocated, 0, "reserved for a lease; never a sick, dirty or unproven node"},
	{[]State{Available}, VerbRetire, guardFreeClean, Retired, 0, "a clean node may leave"},
	{[]State{Allocated}, VerbDeploy, guardDeploy, Deploying, MarkDirty | StaleBurn | LoseIsolation, "from here on the node may hold the tenant's data"},
	{[]State{Deploying}, VerbDone, guardNone, Active, 0, "the tenant's system runs"},
	{[]State{Deploying}, VerbAbort, guardNone, Allocated, UndoBoot | GoOff | UndoWires, "lease kept, machine off, its wires in quarantine"},
	{[]State{Active}, VerbRebuild, guardRoot, Rebuilding, 0, "the root disk is written anew for the same tenant"},
	{[]State{Rebuilding}, VerbDone, guardNone, Active, 0, "rebuilt"},
	{[]State{Rebuilding}, VerbAbort, guardNone, Active, UndoBoot, "with a fault; the tenant's machine is never switched off for it"},
	{[]State{Active}, VerbRescue, guardUnheld, Rescuing, MarkDirty, "boot a rescue system for the same tenant"},
	{[]State{Rescuing}, VerbDone, guardNone, Rescued, 0, "the rescue system runs"},
	{[]State{Rescuing}, VerbAbort, guardNone, Active, UndoBoot, "with a fault"},
	{[]State{Rescued}, VerbUnrescue, guardUnheld, Unrescuing, 0, "back to the tenant's system"},
	{[]State{Unrescuing}, VerbDone, guardNone, Active, 0, "the tenant's system runs again"},
	{[]State{Unrescuing}, VerbAbort, guardNone, Active, UndoBoot, "with a fault"},
	{[]State{Active}, VerbService, guardConsent, Servicing, MarkDirty, "the operator works on a leased node, with consent"},
	{[]State{Servicing}, VerbDone, guardNone, Active, 0, "handed back"},
	{[]State{Servicing}, VerbAbort, guardNone, Active, UndoBoot, "handed back, with a fault"},
	{[]State{Allocated, Deploying, Active, Rebuilding, Rescuing, Rescued, Unrescuing, Servicing}, VerbRelease, guardRelease, Releasing, 0, "release is legal everywhere a lease holds a node"},
	{[]State{Releasing}, VerbDone, guardGrace, Grace, 0, "isolated and off; the disks wait untouched"},
	{[]State{Releasing}, VerbDone, guardNoGrace, Cleaning, DropLease, "isolated; what the tenant left is erased"},
	{[]State{Releasing, Grace}, VerbRetire, guardDestroyed, Retired, DropLease, "its media were destroyed"},
	{[]State{Grace}, VerbResume, guardExtended, Resuming, LoseIsolation, "the tenant comes back in time"},
	{[]State{Resuming}, VerbDone, guardNone, Active, 0, "the tenant's system runs again"},
	{[]State{Resuming}, VerbAbort, guardNone, Releasing, 0, "isolate again: the tenant's data stay"},
	{[]State{Grace}, VerbClean, guardGraceEnded, Cleaning, DropLease, "the time is over"},
}

// Move asks the table: from this state, by this verb, under these facts, where to? A refusal says which guard refused and what the state allows instead.
func Move(from State, verb Verb, f Facts) (Transition, error) {
	var refused []Guard
	for _, t := range Lifecycle {
		if t.Verb != verb || !slices.Contains(t.From, from) {
			continue
		}
		if t.Guard.Holds(f) {
			return t, nil
		}
		refused = append(refused, t.Guard)
	}
	if len(refused) == 0 {
		return Transition{}, Errorf(Conflict, "MC-NODE-VERB", "a node that is %s does not take %q", from, verb).
			WithHint("from %s a node takes: %s", from, joinVerbs(Takes(from)))
	}
	why := refused[0].Text
	for _, g := range refused[1:] {
		why += "; or: " + g.Text
	}
	return Transition{}, Errorf(Conflict, "MC-NODE-GUARD", "%s from %s needs: %s", verb, from, why)
}

// Verbs lists what leads out of that state, in the table's order; the plan's own endings (done) are left out.
func Verbs(from State) []Verb {
	var out []Verb
	for _, t := range Lifecycle {
		if t.Verb != VerbDone && slices.Contains(t.From, from) && !slices.Contains(out, t.Verb) {
			out = append(out, t.Verb)
		}
	}
	return out
}

// asked are the verbs that a person can really ask: the engine's own (allocate, deploy, resume) are left out, and those that no plan is composed for.
var asked = []Verb{VerbInspect, VerbForget, VerbAbort, VerbAccept, VerbRetire, VerbClean, VerbBurn, VerbRebuild, VerbRelease}

// Takes lists what a person can ask of a node in that state, in the table's order.
func Takes(from State) []Verb {
	return slices.DeleteFunc(Verbs(from), func(v Verb) bool { return !slices.Contains(asked, v) })
}

// Working reports whether a plan runs in that state.
func (s State) Working() bool {
	for _, t := range Lifecycle {
		if t.Verb == VerbDone && slices.Contains(t.From, s) {
			return true
		}
	}
	return false
}

// States lists every state of the table in the order it names them.
func States() []State {
	var out []State
	add := func(s State) {
		if s != Forgotten && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for _, t := range Lifecycle {
		for _, s := range t.From {
			add(s)
		}
		add(t.To)
	}
	return out
}

func joinVerbs(vs []Verb) string {
	if len(vs) == 0 {
		return "nothing"
	}
	s := ""
	for i, v := range vs {
		if i > 0 {
			s += ", "
		}
		s += string(v)
	}
	return s
}

func (t Transition) String() string {
	return fmt.Sprintf("%v -%s[%s]-> %s", t.From, t.Verb, t.Guard.Name, t.To)
}
