package ramdisk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// buildInit builds the test's PID 1 from testdata.
func buildInit(t *testing.T) []byte { return buildAgent(t, "./testdata/init") }

// buildAgent builds a program as the ramdisk's agent is built.
func buildAgent(t *testing.T, dir string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "init")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "ramdisk,netgo,osusergo", "-ldflags", "-s -w", "-o", out, dir)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", dir, err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func needKernel(t *testing.T, flavour string) Kernel {
	t.Helper()
	k, err := FindKernel(flavour)
	if err != nil {
		t.Skipf("no %s kernel here: %v", flavour, err)
	}
	return k
}

func needFiles(t *testing.T, files ...string) {
	t.Helper()
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			t.Skipf("needed for this test: %v", err)
		}
	}
}

func testCredential(t *testing.T, node string, network *fleet.BootNetwork) []byte {
	t.Helper()
	c := &fleet.Credential{
		Version: 1, Node: node, Generation: 7, Token: fleet.NewSecret("0123456789abcdef"),
		Servers:  []fleet.ServerRef{{URL: "https://10.0.2.2:8443", KeyPin: "sha256/" + strings.Repeat("A", 43) + "="}},
		IssuedAt: time.Date(2099, 1, 2, 3, 4, 5, 0, time.UTC), Network: network,
	}
	b, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// writeMedium writes what one node would be served to a file.
func writeMedium(t *testing.T, iso *ISO, cred []byte) string {
	t.Helper()
	r, err := iso.Overlay(cred)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "node.iso")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, io.NewSectionReader(r, 0, iso.Size)); err != nil {
		t.Fatal(err)
	}
	return path
}

// machine is how a test wants its QEMU machine.
type machine struct {
	code, vars string // OVMF's files
	args       []string
	secure     bool
	press      string // when the serial line says this, the power button is pressed
}

// qemu boots iso and returns what the serial line said until the machine went off, or until it said one of until.
func qemu(t *testing.T, iso string, m machine, until ...string) string {
	t.Helper()
	if m.code == "" {
		m.code, m.vars = "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"
	}
	needFiles(t, m.code, m.vars)
	bin, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "qemu.lock"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // one machine at a time: this host has few cores
		t.Fatal(err)
	}
	vars, err := os.ReadFile(m.vars)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	varsCopy := filepath.Join(dir, "vars.fd")
	if err := os.WriteFile(varsCopy, vars, 0o600); err != nil {
		t.Fatal(err)
	}
	serial := filepath.Join(dir, "serial.log")
	chipset := "q35"
	if m.secure {
		chipset = "q35,smm=on"
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	args := []string{"-machine", chipset, "-accel", "tcg", "-m", "1024", "-nodefaults", "-display", "none", "-no-reboot",
		"-serial", "file:" + serial,
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + m.code, "-drive", "if=pflash,format=raw,unit=1,file=" + varsCopy,
		"-device", "virtio-rng-pci"}
	if m.secure {
		args = append(args, "-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1")
	}
	monitor := ""
	if m.press != "" {
		short, err := os.MkdirTemp("", "q") // the path of a socket has at most 107 bytes
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(short)
		monitor = filepath.Join(short, "monitor")
		args = append(args, "-monitor", "unix:"+monitor+",server=on,wait=off")
	}
	args = append(args, m.args...)
	args = append(args, "-drive", "if=none,id=cd,format=raw,media=cdrom,readonly=on,file="+iso)
	cmd := exec.CommandContext(ctx, bin, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			b, _ := os.ReadFile(serial)
			if err != nil {
				t.Errorf("qemu: %v\n%s", err, out.String())
			}
			return string(b)
		case <-tick.C:
			b, _ := os.ReadFile(serial)
			if monitor != "" && bytes.Contains(b, []byte(m.press)) {
				c, err := net.Dial("unix", monitor)
				if err == nil {
					_, err = c.Write([]byte("system_powerdown\n"))
					defer c.Close()
				}
				if err != nil {
					t.Error(err)
				}
				monitor = ""
			}
			for _, word := range until {
				if bytes.Contains(b, []byte(word)) {
					_ = cmd.Process.Kill()
					<-ended
					return string(b)
				}
			}
		}
	}
}

// cdOn is a CD drive on the bus that the test is about.
func cdOn(bus string) []string {
	switch bus {
	case "usb":
		return []string{"-device", "qemu-xhci", "-device", "usb-storage,drive=cd,removable=on,bootindex=0"}
	case "scsi":
		return []string{"-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=cd,bootindex=0"}
	}
	return []string{"-device", "ide-cd,drive=cd,bootindex=0"}
}

func wantLines(t *testing.T, log string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(log, w) {
			t.Errorf("the serial line lacks %q", w)
		}
	}
	if t.Failed() {
		t.Logf("serial line:\n%s", log)
	}
}

// TestBootLab boots the ISO with the cloud kernel under OVMF to the test's PID 1.
func TestBootLab(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	needFiles(t, DefaultStub)
	iso, err := Build(t.Context(), Options{Agent: buildInit(t), Kernel: needKernel(t, "cloud"), Lab: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(describe(iso))
	lines := []string{"TEST credential node=hgx-001.example generation=7 token=16 servers=1", "TEST clock-ok true", "TEST hostname hgx-001",
		"TEST efi-variables true", "TEST medium node=hgx-001.example", "panic at 2099-", "TEST guarded the agent panicked: on purpose", "TEST done", "reboot: Power down"}
	for _, c := range []struct {
		name    string
		network *fleet.BootNetwork
		args    []string
		want    []string
	}{
		{"DHCP from whoever answers", nil, []string{"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"},
			[]string{"TEST network link=eth0 mtu=1500 addresses=[10.0.2.15/24", "gateways=[10.0.2.2", "dns=[10.0.2.3]"}},
		{"a tag on a bond of two cards and addresses of both versions", &fleet.BootNetwork{
			Bond: &fleet.BondConfig{Members: []string{"52:54:00:00:00:01", "52:54:00:00:00:02"}, Mode: "active-backup"},
			VLAN: 120, MTU: 1400, Addresses: []string{"10.1.0.11/24", "fd00:1::11/64"}, Gateway: "10.1.0.1", DNS: []string{"10.1.0.2"}},
			[]string{"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01",
				"-netdev", "user,id=n1", "-device", "virtio-net-pci,netdev=n1,mac=52:54:00:00:00:02"},
			[]string{"TEST network link=bond0.120 mtu=1400 addresses=[10.1.0.11/24 fd00:1::11/64]", "gateways=[10.1.0.1]", "dns=[10.1.0.2]"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := qemu(t, writeMedium(t, iso, testCredential(t, "hgx-001.example", c.network)), machine{args: append(cdOn("scsi"), c.args...)})
			wantLines(t, log, append(lines, c.want...)...)
		})
	}
	t.Run("the power button ends the machine", func(t *testing.T) {
		log := qemu(t, writeMedium(t, iso, testCredential(t, "wait", nil)), machine{press: "power button found", args: cdOn("scsi")})
		wantLines(t, log, "its power button was pressed", "reboot: Power down")
	})
}

func describe(iso *ISO) string {
	var b strings.Builder
	fmt.Fprintf(&b, "kernel %s, %d bytes (%.1f MiB), missing %v\n", iso.KernelRelease, iso.Size, float64(iso.Size)/(1<<20), iso.Missing)
	for _, p := range iso.Parts {
		fmt.Fprintf(&b, "%-20s %10d %10d\n", p.Name, p.Bytes, p.Compressed)
	}
	return b.String()
}
