package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/wires/vswitch"
)

const tenantsLab = `machines:
  - {name: q1, mode: qemu, cpus: 2, memory_bytes: 1073741824, disks: [{size_bytes: 4294967296}], nics: [{}, {}]}
  - {name: q2, mode: qemu, cpus: 2, memory_bytes: 1073741824, disks: [{size_bytes: 4294967296}], nics: [{}, {}], bmc: {no_media: true}}
  - {name: p1, disks: [{size_bytes: 4294967296}], nics: [{}, {}]}
  - {name: p2, disks: [{size_bytes: 4294967296}], nics: [{}, {}]}
switches: {leaf-1: {driver: ovs}}
`

const tenantsSite = `kind: Site
isolation: required
---
kind: Class
name: booted
expect: {nvme: {count: 1}}
burnin: none
erase: {level: clear}
---
kind: Class
name: acted
burnin: none
erase: {level: clear}
`

// peerData makes a tenant's system answer at its network card: to "ask X" with "answer X" for everybody, to "send VLAN X" with X in that VLAN. What it hears is on
// its console.
const peerData = `#cloud-config
write_files:
  - path: /root/peer.py
    content: |
      import os, socket, sys
      mac = sys.argv[1]
      name = next(n for n in os.listdir('/sys/class/net') if open('/sys/class/net/%s/address' % n).read().strip() == mac)
      os.system('ip link set %s up' % name)
      s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
      s.bind((name, 0))
      console = open('/dev/ttyS0', 'w', buffering=1)
      own = bytes.fromhex(mac.replace(':', ''))
      def send(vlan, text):
          tag = b'\x81\x00' + vlan.to_bytes(2, 'big') if vlan else b''
          s.send((b'\xff' * 6 + own + tag + b'\x88\xb5' + bytes([len(text)]) + text.encode()).ljust(60, b'\0'))
      while True:
          try:
              b, a = s.recvfrom(2048)
          except OSError:
              continue
          if a[2] == socket.PACKET_OUTGOING or b[12:14] != b'\x88\xb5':
              continue
          text = b[15:15 + b[14]].decode()
          console.write('PEER heard <%s>\n' % text)
          what, _, rest = text.partition(' ')
          if what == 'ask':
              send(0, 'answer ' + rest)
          if what == 'send':
              vlan, _, rest = rest.partition(' ')
              send(int(vlan), rest)
runcmd:
  - [systemd-run, --unit=peer, python3, /root/peer.py, "MAC"]
`

// peer is a tenant's system that booted, and a host in its network to speak with it.
type peer struct {
	w      *world
	serial string
	by     *vswitch.Host
	// all is what the host heard so far.
	all []vswitch.Frame
}

// reached wants the system to hear and to be heard. Frames that it or the host sent before are through the switch by then.
func (p *peer) reached(ctx context.Context) {
	p.w.t.Helper()
	for i := 0; ; i++ {
		text := fmt.Sprintf("%d at %d", i, time.Now().UnixNano())
		if err := p.by.Try(0, "ask "+text); err != nil {
			p.w.t.Fatal(err)
		}
		wait, done := context.WithTimeout(ctx, 2*time.Second)
		more, err := p.by.Hear(wait, "answer "+text)
		done()
		p.all = append(p.all, more...)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			p.w.t.Fatalf("the tenant's system does not answer: %v\n%s", err, p.w.serials())
		}
	}
}

func (p *peer) heard(text string) bool {
	p.w.t.Helper()
	b, err := os.ReadFile(p.serial)
	if err != nil {
		p.w.t.Fatal(err)
	}
	return strings.Contains(string(b), "PEER heard <"+text+">")
}

// send has the system send a frame.
func (p *peer) send(ctx context.Context, vlan int, text string) {
	p.w.t.Helper()
	order := fmt.Sprintf("send %d %s", vlan, text)
	for !p.heard(order) {
		if err := p.by.Try(0, order); err != nil || ctx.Err() != nil {
			p.w.t.Fatalf("the tenant's system takes no order: %v", err)
		}
		p.reached(ctx)
	}
}

// hosts are ends of the rack's wires, by machine and card or by port.
func (w *world) card(machine int, card string) *vswitch.Host {
	w.t.Helper()
	space, err := vswitch.SpaceAt(w.rack.Machines[machine].Netns)
	if err != nil {
		w.t.Fatal(err)
	}
	h, err := vswitch.Listen(space, card)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { h.Close(); space.Close() }) //nolint:errcheck // the rack goes
	return h
}

func (w *world) plugged(ctx context.Context, port, setting string) *vswitch.Host {
	w.t.Helper()
	at := w.rack.Ethernet.Switches[0]
	space, err := vswitch.SpaceAt(at.Netns)
	if err != nil {
		w.t.Fatal(err)
	}
	h, err := vswitch.At(at.Dir, space).NewHost(ctx, port, setting)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { h.Close(); space.Close() }) //nolint:errcheck // the rack goes
	return h
}

// none wants none of what a host heard to be a frame with that text in it.
func (w *world) none(who string, heard []vswitch.Frame, text string) {
	w.t.Helper()
	for _, f := range heard {
		if strings.Contains(f.Text, text) {
			w.t.Errorf("%s hears %+v", who, f)
		}
	}
}

// TestTenants: two tenants of two nodes each on one Open vSwitch, a machine that really boots and a process in each. Five boots: the agent by virtual CD and
// by HTTP, both over the switch, a Debian in each tenant's network, which hears and sends packets there, and the agent of the node that is released.
func TestTenants(t *testing.T) {
	if os.Getenv("METALCTL_LONG") != "1" {
		t.Skip("long: takes minutes; set METALCTL_LONG=1")
	}
	w := newWorld(t, tenantsLab, "--listen-boot", "127.0.0.1:0")
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Minute)
	defer cancel()
	w.must("site", "apply", "-f", w.write("fleet.yaml", tenantsSite))
	w.must("switch", "apply", "-f", w.rack.Ethernet.Fleet)
	w.must("switch", "adopt", "leaf-1")
	w.must("network", "apply", "-f", w.rack.Ethernet.Fleet)
	w.must("network", "create", "team-a", "--domain", "rack", "--vlan", "110")
	w.must("network", "create", "team-b", "--domain", "rack", "--vlan", "120")
	w.must("node", "enroll", "-f", w.rack.Nodes)
	w.must("node", "set", "q1", "--class", "booted")
	w.must("node", "set", "q2", "--class", "booted")
	w.must("node", "set", "p1", "--class", "acted", "--root-disk", "transport=file")
	w.must("node", "set", "p2", "--class", "acted", "--root-disk", "transport=file")
	w.must("node", "inspect", "q1", "q2", "p1", "p2")
	w.must("node", "accept", "q1", "q2", "p1", "p2", "--yes")
	for _, n := range []string{"q1", "q2", "p1", "p2"} {
		w.must("wait", "node/"+n, "--for", "state=available", "--timeout", "20m")
	}

	packed := w.path("debian.raw.zst")
	if out, err := exec.Command("zstd", "-q", "-1", w.script("image-debian.sh"), "-o", packed).CombinedOutput(); err != nil {
		t.Fatalf("zstd: %v\n%s", err, out)
	}
	w.must("image", "add", "debian-12", "--file", packed)
	lease := func(team string, machine int, more ...string) *peer {
		m := w.rack.Machines[machine]
		mac := m.Ports[1].MAC
		network := fmt.Sprintf(`{"links": [{"id": "t", "type": "phy", "ethernet_mac_address": %q}],
			"networks": [{"id": "n", "link": "t", "type": "ipv4", "ip_address": "192.0.2.%d", "netmask": "255.255.255.0"}]}`, mac, machine+1)
		w.must(append([]string{"lease", "create", "--name", team, "--image", "debian-12", "--network", team, "--grace", "0s", "--no-wait",
			"--user-data", w.write("user-data-"+team, strings.ReplaceAll(peerData, "MAC", mac)), "--network-data", w.write("network-"+team, network)}, more...)...)
		return &peer{w: w, serial: m.SerialLog}
	}
	a := lease("team-a", 0, "--node", "q1,p1")
	b := lease("team-b", 1, "--node", "q2,p2")
	w.must("wait", "lease/team-a", "--for", "state=active", "--timeout", "30m")
	w.must("wait", "lease/team-b", "--for", "state=active", "--timeout", "30m")
	p1, p2 := w.card(2, "eth1"), w.card(3, "eth1")
	a.by, b.by = p1, p2
	bmcs, other := w.plugged(ctx, "bmcs", "tag=50"), w.plugged(ctx, "bmc2", "tag=50")
	// The twins: each system hears and is heard in its own network.
	a.reached(ctx)
	b.reached(ctx)

	for i, vlan := range []int{0, 50, 100, 110, 120} {
		for _, from := range []*peer{a, b} {
			from.send(ctx, vlan, fmt.Sprintf("leak %d of %s", i, from.by.MAC))
		}
		for _, from := range []*vswitch.Host{p1, p2} {
			if err := from.Try(uint16(vlan), fmt.Sprintf("leak %d by %s", i, from.MAC)); err != nil {
				t.Fatal(err)
			}
		}
	}
	a.reached(ctx)
	b.reached(ctx)
	w.none("p1", a.all, "of "+p2.MAC.String())
	w.none("p1", a.all, "by "+p2.MAC.String())
	w.none("p2", b.all, "of "+p1.MAC.String())
	w.none("p2", b.all, "by "+p1.MAC.String())
	for i := range 5 {
		if a.heard(fmt.Sprintf("leak %d by %s", i, p2.MAC)) || b.heard(fmt.Sprintf("leak %d by %s", i, p1.MAC)) {
			t.Errorf("a tenant's system hears the other tenant's frame %d", i)
		}
	}
	if !a.heard("leak 0 by "+p1.MAC.String()) || !b.heard("leak 0 by "+p2.MAC.String()) {
		t.Error("a frame to everybody does not arrive inside its tenant's network")
	}
	quiet := func(who string) {
		t.Helper()
		heard, err := vswitch.Pass(ctx, bmcs, other, 0)
		if err != nil {
			t.Fatal(err)
		}
		w.none("the BMCs' network, of "+who, heard, "leak")
	}
	quiet("tenants")

	w.must("lease", "release", "team-a", "--yes")
	for _, vlan := range []uint16{0, 50, 100, 110, 120} {
		if err := p1.Try(vlan, "leak of a freed node"); err != nil {
			t.Fatal(err)
		}
	}
	b.reached(ctx)
	w.none("p2", b.all, "freed")
	if b.heard("leak of a freed node") {
		t.Error("a tenant's system hears a freed node")
	}
	quiet("a freed node")
	w.must("wait", "node/p1", "--for", "state=available", "--timeout", "20m")
}
