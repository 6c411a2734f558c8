package boot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
)

// patience bounds the waits of these tests: two slow cores.
const patience = 90 * time.Second

// tree writes files below a temporary folder and returns it.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestMountAll(t *testing.T) {
	dir := t.TempDir()
	points := []mountPoint{
		{"proc", dir + "/proc", "proc", noExec, "", false},
		{"sysfs", dir + "/sys", "sysfs", noExec, "", false},
		{"pstore", dir + "/sys/pstore", "pstore", noExec, "", true},
		{"tmpfs", dir + "/run", "tmpfs", noDev, "", false},
	}
	for _, c := range []struct {
		name   string
		refuse map[string]error
		mounts string
		err    error
	}{
		{"all goes well", nil, "proc sysfs pstore tmpfs", nil},
		{"the boot loader mounted proc already", map[string]error{"proc": unix.EBUSY}, "proc sysfs pstore tmpfs", nil},
		{"an optional one is not in this kernel", map[string]error{"pstore": unix.ENODEV}, "proc sysfs pstore tmpfs", nil},
		{"a needed one is refused", map[string]error{"sysfs": unix.EPERM}, "proc sysfs", unix.EPERM},
	} {
		t.Run(c.name, func(t *testing.T) {
			var kinds []string
			err := mountAll(points, func(_, _, kind string, _ uintptr, _ string) error {
				kinds = append(kinds, kind)
				return c.refuse[kind]
			})
			if got := strings.Join(kinds, " "); got != c.mounts || !errors.Is(err, c.err) {
				t.Errorf("mounted %s, %v; want %s, %v", got, err, c.mounts, c.err)
			}
		})
	}
}

func TestSweep(t *testing.T) {
	stat := func(pid int, name, state string, parent int) string {
		return fmt.Sprintf("%d (%s) %s %d 1 1 0 -1 4194560", pid, name, state, parent)
	}
	root := tree(t, map[string]string{
		"1/stat": stat(1, "init", "S", 0), "10/stat": stat(10, "orphan", "Z", 1), "11/stat": stat(11, "a) Z 1 (b", "S", 1),
		"12/stat": stat(12, "other's", "Z", 10), "13/stat": stat(13, "odd) name", "Z", 1), "14/stat": "broken", "self/stat": "",
	})
	var waited []int
	wait := func(pid int) { waited = append(waited, pid) }
	seen := sweep(root, 1, nil, wait)
	if diff := cmp.Diff(seen, map[int]bool{10: true, 13: true}); diff != "" || len(waited) != 0 {
		t.Errorf("first sweep waited for %v, saw (-got +want):\n%s", waited, diff)
	}
	if err := os.RemoveAll(filepath.Join(root, "13")); err != nil { // its own parent waited for it
		t.Fatal(err)
	}
	seen = sweep(root, 1, seen, wait)
	if diff := cmp.Diff(waited, []int{10}); diff != "" || len(seen) != 0 {
		t.Errorf("second sweep saw %v, waited (-got +want):\n%s", seen, diff)
	}
}

func TestUnmountOrder(t *testing.T) {
	mounts := "rootfs / rootfs rw 0 0\nproc /proc proc rw 0 0\n/dev/sda1 /mnt ext4 rw 0 0\n/dev/sda2 /mnt/my\\040data xfs rw 0 0\ntmpfs /run tmpfs rw 0 0\nbroken\n"
	if diff := cmp.Diff(unmountOrder(mounts), []string{"/mnt/my data", "/mnt"}); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
}

func TestEndIsForPID1Only(t *testing.T) {
	if err := Reboot(t.Context()); err == nil {
		t.Error("a test rebooted the machine")
	}
}

func TestAddedAlias(t *testing.T) {
	for _, c := range []struct{ name, event, want string }{
		{"a device appears", "add@/devices/x\x00ACTION=add\x00MODALIAS=usb:v46F4p0001\x00SEQNUM=1\x00", "usb:v46F4p0001"},
		{"a device changes", "change@/devices/x\x00ACTION=change\x00MODALIAS=a\x00", "a"},
		{"a device goes", "remove@/devices/x\x00ACTION=remove\x00MODALIAS=a\x00", ""},
		{"a device without a driver's name", "add@/devices/x\x00ACTION=add\x00", ""},
		{"nothing", "", ""},
	} {
		if got := addedAlias([]byte(c.event)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestUeventsEndWithContext(t *testing.T) {
	u, err := listenUevents()
	if err != nil {
		t.Skipf("this machine refuses uevent sockets: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := u.run(ctx, func(string) {}, func() {}); err != nil {
		t.Error(err)
	}
}

func TestGuard(t *testing.T) {
	now := func() time.Time { return time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC) }
	for _, c := range []struct {
		name    string
		sendErr error
		allowed bool
		f       func() error
		console []string
		err     string
		sent    bool
	}{
		{"no panic", nil, true, func() error { return nil }, nil, "", false},
		{"an error is not a panic", nil, true, func() error { return errors.New("plain") }, nil, "plain", false},
		{"a panic, shell forbidden", nil, false, func() error { panic("boom") }, []string{"panic at 2030-01-02T03:04:05Z", "boom", "guard.go"}, "panicked: boom", true},
		{"a panic, shell allowed", nil, true, func() error { panic(errors.New("nil map")) },
			[]string{"nil map", "SHELL"}, "nil map", true},
		{"the server does not answer", errors.New("no route"), false, func() error { panic("boom") }, []string{"did not reach the server: no route"}, "boom", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			var sent *Report
			g := Guarded{Console: &b, Now: now, Send: func(ctx context.Context, r Report) error {
				if _, ok := ctx.Deadline(); !ok {
					t.Error("sending has no deadline")
				}
				sent = &r
				return c.sendErr
			}}
			if c.allowed {
				g.Shell = func(context.Context) { b.WriteString("SHELL") }
			}
			err := Guard(t.Context(), g, c.f)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got error %v, want %q", err, c.err)
			}
			for _, w := range c.console {
				if !strings.Contains(b.String(), w) {
					t.Errorf("the console lacks %q:\n%s", w, b.String())
				}
			}
			if (sent != nil) != c.sent || sent != nil && !strings.Contains(sent.Stack, "boot_test.go") {
				t.Errorf("sent %+v, want %v", sent, c.sent)
			}
			if strings.Contains(b.String(), "SHELL") != (c.allowed && c.sent) {
				t.Errorf("shell: allowed %v, panic %v, console %q", c.allowed, c.sent, b.String())
			}
		})
	}
}

func TestKeepBeginsAgainAfterAPanic(t *testing.T) {
	var b bytes.Buffer
	calls := 0
	err := Keep(t.Context(), slog.New(slog.NewTextHandler(&b, nil)), "renewing", func(context.Context) error {
		if calls++; calls == 1 {
			panic("index out of range")
		}
		return io.ErrUnexpectedEOF
	})
	if !errors.Is(err, io.ErrUnexpectedEOF) || calls != 2 {
		t.Errorf("%d calls, %v", calls, err)
	}
	for _, w := range []string{"renewing", "index out of range", "boot_test.go"} {
		if !strings.Contains(b.String(), w) {
			t.Errorf("the log lacks %q: %s", w, b.String())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var p *fleet.Panic
	if err := Keep(ctx, slog.New(slog.DiscardHandler), "x", func(context.Context) error { panic("over") }); !errors.As(err, &p) || p.Reason != "over" {
		t.Errorf("after the end of the context: %v", err)
	}
}

func TestAPanicOfADHCPAnswerLeavesTheMachineUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var b bytes.Buffer
	asked := 0
	s := &NetworkState{Link: "lo", cfg: &fleet.BootNetwork{}, log: slog.New(slog.NewTextHandler(&b, nil))}
	err := Keep(ctx, s.log, "the second lease", s.second(func(context.Context, string, *lease) (*lease, error) {
		if asked++; asked == 1 {
			panic("a malformed answer")
		}
		cancel()
		return nil, errors.New("no server")
	}))
	if err != nil || asked != 2 || !strings.Contains(b.String(), "a malformed answer") {
		t.Errorf("asked %d times, %v: %s", asked, err, b.String())
	}
}

// terminal makes a pseudo terminal that stands in for a serial line, and a console on it.
func terminal(t *testing.T) (far *os.File, c *Console) {
	t.Helper()
	far, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { far.Close() })
	conn, err := far.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	if cerr := conn.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	dev := t.TempDir()
	if err := os.Symlink(fmt.Sprintf("/dev/pts/%d", number), filepath.Join(dev, "ttyS0")); err != nil {
		t.Fatal(err)
	}
	active := filepath.Join(dev, "active")
	if err := os.WriteFile(active, []byte("tty0 ttyS0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return far, OpenConsole(active, dev)
}

// readUntil collects what a terminal says until it says word.
func readUntil(t *testing.T, f *os.File, word string) string {
	t.Helper()
	if err := f.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var got []byte
	buf := make([]byte, 4096)
	for !strings.Contains(string(got), word) {
		n, err := f.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			t.Fatalf("%v after %q", err, got)
		}
	}
	return string(got)
}

func TestConsole(t *testing.T) {
	far, c := terminal(t)
	fmt.Fprintf(c, "hello\nworld\n")
	if got := readUntil(t, far, "world"); !strings.Contains(got, "hello\r") {
		t.Errorf("got %q", got)
	}
	c.Flush(patience)
	if err := c.Add("ttyS0,115200"); err != nil { // open already
		t.Error(err)
	}
	for _, spec := range []string{"ttyS9", "../../etc/passwd", "ttyS0x,1"} {
		if err := c.Add(spec); err == nil {
			t.Errorf("%s was opened", spec)
		}
	}
	// A terminal that nobody reads never holds a writer up.
	line := bytes.Repeat([]byte("x"), 1000)
	for range 4 * queued {
		if n, err := c.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
}

func TestShell(t *testing.T) {
	far, c := terminal(t)
	m := &Machine{Console: c}
	done := make(chan struct{})
	go func() { defer close(done); m.Shell(t.Context()) }()
	readUntil(t, far, "type help")
	for _, step := range []struct{ say, want string }{
		{"help", "dmesg: the kernel's messages"},
		{"cat /proc/self/mounts", "proc"},
		{"cat /no/such/file", "no such file"},
		{"ls /proc/self", "cmdline"},
		{"ps", "boot.test"},
		{"rm -rf /", "rm: no such command"},
		{"modprobe nvme", "no kernel modules are known"},
		{"reboot", "only PID 1"},
	} {
		if _, err := far.WriteString(step.say + "\n"); err != nil {
			t.Fatal(err)
		}
		readUntil(t, far, step.want)
	}
	if _, err := far.WriteString("exit\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("exit did not end the shell")
	}
}

func TestReadButton(t *testing.T) {
	event := func(kind, code uint16, value uint32) string {
		b := binary.LittleEndian.AppendUint16(make([]byte, 16), kind)
		b = binary.LittleEndian.AppendUint16(b, code)
		return string(binary.LittleEndian.AppendUint32(b, value))
	}
	for _, c := range []struct {
		name, events string
		pressed      bool
	}{
		{"pressed", event(0, 0, 0) + event(1, 116, 1), true},
		{"released only", event(1, 116, 0), false},
		{"another key", event(1, 30, 1), false},
		{"half an event", event(1, 116, 1)[:20], false},
		{"nothing", "", false},
	} {
		if err := readButton(strings.NewReader(c.events)); (err == nil) != c.pressed {
			t.Errorf("%s: got %v, want pressed %v", c.name, err, c.pressed)
		}
	}
}

func TestWatchButtons(t *testing.T) {
	root := tree(t, map[string]string{"class/event0/device/name": "AT Keyboard\n", "class/event1/device/name": "Power Button\n"})
	for _, name := range []string{"event0", "event1"} {
		if err := unix.Mkfifo(filepath.Join(root, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	pressed := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() { defer close(done); watchButtons(ctx, filepath.Join(root, "class"), root, quiet(), pressed) }()
	f, err := os.OpenFile(filepath.Join(root, "event1"), os.O_WRONLY, 0) // waits for the reader
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 24)
	binary.LittleEndian.PutUint16(b[16:], 1)
	binary.LittleEndian.PutUint16(b[18:], 116)
	binary.LittleEndian.PutUint32(b[20:], 1)
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	select {
	case <-pressed:
	case <-time.After(patience):
		t.Error("the button was not noticed")
	}
	cancel()
	<-done
}
