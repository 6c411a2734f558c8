package fleet

// CleanPolicy is what a class asks of a cleaning beyond erasing disks.
type CleanPolicy struct {
	GPUs CleanGPUs `json:"gpus,omitzero"`
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
