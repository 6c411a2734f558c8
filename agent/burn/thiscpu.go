package burn

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// fullScale is the work of a kernel on real hardware: a pass over all takes some 50 ms.
const fullScale = 64

// thisCPU is the processor that this program runs on.
type thisCPU struct{}

// ThisCPU returns the machine's own processors.
func ThisCPU() Processor { return thisCPU{} }

// Cores are those that this process may run on: all of them on a machine of its own.
func (thisCPU) Cores() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	var out []int
	for i := 0; len(out) < set.Count(); i++ {
		if set.IsSet(i) {
			out = append(out, i)
		}
	}
	return out, nil
}

// Bind keeps the goroutine's thread, which ends with it, on one core, a little less urgent than what watches.
func (thisCPU) Bind(core int) (Compute, error) {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("sched_setaffinity: %w", err)
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 5); err != nil {
		return nil, fmt.Errorf("setpriority: %w", err)
	}
	return func(k Kernel, seed uint64) (uint64, time.Duration) {
		began := time.Now()
		digest := k.Run(seed, fullScale)
		return digest, time.Since(began)
	}, nil
}
