//go:build !ramdisk

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/metalctl/metalctl/fixtures/wires/vswitch"
)

// panelKey is where a script's Open vSwitch and the hosts at its ports are.
type panelKey struct{}

type panel struct {
	hosts map[string]*vswitch.Host
	count int
}

// scriptOpenVSwitch starts a real Open vSwitch with a host at each port, gives each machine of the rack two ports there (MACHINE-p for provisioning, MACHINE-t for its
// tenant), and writes the server's configuration. The last port is the uplink, where the server and other networks would be: a trunk of all.
func scriptOpenVSwitch(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: openvswitch SWITCH CONFIG UPLINK")
	}
	ts.Check(vswitch.Have())
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dir, err := os.MkdirTemp("", "ovs") // sockets need short names
	ts.Check(err)
	sw, err := vswitch.Start(ctx, dir)
	ts.Check(err)
	p := ts.Value(panelKey{}).(*panel)
	p.hosts = map[string]*vswitch.Host{}
	ts.Defer(func() {
		var errs []error
		for _, h := range p.hosts {
			errs = append(errs, h.Close())
		}
		ts.Check(errors.Join(append(errs, sw.Close(), os.RemoveAll(dir))...))
	})
	plug := func(port string, more ...string) {
		h, err := sw.NewHost(ctx, port, more...)
		ts.Check(err)
		p.hosts[port] = h
	}
	var nodes bytes.Buffer
	ts.Check(onNodes(ts.MkAbs("rack/nodes.yaml"), func(n map[string]any) error {
		name := n["name"].(string)
		plug(name+"-p", "tag=1")
		plug(name+"-t", "tag=1")
		at := func(mac any, role, port string) map[string]any {
			return map[string]any{"mac": mac, "role": role, "switch": args[0], "port": port}
		}
		n["ports"] = []any{at(p.hosts[name+"-p"].MAC.String(), "provisioning", name+"-p"), at(p.hosts[name+"-t"].MAC.String(), "tenant", name+"-t")}
		b, err := yaml.Marshal(n)
		fmt.Fprintf(&nodes, "---\n%s", b)
		return err
	}))
	ts.Check(os.WriteFile(ts.MkAbs("nodes.yaml"), nodes.Bytes(), 0o600))
	plug(args[2], "vlan_mode=trunk")
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), fmt.Appendf(nil, "fabric_every: 1s\nswitches:\n  %s: {driver: ovs, address: 'unix:%s', openflow: 'unix:%s', bridge: %s}\n",
		args[0], sw.Database(), sw.Management(), vswitch.Bridge), 0o600))
}

func onNodes(path string, each func(map[string]any) error) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for d := yaml.NewDecoder(bytes.NewReader(b)); ; {
		var n map[string]any
		if err := d.Decode(&n); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := each(n); err != nil {
			return err
		}
	}
}

// scriptHears sends a frame from one host, with a tag where FROM has one as PORT/TAG, until it arrives at another: with the tag that TO names, or none. Negated, it
// sends it, and then frames by others until those arrive at TO: the first must not be there by then.
func scriptHears(ts *testscript.TestScript, neg bool, args []string) {
	if neg && len(args) != 4 || !neg && len(args) != 2 {
		ts.Fatalf("usage: hears TO FROM, or ! hears TO FROM TWIN-TO TWIN-FROM")
	}
	p := ts.Value(panelKey{}).(*panel)
	if !neg {
		if _, err := p.pass(args[0], args[1]); err != nil {
			ts.Fatalf("%v", err)
		}
		return
	}
	// The twin passes, so that silence is not a broken test.
	if _, err := p.pass(args[2], args[3]); err != nil {
		ts.Fatalf("the twin: %v", err)
	}
	from, tag := p.port(args[1])
	text := p.text("must not pass")
	if err := from.Send(tag, text); err != nil && !strings.Contains(err.Error(), "network is down") {
		ts.Fatalf("%s cannot send: %v", args[1], err)
	}
	for range 3 {
		heard, err := p.pass(args[2], args[3])
		if err != nil {
			ts.Fatalf("the twin: %v", err)
		}
		to, _ := p.port(args[0])
		more, err := to.Heard()
		ts.Check(err)
		if args[0] == args[2] {
			more = append(more, heard...)
		}
		for _, f := range more {
			if f.Text == text {
				ts.Fatalf("%s hears what %s sends: %+v", args[0], args[1], f)
			}
		}
	}
}

// port is the host at PORT or PORT/TAG.
func (p *panel) port(name string) (*vswitch.Host, uint16) {
	port, tag, _ := strings.Cut(name, "/")
	n, _ := strconv.ParseUint(tag, 10, 12) // without one it is 0
	return p.hosts[port], uint16(n)
}

func (p *panel) text(what string) string {
	p.count++
	return fmt.Sprintf("%s %d", what, p.count)
}

// pass sends until a frame arrives, and returns what was heard until then. A link that was switched on just now loses some.
func (p *panel) pass(toName, fromName string) ([]vswitch.Frame, error) {
	to, want := p.port(toName)
	from, tag := p.port(fromName)
	if to == nil || from == nil {
		return nil, fmt.Errorf("there is no port %s, or none %s", toName, fromName)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var all []vswitch.Frame
	for {
		text := p.text("passes")
		if err := from.Send(tag, text); err != nil && !strings.Contains(err.Error(), "network is down") {
			return nil, err
		}
		wait, done := context.WithTimeout(ctx, time.Second)
		heard, err := to.Hear(wait, text)
		done()
		all = append(all, heard...)
		switch {
		case err == nil && want != 0 && heard[len(heard)-1].VLAN != want:
			return nil, fmt.Errorf("%s hears %s with tag %d", toName, fromName, heard[len(heard)-1].VLAN)
		case err == nil:
			return all, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%s does not hear %s: %w", toName, fromName, err)
		}
	}
}
