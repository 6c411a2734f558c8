package herd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fixtures/herd"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// farm is a herd, the built program as its server, and a client.
type farm struct {
	t      testing.TB
	dir    string
	bin    string
	herd   *herd.Herd
	client *api.Client
	// listen and url are where the server listens; agents know it by heart, so that each of its successors listens there.
	listen, url string
	conf        string
	iso         string
	env         []string
	cmd         *exec.Cmd
	out         *output
	ended       chan error
}

// patience bounds every wait of a story; what waits ends on an event.
const patience = 10 * time.Minute

func newFarm(t testing.TB, nodes int, o herd.Options, conf string) *farm {
	t.Helper()
	f := &farm{t: t, dir: t.TempDir(), bin: "../../bin/metalctl", conf: conf, env: os.Environ()}
	if b := os.Getenv("METALCTL_BIN"); b != "" {
		f.bin = b
	}
	if _, err := os.Stat(f.bin); err != nil {
		t.Skip("bin/metalctl is missing; run make build")
	}
	if _, err := os.Stat("/usr/lib/systemd/boot/efi/linuxx64.efi.stub"); err != nil {
		t.Skip("hardware: no systemd-stub to build a boot medium with")
	}
	o.Nodes = nodes
	var err error
	if f.herd, err = herd.New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.herd.Close(); err != nil {
			t.Errorf("close the herd: %v", err)
		}
	})
	return f
}

// smallMedium is a boot medium with a kernel that is as much of one as is looked at: a herd only reads its credential.
func (f *farm) smallMedium() string {
	f.t.Helper()
	const release = "6.1.0-99-amd64"
	kernel := make([]byte, 4096)
	copy(kernel, "MZ")
	copy(kernel[0x202:], "HdrS")
	module := make([]byte, 64)
	copy(module, "\x7fELF\x02\x01\x01")
	module[16], module[18], module[20], module[52], module[58] = 2, 62, 1, 64, 64
	root := filepath.Join(f.dir, "kernel")
	modules := "lib/modules/" + release + "/"
	for name, content := range map[string][]byte{"boot/vmlinuz-" + release: kernel, modules + "modules.builtin": nil, modules + "kernel/odd.ko": module} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644)); err != nil {
			f.t.Fatal(err)
		}
	}
	return f.medium(root)
}

func (f *farm) medium(kernel string) string {
	f.t.Helper()
	iso := filepath.Join(f.dir, "boot.iso")
	f.run("ramdisk", "build", "--lab", "--kernel", kernel, "-o", iso)
	return iso
}

// kernel is a real one, so that the server holds a medium of the usual size.
func (f *farm) kernel() string {
	f.t.Helper()
	out, err := exec.Command("../../scripts/kernel.sh", "cloud").Output()
	if err != nil {
		f.t.Fatalf("kernel.sh: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// run runs the program and returns what it printed.
func (f *farm) run(args ...string) string {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, f.bin, args...)
	cmd.Env = f.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		f.t.Fatalf("metalctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// output is what a process has printed, the newest megabyte.
type output struct {
	mu   sync.Mutex // guards b
	b    []byte
	wake chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.b = append(o.b, p...); len(o.b) > 2<<20 {
		o.b = append([]byte(nil), o.b[len(o.b)-1<<20:]...)
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.b)
}

func (o *output) tail(n int) string {
	lines := strings.Split(strings.TrimRight(o.String(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// reserve returns an address of the loopback that is this test's until it ends: a socket that is bound and never listens keeps others from the port, even
// from using it at the far end of a connection, while the server is down. Many machines dial meanwhile.
func reserve(t testing.TB) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	var name unix.Sockaddr
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil {
		if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err == nil {
			name, err = unix.Getsockname(fd)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
}

// start starts a server and returns how long it took until it had answered its first request.
func (f *farm) start() time.Duration {
	f.t.Helper()
	if f.iso == "" {
		f.iso = f.smallMedium()
	}
	if f.listen == "" {
		f.listen = reserve(f.t)
	}
	conf := filepath.Join(f.dir, "metalctl.yaml")
	text := fmt.Sprintf("listen: %s\ndata_dir: %s\nramdisk: %s\n%s", f.listen, filepath.Join(f.dir, "data"), f.iso, f.conf)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.out = &output{wake: make(chan struct{}, 1)}
	f.cmd = exec.Command(f.bin, "server", "--config", conf)
	f.cmd.Env = os.Environ()
	f.cmd.Stdout, f.cmd.Stderr = f.out, f.out
	began := time.Now()
	if err := f.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.ended = make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan error) { ended <- cmd.Wait() }(f.cmd, f.ended)
	f.t.Cleanup(f.stop)
	over := time.After(patience)
	for url := ""; url == ""; {
		select {
		case <-f.out.wake:
		case err := <-f.ended:
			f.cmd = nil
			f.t.Fatalf("the server ended: %v\n%s", err, f.out.tail(30))
		case <-over:
			f.t.Fatalf("the server did not start\n%s", f.out.tail(30))
		}
		for line := range strings.Lines(f.out.String()) {
			if u, ok := strings.CutPrefix(line, "metalctl server at "); ok && strings.HasSuffix(line, "\n") {
				url = strings.TrimSpace(u)
				f.url = url
			}
		}
	}
	f.connect()
	for {
		_, err := f.client.Site(f.t.Context())
		if err == nil || fleet.KindOf(err) == fleet.NotFound {
			break
		}
		if fleet.KindOf(err) != fleet.Unavailable || time.Since(began) > patience {
			f.t.Fatalf("the first request: %v\n%s", err, f.out.tail(30))
		}
	}
	return time.Since(began)
}

func (f *farm) connect() {
	f.t.Helper()
	data := filepath.Join(f.dir, "data")
	token, err := os.ReadFile(filepath.Join(data, "admin.token"))
	if err != nil {
		f.t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(data, "ca.pem"))
	if err != nil {
		f.t.Fatal(err)
	}
	if f.client != nil {
		f.client.Close()
	}
	if f.client, err = api.NewClient(api.Config{Server: f.url, Token: fleet.NewSecret(strings.TrimSpace(string(token))), CACert: ca}); err != nil {
		f.t.Fatal(err)
	}
}

// kill ends the server as a power failure does.
func (f *farm) kill() { f.end(syscall.SIGKILL) }

// stop ends it as an operator does.
func (f *farm) stop() {
	f.t.Helper()
	if err := f.end(os.Interrupt); err != nil {
		f.t.Errorf("the server ended: %v\n%s", err, f.out.tail(30))
	}
}

func (f *farm) end(how os.Signal) error {
	if f.cmd == nil {
		return nil
	}
	_ = f.cmd.Process.Signal(how) // it may have ended by itself; Wait tells
	err := <-f.ended
	f.cmd = nil
	return err
}

const fleetFile = `kind: Site
isolation: none
fence_nodes: 1000000
---
kind: Class
name: herd
burnin: none
erase: {level: clear}
`

// found makes the site, the class and the image.
func (f *farm) found() {
	f.t.Helper()
	file := filepath.Join(f.dir, "fleet.yaml")
	if err := os.WriteFile(file, []byte(fleetFile), 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.env = append(os.Environ(), "METALCTL_SERVER="+f.url, "METALCTL_TOKEN_FILE="+filepath.Join(f.dir, "data/admin.token"), "METALCTL_CACERT="+filepath.Join(f.dir, "data/ca.pem"))
	f.run("site", "apply", "-f", file)
	raw := filepath.Join(f.dir, "small.raw")
	if err := os.WriteFile(raw, bootable(), 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.run("image", "add", "small", "--file", raw)
}

// each runs do for every machine, so many at once, and fails the test on the first error.
func (f *farm) each(machines []*herd.Machine, atOnce int, do func(ctx context.Context, m *herd.Machine) error) {
	f.t.Helper()
	g, ctx := errgroup.WithContext(f.t.Context())
	g.SetLimit(atOnce)
	for _, m := range machines {
		g.Go(func() error {
			if err := do(ctx, m); err != nil {
				return fmt.Errorf("%s: %w", m.Name(), err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		f.t.Fatalf("%v\n%s", err, f.out.tail(20))
	}
}

func (f *farm) enrol(machines []*herd.Machine) {
	f.t.Helper()
	f.each(machines, 8, func(ctx context.Context, m *herd.Machine) error {
		_, err := f.client.CreateNode(ctx, api.NodeCreate{Name: m.Name(), Class: "herd", Address: m.Address(), User: herd.User, Password: herd.Password,
			TLS: fleet.BMCTLS{Pin: f.herd.Pin()}}, "")
		return err
	})
}

// ready brings enrolled machines to available: inspected, accepted and cleaned.
func (f *farm) ready(machines []*herd.Machine) {
	f.t.Helper()
	f.each(machines, 32, func(ctx context.Context, m *herd.Machine) error {
		_, err := f.client.NodeVerb(ctx, m.Name(), "inspect", api.NodeVerb{})
		return err
	})
	f.states(machines, fleet.Managed)
	f.each(machines, 32, func(ctx context.Context, m *herd.Machine) error {
		p, err := f.client.NodePlan(ctx, m.Name(), api.PlanQuery{Use: "clean"})
		if err != nil {
			return err
		}
		_, err = f.client.NodeVerb(ctx, m.Name(), "accept", api.NodeVerb{Plan: p.Digest})
		return err
	})
	f.states(machines, fleet.Available)
}

// nodes lists all nodes by name. A server that has just started may be too busy with who comes back to answer at once.
func (f *farm) nodes() map[string]api.Node {
	f.t.Helper()
	over := time.Now().Add(patience)
	for {
		l, err := f.client.Nodes(f.t.Context(), api.ListOptions{})
		if err == nil {
			all := make(map[string]api.Node, len(l.Items))
			for _, n := range l.Items {
				all[n.Name] = n
			}
			return all
		}
		if k := fleet.KindOf(err); k != fleet.Unavailable && k != fleet.Timeout || time.Now().After(over) {
			f.t.Fatalf("list nodes: %v\n%s", err, f.out.tail(20))
		}
		pause(f.t.Context(), time.Second)
	}
}

// pace is how often everything is looked at: not so often that looking costs more than what is looked at.
func (f *farm) pace(least time.Duration) time.Duration {
	return max(least, time.Duration(len(f.herd.Machines()))*time.Millisecond)
}

// states waits until all machines' nodes are in one state.
func (f *farm) states(machines []*herd.Machine, want fleet.State) {
	f.t.Helper()
	over := time.Now().Add(patience)
	for {
		all := f.nodes()
		var not []string
		for _, m := range machines {
			if n := all[m.Name()]; n.State != want {
				not = append(not, m.Name())
			}
		}
		if len(not) == 0 {
			return
		}
		if time.Now().After(over) {
			f.t.Fatalf("%d nodes are not %s, such as %s:\n%s\n%s", len(not), want, not[0], f.run("node", "explain", not[0]), f.run("node", "timeline", not[0]))
		}
		pause(f.t.Context(), f.pace(100*time.Millisecond))
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
