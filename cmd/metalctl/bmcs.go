//go:build !ramdisk

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/server"
	"github.com/metalctl/metalctl/provision/vmedia"
	"github.com/metalctl/metalctl/redfish"
)

// bmcs opens the BMCs of nodes for the server and keeps them: one session per BMC, one breaker per credential, for the whole process.
type bmcs struct {
	// measure takes how long each call took, its status or 0; nil drops it.
	measure func(vendor, op string, code int, took time.Duration)

	store    identified
	timeline timelines
	breakers *redfish.Breakers
	log      *slog.Logger
	now      func() time.Time
	// ours are the beginnings of the URLs that the server serves media at; plain and firmware give further addresses of a medium, or "".
	ours            []string
	plain, firmware func(string) string
	// fence keeps a server that another one takes over from off the BMCs; nil: there is no other.
	fence fence

	// doubted rings where a node came to be held for want of a witness.
	doubted chan struct{}

	mu   sync.Mutex // guards open and dumb
	open map[fleet.NodeID]*openBMC
	dumb map[fleet.NodeID]dumbBMC
}

// dumbBMC is a BMC that gave no answer when it was last asked for its power.
type dumbBMC struct {
	why   error
	since time.Time
}

// answered notes whether a BMC answered.
func (b *bmcs) answered(id fleet.NodeID, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		delete(b.dumb, id)
		return
	}
	d := dumbBMC{err, b.now().UTC()}
	if old, ok := b.dumb[id]; ok {
		d.since = old.since
	}
	b.dumb[id] = d
}

// Silent says since when a BMC gives no answer when it is asked for its power, and why it gave none last; nil where it answered.
func (b *bmcs) Silent(id fleet.NodeID) (since time.Time, why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.dumb[id]
	return d.since, d.why
}

// timelines keeps what is said to BMCs, and drops it with the node.
type timelines interface {
	fleet.Timeline
	ForgetTimeline(fleet.NodeID) error
}

// openBMC is one BMC; its mutex keeps two workers from opening it at once.
type openBMC struct {
	mu  sync.Mutex
	bmc *redfish.BMC

	// marking guards what follows: the mark that the BMC is known to show, or that it takes none.
	marking sync.Mutex
	mark    fleet.WitnessTag
	looked  bool
	noMark  bool
}

func newBMCs(st identified, tl timelines, log *slog.Logger) *bmcs {
	return &bmcs{store: st, timeline: tl, breakers: redfish.NewBreakers(), log: log, now: time.Now, open: map[fleet.NodeID]*openBMC{},
		dumb: map[fleet.NodeID]dumbBMC{}, doubted: make(chan struct{}, 1)}
}

func passwordKey(id fleet.NodeID) fleet.Key { return fleet.KeyOf(fleet.KindSecret, "node/"+id+"/bmc") }
func sessionKey(id fleet.NodeID) fleet.Key {
	return fleet.KeyOf(fleet.KindSecret, "node/"+id+"/session")
}

// get returns the node's BMC, opening it at first use.
func (b *bmcs) get(ctx context.Context, id fleet.NodeID) (*redfish.BMC, error) {
	b.mu.Lock()
	o := b.open[id]
	if o == nil {
		o = &openBMC{}
		b.open[id] = o
	}
	b.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bmc != nil {
		return o.bmc, nil
	}
	var node fleet.Node
	var password, session string
	err := b.store.View(ctx, func(s fleet.Snapshot) (err error) {
		if node, _, err = fleet.Get[fleet.Node](s, fleet.KeyOf(fleet.KindNode, id)); err != nil {
			return err
		}
		if password, _, err = fleet.Get[string](s, passwordKey(id)); err != nil {
			return err
		}
		if ca := node.BMC.TLS.CA; ca != "" {
			if node.BMC.TLS.CAPEM, _, err = fleet.Get[string](s, fleet.KeyOf(fleet.KindCA, ca)); err != nil {
				return err
			}
		}
		session, _, err = fleet.Get[string](s, sessionKey(id))
		if fleet.KindOf(err) == fleet.NotFound {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look up the BMC of node %s: %w", id, err)
	}
	opts := b.options(node.BMC, fleet.NewSecret(password))
	opts.Node = node.Name
	opts.Auth, opts.Quirk, opts.Session = redfish.ParseAuthMode(node.BMC.Auth), node.BMC.Quirk, decodeSession(session)
	opts.Learned = redfish.Learned{Slot: node.BMC.MediaSlot, Parameters: node.BMC.MediaParameters}
	if o := node.Boot.Origin; o != "" { // a medium of the server before this one is ejected, too
		opts.Ours = append(slices.Clone(b.ours), o)
	}
	opts.Before, opts.After = func(ctx context.Context) error { return b.writable(ctx, id) }, b.written
	opts.OnSession = func(s redfish.SavedSession) { b.saveSession(id, s) }
	vendor := node.BMC.Vendor // what lives as long as the BMC does not keep the whole record
	opts.Trace = func(c redfish.Call) { b.trace(id, vendor, c) }
	bmc, err := redfish.Dial(ctx, node.BMC.Address, opts)
	if err != nil {
		return nil, err
	}
	o.bmc = bmc
	return bmc, nil
}

func (b *bmcs) options(m fleet.BMC, password fleet.Secret) redfish.Options {
	o := redfish.Options{
		Credentials: redfish.Credentials{User: m.User, Password: password}, Breaker: b.breakers.For(m.Address, m.User),
		Log: b.log, Now: b.now, Ours: b.ours,
	}
	switch {
	case m.TLS.Pin != "":
		o.Trust = redfish.Trust{Mode: redfish.TrustPin, Pin: m.TLS.Pin}
	case m.TLS.CAPEM != "":
		o.Trust = redfish.Trust{Mode: redfish.TrustCA, CAPEM: []byte(m.TLS.CAPEM)}
	case m.TLS.FirstUse:
		o.Trust = redfish.Trust{Mode: redfish.TrustFirstUse}
	default:
		o.Trust = redfish.Trust{Mode: redfish.TrustCA}
	}
	return o
}

// savedSession is a session as the store keeps it, encrypted.
type savedSession struct {
	URI   string `json:"uri"`
	Token string `json:"token"`
}

func decodeSession(s string) redfish.SavedSession {
	var v savedSession
	if s == "" || json.Unmarshal([]byte(s), &v) != nil {
		return redfish.SavedSession{} // without a saved session a new one is made
	}
	return redfish.SavedSession{URI: v.URI, Token: fleet.NewSecret(v.Token)}
}

// saveSession records a session, so that a crash leaves none behind on the BMC.
func (b *bmcs) saveSession(id fleet.NodeID, s redfish.SavedSession) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	w := fleet.Write{Key: sessionKey(id)}
	if s.URI != "" {
		j, err := json.Marshal(savedSession{URI: s.URI, Token: s.Token.Reveal()})
		if err != nil {
			b.log.Warn("session not recorded", fleet.LogNode, b.nameOf(ctx, id), "err", err)
			return
		}
		w.Value = fleet.NewSecret(string(j))
	}
	// A node that is forgotten meanwhile leaves no secret behind.
	err := b.withNode(ctx, id, func(rev fleet.Revision) error {
		_, err := b.store.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: fleet.KeyOf(fleet.KindNode, id), Revision: rev}}, Writes: []fleet.Write{w}})
		return err
	})
	if err != nil && fleet.KindOf(err) != fleet.NotFound {
		b.log.Warn("session not recorded; a crash now would leave it on the BMC until it times out", fleet.LogNode, b.nameOf(ctx, id), "err", err)
	}
}

// nameOf is the node's name for the log; its id where there is no such node any more.
func (b *bmcs) nameOf(ctx context.Context, id fleet.NodeID) string {
	name := string(id)
	err := b.store.View(ctx, func(s fleet.Snapshot) error {
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

// withNode calls commit with the revision of the node's record, again where the record changed meanwhile; NotFound where there is none.
func (b *bmcs) withNode(ctx context.Context, id fleet.NodeID, commit func(fleet.Revision) error) error {
	for try := 1; ; try++ {
		var rev fleet.Revision
		err := b.store.View(ctx, func(s fleet.Snapshot) error {
			r, err := s.Get(fleet.KeyOf(fleet.KindNode, id))
			rev = r.Revision
			return err
		})
		if err != nil {
			return err
		}
		if err = commit(rev); fleet.CodeOf(err) != "MC-STORE-STALE" || try == 20 {
			return err
		}
	}
}

// redfishOp names what a call is for, for a metric: its method and what it is about, never an id.
func redfishOp(method, uri string) string {
	uri, _, _ = strings.Cut(uri, "?")
	parts := strings.Split(strings.TrimPrefix(strings.Trim(uri, "/"), "redfish/v1"), "/")
	about := "root"
	if len(parts) > 1 && redfishParts[parts[1]] {
		about = parts[1]
	} else if len(parts) > 1 {
		about = "other"
	}
	if i := slices.Index(parts, "Actions"); i > 0 {
		about += " action"
	}
	switch method {
	case "GET", "POST", "PATCH", "PUT", "DELETE", "HEAD":
	default:
		method = "other"
	}
	return strings.ToLower(method) + " " + about
}

// redfishParts are the parts of a service that calls are counted by; what a BMC names otherwise is "other".
var redfishParts = map[string]bool{"Systems": true, "Managers": true, "Chassis": true, "SessionService": true, "UpdateService": true, "TaskService": true, "CertificateService": true,
	"AccountService": true, "EventService": true, "Registries": true}

func (b *bmcs) trace(id fleet.NodeID, vendor string, c redfish.Call) {
	if b.measure != nil {
		b.measure(vendor, redfishOp(c.Method, c.URI), c.Status, c.Duration)
	}
	text := fmt.Sprintf("%s %s -> %d in %s", c.Method, c.URI, c.Status, c.Duration.Round(time.Millisecond))
	if c.Status == 0 {
		text = fmt.Sprintf("%s %s -> no answer: %s", c.Method, c.URI, c.Err)
	}
	e := fleet.TimelineEntry{At: c.Start, Source: "redfish", Text: text}
	if c.Method == "GET" { // what is read again and again, with the same answer; a write stands alone
		e.Same = fmt.Sprintf("%s %d %s", c.URI, c.Status, c.Err)
	}
	b.timeline.AppendTimeline(id, e)
}

// drop closes the node's BMC, so that its next use opens it afresh.
func (b *bmcs) drop(ctx context.Context, id fleet.NodeID) {
	b.mu.Lock()
	o := b.open[id]
	delete(b.open, id)
	b.mu.Unlock()
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bmc != nil {
		if err := o.bmc.Close(ctx); err != nil {
			b.log.Debug("session not deleted; it will time out", fleet.LogNode, b.nameOf(ctx, id), "err", err)
		}
		o.bmc = nil
	}
}

// close ends every session.
func (b *bmcs) close(ctx context.Context) {
	b.mu.Lock()
	var ids []fleet.NodeID
	for id := range b.open {
		ids = append(ids, id)
	}
	b.mu.Unlock()
	g := errgroup.Group{}
	g.SetLimit(closers)
	for _, id := range ids {
		g.Go(func() error {
			b.drop(ctx, id)
			return nil
		})
	}
	_ = g.Wait() // a session that was not ended is kept in the store, and the next server ends it
}

// closers is how many sessions are ended at once: a server with ten thousand has few cores all the same.
const closers = 128

// Enroll implements server.Enroller: reads only, besides the session that reading needs.
func (b *bmcs) Enroll(ctx context.Context, m fleet.BMC, password fleet.Secret) (learned server.Learned, err error) {
	opts := b.options(m, password)
	opts.ReadOnce = true
	bmc, err := redfish.Dial(ctx, m.Address, opts)
	if err != nil {
		return learned, err
	}
	defer func() {
		if cerr := bmc.Close(ctx); cerr != nil && err == nil {
			learned.Notes = append(learned.Notes, "the session could not be deleted and will time out: "+cerr.Error())
		}
	}()
	id, err := bmc.Identity(ctx)
	if err != nil {
		return learned, err
	}
	caps, err := bmc.Capabilities(ctx)
	if err != nil {
		return learned, err
	}
	m.Auth, m.Quirk, m.Vendor, m.Model, m.Firmware, m.Serial, m.UUID = id.Auth, id.Quirk, id.Vendor, id.Model, id.BMCFirmware, id.Serial, id.UUID
	m.BootMethod = strings.TrimSpace(string(caps.Method) + " " + caps.Boots)
	if caps.Why != "" {
		m.BootMethod += ": " + caps.Why
	}
	if m.TLS.FirstUse && m.TLS.Pin == "" {
		m.TLS.Pin = id.Pin
		learned.Notes = append(learned.Notes, "pinned at first use: "+id.Pin)
	}
	for _, f := range caps.Licences {
		if f.State != "present" {
			learned.Notes = append(learned.Notes, "licence for "+licenceText(f))
		}
	}
	learned.BMC, learned.System = m, fleet.Expect{Serial: id.Serial, UUID: id.UUID}
	return learned, nil
}

// Breaker implements server.Credentials.
func (b *bmcs) Breaker(id fleet.NodeID) string {
	var n fleet.Node
	err := b.store.View(context.Background(), func(s fleet.Snapshot) (err error) {
		n, _, err = fleet.Get[fleet.Node](s, fleet.KeyOf(fleet.KindNode, id))
		return err
	})
	if err != nil {
		return "" // a node that is gone has no credential
	}
	st := b.breakers.For(n.BMC.Address, n.BMC.User).State()
	if !st.Open {
		return ""
	}
	return fmt.Sprintf("since %s: %s", st.Since.UTC().Format(time.RFC3339), st.Why)
}

// CredentialChanged implements server.Credentials.
func (b *bmcs) CredentialChanged(id fleet.NodeID) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b.drop(ctx, id)
	var n fleet.Node
	err := b.store.View(ctx, func(s fleet.Snapshot) (err error) {
		n, _, err = fleet.Get[fleet.Node](s, fleet.KeyOf(fleet.KindNode, id))
		return err
	})
	if err == nil { // a node that is gone has no breaker to close
		b.breakers.For(n.BMC.Address, n.BMC.User).Reset()
	}
}

// Forgotten implements server.Credentials.
func (b *bmcs) Forgotten(id fleet.NodeID) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b.drop(ctx, id) // its calls still go to the timeline
	if err := b.timeline.ForgetTimeline(id); err != nil {
		b.log.Warn("the timeline of a forgotten node is left", fleet.LogNode, id, "err", err)
	}
}

// PowerState implements server.Powerer.
func (b *bmcs) PowerState(ctx context.Context, id fleet.NodeID) (string, error) {
	st, err := b.powerState(ctx, id)
	b.answered(id, err)
	return st, err
}

func (b *bmcs) powerState(ctx context.Context, id fleet.NodeID) (string, error) {
	bmc, err := b.get(ctx, id)
	if err != nil {
		return "", err
	}
	st, err := bmc.Power(ctx)
	switch st {
	case redfish.PowerOn:
		return "on", err
	case redfish.PowerOff:
		return "off", err
	}
	return string(st), err
}

// SetPower implements server.Powerer.
func (b *bmcs) SetPower(ctx context.Context, id fleet.NodeID, action string) (string, error) {
	a, ok := map[string]redfish.Action{"on": redfish.On, "off": redfish.ForceOff, "cycle": redfish.PowerCycle, "shutdown": redfish.GracefulShutdown}[action]
	if !ok {
		return "", fleet.Errorf(fleet.Invalid, "MC-NODE-POWER", "power action %q is not known; want on, off, shutdown or cycle", action)
	}
	bmc, err := b.get(ctx, id)
	if err != nil {
		return "", err
	}
	if err := b.testify(ctx, id, bmc, false); err != nil {
		return "", err
	}
	if err := bmc.SetPower(ctx, a); err != nil {
		return "", err
	}
	return b.PowerState(ctx, id)
}

// dial implements vmedia.Dial.
func (b *bmcs) dial(ctx context.Context, id fleet.NodeID) (vmedia.Controller, error) {
	bmc, err := b.get(ctx, id)
	if err != nil {
		return vmedia.Controller{}, err
	}
	c := bmcController{bmc: bmc, plain: b.plain, firmware: b.firmware, learned: func(ctx context.Context, l redfish.Learned) { b.saveLearned(ctx, id, l) },
		witness: func(ctx context.Context, mark bool) error { return b.testify(ctx, id, bmc, mark) }}
	return vmedia.Controller{Power: c, Media: c, Boot: c, Identity: c}, nil
}

// ConsoleLines implements reconcile.Console.
func (b *bmcs) ConsoleLines(ctx context.Context, id fleet.NodeID, after int64) ([]reconcile.ConsoleLine, int64, error) {
	bmc, err := b.get(ctx, id)
	if err != nil {
		return nil, -1, err
	}
	lines, end, err := bmc.Console(ctx, after)
	var out []reconcile.ConsoleLine
	for _, l := range lines {
		out = append(out, reconcile.ConsoleLine(l))
	}
	return out, end, err
}

// SecureBoot implements reconcile.Firmware.
func (b *bmcs) SecureBoot(ctx context.Context, id fleet.NodeID) (string, error) {
	bmc, err := b.get(ctx, id)
	if err != nil {
		return "", err
	}
	return bmc.SecureBoot(ctx)
}

// BootProgress tells how far the machine's firmware says that it is, as Redfish's BootProgress.LastState.
func (b *bmcs) BootProgress(ctx context.Context, id fleet.NodeID) (string, error) {
	bmc, err := b.get(ctx, id)
	if err != nil {
		return "", err
	}
	return bmc.BootProgress(ctx)
}
