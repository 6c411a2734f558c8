package probe

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/wires/vswitch"
	"github.com/metalctl/metalctl/fleet"
)

// bench is a real Open vSwitch with a canary's two interfaces, a node with two ports, and a host that listens to others.
type bench struct {
	*vswitch.Switch
	canary *Canary
	node   *vswitch.Space
	spy    *vswitch.Space
	macs   map[string]fleet.MAC
}

const (
	own, foreign, quarantine = 110, 120, 99
	patience                 = 90 * time.Second
)

func start(t *testing.T) *bench {
	t.Helper()
	if testing.Short() {
		t.Skip("long: a real Open vSwitch")
	}
	if err := vswitch.Have(); err != nil {
		t.Skipf("peer: %v", err)
	}
	dir, err := os.MkdirTemp("", "probe") // sockets need short names
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	sw, err := vswitch.Start(t.Context(), dir)
	check(t, err)
	b := &bench{Switch: sw, macs: map[string]fleet.MAC{}}
	t.Cleanup(func() { check(t, sw.Close()) })
	perch := b.space(t)
	b.node, b.spy = b.space(t), b.space(t)
	b.plug(t, perch, "canary1", "vlan_mode=trunk")
	b.plug(t, perch, "canary2", "vlan_mode=trunk")
	b.plug(t, b.node, "node1", "tag=110")
	b.plug(t, b.node, "node2", "tag=99")
	b.plug(t, b.spy, "spy", "tag=110")
	b.off(t, "node2")
	b.canary = NewCanary(map[string]Site{"leaf": {Interfaces: []string{"canary1", "canary2"}, Namespace: perch.Path()}}, time.Now, slog.New(slog.NewTextHandler(io.Discard, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.canary.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		check(t, <-ended)
	})
	return b
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bench) space(t *testing.T) *vswitch.Space {
	t.Helper()
	s, err := vswitch.NewSpace()
	check(t, err)
	t.Cleanup(func() { check(t, s.Close()) })
	return s
}

func (b *bench) plug(t *testing.T, in *vswitch.Space, port string, more ...string) {
	t.Helper()
	check(t, b.AddPort(t.Context(), port, in, port, nil, more...))
	l, err := in.Net.LinkByName(port)
	check(t, err)
	b.macs[port] = fleet.MAC(l.Attrs().HardwareAddr.String())
}

func (b *bench) off(t *testing.T, port string) {
	t.Helper()
	l, err := b.Space.Net.LinkByName(port)
	check(t, err)
	check(t, b.Space.Net.LinkSetDown(l))
}

func (b *bench) vsctl(t *testing.T, args ...string) {
	t.Helper()
	_, err := b.Vsctl(t.Context(), args...)
	check(t, err)
	// What the switch had decided about earlier frames it would go by for up to half a second.
	_, err = b.Appctl(t.Context(), "revalidator/purge")
	check(t, err)
}

// plan looks for a node's first port in its own network, and for its second one nowhere.
func (b *bench) plan() fleet.ProbePlan {
	at := func(port, network string, v fleet.VLAN) fleet.PlannedPort {
		return fleet.PlannedPort{Domain: "leaf", Switch: "leaf-1", Port: port, MACs: []fleet.MAC{b.macs[port]}, Network: network, VLAN: v}
	}
	return fleet.ProbePlan{Ports: []fleet.PlannedPort{at("node1", "team-a", own), at("node2", "", 0)}, VLANs: map[string][]fleet.VLAN{"leaf": {1, quarantine, 100, own, foreign}}}
}

// round is a whole one; seconds bounds one that will not succeed.
func (b *bench) round(t *testing.T, seconds int) fleet.Probe {
	t.Helper()
	task, err := b.canary.Begin(b.plan())
	check(t, err)
	task.Seconds = seconds
	report := b.answer(t, task)
	return b.canary.End(report)
}

func (b *bench) answer(t *testing.T, task fleet.ProbeTask) (report fleet.ProbeReport) {
	t.Helper()
	check(t, b.node.Do(func() (err error) {
		report, err = Answer(t.Context(), task, nil)
		return err
	}))
	return report
}

// whys is all that a probe found wrong.
func whys(p fleet.Probe) string {
	var out []string
	for _, x := range p.Ports {
		for _, c := range x.Checks {
			if c.Why != "" {
				out = append(out, x.Port+" "+c.Outcome+": "+c.Why)
			}
		}
	}
	return strings.Join(out, "\n")
}

// TestWhatPacketsShow: on a switch that does as it shall everything passes; each thing that it may do wrong is found, and so is a canary that could not have heard it.
func TestWhatPacketsShow(t *testing.T) {
	b := start(t)
	cases := []struct {
		name       string
		wrong      []string
		mend       []string
		off        string
		outcome    string
		why        string
		unknowable bool // it takes as long as a round may
	}{
		{name: "all is well", outcome: fleet.ProbePass},
		{name: "a trunk where an access port should be", wrong: []string{"set", "port", "node1", "vlan_mode=native-untagged", "trunks=120"}, mend: []string{"clear", "port", "node1", "vlan_mode", "trunks"},
			outcome: fleet.ProbeLeak, why: "hears in VLAN 120 what the port sends tagged 120"},
		{name: "a trunk of everything", wrong: []string{"clear", "port", "node1", "tag"}, mend: []string{"set", "port", "node1", "tag=110"},
			outcome: fleet.ProbeLeak, why: "what the port sends tagged 99", unknowable: true},
		{name: "the port is in another network", wrong: []string{"set", "port", "node1", "tag=120"}, mend: []string{"set", "port", "node1", "tag=110"},
			outcome: fleet.ProbeLeak, why: "hears in VLAN 120 what the port sends untagged", unknowable: true},
		{name: "another network is mirrored to the port", wrong: []string{"--", "--id=@to", "get", "port", "node1", "--", "--id=@m", "create", "mirror", "name=m", "select_all=true", "select_vlan=120", "output_port=@to", "--", "set", "bridge", vswitch.Bridge, "mirrors=@m"},
			mend: []string{"clear", "bridge", vswitch.Bridge, "mirrors"}, outcome: fleet.ProbeLeak, why: "what the canary says in VLAN 120", unknowable: true},
		{name: "the quarantined port is in a network", wrong: []string{"set", "port", "node2", "tag=120"}, mend: []string{"set", "port", "node2", "tag=99"}, outcome: fleet.ProbePass}, // it is off
		{name: "a canary that is not in every VLAN", wrong: []string{"set", "port", "canary2", "trunks=1,99,100,110"}, mend: []string{"clear", "port", "canary2", "trunks"},
			outcome: fleet.ProbeUntold, why: "do not hear each other in VLAN 120", unknowable: true},
		{name: "a canary that is not in the port's own network", wrong: []string{"set", "port", "canary2", "trunks=1,99,100,120"}, mend: []string{"clear", "port", "canary2", "trunks"},
			outcome: fleet.ProbeUntold, why: "do not hear each other in VLAN 110", unknowable: true},
		{name: "a dead link", off: "node1", outcome: fleet.ProbeDead, why: "no carrier", unknowable: true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.wrong != nil {
				b.vsctl(t, c.wrong...)
			}
			if c.off != "" {
				b.off(t, c.off)
			}
			seconds, most := int(patience/time.Second), int(patience/time.Second)
			if c.unknowable {
				seconds = 1
			}
			p := b.round(t, seconds)
			for ; p.Outcome != c.outcome && p.Outcome != fleet.ProbePass && seconds < most; p = b.round(t, seconds) {
				seconds *= 2 // on a slow machine
			}
			if p.Outcome != c.outcome || !strings.Contains(whys(p), c.why) {
				t.Errorf("the outcome is %q, want %q with %q; it found:\n%s", p.Outcome, c.outcome, c.why, whys(p))
			}
			if c.mend != nil {
				b.vsctl(t, c.mend...)
			}
		})
	}
}

// TestForgedAndReplayedFrames: what somebody without the round's key makes, or repeats from another round, or says twice, counts for nothing.
func TestForgedAndReplayedFrames(t *testing.T) {
	b := start(t)
	var spy *link
	check(t, b.spy.Do(func() error {
		all, err := openLinks("", []string{"spy"})
		if err == nil {
			spy = all[0]
		}
		return err
	}))
	defer closeLinks([]*link{spy})
	heard := make(chan []byte, 4096)
	go func() {
		defer close(heard)
		for {
			_, payload, err := spy.next()
			if err != nil {
				return
			}
			select {
			case heard <- payload[:payloadBytes]:
			default:
			}
		}
	}()
	if p := b.round(t, int(patience/time.Second)); p.Outcome != fleet.ProbePass {
		t.Fatalf("the outcome is %q: %s", p.Outcome, whys(p))
	}
	// The node is gone now; the spy, which is in its network, says all that was said before, and what it makes up.
	b.off(t, "node1")
	task, err := b.canary.Begin(b.plan())
	check(t, err)
	id, err := parseRound(task.Round)
	check(t, err)
	var old [][]byte
	for len(old) < 20 {
		old = append(old, <-heard)
	}
	say := func(payload []byte) {
		f := append(frame{sent: fleet.Untagged}.encode(nil, spy.mac)[:headerBytes], payload...)
		check(t, spy.send(f))
	}
	for burst := range uint32(10) {
		for _, payload := range old {
			say(payload)
			renamed := append([]byte{}, payload...)
			copy(renamed[len(magic)+1:], id[:])
			say(renamed)
		}
		for _, tag := range []fleet.FrameTag{fleet.PriorityTag, fleet.Untagged, foreign} {
			check(t, spy.send(frame{round: id, from: 0, sent: tag, burst: burst + 1}.encode([]byte("a key that nobody gave it"), spy.mac)))
			check(t, spy.send(frame{round: id, from: fleet.CanaryPorts, sent: tag, burst: burst + 1}.encode(nil, spy.mac)))
		}
	}
	task.Seconds = 2
	p := b.canary.End(b.answer(t, task))
	if p.Outcome != fleet.ProbeDead || strings.Contains(whys(p), fleet.ProbeLeak) {
		t.Errorf("the outcome is %q: %s", p.Outcome, whys(p))
	}
	// A round that is over says what it said, whatever is reported of it later; one that was never begun shows nothing.
	if again := b.canary.End(fleet.ProbeReport{Round: task.Round}); again.Outcome != p.Outcome {
		t.Errorf("a round that is over is %q, and was %q", again.Outcome, p.Outcome)
	}
	if p := b.canary.End(fleet.ProbeReport{Round: strings.Repeat("0a", roundBytes)}); p.Outcome != fleet.ProbeUntold {
		t.Errorf("a round that nobody began is %q", p.Outcome)
	}
}

// TestEarsCountABurstOnce: a frame that comes twice is one.
func TestEarsCountABurstOnce(t *testing.T) {
	e := ears{}
	for range enough {
		e.hear(frame{from: 1, sent: 5, burst: 7}, 5)
	}
	if e.often(kind{1, 5, 5}) || e[kind{1, 5, 5}].Count != 1 {
		t.Errorf("one frame, heard %d times, counts as %d", enough, e[kind{1, 5, 5}].Count)
	}
	for i := range enough {
		e.hear(frame{from: 1, sent: 5, burst: uint32(8 + i)}, 5)
	}
	if !e.often(kind{1, 5, 5}) {
		t.Errorf("%d bursts are not enough", enough+1)
	}
}

func TestTasksThatAreRefused(t *testing.T) {
	good := func() fleet.ProbeTask {
		return fleet.ProbeTask{Round: strings.Repeat("0a", roundBytes), Key: make([]byte, minKey), Ports: []fleet.ProbePort{{Tags: []fleet.FrameTag{fleet.Untagged}}}, Canaries: 2, Seconds: 1}
	}
	if _, err := checkTask(good()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*fleet.ProbeTask){
		"no round":         func(x *fleet.ProbeTask) { x.Round = "" },
		"a short key":      func(x *fleet.ProbeTask) { x.Key = x.Key[1:] },
		"no ports":         func(x *fleet.ProbeTask) { x.Ports = nil },
		"too many ports":   func(x *fleet.ProbeTask) { x.Ports = make([]fleet.ProbePort, maxPorts+1) },
		"no canary":        func(x *fleet.ProbeTask) { x.Canaries = 0 },
		"no time":          func(x *fleet.ProbeTask) { x.Seconds = 0 },
		"a tag too large":  func(x *fleet.ProbeTask) { x.Ports[0].Tags[0] = 4095 },
		"a tag too small":  func(x *fleet.ProbeTask) { x.Ports[0].Tags[0] = -2 },
		"a tag repeatedly": func(x *fleet.ProbeTask) { x.Ports[0].Tags = make([]fleet.FrameTag, 4097) },
	} {
		x := good()
		spoil(&x)
		if _, err := Answer(t.Context(), x, nil); fleet.CodeOf(err) != "MC-PROBE-TASK" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzFrame: whatever comes is taken apart without harm, and what is said comes back as it was.
func FuzzFrame(f *testing.F) {
	key := []byte("0123456789abcdef")
	mac := [6]byte{2, 0, 0, 0, 0, 1}
	for _, tag := range []fleet.FrameTag{fleet.Untagged, fleet.PriorityTag, 1, 4094} {
		f.Add(frame{round: roundID{1, 2, 3}, from: fleet.CanaryPorts, sent: tag, burst: 9, acks: 5}.encode(key, mac))
	}
	f.Add([]byte{})
	f.Add([]byte(net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x88, 0xb5}))
	f.Fuzz(func(t *testing.T, b []byte) {
		tag, payload, ours := untag(b)
		if tag < fleet.Untagged || tag > 4095 {
			t.Errorf("the tag is %d", tag)
		}
		if !ours {
			return
		}
		x, ok := parse(payload)
		if !ok || !verified(key, payload) {
			return
		}
		again := x.encode(key, mac)
		_, same, ours := untag(again)
		if y, ok := parse(same); !ours || !ok || y != x || !verified(key, same) {
			t.Errorf("%+v is %+v when it is said again", x, y)
		}
	})
}
