//go:build !ramdisk

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/metalctl/metalctl/fixtures/rack"
)

// bootsKey is where the newest boot of each machine is.
type bootsKey struct{}

// boots are the newest boots of the machines of a script's rack.
type boots struct {
	mu   sync.Mutex // guards last
	last map[string]scriptBoot
}

// scriptBoot is one boot of one machine: what its agent was told, and how its agent is ended while the machine stays on.
type scriptBoot struct {
	spec rack.ProcessSpec
	kill context.CancelFunc
}

// watch notes each boot.
func (b *boots) watch(start rack.ProcessStarter) rack.ProcessStarter {
	return func(ctx context.Context, p rack.Process) error {
		ctx, kill := context.WithCancel(ctx)
		defer kill()
		b.mu.Lock()
		b.last[p.Name] = scriptBoot{p.Spec, kill}
		b.mu.Unlock()
		return start(ctx, p)
	}
}

func (b *boots) of(ts *testscript.TestScript, machine string) scriptBoot {
	b.mu.Lock()
	defer b.mu.Unlock()
	boot, ok := b.last[machine]
	if !ok {
		ts.Fatalf("%s has not booted yet", machine)
	}
	return boot
}

// scriptKillAgent ends a machine's agent, as a kernel that hangs does; the machine stays on.
func scriptKillAgent(ts *testscript.TestScript, neg bool, args []string) {
	ts.Value(bootsKey{}).(*boots).of(ts, args[0]).kill()
}

// scriptThief is another machine that got hold of the boot medium of MACHINE: it says that it is that one, with a key of its own. What it is told goes
// to thief.log.
func scriptThief(ts *testscript.TestScript, neg bool, args []string) {
	boot := ts.Value(bootsKey{}).(*boots).of(ts, args[0])
	spec := boot.spec
	spec.Disks, spec.EFIVars, spec.Packs = nil, "", ts.MkAbs("thief")
	description, err := json.Marshal(spec)
	ts.Check(err)
	self, err := exec.LookPath("metalctl")
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "agent", "process")
	cmd.Stdin = bytes.NewReader(description)
	out, err := cmd.CombinedOutput()
	ts.Check(os.WriteFile(ts.MkAbs("thief.log"), out, 0o600))
	if err == nil || ctx.Err() != nil {
		ts.Fatalf("the thief was not refused (%v):\n%s", ctx.Err(), out)
	}
}

// scriptClock sets the server's clock by so much, against the time that really passes.
func scriptClock(ts *testscript.TestScript, neg bool, args []string) {
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	ts.Value(clockKey{}).(*atomic.Int64).Add(int64(d))
}

// scriptPull makes a disk of a machine die; with a serial, a new one comes into its place.
func scriptPull(ts *testscript.TestScript, neg bool, args []string) {
	i, err := strconv.Atoi(args[1])
	ts.Check(err)
	if len(args) == 3 {
		ts.Check(machineOf(ts, args[0]).ReplaceDisk(i, args[2]))
		return
	}
	ts.Check(machineOf(ts, args[0]).PullDisk(i))
}

// scriptSmallDisk mounts a file system of so many MiB.
func scriptSmallDisk(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	if os.Geteuid() != 0 {
		ts.Fatalf("small-disk: mounting a file system needs root")
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "mode=700,size="+args[1]+"M", "metalctl-script", dir).CombinedOutput(); err != nil {
		ts.Fatalf("mount: %v: %s", err, out)
	}
	ts.Defer(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			ts.Fatalf("umount: %v: %s", err, out)
		}
	})
}

// scriptFillDisk writes a file until its file system is full.
func scriptFillDisk(ts *testscript.TestScript, neg bool, args []string) {
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if err := f.Close(); err != nil {
		ts.Logf("the last byte was one too many: %v", err)
	}
}

// scriptRot changes bytes in the middle of the only file below a folder that is as large as a given one.
func scriptRot(ts *testscript.TestScript, neg bool, args []string) {
	like, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	var found []string
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() == like.Size() {
			found = append(found, path)
		}
		return err
	}))
	if len(found) != 1 {
		ts.Fatalf("%d files have the size of %s: %v", len(found), args[1], found)
	}
	f, err := os.OpenFile(found[0], os.O_RDWR, 0)
	ts.Check(err)
	_, err = f.WriteAt([]byte("these bytes rotted"), like.Size()/2)
	ts.Check(errors.Join(err, f.Close()))
}

// scriptPassword changes the password at the BMC, and ends every session there.
func scriptPassword(ts *testscript.TestScript, neg bool, args []string) {
	m := machineOf(ts, args[0])
	at := m.Status().BMC
	call := func(method, path, body string) []byte {
		req, err := http.NewRequest(method, at.URL+"/redfish/v1"+path, strings.NewReader(body))
		ts.Check(err)
		req.SetBasicAuth(at.User, at.Password)
		req.Header.Set("Content-Type", "application/json")
		c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: (*ts.Value(rackKey{}).(**rack.Rack)).CA().Pool()}}}
		defer c.CloseIdleConnections()
		resp, err := c.Do(req)
		ts.Check(err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		ts.Check(err)
		if resp.StatusCode >= 300 {
			ts.Fatalf("%s %s: %s: %s", method, path, resp.Status, b)
		}
		return b
	}
	var sessions struct {
		Members []struct {
			ID string `json:"@odata.id"`
		}
	}
	ts.Check(json.Unmarshal(call(http.MethodGet, "/SessionService/Sessions", ""), &sessions))
	for _, s := range sessions.Members {
		call(http.MethodDelete, strings.TrimPrefix(s.ID, "/redfish/v1"), "")
	}
	call(http.MethodPatch, "/AccountService/Accounts/1", fmt.Sprintf(`{"Password":%q}`, args[1]))
}
