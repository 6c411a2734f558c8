package main

import (
	"context"
	"errors"

	"github.com/metalctl/metalctl/agent"
	"github.com/metalctl/metalctl/agent/burn"
	"github.com/metalctl/metalctl/agent/kmsg"
	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// burnPlace is where stages of a burn-in run.
type burnPlace struct {
	// root is the folder of a machine that is not there; "" is this machine.
	root string
	// fixture is what reports call it; "" is real hardware.
	fixture string
	// speed is how much faster than the clock its time goes; 0 is 1.
	speed int
	// simulated makes the folder for GPUs that are shown on this machine and are not there; nil: there are none.
	simulated func() (string, error)
}

// stage runs one stage. Rooms that know nothing of each other meet here: what a stage is, processors, memory and disks, and GPUs.
func (b burnPlace) stage(ctx context.Context, t agent.BurnTask) (part fleet.BurnPart, err error) {
	m := burn.Machine{Read: t.Read, Files: sysfs.New(b.root), Fixture: b.fixture, Speed: b.speed}
	gpus := m.Files
	if b.fixture == "" {
		m.Logs = []string{kmsg.Device}
		m.Stressors = map[string]burn.Func{
			fleet.StressCPU: burn.CPU(burn.ThisCPU()), fleet.StressMemory: burn.Memory(burn.ThisMemory), fleet.StressDisks: burn.Disks(t.Accepted, burn.ThisDrive),
		}
		if b.simulated != nil {
			dir, err := b.simulated()
			if err != nil {
				return part, err
			}
			if dir != "" { // such GPUs say in passes what real ones say in minutes, however slow this machine is
				gpus, m.Speed = sysfs.New(dir), fixtureSpeed
			}
		}
	} else if err := standIns(b.root, &m); err != nil {
		return part, err
	}
	if b.fixture == "" || b.root != "" { // a process without a folder has no GPUs, whatever its host has
		end, err := loadGPUs(ctx, gpus, &m)
		if err != nil {
			return part, err
		}
		defer func() { err = errors.Join(err, end()) }()
	} else {
		for _, s := range fleet.Stressors {
			if s.Part == "gpu" {
				m.Stressors[s.Name] = noGPUs
			}
		}
	}
	part, err = burn.Stage(ctx, m, t.Stage, t.Round, t.Progress)
	if part.Fixture == "" && part.Before != nil {
		part.Fixture = part.Before.Simulated // GPUs that are made up make what is measured no proof of hardware
	}
	return part, err
}
