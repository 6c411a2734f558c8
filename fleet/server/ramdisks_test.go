package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// library is a server's media, each of its own size so that they are told apart.
type library struct {
	mu      sync.Mutex // guards have and dropped
	have    []fleet.Ramdisk
	dropped []string
}

func digestNamed(c string) string { return strings.Repeat(c, 64) }

func ramdisks(names ...string) *library {
	l := &library{}
	for i, c := range names {
		l.have = append(l.have, fleet.Ramdisk{SHA256: digestNamed(c), Program: "program-" + c, Protocol: api.AgentVersion, Kernel: "6.12", SizeBytes: int64(2+i) << 20})
	}
	return l
}

func (l *library) Ramdisks() ([]fleet.Ramdisk, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.have), nil
}

func (l *library) Medium(sha256 string) (Medium, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.have {
		if r.SHA256 == sha256 || sha256 == "" {
			return fakeISO{size: r.SizeBytes, window: 1 << 20}, nil
		}
	}
	return nil, fleet.Errorf(fleet.NotFound, "MC-RAMDISK-UNKNOWN", "there is no ramdisk %q", sha256)
}

func (l *library) Drop(sha256 string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped = append(l.dropped, sha256)
	l.have = slices.DeleteFunc(l.have, func(r fleet.Ramdisk) bool { return r.SHA256 == sha256 })
	return nil
}

// withMedia is a world whose server has these media; the first is its own.
func withMedia(t *testing.T, l *library) *world {
	t.Helper()
	return newWorld(t, func(_ *Config, d *Deps) { d.Media = l })
}

// upgraded starts the server anew with a further medium of its own.
func (w *world) upgraded(l *library, name string) {
	w.t.Helper()
	w.stop()
	must(w.t, w.db.Close())
	l.have = append([]fleet.Ramdisk{{SHA256: digestNamed(name), Program: "program-" + name, Protocol: api.AgentVersion, Kernel: "6.13", SizeBytes: 9 << 20}}, l.have...)
	w.start(func(_ *Config, d *Deps) { d.Media = l })
}

// boots issues a medium for the node and returns the name of what it boots.
func (w *world) boots(id fleet.NodeID) string {
	w.t.Helper()
	_, _, _, err := w.Issue(context.Background(), id)
	must(w.t, err)
	return w.nodeNow(id).Boot.Ramdisk[:1]
}

// counted waits until the tally of a ramdisk is what it should be.
func (w *world) counted(name, what string, ok func(api.Ramdisk) bool) api.Ramdisk {
	w.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		changed := w.db.Changed()
		r, err := w.client.Ramdisk(context.Background(), "program-"+name)
		must(w.t, err)
		if ok(r) {
			return r
		}
		select {
		case <-changed:
		case <-deadline.C:
			w.t.Fatalf("ramdisk %s never had %s: %+v", name, what, r)
		}
	}
}

// ends commits the event by which the engine says what became of a plan on the node.
func (w *world) ends(id fleet.NodeID, kind, why string) {
	w.t.Helper()
	n := w.nodeNow(id)
	c := fleet.Change{Events: []fleet.Event{nodeEvent(&n, "operation."+kind, time.Now(), "inspect "+kind)}}
	noteOutcome(&c, fleet.RamdiskOutcome{SHA256: n.Boot.Ramdisk, Generation: n.Boot.Generation, Kind: kind, Why: why})
	_, err := w.db.Commit(context.Background(), c)
	must(w.t, err)
}

// TestNewRamdiskWaits: the first ramdisk is everybody's, one of a newer program nobody's until somebody says so, and what boots goes on with its own bytes.
func TestNewRamdiskWaits(t *testing.T) {
	l := ramdisks("a")
	w := withMedia(t, l)
	n := w.enrol("n1")
	address, ca, _, err := w.Issue(context.Background(), n.ID)
	must(t, err)
	if got := w.nodeNow(n.ID).Boot.Ramdisk; got != digestNamed("a") {
		t.Errorf("boots %s", got)
	}
	size := func() int64 {
		t.Helper()
		res, _ := w.fetch(http.MethodHead, w.advertise.JoinPath(address[strings.Index(address, "/boot/"):]).String(), nil)
		return res.ContentLength
	}
	_ = ca
	if size() != 2<<20 {
		t.Errorf("the medium has %d bytes", size())
	}
	w.upgraded(l, "b")
	if size() != 2<<20 {
		t.Errorf("after an upgrade the machine that boots reads another medium, of %d bytes", size())
	}
	if got := w.boots(n.ID); got != "a" {
		t.Errorf("after an upgrade the next boot is of %s", got)
	}
	ctx := context.Background()
	_, err = w.client.PromoteRamdisk(ctx, "program-b", api.RamdiskPromote{})
	must(t, err)
	if got := w.boots(n.ID); got != "b" {
		t.Errorf("promoted, and it boots %s", got)
	}
	r, err := w.client.RollbackRamdisk(ctx, api.RamdiskPromote{})
	must(t, err)
	if got := w.boots(n.ID); got != "a" || r.Previous != digestNamed("b") {
		t.Errorf("rolled back, and it boots %s (%+v)", got, r)
	}
	all, err := w.client.Ramdisks(ctx)
	must(t, err)
	var said []string
	for _, r := range all {
		for _, role := range r.Roles {
			said = append(said, r.Program+" "+role.Role)
		}
	}
	if diff := cmp.Diff(said, []string{"program-b previous", "program-a current"}); diff != "" {
		t.Errorf("roles (-got +want):\n%s", diff)
	}
}

// TestCanaryThatFails: only its nodes ever boot it, it stops by itself and says so, and its nodes go back.
func TestCanaryThatFails(t *testing.T) {
	l := ramdisks("a")
	w := withMedia(t, l)
	ctx := context.Background()
	var nodes []fleet.Node
	for i := range 4 {
		nodes = append(nodes, w.enrol(fmt.Sprintf("n%d", i)))
	}
	w.upgraded(l, "b")
	_, err := w.client.CanaryRamdisk(ctx, "program-a", api.RamdiskCanary{})
	if fleet.CodeOf(err) != "MC-RAMDISK-CURRENT" {
		t.Errorf("a canary of what all boot: %v", err)
	}
	for name, in := range map[string]api.RamdiskCanary{"too many": {Count: 5}, "nobody": {Nodes: []string{"n9"}}} {
		if _, err := w.client.CanaryRamdisk(ctx, "program-b", in); fleet.CodeOf(err) != "MC-RAMDISK-NODES" {
			t.Errorf("%s: %v", name, err)
		}
	}
	r, err := w.client.CanaryRamdisk(ctx, "program-b", api.RamdiskCanary{Percent: 50})
	must(t, err)
	if len(r.Canary.Nodes) != 2 || r.Canary.StopAfter != 2 {
		t.Fatalf("half of four: %+v", r.Canary)
	}
	saw := func(want string) {
		t.Helper()
		got := ""
		for _, n := range nodes {
			got += w.boots(n.ID)
		}
		if got != want {
			t.Errorf("the nodes boot %s, want %s", got, want)
		}
	}
	saw("bbaa")
	w.ends(nodes[0].ID, "failed", "n0: MC-BOOT-KERNEL at await-agent: nobody spoke")
	w.ends(nodes[0].ID, "done", "")
	w.counted("b", "one failure", func(r api.Ramdisk) bool { return r.Failed == 1 && r.Done == 1 && r.Boots == 2 })
	saw("bbaa")
	w.ends(nodes[1].ID, "failed", "n1: MC-BOOT-KERNEL at await-agent: nobody spoke")
	got := w.counted("b", "an end", func(r api.Ramdisk) bool { return r.Roles[0].Canary.Stopped != "" })
	if want := "2 boots failed, the last: n1: MC-BOOT-KERNEL at await-agent: nobody spoke"; got.Roles[0].Canary.Stopped != want {
		t.Errorf("stopped by %q, want %q", got.Roles[0].Canary.Stopped, want)
	}
	saw("aaaa")
	events, err := w.db.Events(ctx, 0, 500)
	must(t, err)
	if !slices.ContainsFunc(events, func(e fleet.Event) bool {
		return e.Type == "ramdisk.canary-stopped" && strings.Contains(e.Text, "MC-RAMDISK-CANARY")
	}) {
		t.Error("no event says that the canary was stopped")
	}
	if !strings.Contains(w.log.String(), "a canary was stopped") {
		t.Error("the log does not say that the canary was stopped")
	}
	r, err = w.client.RollbackRamdisk(ctx, api.RamdiskPromote{})
	must(t, err)
	if r.Canary != nil || r.Current != digestNamed("a") {
		t.Errorf("after the end of the canary: %+v", r)
	}
}

// TestTallyCountsOnce: a boot counts once, through restarts too, and an agent that arrives says what its ramdisk is.
func TestTallyCountsOnce(t *testing.T) {
	l := ramdisks("a")
	l.have[0].Program, l.have[0].Protocol = "", 0 // made elsewhere: nobody knows
	w := withMedia(t, l)
	n := w.enrol("n1")
	a := w.boot(n.ID)
	_, err := a.register()
	must(t, err)
	_, err = a.register()
	must(t, err)
	w.ends(n.ID, "done", "")
	ok := func(r api.Ramdisk) bool { return r.Boots == 1 && r.Arrived == 1 && r.Done == 1 }
	find := func() api.Ramdisk {
		t.Helper()
		for {
			changed := w.db.Changed()
			r, err := w.client.Ramdisk(context.Background(), digestNamed("a")[:12])
			must(t, err)
			if ok(r) {
				return r
			}
			select {
			case <-changed:
			case <-time.After(patience):
				t.Fatalf("counted %+v", r)
			}
		}
	}
	if r := find(); r.Program != "test" || r.Protocol != api.AgentVersion || r.Nodes != 1 {
		t.Errorf("the agent said nothing of its ramdisk: %+v", r)
	}
	for range 2 {
		w.stop()
		must(t, w.db.Close())
		w.start(func(_ *Config, d *Deps) { d.Media = l })
	}
	w.ends(n.ID, "failed", "x")
	ok = func(r api.Ramdisk) bool { return r.Failed == 1 }
	if r := find(); r.Boots != 1 || r.Arrived != 1 || r.Done != 1 {
		t.Errorf("counted again: %+v", r)
	}
}

// TestPinnedClass: its nodes boot what it says and nothing else, and that is kept.
func TestPinnedClass(t *testing.T) {
	l := ramdisks("c", "b", "a", "d")
	w := withMedia(t, l)
	ctx := context.Background()
	if _, err := w.client.PutClass(ctx, fleet.Class{Name: "hgx", BurnIn: "none", EraseLevel: "clear", Ramdisk: "program-x"}); err == nil || !strings.Contains(err.Error(), "ramdisk") {
		t.Errorf("a pin to nothing: %v", err)
	}
	c, err := w.client.PutClass(ctx, fleet.Class{Name: "hgx", BurnIn: "none", EraseLevel: "clear", Ramdisk: "program-a"})
	must(t, err)
	if c.Ramdisk != "sha256:"+digestNamed("a") {
		t.Errorf("pinned to %q", c.Ramdisk)
	}
	n := w.enrol("n1")
	must(t, w.updateNode(ctx, n.ID, func(n *fleet.Node, _ *fleet.Change) error { n.Class = "hgx"; return nil }))
	if got := w.boots(n.ID); got != "a" {
		t.Errorf("a pinned node boots %s", got)
	}
	if _, err := w.client.CanaryRamdisk(ctx, "program-b", api.RamdiskCanary{Class: "hgx"}); fleet.CodeOf(err) != "MC-RAMDISK-PINNED" {
		t.Errorf("a canary of a pinned class: %v", err)
	}
	if _, err := w.client.CanaryRamdisk(ctx, "program-b", api.RamdiskCanary{Nodes: []string{"n1"}}); fleet.CodeOf(err) != "MC-RAMDISK-NODES" {
		t.Errorf("a pinned node as a canary: %v", err)
	}
	gone, err := w.SweepRamdisks(ctx)
	must(t, err)
	// c is the server's own, b the second newest, a is pinned.
	if diff := cmp.Diff(l.dropped, []string{digestNamed("d")}); diff != "" || gone != 1 {
		t.Errorf("swept %d (-got +want):\n%s", gone, diff)
	}
	l.mu.Lock()
	l.have = l.have[:2]
	l.mu.Unlock()
	if _, _, _, err := w.Issue(ctx, n.ID); fleet.CodeOf(err) != "MC-RAMDISK-UNKNOWN" {
		t.Errorf("a pinned node whose ramdisk is gone: %v", err)
	}
}

// TestRamdiskOfAnotherAge: one whose agents the server does not work with is neither promoted nor kept as everybody's.
func TestRamdiskOfAnotherAge(t *testing.T) {
	l := ramdisks("a")
	w := withMedia(t, l)
	n := w.enrol("n1")
	w.stop()
	must(t, w.db.Close())
	l.have = append([]fleet.Ramdisk{{SHA256: digestNamed("b"), Program: "program-b", Protocol: api.AgentVersion + 2, Kernel: "6.13", SizeBytes: 9 << 20}}, l.have...)
	w.start(func(c *Config, d *Deps) { d.Media, c.agentVersion = l, api.AgentVersion+2 })
	if got := w.boots(n.ID); got != "b" {
		t.Errorf("a server that does not work with the ramdisk of before boots %s", got)
	}
	_, err := w.client.PromoteRamdisk(context.Background(), "program-a", api.RamdiskPromote{})
	if fleet.CodeOf(err) != "MC-AGENT-VERSION" {
		t.Errorf("promoting it again: %v", err)
	}
	if _, err := w.client.RollbackRamdisk(context.Background(), api.RamdiskPromote{}); fleet.CodeOf(err) != "MC-AGENT-VERSION" {
		t.Errorf("rolling back to it: %v", err)
	}
}
