package opensm_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/fabric"
	"github.com/metalctl/metalctl/provision/fabric/opensm"
)

const base = "Default=0x7fff: ALL=limited, SELF=full;\n"

// files are partition files, good and bad. G1 to G3 stand for ports of three hosts.
var files = []struct {
	name, text string
	// bad files are those that OpenSM refuses.
	bad bool
}{
	{"nothing but the default", base, false},
	{"two tenants", base + "a=0x101: G1=full, G2=full;\nb=0x102: G3=full;\n", false},
	{"limited members", base + "a=0x101: G1=full, G2=limited, G3;\n", false},
	{"full by default", base + "a=0x101, defmember=full: G1, G2=limited;\n", false},
	{"a prefix of defmember, and of full", base + "a=0x101, d=f: G1;\n", false},
	{"both is full", base + "a=0x101: G1=both;\n", false},
	{"a flag that is none is limited", base + "a=0x101: G1=FULL;\n", false},
	{"an empty flag is full", base + "a=0x101: G1=;\n", false},
	{"the first place", base + "a=0x101, indx0: G1=full;\n", false},
	{"the first place of one member", base + "a=0x101: G1=full, G2=full;\na=0x101, indx0: G3=full;\n", false},
	{"the letter A is all", base + "a=0x101: A=full;\n", false},
	{"the letter S is self", base + "a=0x101: S=full, G1=full;\n", false},
	{"the letter N is none", base + "a=0x101: N=full, G1=full;\n", false},
	{"all hosts", base + "a=0x101: ALL_CAS=full;\n", false},
	{"all switches", base + "a=0x101: ALL_SWITCHES=full, G1;\n", false},
	{"all routers", base + "a=0x101: ALL_ROUTERS=full, G1;\n", false},
	{"the last word counts", base + "a=0x101: G1=full, G1=limited;\n", false},
	{"a key with the top bit", base + "a=0x8101: G1=full;\n", false},
	{"a key that is too large", base + "a=0x10101: G1=full;\n", false},
	{"a key in decimal", base + "a=257: G1=full;\n", false},
	{"a key in octal", base + "a=0401: G1=full;\n", false},
	{"a negative key", base + "a=-1: G1=full;\n", false},
	{"a key without a name", base + "0x101: G1=full;\n", false},
	{"a partition twice", base + "a=0x101: G1=full;\nb=0x101: G2=full;\n", false},
	{"a port that is not there", base + "a=0x101: 0x1234=full, G1=full;\n", false},
	{"over several lines", base + "a=0x101:\n G1=full,\n G2=full;\n", false},
	{"two on a line", base + "a=0x101: G1=full; b=0x102: G2=full;\n", false},
	{"no semicolon at the end", base + "a=0x101: G1=full", false},
	{"a definition that swallows the next", base + "a=0x101: G1=full\nG2=full;\n", false},
	{"comments", base + "# a=0x101: G1=full;\na=0x102: G1=full; # b=0x103: G1=full;\n", false},
	{"a comment that swallows the end", base + "a=0x101: G1=full # x ;\n, G2=full;\n", false},
	{"blanks everywhere", " " + base + " \t a = 0x101 , ipoib : G1 = full , G2 ;  \n", false},
	{"lines of another system", strings.ReplaceAll(base, "\n", "\r\n"), true},
	{"an empty port", base + "a=0x101: , G1=full,;\n", false},
	{"for IP, of some size", base + "a=0x101, ipoib, mtu=4, rate=3: G1=full;\n", false},
	{"a flag that nobody knows", base + "a=0x101, color=blue: G1=full;\n", false},
	{"a long line of ports", base + "a=0x101: " + strings.Repeat("0x1234=full, ", 200) + "G1=full;\n", false},
	{"a line that is cut within a port", base + "a=0x101: " + strings.Repeat("0x1234=full, ", 400) + "G1=full;\n", false},
	{"a group of its own", base + "a=0x101, ipoib: mgid=ff12::1, sl=1;\na=0x101: G1=full;\n", false},
	{"no default line", "a=0x101: G1=full;\n", false},
	{"the default made full", "Default=0x7fff: ALL=full;\n", false},

	{"empty", "", true},
	{"comments only", "# nothing\n", true},
	{"a host's name", base + "a=0x101: node-1=full;\n", true},
	{"a GUID without 0x", base + "a=0x101: 5000000000000031fe=full;\n", true},
	{"the GUID zero", base + "a=0x101: 0x0=full;\n", true},
	{"no colon", base + "a=0x101 G1=full;\n", true},
	{"a key that is none", base + "a=tenant: G1=full;\n", true},
	{"a key with something behind", base + "a=0x101z: G1=full;\n", true},
	{"a comma in a name", base + "a,b=0x101: G1=full;\n", false},
	{"a colon in a name", base + "a:b=0x101: G1=full;\n", true},
	{"good, and then bad", base + "a=0x101: G1=full;\nb=0x102: G2=full;\noops\n", true},
}

func ports(text string, net wires.Net) string {
	for i, name := range []string{"", "G1", "G2", "G3"} {
		if i > 0 {
			text = strings.ReplaceAll(text, name, string(net.GUID(i, 0)))
		}
	}
	return text
}

func TestParse(t *testing.T) {
	for _, f := range files {
		if _, err := opensm.Parse(ports(f.text, small())); err != nil != f.bad {
			t.Errorf("%s: %v, want bad %t", f.name, err, f.bad)
		}
	}
}

// TestParseAsOpenSM gives each file to a real OpenSM and compares what the devices then hold with what the model says.
func TestParseAsOpenSM(t *testing.T) {
	if testing.Short() {
		t.Skip("long: a real OpenSM reads each file")
	}
	r := startReal(t, small(), base)
	port, err := r.sim.Dial(1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	station := fabric.NewStation(port, fabric.Options{Patience: 10 * time.Second})
	read := func(text string) map[fleet.GUID]fleet.Carries {
		t.Helper()
		if err := os.WriteFile(r.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		if err := r.sm.Reload(ctx); err != nil {
			t.Fatal(err)
		}
		sweep, err := station.Sweep(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return carried(sweep)
	}
	for _, f := range files {
		text := ports(f.text, r.net)
		read(base) // partitions of the file before would lend their names and keys
		got := read(text)
		model := opensm.FailedOpen(seen(r.net))
		if parsed, err := opensm.Parse(text); err == nil {
			model = parsed.Tables(seen(r.net), r.net.SM())
		}
		for g, want := range model {
			if !got[g].Equal(want) {
				t.Errorf("%s: OpenSM gives %s %s (first %s), the model %s (first %s)", f.name, g, got[g], got[g].Index0, want, want.Index0)
			}
		}
	}
}

// seen are the ports of the net's hosts and switches.
func seen(net wires.Net) []opensm.Port {
	var out []opensm.Port
	for h := range net.Hosts {
		for i := range net.HCAs {
			out = append(out, opensm.Port{GUID: net.GUID(h, i), Type: fabric.CA})
		}
	}
	for i := range 3 {
		out = append(out, opensm.Port{GUID: fleet.GUIDOf(0x6000000000000000 + uint64(i+1)*16), Type: fabric.Switch})
	}
	return out
}

func carried(s *fabric.Sweep) map[fleet.GUID]fleet.Carries {
	out := map[fleet.GUID]fleet.Carries{}
	for _, e := range s.Ends {
		out[e.GUID] = opensm.Carries(e)
	}
	return out
}

func FuzzParse(f *testing.F) {
	for _, x := range files {
		f.Add(ports(x.text, small()))
	}
	f.Add("a:mgid")
	f.Add("a:mgid=ff12::1,b=c;d=1:2")
	f.Add(strings.Repeat("a=1:2;", 1000))
	f.Fuzz(func(t *testing.T, text string) {
		a, err := opensm.Parse(text)
		if err != nil {
			return
		}
		// Comments behind the end change nothing, and every port holds the default partition, whatever a file says.
		b, err := opensm.Parse(strings.TrimRight(text, "\n") + "\n# end\n")
		if err != nil && !strings.Contains(text, "\x00") && len(text) < 4000 {
			t.Fatalf("a comment made it bad: %v", err)
		}
		tables := a.Tables(seen(small()), small().SM())
		for g, c := range tables {
			if f := c.Validate("c"); len(f) > 0 {
				t.Fatalf("%s: %v", g, f)
			}
			if len(c.Partitions) == 0 || c.Partitions[len(c.Partitions)-1].PKey != fleet.DefaultPKey {
				t.Fatalf("%s has no default partition: %s", g, c)
			}
		}
		if b != nil {
			if d := cmp.Diff(tables, b.Tables(seen(small()), small().SM())); d != "" {
				t.Fatalf("a comment changed it:\n%s", d)
			}
		}
	})
}
