package burn

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Drive is a disk that may be overwritten. Its methods may be called side by side.
type Drive interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Flush() error
	// Zero makes n bytes from off read as zeros.
	Zero(ctx context.Context, off, n int64) error
	Size() int64
	Close() error
	// Clock is a time that passes while the drive works.
	Clock() time.Duration
}

// Disks is the stressor of disks: on all accepted ones side by side it writes blocks that know their place, reads them again, and measures. accepted are those
// that somebody agreed to have overwritten; no other is opened. What was written is zeroed in the end.
func Disks(accepted []fleet.AcceptedDevice, open func(context.Context, fleet.Disk) (Drive, error)) Func {
	return func(ctx context.Context, l Load, say *Sink) error {
		began := time.Now()
		var runs []*diskRun
		for _, d := range l.Before.Disks {
			component := "disk/" + d.Name
			if why := untouchable(d, l.Before.Disks, accepted); why != "" {
				say.Untold(fleet.Untold{Check: "disk-mismatches", Component: component, Skipped: true, Cause: "denied", Words: why})
				continue
			}
			r := &diskRun{load: l, say: say, component: component, seed: mix(uint64(l.Before.TakenAt.UnixNano()) ^ uint64(l.Round)), kinds: map[string]int64{}, details: map[string][]string{}, unwritten: map[int64]bool{}, done: make(chan struct{})}
			runs = append(runs, r)
			go func() {
				defer close(r.done)
				err := fleet.Catch(func() error { return r.run(ctx, func() (Drive, error) { return open(ctx, d) }) })
				if err != nil {
					say.Untold(fleet.Untold{Check: "disk-mismatches", Component: component, Cause: causeOf(err), Words: err.Error()})
				}
			}()
		}
		for _, r := range runs {
			r.wait(ctx)
		}
		if len(runs) > 0 {
			say.Ran(fleet.StressRun{Stress: l.Stress, Engine: "builtin", Seconds: time.Since(began).Seconds() * float64(l.Speed)})
		} else if len(l.Before.Disks) == 0 {
			say.Untold(fleet.Untold{Check: l.Stress, Component: "node", Skipped: true, Cause: "no-device", Words: "this machine has no disks"})
		}
		return nil
	}
}

// untouchable says why a disk must not be overwritten, "" where it may.
func untouchable(d fleet.Disk, present []fleet.Disk, accepted []fleet.AcceptedDevice) string {
	i := slices.IndexFunc(accepted, func(a fleet.AcceptedDevice) bool {
		return a.Serial != "" && a.Serial == d.Serial && (a.Model == "" || a.Model == d.Model) && (a.SizeBytes == 0 || a.SizeBytes == d.SizeBytes)
	})
	here, agreed := 0, 0
	for _, x := range present {
		if x.Serial == d.Serial {
			here++
		}
	}
	for _, a := range accepted {
		if a.Serial == d.Serial {
			agreed++
		}
	}
	switch {
	case i >= 0 && here > agreed:
		return fmt.Sprintf("%d disks or namespaces have its serial number and %d were accepted: none is touched", here, agreed)
	case d.BootMedium:
		return "the agent was booted from it: not touched"
	case i < 0:
		return "nobody accepted that this disk is overwritten: not touched"
	case d.ReadOnly:
		return "the disk is write protected"
	}
	return ""
}
