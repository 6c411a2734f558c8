package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// world is a rack and a server, run by the built program, and a shell to type in.
type world struct {
	t    *testing.T
	dir  string
	bin  string
	env  []string
	rack rackStatus
}

type rackStatus struct {
	Nodes    string
	Machines []struct {
		Name, State string
		SerialLog   string `json:"serial_log"`
		Disks       []struct {
			File, Serial string
			Size         int64 `json:"size_bytes"`
		}
		Ports []struct{ MAC string }
		Netns string
	}
	Ethernet *struct {
		Server, Fleet string
		Switches      []struct{ Dir, Netns string }
	}
}

// newWorld brings a rack up from a lab file and a server that nodes reach, with further arguments. Both end with the test.
func newWorld(t *testing.T, lab string, server ...string) *world {
	t.Helper()
	return newWorldOf(t, lab, nil, server...)
}

// newWorldOf is newWorld with further arguments for building the ramdisk.
func newWorldOf(t *testing.T, lab string, ramdisk []string, server ...string) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("long: boots machines")
	}
	w := &world{t: t, dir: t.TempDir(), bin: "../../bin/metalctl", env: os.Environ()}
	if b := os.Getenv("METALCTL_BIN"); b != "" {
		w.bin = b
	}
	if _, err := os.Stat(w.bin); err != nil {
		t.Skip("bin/metalctl is missing; run make build")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("qemu-system-x86_64 is missing; run make setup")
	}
	kernel := w.script("kernel.sh", "cloud")
	w.must(append([]string{"ramdisk", "build", "--lab", "--kernel", kernel, "-o", w.path("boot.iso")}, ramdisk...)...)
	w.write("lab.yaml", lab)
	w.startRack()
	w.startServer(server...)
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, text string) string {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return w.path(name)
}

// script runs one of the repository's scripts and returns its last line.
func (w *world) script(name string, args ...string) string {
	w.t.Helper()
	cmd := exec.Command("../../scripts/"+name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

func (w *world) startRack() {
	w.t.Helper()
	cmd := exec.Command(w.bin, "sim", "up", "-f", w.path("lab.yaml"), "--dir", w.path("rack"), "--verbose")
	w.background("rack", cmd, func() { _ = exec.Command(w.bin, "sim", "down", "--dir", w.path("rack")).Run() })
	w.eventually("the rack", 5*time.Minute, func() bool {
		out, err := exec.Command(w.bin, "sim", "status", "--dir", w.path("rack"), "-o", "json").Output()
		return err == nil && json.Unmarshal(out, &w.rack) == nil
	})
}

func (w *world) startServer(further ...string) {
	w.t.Helper()
	if w.rack.Ethernet != nil {
		further = append(further, "--config", w.rack.Ethernet.Server)
	}
	cmd := exec.Command(w.bin, append([]string{"server", "--listen", "127.0.0.1:0", "--data-dir", w.path("data"), "--ramdisk", w.path("boot.iso"),
		"--advertise-nodes", "https://10.0.2.2"}, further...)...)
	log := w.background("server", cmd, func() { _ = cmd.Process.Signal(os.Interrupt) })
	url := ""
	w.eventually("the server", 5*time.Minute, func() bool {
		for s := bufio.NewScanner(strings.NewReader(log.String())); s.Scan(); {
			if u, ok := strings.CutPrefix(s.Text(), "metalctl server at "); ok {
				url = u
			}
		}
		return url != ""
	})
	w.env = append(w.env, "METALCTL_SERVER="+url, "METALCTL_TOKEN_FILE="+w.path("data/admin.token"), "METALCTL_CACERT="+w.path("data/ca.pem"))
}

// lines is a writer that several goroutines may use.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// background starts a command that ends with the test: stop asks it to, and after two minutes it is killed.
func (w *world) background(name string, cmd *exec.Cmd, stop func()) *lines {
	w.t.Helper()
	out := &lines{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	w.t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				w.t.Errorf("%s ended badly: %v\n%s", name, err, tail(out.String(), 30))
			}
		case <-time.After(5 * time.Minute):
			_ = cmd.Process.Kill()
			w.t.Errorf("%s did not end", name)
		}
		if w.t.Failed() {
			w.t.Logf("%s said last:\n%s", name, tail(out.String(), 30))
		}
	})
	return out
}

func tail(s string, n int) string {
	l := strings.Split(s, "\n")
	return strings.Join(l[max(0, len(l)-n):], "\n")
}

// run types a command and returns what it printed and its exit code.
func (w *world) run(args ...string) (stdout, stderr string, code int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.bin, args...)
	cmd.Env = w.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	start := time.Now()
	err := cmd.Run()
	w.t.Logf("%6.1fs metalctl %s", time.Since(start).Seconds(), strings.Join(args, " "))
	if err != nil && cmd.ProcessState == nil {
		w.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must is run for a command that has to work; it returns what it printed.
func (w *world) must(args ...string) string {
	w.t.Helper()
	out, errs, code := w.run(args...)
	if code != 0 {
		w.t.Fatalf("metalctl %s: exit code %d\n%s%s\nserial logs:\n%s", strings.Join(args, " "), code, out, tail(errs, 30), w.serials())
	}
	return out
}

func (w *world) serials() string {
	var b strings.Builder
	for _, m := range w.rack.Machines {
		text, _ := os.ReadFile(m.SerialLog) // only for the message
		fmt.Fprintf(&b, "--- %s\n%s\n", m.Name, tail(string(text), 15))
	}
	return b.String()
}

// get decodes what a command prints as JSON.
func get[T any](w *world, args ...string) T {
	w.t.Helper()
	var v T
	if out := w.must(append(args, "-o", "json")...); json.Unmarshal([]byte(out), &v) != nil {
		w.t.Fatalf("metalctl %s printed no JSON of that shape: %s", strings.Join(args, " "), out)
	}
	return v
}

func (w *world) eventually(what string, limit time.Duration, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: not within %s\n%s", what, limit, w.serials())
		}
	}
}

// diskDigests are the digests of every disk of the rack: what anybody outside can see of them.
func (w *world) diskDigests() map[string]string {
	w.t.Helper()
	sums := map[string]string{}
	for _, m := range w.rack.Machines {
		for _, d := range m.Disks {
			f, err := os.Open(d.File)
			if err != nil {
				w.t.Fatal(err)
			}
			h := sha256.New()
			_, err = io.Copy(h, f)
			f.Close()
			if err != nil {
				w.t.Fatal(err)
			}
			sums[d.File] = hex.EncodeToString(h.Sum(nil))
		}
	}
	return sums
}
