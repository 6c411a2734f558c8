package fleet

import "path"

// CleanPolicy is what a class asks of a cleaning beyond erasing disks.
type CleanPolicy struct {
	GPUs      CleanGPUs      `json:"gpus,omitzero"`
	Variables CleanVariables `json:"variables,omitzero"`
	// Memory is cleared by a cold-cycle, in which the machine is off for MemoryOffSeconds before the agent boots; it is left alone where empty, or keep.
	Memory string `json:"memory,omitempty" enum:"cold-cycle,keep"`
	// MemoryOffSeconds is 10 to 300; 0 means 60.
	MemoryOffSeconds int `json:"memory_off_seconds,omitempty"`
}

// CleanColdCycle is a policy for memory.
const CleanColdCycle = "cold-cycle"

// OffSeconds is how long the machine is off in a cold cycle. DRAM at room temperature keeps some of its content for seconds, cooled for minutes (Halderman et al.,
// Lest We Remember, 2008).
func (p CleanPolicy) OffSeconds() int {
	if p.MemoryOffSeconds == 0 {
		return 60
	}
	return p.MemoryOffSeconds
}

// CleanVariables is how a class wants the firmware's variables after a tenant: as they were when the node was accepted.
type CleanVariables struct {
	// Ignore are patterns such as Setup-* or *-ec87d643-eba4-4bb5-a1e5-3f3e36b20da9, over NAME-GUID, of variables that this firmware changes by itself.
	Ignore []string `json:"ignore,omitempty"`
}

// Ignores reports whether the class leaves a variable alone.
func (c CleanVariables) Ignores(v EFIVariable) bool {
	for _, p := range c.Ignore {
		if ok, err := path.Match(p, v.String()); ok && err == nil {
			return true
		}
	}
	return false
}
