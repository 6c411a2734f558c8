package verdict

import "strings"

// fabric judges the fabric manager and what GPUs say of their place in the fabric: once for the node where all say the same.
func (j *judge) fabric() {
	if d := j.inv.GPUDriver; d != nil && (d.FabricManager == "failed" || d.FabricManager == "absent") {
		j.noFabric = j.block(finding{code: "MC-FABRIC-MANAGER", component: "fabric", want: "running", got: d.FabricManager, do: "reboot"},
			"the fabric manager is %s: links that are down, the fabric's state and the access of GPUs to each other follow from it", d.FabricManager)
	}
	if j.noFabric {
		return
	}
	type state struct{ code, got, words string }
	states := map[state][]int{}
	judged := 0
	for i, g := range j.inv.GPUs {
		if g.Fabric == nil || j.explained(j.names.gpu[i]) {
			continue
		}
		judged++
		f := g.Fabric
		switch {
		case f.State == "unsupported":
		case f.State != "completed":
			s := state{"MC-FABRIC-STATE", f.State, "did not complete its registration with the NVLink fabric: " + f.State}
			states[s] = append(states[s], i)
		case f.Status != "" && f.Status != "success":
			s := state{"MC-FABRIC-STATE", f.Status, "is refused by the NVLink fabric: " + f.Status}
			states[s] = append(states[s], i)
		case len(f.Unhealthy) > 0:
			bits := strings.Join(f.Unhealthy, ", ")
			s := state{"MC-FABRIC-HEALTH", bits, "is unhealthy in the NVLink fabric: " + bits}
			states[s] = append(states[s], i)
		}
	}
	for s, gpus := range states {
		f := finding{code: s.code, want: "completed", got: s.got, do: "reset"}
		if s.code == "MC-FABRIC-HEALTH" {
			f.want = "healthy"
		}
		if len(gpus) == judged && judged > 1 {
			f.component, f.do = "fabric", "reboot"
			j.block(f, "each of the %d GPUs %s", judged, s.words)
			continue
		}
		for _, i := range gpus {
			f.component = j.names.gpu[i] + "/fabric"
			if !j.covered["fabric"] {
				j.block(f, "%s %s", j.part(i), s.words)
			}
		}
	}
}
