// Package reconcile moves every node and every lease one move nearer to where it should be.
package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// AgentLink tells about agents. It does not dial nodes: agents call in.
type AgentLink interface {
	// Up reports whether the agent of that boot generation answers, and since when it does or does not; zero where it was never heard of.
	Up(id fleet.NodeID, generation int64) (up bool, since time.Time)
	// Wake makes the node's waiting long poll ask TaskFor again.
	Wake(id fleet.NodeID)
}

// Machine reads a machine's power through its BMC: "on", "off", or a transition as the BMC names it.
type Machine interface {
	PowerState(ctx context.Context, id fleet.NodeID) (string, error)
}

// Evidence is what shows that a tenant's system runs; it may say nothing: "".
type Evidence interface {
	// BootProgress is Redfish's BootProgress.LastState.
	BootProgress(ctx context.Context, id fleet.NodeID) (string, error)
}

// Boards looks at the GPU baseboard behind a node's BMC, by reads only.
type Boards interface {
	// Baseboard is nil where the BMC shows none. What was not read when ctx ended is named in it.
	Baseboard(ctx context.Context, id fleet.NodeID) (*fleet.Baseboard, error)
}

// Loop moves nodes and leases. Its exported fields are set before Run and not changed afterwards.
type Loop struct {
	Store fleet.Store
	Blobs fleet.Blobs
	// Timeline may be nil: then await-agent cannot tell how far a boot went.
	Timeline fleet.Timeline
	// Funcs do the out-of-band steps of drivers; the server's own steps are added by New.
	Funcs  step.Funcs
	Agents AgentLink
	// Machine and Evidence may be nil: power then is unknown, and readiness is power on for a time.
	Machine  Machine
	Evidence Evidence
	// Boards may be nil: then no baseboard is looked at.
	Boards Boards
	// Wires may be nil: then no ports are moved.
	Wires Wires
	// Prober has packets show where they are; nil: nobody can.
	Prober Prober
	// Console and Firmware may be nil: then a boot that does not arrive is judged by what was read of its medium alone.
	Console  Console
	Firmware Firmware
	// Sources are where an agent fetches an image while an operation runs; UserDataPath is where on its own server it fetches the user-data.
	Sources      func(fleet.OperationID, fleet.Image) ([]step.ImageSource, error)
	UserDataPath string
	// Breaker says since when and why the credential of a node's BMC is not used, or ""; nil: nobody knows.
	Breaker func(fleet.NodeID) string
	// Silent says since when a node's BMC gives no answer when it is asked for its power, and why; a nil error: it answered. nil: nobody knows.
	Silent func(fleet.NodeID) (time.Time, error)
	// Origin is this server as it is in the addresses of boot media that it issues, "" where nobody needs to tell them apart. MovedPatience is how long a machine
	// may take that is booting from another server's medium, which it may have read whole before that server went away.
	Origin        string
	MovedPatience time.Duration
	// Layout is how the boot medium of a node's boot is laid out, for the verdict over a boot that did not arrive; nil: nobody knows.
	Layout func(fleet.Node) MediaLayout
	// Progress takes the progress of out-of-band steps; nil drops it. It must not block.
	Progress func(fleet.Progress)
	// Denied are the addresses of a BMC as ranges that images never come from, for the agent of its node; nil: none.
	Denied func(context.Context, fleet.BMC) []string
	// CheckDrive says whether a config drive can be built from what a tenant asks for; nil takes everything. Its errors are of kind Invalid and name fields.
	CheckDrive func(p step.ConfigDriveParams, userData []byte) error
	// Profiles are the burn-in profiles that ship; the store has the site's own.
	Profiles []fleet.BurnProfile
	// Program is the version of this program, for reports.
	Program string
	// ForgetKeys are the records that go with a node that is forgotten, such as its secrets and unique names.
	ForgetKeys func(fleet.Node) []fleet.Key

	Now func() time.Time
	// Mono is time since some moment that a set clock does not change; nil means since New.
	Mono func() time.Duration
	// TrustWall says that a person vouches for the wall clock at this start: it is not compared with what the last process saw.
	TrustWall bool

	NewID func() string
	Log   *slog.Logger

	// Worker names this process in claims.
	Worker string
	// Sole: no other process works on the store. What this one did not hand out is then known to be handed out by nobody.
	Sole bool
	// HandsOff is for how long nothing out-of-band begins: another server acted on these nodes until a moment ago, and nobody saw it end. 0: there was none.
	HandsOff time.Duration
	// ClaimTTL is how long a claim on a node is good without renewal, CallDeadline the longest that one call to a BMC or switch takes.
	ClaimTTL, CallDeadline time.Duration
	// Period is how often everything is looked at without a bell; Tick how often a waiting step looks again.
	Period, Tick time.Duration
	// ReadyTick is how often the BMC is asked whether the tenant's system runs, ConsoleTick how often what a booting machine said.
	ReadyTick, ConsoleTick time.Duration
	// Parallel is how many BMCs may be worked on at once; those that do not answer have an eighth of that for themselves.
	Parallel int
	// ObserveEvery is how often the power of each node at rest is read, ObserveLimit how long its BMC may take, Observers how many are asked at once.
	// A negative ObserveEvery reads none.
	ObserveEvery, ObserveLimit time.Duration
	Observers                  int
	// KeepAgent is how long a machine stays on after its inspection or cleaning was given up, while its agent answers; negative: not at all.
	KeepAgent time.Duration
	// PowerOnFor is how long a machine must stay on to be taken for running where nothing better shows it.
	PowerOnFor time.Duration

	bells  bells
	clock  trusted
	sights sights
	lanes  lanes
	shown  shownPlans
	began  time.Time

	leasebook leasebook
	powerbook powerbook
	// harms, claiming and drawing have room for one each: who enters something into the fence's books, who makes a lease, and who takes power from a budget.
	harms, claiming, drawing chan struct{}

	mu       sync.Mutex
	waits    map[fleet.NodeID]string  // guarded by mu: what each node waits for, as last decided
	troubles map[fleet.NodeID]trouble // guarded by mu: why a node's newest move failed
	quiet    map[fleet.NodeID]quiet   // guarded by mu: the nodes whose record was settled
	// consoles is how far each node's console was read; guarded by mu.
	consoles map[fleet.NodeID]int64
	// interrupts end the abortable steps that run here; guarded by mu.
	interrupts map[fleet.NodeID]context.CancelCauseFunc
	// handouts are the newest in-band steps; guarded by mu.
	handouts map[fleet.NodeID]handout
	probings map[fleet.NodeID]probing // guarded by mu: the newest round of packets about each node
	paces    map[fleet.NodeID]pace    // guarded by mu: by which time each node's operation is judged
	// sightings are other workers' claims; guarded by mu.
	sightings map[fleet.NodeID]sighting
	// inUse is how many nodes were in use at countedAt; guarded by mu.
	inUse     int
	counted   bool
	countedAt time.Duration
}

// New fills the zero fields of l with their defaults, adds the server's own steps and returns l.
func New(l *Loop) *Loop {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&l.ClaimTTL, 2*time.Minute)
	def(&l.CallDeadline, 45*time.Second)
	def(&l.Period, 10*time.Second)
	def(&l.Tick, time.Second)
	def(&l.ReadyTick, 5*time.Second)
	def(&l.ConsoleTick, 20*time.Second)
	def(&l.PowerOnFor, 3*time.Minute)
	def(&l.KeepAgent, 15*time.Minute)
	def(&l.MovedPatience, 10*time.Minute)
	def(&l.ObserveEvery, time.Minute)
	def(&l.ObserveLimit, 10*time.Second)
	if l.Parallel == 0 {
		l.Parallel = 512
	}
	if l.Observers == 0 {
		l.Observers = 64
	}
	l.lanes.init(l.Parallel, l.Observers)
	l.harms, l.claiming, l.drawing = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)
	l.sights.all = map[fleet.NodeID]*sight{}
	if l.Now == nil {
		l.Now = time.Now
	}
	if l.NewID == nil {
		l.NewID = newID
	}
	if l.Worker == "" {
		l.Worker = l.NewID()
	}
	if l.Log == nil {
		l.Log = slog.New(slog.DiscardHandler)
	}
	if l.Mono == nil {
		start := time.Now()
		l.Mono = func() time.Duration { return time.Since(start) }
	}
	if l.Sources == nil {
		l.Sources = func(_ fleet.OperationID, i fleet.Image) ([]step.ImageSource, error) {
			if i.URL == "" {
				return nil, fleet.Errorf(fleet.Conflict, "MC-IMAGE-CONTENT", "nothing serves image %s", i.Name)
			}
			return []step.ImageSource{{URL: i.URL}}, nil
		}
	}
	l.began = l.Now().UTC()
	funcs := step.Funcs{step.CompareClass: l.compareClass, step.CompareAccepted: l.compareAccepted, step.ReadBoard: l.readBoard, step.JudgeBurnIn: l.judgeBurnIn, step.AwaitAgent: l.awaitAgent, step.AttachTenant: l.attachTenant,
		step.Isolate: l.isolate, step.OpenProvisioning: l.openProvisioning, step.CloseProvisioning: l.closeProvisioning, step.AwaitReady: l.awaitReady}
	for name, f := range l.Funcs {
		funcs[name] = f
	}
	if insert := funcs[step.MediaInsert]; insert != nil && l.Console != nil {
		funcs[step.MediaInsert] = l.markConsole(insert)
	}
	l.Funcs = funcs
	l.consoles = map[fleet.NodeID]int64{}
	l.waits = map[fleet.NodeID]string{}
	l.troubles = map[fleet.NodeID]trouble{}
	l.quiet = map[fleet.NodeID]quiet{}
	l.interrupts = map[fleet.NodeID]context.CancelCauseFunc{}
	l.handouts = map[fleet.NodeID]handout{}
	l.probings = map[fleet.NodeID]probing{}
	l.paces = map[fleet.NodeID]pace{}
	l.sightings = map[fleet.NodeID]sighting{}
	l.bells.init()
	l.clock.start(l.Now(), l.Mono())
	return l
}

// Bell wakes the workers of these nodes; of all where none is named. It carries no data and never blocks.
func (l *Loop) Bell(ids ...fleet.NodeID) { l.bells.ring(ids...) }

// Waits says in words what the node waits for, or "".
func (l *Loop) Waits(id fleet.NodeID) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waits[id]
}

func (l *Loop) setWaits(id fleet.NodeID, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if why == "" {
		delete(l.waits, id)
		return
	}
	l.waits[id] = why
}

// Run moves nodes and leases until ctx ends, and returns when every worker has come back and let go of its claim.
func (l *Loop) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	period := time.NewTicker(l.Period)
	defer period.Stop()
	l.Bell()
	wg.Go(func() { l.leases(ctx) })
	wg.Go(func() { l.watch(ctx) })
	for {
		wake := l.bells.take()
		if wake.all {
			_, stirring, err := l.nodes(ctx)
			if err != nil && ctx.Err() == nil {
				l.Log.Error("list nodes", "err", err)
			}
			for _, id := range stirring {
				wake.nodes[id] = true
			}
		}
		for id := range wake.nodes {
			if !l.bells.begin(id) {
				continue
			}
			wg.Go(func() { l.work(ctx, id) })
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.bells.ringing:
		case <-period.C:
			l.Bell()
		}
	}
}

// work moves one node until it rests, and comes back when its bell was not rung meanwhile.
func (l *Loop) work(ctx context.Context, id fleet.NodeID) {
	for {
		var until time.Time
		for ctx.Err() == nil {
			m, err := l.Once(ctx, id)
			if ctx.Err() == nil && !errors.Is(err, errGone) {
				l.setTrouble(id, err)
			}
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, errGone) {
					l.Log.Error("move node", fleet.LogNode, l.nameOf(ctx, id), "err", err)
				}
				until = l.Now().Add(l.Tick)
				break
			}
			if until = m.Until; m.rests() {
				break
			}
		}
		if ctx.Err() != nil || l.bells.end(id) {
			l.alarm(ctx, id, until)
			return
		}
	}
}

// nameOf is the node's name for the log; its id where it cannot be read.
func (l *Loop) nameOf(ctx context.Context, id fleet.NodeID) string {
	name := string(id)
	err := l.Store.View(ctx, func(s fleet.Snapshot) error {
		n, _, err := fleet.Get[fleet.Node](s, fleet.KeyOf(fleet.KindNode, id))
		if err == nil {
			name = n.Name
		}
		return err
	})
	if err != nil {
		return string(id)
	}
	return name
}

// alarm rings for a node that waits for a time sooner than the next period.
func (l *Loop) alarm(ctx context.Context, id fleet.NodeID, until time.Time) {
	if until.IsZero() || ctx.Err() != nil {
		return
	}
	if d := until.Sub(l.Now()); d < l.Period {
		time.AfterFunc(max(d, time.Millisecond), func() { l.Bell(id) })
	}
}
