//go:build !ramdisk

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/metalctl/metalctl/fixtures/bmc"
	"github.com/metalctl/metalctl/fixtures/rack"
	"github.com/metalctl/metalctl/fixtures/wires/vswitch"
	"github.com/metalctl/metalctl/images/ramdisk"
)

// TestMain lets the test binary be metalctl, too: for scripts, and as the agent of process machines.
func TestMain(m *testing.M) {
	// The reader of GPUs starts its own program again under another verb.
	if slices.Equal(os.Args[1:], []string{"agent", "gpu-helper"}) {
		os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	// Scripts wait far more than they compute: more of them at once than there are processors.
	if runtime.GOMAXPROCS(0) < 4 {
		if err := flag.Set("test.parallel", "4"); err != nil { // the command line may still say otherwise
			panic(err)
		}
	}
	testscript.Main(m, map[string]func(){
		"metalctl": func() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
		// hasty is metalctl whose server waits for 10 s where it would wait for a minute.
		"hasty": func() {
			os.Exit((&program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, handsOff: 10 * time.Second}).run(os.Args[1:]))
		},
	})
}

// scriptMedium builds a boot ISO that is laid out like a real one, from a kernel that is as much of one as is looked at: process machines only read it.
var scriptMedium = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "kernel")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	const release = "6.1.0-99-amd64"
	image := make([]byte, 4096)
	copy(image, "MZ")
	copy(image[0x202:], "HdrS")
	// The header of a static program for x86-64 without sections; a module would do with as little.
	agent := make([]byte, 64)
	copy(agent, "\x7fELF\x02\x01\x01")
	agent[16], agent[18], agent[20], agent[52], agent[58] = 2, 62, 1, 64, 64
	modules := "lib/modules/" + release + "/"
	for name, content := range map[string][]byte{"boot/vmlinuz-" + release: image, modules + "modules.builtin": nil, modules + "kernel/odd.ko": agent} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644)); err != nil {
			return nil, err
		}
	}
	k, err := ramdisk.FindKernel(dir)
	if err != nil {
		return nil, err
	}
	iso, err := ramdisk.Build(context.Background(), ramdisk.Options{Agent: agent, Kernel: k, Roots: os.DevNull, Lab: true})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = iso.WriteTo(&b)
	return b.Bytes(), err
})

// TestScripts runs what users type against a real server and a rack of process machines. Besides testscript's own commands there are:
//
//	server [file]          starts a server and points METALCTL_SERVER and its like at it; file is its configuration
//	halt                   stops it; server then starts another one on the same data
//	here FILE              replaces WORK in a file by the script's folder
//	rack [file]            starts a rack in $WORK/rack from a lab file, or with one machine n1 that has a disk of 256 MiB
//	exits N metalctl …     runs a command and wants exactly that exit code
//	only-reads MACHINE     wants nothing but reads and the session's login and logout in the BMC's log so far
//	no-reset MACHINE       wants no power action and no boot override in it
//	digest FILE            keeps a file's digest, or wants it unchanged the second time
//	system FILE            makes a small raw image that boots under UEFI, as far as anybody looks
//	qcow2 FILE KIND        makes a qcow2 image: plain, backing, data-file or encrypted
//	fill FILE SIZE         makes a file of that many bytes, or writes them to the beginning of one
//	cut FILE SIZE          drops that many bytes from a file's end
//	plan-digest FILE       sets PLAN to the first line of a file
//	ports NAME...          sets each to a port of loopback that nobody uses
//	nowhere TEXT           wants TEXT in no answer of the API, not in the support bundle or the server's log, and on no machine's console
//	logged                 wants each line that server and agents logged about a node to carry node, operation and step
//	wire NAME PORT         sets NAME to a port whose connections lead to another one
//	unplug PORT...         lets nothing through such ports any more, and breaks no connection; plug does again
//	ascending FILE RE...   wants the number that RE finds in each FILE to be larger than the one before
//	until RE metalctl …    repeats a command until its output matches
//	board MACHINE JSON     breaks the GPU baseboard behind the machine's BMC (bmc.BoardFaults); with "mended" for JSON: nothing is wrong with it
//	carries PORT RE        waits until a port's own table of partition keys matches; PORT is MACHINE/HCA of the rack's fabric, both from 1
//	opensm reread|FILE     makes OpenSM read its partition file again, or restarts it as a crash would, with that file
//	host NAME SWITCH SET...  plugs a host into a new port of that name of the rack's Open vSwitch, with settings of the port as ovs-vsctl takes them
//	hears TO FROM          wants frames from one host to arrive at another; ! hears TO FROM TWIN-TO TWIN-FROM: not, while others' do. A host is one of host, or
//	                       MACHINE:CARD of the rack, with a tag as HOST/TAG
//	tamper PORT KEY...     writes a port's table behind everybody's back, such as 0x0101=full
//	canary SWITCH DOMAIN FILE   cables two interfaces of the server to trunks of an Open vSwitch, and adds them to its configuration
//	patch SWITCH VLAN VLAN   cables two access ports of it together
//	fault MACHINE JSON     makes the machine's BMC misbehave by a rule (bmc.Fault); with "mended" for JSON: by none any more
func TestScripts(t *testing.T) {
	testscript.Run(t, scriptParams(t, "testdata/script"))
}

// scriptParams are what scripts of a folder run with; the test is skipped where no boot medium can be made.
func scriptParams(t *testing.T, dir string) testscript.Params {
	t.Helper()
	if _, err := os.Stat(ramdisk.DefaultStub); err != nil {
		t.Skipf("hardware: no systemd-stub to build a boot medium with: %v", err)
	}
	iso, err := scriptMedium()
	if err != nil {
		t.Fatal(err)
	}
	medium := filepath.Join(t.TempDir(), "boot.iso")
	if err := os.WriteFile(medium, iso, 0o644); err != nil {
		t.Fatal(err)
	}
	return testscript.Params{
		Dir: dir, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("MEDIUM", medium)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
			e.Values[digestsKey{}] = map[string]string{}
			e.Values[runKey{}] = new(*scriptRun)
			e.Values[rackKey{}] = new(*rack.Rack)
			e.Values[clockKey{}] = new(atomic.Int64)
			e.Values[wiresKey{}] = map[string]*wire{}
			e.Values[panelKey{}] = &panel{hosts: map[string]*vswitch.Host{}}
			e.Values[bootsKey{}] = &boots{last: map[string]scriptBoot{}}
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "long" {
				return !testing.Short(), nil
			}
			return false, fmt.Errorf("condition %q is not known", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"server": scriptServer, "rack": scriptRack, "exits": scriptExits, "only-reads": scriptOnlyReads,
			"no-reset": scriptNoReset, "digest": scriptDigest, "approval": scriptApproval, "until": scriptUntil,
			"system": scriptSystem, "qcow2": scriptQcow2, "fill": scriptFill, "cut": scriptCut, "plan-digest": scriptPlanDigest,
			"ports": scriptPorts, "nowhere": scriptNowhere, "halt": scriptStop, "logged": scriptLogged, "here": scriptHere, "fault": scriptFault, "board": scriptBoard,
			"wire": scriptWire, "unplug": scriptUnplug, "plug": scriptPlug, "ascending": scriptAscending,
			"carries": scriptCarries, "opensm": scriptOpenSM, "tamper": scriptTamper, "host": scriptHost, "hears": scriptHears, "canary": scriptCanary, "patch": scriptPatch,
		},
	}
}

// digestsKey is where a script's digests are.
type digestsKey struct{}

// rackKey is where the rack is.
type rackKey struct{}

// runKey is where the server that runs is.
type runKey struct{}

// clockKey is by how much a script has set the server's clock.
type clockKey struct{}

// scriptRun is a server in this process.
type scriptRun struct {
	stop  context.CancelFunc
	ended chan error
	out   *said // what it has printed so far
}

var serverLine = regexp.MustCompile(`metalctl server at (\S+)\n  token: (\S+)\n  CA:    (\S+)\n`)

// said collects what a server prints until it ends.
type said struct {
	mu   sync.Mutex // guards b
	b    bytes.Buffer
	wake chan struct{}
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func scriptServer(ts *testscript.TestScript, neg bool, args []string) {
	cfg := defaultServerConfig()
	if len(args) > 0 {
		var err error
		cfg, err = loadServerConfig(ts.MkAbs(args[0]))
		ts.Check(err)
	}
	cfg.Listen, cfg.DataDir, cfg.RAMDisk, cfg.LogLevel = "127.0.0.1:0", ts.MkAbs("data"), ts.Getenv("MEDIUM"), "debug"
	step := ts.Value(clockKey{}).(*atomic.Int64)
	cfg.now = func() time.Time { return time.Now().Add(time.Duration(step.Load())) }
	ts.Check(cfg.check())
	ctx, cancel := context.WithCancel(context.Background())
	out := &said{wake: make(chan struct{}, 1)}
	r := &scriptRun{stop: cancel, ended: make(chan error, 1), out: out}
	*ts.Value(runKey{}).(**scriptRun) = r
	go func() { r.ended <- runServer(ctx, &program{stderr: out, stdout: io.Discard}, cfg) }()
	ts.Defer(func() {
		r.stop()
		if err := <-r.ended; err != nil {
			ts.Logf("the server ended: %v", err)
		}
		r.ended <- nil
		ts.Check(os.WriteFile(filepath.Join(ts.MkAbs("."), "server.log"), []byte(out.String()), 0o644))
	})
	for {
		if m := serverLine.FindStringSubmatch(out.String()); m != nil {
			ts.Setenv("METALCTL_SERVER", m[1])
			ts.Setenv("METALCTL_TOKEN_FILE", m[2])
			ts.Setenv("METALCTL_CACERT", m[3])
			break
		}
		select {
		case <-out.wake:
		case err := <-r.ended:
			r.ended <- err
			ts.Fatalf("the server ended: %v\n%s", err, out)
		case <-time.After(5 * time.Minute):
			ts.Fatalf("the server did not start\n%s", out)
		}
	}
}

func scriptStop(ts *testscript.TestScript, neg bool, args []string) {
	r := *ts.Value(runKey{}).(**scriptRun)
	r.stop()
	err := <-r.ended
	r.ended <- nil
	ts.Check(err)
}

// scriptPorts finds ports. Somebody else could take one before it is used, which no run has shown: the kernel hands them out in turn.
func scriptPorts(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		_, port, err := net.SplitHostPort(l.Addr().String())
		ts.Check(errors.Join(err, l.Close()))
		ts.Setenv(name, port)
	}
}

func scriptHere(ts *testscript.TestScript, neg bool, args []string) {
	file := ts.MkAbs(args[0])
	b, err := os.ReadFile(file)
	ts.Check(err)
	ts.Check(os.WriteFile(file, bytes.ReplaceAll(b, []byte("WORK"), []byte(ts.MkAbs("."))), 0o644))
}

func scriptRack(ts *testscript.TestScript, neg bool, args []string) {
	lab := rack.Lab{Machines: []rack.MachineSpec{{Name: "n1", Disks: []rack.DiskSpec{{SizeBytes: 256 << 20}}}}}
	if len(args) > 0 {
		file := ts.MkAbs(args[0])
		b, err := os.ReadFile(file)
		ts.Check(err)
		lab, err = rack.Parse(file, b)
		ts.Check(err)
	}
	self, err := exec.LookPath("metalctl")
	ts.Check(err)
	r, err := rack.Up(context.Background(), lab, rack.Options{Dir: ts.MkAbs("rack"), Plain: len(lab.Switches) == 0, Log: slog.New(slog.DiscardHandler),
		Agent: ts.Value(bootsKey{}).(*boots).watch(rack.Command(self, "agent", "process"))})
	ts.Check(err)
	*ts.Value(rackKey{}).(**rack.Rack) = r
	ts.Defer(func() { ts.Check(r.Down(context.Background())) })
	for _, m := range r.Status().Machines {
		ts.Setenv("BMC_"+m.Name, m.BMC.URL)
		ts.Setenv("SERIAL_"+m.Name, m.SerialLog)
	}
}

// machineOf finds a machine of the script's rack.
func machineOf(ts *testscript.TestScript, name string) *rack.Machine {
	m := (*ts.Value(rackKey{}).(**rack.Rack)).Machine(name)
	if m == nil {
		ts.Fatalf("the rack has no machine %s", name)
	}
	return m
}

func scriptFault(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: fault MACHINE JSON|mended")
	}
	faults := machineOf(ts, args[0]).Faults()
	if args[1] == "mended" {
		faults.Clear()
		return
	}
	var rule bmc.Fault
	ts.Check(json.Unmarshal([]byte(args[1]), &rule))
	_, err := faults.Add(rule)
	ts.Check(err)
}

func scriptBoard(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: board MACHINE JSON|mended")
	}
	var broken *bmc.BoardFaults
	if args[1] != "mended" {
		ts.Check(json.Unmarshal([]byte(args[1]), &broken))
	}
	ts.Check(machineOf(ts, args[0]).BMC().SetBoard(broken))
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N command...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// requests reads a machine's log of Redfish requests as METHOD PATH STATUS lines.
func requests(ts *testscript.TestScript, machine string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	log, err := rack.RequestsOf(ctx, ts.MkAbs("rack"), machine)
	ts.Check(err)
	var out []string
	for _, r := range log {
		out = append(out, fmt.Sprintf("%s %s %d", r.Method, r.Path, r.Status))
	}
	if len(out) == 0 {
		ts.Fatalf("nobody asked the BMC of %s anything", machine)
	}
	return out
}

var loginOrOut = regexp.MustCompile(`^(POST|DELETE) /redfish/v1/SessionService/Sessions(/\S*)? `)

func scriptOnlyReads(ts *testscript.TestScript, neg bool, args []string) {
	for _, r := range requests(ts, args[0]) {
		if !strings.HasPrefix(r, "GET ") && !strings.HasPrefix(r, "HEAD ") && !loginOrOut.MatchString(r) {
			ts.Fatalf("%s was asked more than reads: %s", args[0], r)
		}
	}
}

func scriptNoReset(ts *testscript.TestScript, neg bool, args []string) {
	for _, r := range requests(ts, args[0]) {
		if strings.Contains(r, "ComputerSystem.Reset") || strings.HasPrefix(r, "PATCH ") || strings.Contains(r, "InsertMedia") {
			ts.Fatalf("%s was touched: %s", args[0], r)
		}
	}
}

func scriptDigest(ts *testscript.TestScript, neg bool, args []string) {
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	sum := sha256.Sum256(b)
	got := hex.EncodeToString(sum[:])
	seen := ts.Value(digestsKey{}).(map[string]string)
	old := seen[args[0]]
	seen[args[0]] = got
	switch {
	case old != "" && !neg && old != got:
		ts.Fatalf("%s changed", args[0])
	case old != "" && neg && old == got:
		ts.Fatalf("%s did not change", args[0])
	}
}

func scriptUntil(ts *testscript.TestScript, neg bool, args []string) {
	re, err := regexp.Compile(args[0])
	ts.Check(err)
	for end := time.Now().Add(10 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		runErr := ts.Exec(args[1], args[2:]...)
		if re.MatchString(ts.ReadFile("stdout")) || re.MatchString(ts.ReadFile("stderr")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("never said %q (%v)", args[0], runErr)
		}
	}
}

// scriptApproval puts the newest id of a list of approvals by name into APPROVAL.
func scriptApproval(ts *testscript.TestScript, neg bool, args []string) {
	line, _, _ := strings.Cut(ts.ReadFile(args[0]), "\n")
	_, id, ok := strings.Cut(line, "/")
	if !ok {
		ts.Fatalf("%q names no approval", line)
	}
	ts.Setenv("APPROVAL", id)
}

func scriptPlanDigest(ts *testscript.TestScript, neg bool, args []string) {
	line, _, _ := strings.Cut(ts.ReadFile(args[0]), "\n")
	ts.Setenv("PLAN", line)
}
