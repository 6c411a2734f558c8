package e2e

import (
	"strings"
	"testing"
)

const sickLab = `machines:
  - name: sick-1
    mode: qemu
    profile: hgx-h200
    fault: burn-gpu-sm
    cpus: 2
    memory_bytes: 1073741824
    disks: [{size_bytes: 268435456}]
`

// shortBurnIn loads what a sick SM shows in, and a part that is well. The machines are too small to take memory from.
const shortBurnIn = `---
kind: Profile
name: short
rounds: 1
stages:
  - {name: gpu-tensor, stress: [gpu-tensor], seconds: 10}
  - {name: cpu, stress: [cpu], seconds: 10}
`

const sickSite = `kind: Site
isolation: none
` + shortBurnIn + `---
kind: Class
name: eight
expect:
  gpus: {count: 8}
burnin: short
erase: {level: clear}
`

// TestSickGPU takes a machine whose GPU 3 computes wrongly from a BMC address to the verdict, in one boot: the agent of the real ramdisk loads the GPUs by the driver
// library, in children, and nobody is given the machine.
func TestSickGPU(t *testing.T) {
	w := newWorld(t, sickLab)
	w.must("site", "apply", "-f", w.write("fleet.yaml", sickSite))
	w.must("node", "enroll", "-f", w.rack.Nodes)
	w.must("node", "set", "sick-1", "--class", "eight")
	w.must("node", "inspect", "sick-1")
	w.must("node", "accept", "sick-1", "--yes")
	if out, errs, code := w.run("wait", "node/sick-1", "--for", "state=managed", "--timeout", "4m"); code != 0 {
		t.Log(out, errs)
		for _, f := range []string{"text", "json"} {
			x, _, _ := w.run("burnin", "report", "sick-1", "--format", f)
			t.Log(x)
		}
	}
	n := get[struct {
		State  string
		Dirty  string
		Faults []struct{ Code, Component string }
	}](w, "node", "show", "sick-1")
	if n.State != "managed" || n.Dirty != "" {
		t.Errorf("after burn-in: %+v", n)
	}
	named := false
	for _, f := range n.Faults {
		named = named || f.Code == "MC-BURN-DATA" && f.Component == "gpu/3"
		if !strings.HasPrefix(f.Component, "gpu/3") && f.Component != "plan/burn" {
			t.Errorf("a part is blamed that is well: %+v", f)
		}
	}
	if !named {
		t.Errorf("nobody blames GPU 3: %+v", n.Faults)
	}
	report := w.must("burnin", "report", "sick-1")
	for _, want := range []string{"FAIL", "gpu/3", "SM "} {
		if !strings.Contains(report, want) {
			t.Errorf("the report does not tell of %q:\n%s", want, report)
		}
	}
}
