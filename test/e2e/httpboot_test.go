package e2e

import (
	"os"
	"strings"
	"testing"
)

const mediumlessLab = `machines:
  - name: demo-1
    mode: qemu
    cpus: 2
    memory_bytes: 1073741824
    disks: [{size_bytes: 268435456}]
    bmc: {no_media: true}
`

// plainSite is for machines that show what QEMU emulates and no more.
const plainSite = `kind: Site
isolation: none
---
kind: Class
name: demo
expect: {nvme: {count: 1}}
burnin: none
erase: {level: clear}
`

// TestHTTPBoot boots the agent without virtual media: the BMC is given the address, firmware fetches the medium over its own network card, and the agent
// registers with the credential on it. One boot.
func TestHTTPBoot(t *testing.T) {
	w := newWorld(t, mediumlessLab, "--listen-boot", "127.0.0.1:0")
	w.must("site", "apply", "-f", w.write("fleet.yaml", plainSite))
	w.must("node", "enroll", "-f", w.rack.Nodes)
	w.must("node", "set", "demo-1", "--class", "demo")
	w.must("node", "inspect", "demo-1")
	n := get[struct {
		node
		Boot struct {
			Unauthenticated bool
		}
	}](w, "node", "show", "demo-1")
	if n.State != "managed" || n.Agent != "up" || len(n.Faults) != 0 {
		t.Errorf("after inspection: %+v", n)
	}
	if !n.Boot.Unauthenticated {
		t.Error("a medium that went over http leaves a boot path that nobody authenticated, and the node's record does not say so")
	}
	timeline := w.must("node", "timeline", "demo-1")
	for _, want := range []string{"asked for the size by 127.0.0.1 over http", "read by 127.0.0.1 over http", "registered"} {
		if !strings.Contains(timeline, want) {
			t.Errorf("the timeline does not tell of %q:\n%s", want, timeline)
		}
	}
	serial, err := os.ReadFile(w.rack.Machines[0].SerialLog)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(serial), "BMC override UefiHttp") {
		t.Errorf("the firmware booted something else:\n%s", tail(string(serial), 30))
	}
}
