//go:build !ramdisk

package main

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/metalctl/metalctl/fixtures/rack"
	"github.com/metalctl/metalctl/fleet"
)

// scriptPort is a port of the rack's fabric, named as MACHINE/HCA.
func scriptPort(ts *testscript.TestScript, name string) (*rack.Fabric, fleet.GUID) {
	r := *ts.Value(rackKey{}).(**rack.Rack)
	machine, hca, _ := strings.Cut(name, "/")
	h, err := strconv.Atoi(hca)
	ts.Check(err)
	for i, m := range r.Status().Machines {
		if m.Name == machine {
			return r.Fabric(), r.Fabric().GUID(i, h-1)
		}
	}
	ts.Fatalf("the rack has no machine %s", machine)
	return nil, ""
}

// patience is what anything of the fabric may take on a machine that is busy with other things.
const patience = 3 * time.Minute

func scriptCarries(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: carries PORT RE")
	}
	f, guid := scriptPort(ts, args[0])
	re, err := regexp.Compile(args[1])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		c, err := f.Carries(ctx, guid)
		ts.Check(err)
		if re.MatchString(c.String()) != neg {
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("port %s carries %s", args[0], c)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func scriptOpenSM(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: opensm reread|FILE")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	f := (*ts.Value(rackKey{}).(**rack.Rack)).Fabric()
	if args[0] == "reread" {
		ts.Check(f.Reread(ctx))
		return
	}
	ts.Check(f.Restart(ctx, ts.MkAbs(args[0])))
}

func scriptTamper(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: tamper PORT KEY...")
	}
	f, guid := scriptPort(ts, args[0])
	var keys []fleet.Membership
	for _, a := range args[1:] {
		key, kind, _ := strings.Cut(a, "=")
		m := fleet.Membership{Full: kind == "full"}
		ts.Check(m.PKey.UnmarshalText([]byte(key)))
		keys = append(keys, m)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ts.Check(f.Tamper(ctx, guid, fleet.InPartitions(keys...)))
}
