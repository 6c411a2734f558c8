//go:build !ramdisk

package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/metalctl/metalctl/fixtures/wires/vswitch"
)

// panelKey is where the hosts at a script's Open vSwitch are.
type panelKey struct{}

type panel struct {
	hosts map[string]*vswitch.Host
	count int
}

// scriptHost plugs a host in where a server, a router or a BMC would be.
func scriptHost(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: host NAME SWITCH SETTING...")
	}
	sw := switchOf(ts, args[1])
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	h, err := sw.NewHost(ctx, args[0], args[2:]...)
	ts.Check(err)
	ts.Value(panelKey{}).(*panel).add(ts, args[0], h)
}

func (p *panel) add(ts *testscript.TestScript, name string, h *vswitch.Host) {
	p.hosts[name] = h
	ts.Defer(func() { ts.Check(h.Close()) })
}

// machineHost is software at a machine's network card, named MACHINE:CARD.
func (p *panel) machineHost(ts *testscript.TestScript, name string) {
	machine, card, ok := strings.Cut(name, ":")
	if !ok || p.hosts[name] != nil {
		return
	}
	n, err := strconv.Atoi(card)
	ts.Check(err)
	h, err := machineOf(ts, machine).Listen(n)
	ts.Check(err)
	p.add(ts, name, h)
}

// scriptHears sends a frame from one host, with a tag where FROM has one as PORT/TAG, until it arrives at another: with the tag that TO names, or none. Negated, it
// sends it, and then frames by others until those arrive at TO: the first must not be there by then.
func scriptHears(ts *testscript.TestScript, neg bool, args []string) {
	if neg && len(args) != 4 || !neg && len(args) != 2 {
		ts.Fatalf("usage: hears TO FROM, or ! hears TO FROM TWIN-TO TWIN-FROM")
	}
	p := ts.Value(panelKey{}).(*panel)
	for _, name := range args {
		name, _, _ = strings.Cut(name, "/")
		p.machineHost(ts, name)
	}
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
	p.count++
	text := fmt.Sprintf("must not pass %d", p.count)
	ts.Check(from.Try(tag, text))
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

// pass sends until a frame arrives, and returns what was heard until then.
func (p *panel) pass(toName, fromName string) ([]vswitch.Frame, error) {
	to, want := p.port(toName)
	from, tag := p.port(fromName)
	if to == nil || from == nil {
		return nil, fmt.Errorf("there is no port %s, or none %s", toName, fromName)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	heard, err := vswitch.Pass(ctx, to, from, tag)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s does not hear %s: %w", toName, fromName, err)
	case want != 0 && heard[len(heard)-1].VLAN != want:
		return nil, fmt.Errorf("%s hears %s with tag %d", toName, fromName, heard[len(heard)-1].VLAN)
	}
	return heard, nil
}
