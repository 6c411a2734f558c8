package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

func needBench(t *testing.T) {
	t.Helper()
	if os.Getenv("METALCTL_BENCH") != "1" {
		t.Skip("bench: set METALCTL_BENCH=1 to measure")
	}
}

const benchLab = `machines:
  - name: demo-1
    mode: qemu
    cpus: 2
    memory_bytes: 1073741824
    disks: [{size_bytes: 268435456}]
`

// stages are the parts of the way from power-on to the agent's first word, in order.
var stages = []string{"firmware, to its first read of the medium", "reading the medium (kernel image)", "EFI stub, unpacking the kernel", "kernel, to PID 1",
	"PID 1, to an address", "address to registered"}

// TestBenchBoot prints the seconds from power-on to the agent's first word, by stage: medians of three boots of a QEMU machine without KVM under OVMF.
func TestBenchBoot(t *testing.T) {
	needBench(t)
	var boots [][]time.Duration
	for range 3 {
		t.Run("boot", func(t *testing.T) {
			w := newWorld(t, benchLab)
			w.must("site", "apply", "-f", w.write("fleet.yaml", site))
			w.must("node", "enroll", "-f", w.rack.Nodes)
			w.must("node", "set", "demo-1", "--class", "demo")
			w.must("node", "inspect", "demo-1")
			serial, err := os.ReadFile(w.rack.Machines[0].SerialLog)
			if err != nil {
				t.Fatal(err)
			}
			boots = append(boots, bootStages(t, get[[]moment](w, "node", "timeline", "demo-1"), string(serial)))
		})
	}
	if t.Failed() {
		return
	}
	total := time.Duration(0)
	for _, b := range boots {
		fmt.Printf("boot (QEMU without KVM): by stage %.1f s\n", seconds(b))
	}
	for i, name := range stages {
		m := median(boots, func(b []time.Duration) time.Duration { return b[i] })
		fmt.Printf("boot (QEMU without KVM): %-44s %6.1f s\n", name, m.Seconds())
	}
	total = median(boots, func(b []time.Duration) (sum time.Duration) {
		for _, d := range b {
			sum += d
		}
		return sum
	})
	fmt.Printf("boot (QEMU without KVM): %-44s %6.1f s, median of %d\n", "power-on to registered", total.Seconds(), len(boots))
}

func seconds(all []time.Duration) []float64 {
	var out []float64
	for _, d := range all {
		out = append(out, d.Seconds())
	}
	return out
}

func median[T any](all []T, of func(T) time.Duration) time.Duration {
	var d []time.Duration
	for _, a := range all {
		d = append(d, of(a))
	}
	slices.Sort(d)
	return d[len(d)/2]
}

type moment struct {
	At     time.Time
	Source string
	Text   string
}

var (
	kernelAt = regexp.MustCompile(`^\[ *([0-9]+\.[0-9]+)\] `)
	lineTime = regexp.MustCompile(`^time=(\S+) level=`)
	moduleIn = regexp.MustCompile(`msg="modules loaded" pass=1 .*seconds=([0-9.]+)`)
)

// bootStages joins the server's timeline and the machine's console. The server's clock counts power-on, the reads (to within a second: it joins neighbours)
// and registering; the agent's lines lie as far before its registered line as they say; the kernel took as long as its last line before the agent's says.
func bootStages(t *testing.T, timeline []moment, serial string) []time.Duration {
	t.Helper()
	var power, first, last, registered time.Time
	for _, m := range timeline {
		switch {
		case m.Source == "redfish" && strings.Contains(m.Text, "POST") && strings.Contains(m.Text, "ComputerSystem.Reset"):
			power = m.At
		case m.Source == "media" && !power.IsZero() && registered.IsZero():
			if first.IsZero() {
				first = m.At
			}
			last = m.At
		case m.Source == "agent" && strings.HasPrefix(m.Text, "registered from "):
			registered = m.At
		}
	}
	kernel := time.Duration(0)
	var pid1, address, said time.Time // by the guest's clock
	for s := bufio.NewScanner(strings.NewReader(serial)); s.Scan(); {
		line := strings.TrimRight(s.Text(), "\r")
		stamp := lineTime.FindStringSubmatch(line)
		if stamp == nil {
			if k := kernelAt.FindStringSubmatch(line); k != nil && pid1.IsZero() {
				up, err := strconv.ParseFloat(k[1], 64)
				if err != nil {
					t.Fatal(err)
				}
				kernel = time.Duration(up * float64(time.Second))
			}
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, stamp[1])
		if err != nil {
			t.Fatal(err)
		}
		switch m := moduleIn.FindStringSubmatch(line); {
		case m != nil && pid1.IsZero():
			took, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			pid1 = at.Add(-time.Duration(took * float64(time.Second)))
		case strings.Contains(line, `msg="network is up"`) && address.IsZero():
			address = at
		case strings.Contains(line, `msg=registered`) && said.IsZero():
			said = at
		}
	}
	for name, at := range map[string]time.Time{"power-on": power, "a read of the medium": first, "registering": registered, "PID 1's first line": pid1,
		"the network's line": address, "the registered line": said} {
		if at.IsZero() {
			t.Fatalf("the timeline and the console do not tell of %s", name)
		}
	}
	pid1, address = registered.Add(-said.Sub(pid1)), registered.Add(-said.Sub(address))
	points := []time.Time{power, first, last, pid1.Add(-kernel), pid1, address, registered}
	var out []time.Duration
	for i := range stages {
		out = append(out, points[i+1].Sub(points[i]))
	}
	return out
}

// TestBenchMemory prints what a server process weighs with no node and with a thousand whose BMCs refuse connections.
func TestBenchMemory(t *testing.T) {
	needBench(t)
	w := &world{t: t, dir: t.TempDir(), bin: "../../bin/metalctl"}
	w.must("ramdisk", "build", "--lab", "--kernel", w.script("kernel.sh", "cloud"), "-o", w.path("boot.iso"))
	empty, peak := w.serverMemory()
	fmt.Printf("server memory: %5d nodes: resident %5.1f MiB, at most %5.1f MiB\n", 0, empty, peak)
	const nodes = 1000
	db, err := store.Open(w.path("data"), store.Options{KeyFile: w.path("data/master.key")})
	if err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		if _, err := db.Commit(t.Context(), benchCreate(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	full, peak := w.serverMemory()
	fmt.Printf("server memory: %5d nodes: resident %5.1f MiB, at most %5.1f MiB; %.1f KiB a node, %.2f times an empty server\n", nodes, full, peak,
		(full-empty)*1024/nodes, full/empty)
}

func benchCreate(i int) fleet.Change {
	id := fleet.NodeID(fmt.Sprintf("0199a000-0000-7000-8000-%012d", i))
	created := time.Unix(1, 0).UTC()
	n := fleet.Node{ID: id, Name: fmt.Sprintf("hgx-%05d", i), BMC: fleet.BMC{Address: fmt.Sprintf("https://127.1.%d.%d:1", i/250, 1+i%250), User: "admin",
		TLS: fleet.BMCTLS{Pin: "sha256/" + strings.Repeat("A", 43) + "="}, Vendor: "Example", Model: "H200", Serial: fmt.Sprintf("S%08d", i)},
		State: fleet.Enrolled, Dirty: fleet.DirtyUnknown, StateSince: created, CreatedAt: created}
	for p := range 12 {
		n.Ports = append(n.Ports, fleet.Port{MAC: fleet.MAC(fmt.Sprintf("52:54:00:%02x:%02x:%02x", i>>8&255, i&255, p)), Role: "tenant", Switch: "leaf-1", Port: "swp1"})
	}
	key := fleet.KeyOf(fleet.KindNode, id)
	return fleet.Change{
		Writes: []fleet.Write{{Key: key, Value: n}, {Key: fleet.Key("unique/node-name/" + n.Name), Value: id}, {Key: fleet.Key("unique/bmc-address/" + n.BMC.Address), Value: id},
			{Key: fleet.KeyOf(fleet.KindSecret, id), Value: fleet.NewSecret("correct horse battery staple")}},
		Events: []fleet.Event{{Type: "node.created", Subject: key, Node: id, Text: "enrolled " + n.Name}},
	}
}

// serverMemory starts a server, lists its nodes twenty times once it serves, and reads resident and peak memory from the kernel, in MiB.
func (w *world) serverMemory() (resident, peak float64) {
	w.t.Helper()
	cmd := exec.Command(w.bin, "server", "--listen", "127.0.0.1:0", "--data-dir", w.path("data"), "--ramdisk", w.path("boot.iso"))
	out := &lines{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			w.t.Errorf("server: %v\n%s", err, tail(out.String(), 20))
		}
	}()
	url := ""
	w.eventually("the server", time.Minute, func() bool {
		for line := range strings.Lines(out.String()) {
			if u, ok := strings.CutPrefix(line, "metalctl server at "); ok {
				url = strings.TrimSpace(u)
			}
		}
		return url != ""
	})
	w.env = append(os.Environ(), "METALCTL_SERVER="+url, "METALCTL_TOKEN_FILE="+w.path("data/admin.token"), "METALCTL_CACERT="+w.path("data/ca.pem"))
	for range 20 {
		if out := w.must("node", "list", "-o", "json"); !json.Valid([]byte(out)) {
			w.t.Fatalf("node list printed no JSON: %.200s", out)
		}
	}
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "status"))
	if err != nil {
		w.t.Fatal(err)
	}
	return kib(w.t, string(text), "VmRSS") / 1024, kib(w.t, string(text), "VmHWM") / 1024
}

func kib(t *testing.T, status, field string) float64 {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + field + `:\s+(\d+) kB$`).FindStringSubmatch(status)
	if m == nil {
		t.Fatalf("the kernel does not tell %s", field)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
