package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// ErasePolicy says how thoroughly.
type ErasePolicy struct {
	// Level is the claim that must be reached; "" is Clear. A disk that cannot reach it is refused before it is touched.
	Level Claim `json:"level,omitempty"`
	// AcceptFormat counts an NVMe Format with secure erase, where it reaches all that the drive may hold, as a purge. Sites differ in that with the edition of
	// NIST SP 800-88 that they follow; since Rev. 2 (2025) it leaves techniques to IEEE 2883.
	AcceptFormat bool `json:"accept_format,omitempty"`
	// SamplePercent of the disk is read back at random places; 0: 1. At least 4 MiB and at most SampleMaxBytes (0: 1 GiB) are read.
	SamplePercent  float64 `json:"sample_percent,omitempty"`
	SampleMaxBytes int64   `json:"sample_max_bytes,omitempty"`
}

// EraseOptions are what Erase and EraseAll need of the machine.
type EraseOptions struct {
	Policy ErasePolicy
	// Admin opens a drive's admin queue and says how to close it; nil: OpenAdmin for NVMe disks. It is not called for others.
	Admin func(Device) (Admin, func() error, error)
	// Progress, where not nil, is called at most four times a second and at the end of a stage, for one disk never concurrently.
	Progress func(Device, Progress)
	// Now is the clock, Wait pauses; nil: the real ones.
	Now  func() time.Time
	Wait func(context.Context, time.Duration) error
}

// Evidence says what was done to a disk and what shows it.
type Evidence struct {
	Path      string `json:"path"`
	Serial    string `json:"serial"`
	Model     string `json:"model,omitempty"`
	Firmware  string `json:"firmware,omitempty"`
	SizeBytes int64  `json:"size_bytes"`
	// Method is what worked; Claim what may be said after it.
	Method string `json:"method"`
	Claim  Claim  `json:"claim"`
	// Refused are the better methods that did not work, with the reason.
	Refused []string `json:"refused,omitempty"`
	// CDW10, LogBefore and LogAfter are the NVMe command and the first 32 bytes of log page 0x81.
	CDW10     string `json:"cdw10,omitempty"`
	LogBefore string `json:"log_before,omitempty"`
	LogAfter  string `json:"log_after,omitempty"`
	// TakenOver says what was found of a sanitize of before, and what became of it.
	TakenOver string `json:"taken_over,omitempty"`
	// CanariesWritten blocks of known contents were spread over the disk before; CanariesFound of them were there after (always 0).
	CanariesWritten int `json:"canaries_written"`
	CanariesFound   int `json:"canaries_found"`
	// SampledBytes were read back at SampledPlaces; SampledZero says that all of them were zero.
	SampledBytes     int64     `json:"sampled_bytes"`
	SampledPlaces    int       `json:"sampled_places"`
	SampledZero      bool      `json:"sampled_zero"`
	SignaturesBefore []string  `json:"signatures_before,omitempty"`
	Started          time.Time `json:"started"`
	Finished         time.Time `json:"finished"`
}

// eraser is one run over one disk.
type eraser struct {
	h        *handle
	admin    Admin
	policy   ErasePolicy
	meter    *meter
	evidence Evidence
	now      func() time.Time
	wait     func(context.Context, time.Duration) error
}

// Erase erases one disk by the best method that it advertises and proves it: canaries that were written before are gone, samples of the
// whole disk read as the method leaves them, and both ends are zero. Whatever is not proven is an error (MC-ERASE-FAILED, MC-ERASE-VERIFY), and the
// disk must then not be handed on. It does not ask whether the disk may be erased: EraseAll does.
func Erase(ctx context.Context, dev Device, o EraseOptions) (ev Evidence, err error) {
	o = o.filled()
	e := &eraser{policy: o.Policy, now: o.Now, wait: o.Wait}
	e.evidence = Evidence{Path: dev.Path, Serial: dev.Serial, Model: dev.Model, SizeBytes: dev.SizeBytes, Started: e.now()}
	report := func(p Progress) {
		if o.Progress != nil {
			o.Progress(dev, p)
		}
	}
	mo := Options{Progress: report, Now: e.now}
	if e.h, err = open(dev, os.O_RDWR); err != nil {
		return e.evidence, fmt.Errorf("erase: %w", err)
	}
	defer func() { err = errors.Join(err, e.h.close()) }()
	if dev.Transport == "nvme" {
		admin, closeAdmin, err := o.Admin(dev)
		if err != nil {
			return e.evidence, fmt.Errorf("erase %s: %w", dev, err)
		}
		defer func() { err = errors.Join(err, closeAdmin()) }()
		e.admin = admin
	}
	e.meter = newMeter("erase", e.h.size, mo)
	if err := e.run(ctx, mo); err != nil {
		return e.evidence, fmt.Errorf("erase %s: %w", dev, err)
	}
	e.evidence.Finished = e.now()
	return e.evidence, nil
}

// filled has the real ones in place of what is nil.
func (o EraseOptions) filled() EraseOptions {
	if o.Admin == nil {
		o.Admin = OpenAdmin
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wait == nil {
		o.Wait = pause
	}
	return o
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *eraser) run(ctx context.Context, mo Options) error {
	all, err := e.methods(ctx)
	if err != nil {
		return err
	}
	var usable []method
	for _, m := range all {
		if e.policy.Level != Purge || m.claim == Purge {
			usable = append(usable, m)
		}
	}
	if len(usable) == 0 {
		return fleet.Errorf(fleet.Refused, "MC-ERASE-LEVEL", "the disk cannot be purged, only cleared (by %s): not touched", all[0].name).
			WithHint("set the class's erase.level to clear, or replace the drive")
	}
	if e.evidence.SignaturesBefore, err = e.h.signatures(); err != nil {
		return err
	}
	plan, err := newCanaries(e.h.size)
	if err != nil {
		return err
	}
	if err := plan.write(ctx, e.h); err != nil {
		return err
	}
	e.evidence.CanariesWritten = len(plan.offsets)
	used, err := e.firstThatWorks(ctx, usable)
	if err != nil {
		return err
	}
	e.evidence.Method, e.evidence.Claim = used.name, used.claim
	e.meter.end()
	e.meter = newMeter("sample", 0, mo)
	if err := e.verify(ctx, plan, used); err != nil {
		return err
	}
	e.meter.end()
	return nil
}

// firstThatWorks tries the methods in turn. A method that failed may have done part of its work, which does no harm: the next one does all of it.
func (e *eraser) firstThatWorks(ctx context.Context, list []method) (method, error) {
	var causes []error
	for _, m := range list {
		e.meter.set(0)
		err := m.run(ctx, e)
		if err == nil {
			err = e.h.flush()
		}
		if err == nil {
			return m, nil
		}
		if ctx.Err() != nil {
			return m, context.Cause(ctx)
		}
		if fleet.CodeOf(err) == "MC-ERASE-SANITIZE" {
			return m, err // the drive takes nothing else while it works
		}
		causes = append(causes, fmt.Errorf("%s: %w", m.name, err))
		e.evidence.Refused = append(e.evidence.Refused, m.name+": "+err.Error())
	}
	return method{}, fleet.Errorf(fleet.Broken, "MC-ERASE-FAILED", "no method worked: %w", errors.Join(causes...)).
		WithHint("metalctl node show NODE; the drive has to be replaced and destroyed")
}

func (m *meter) set(done int64) {
	m.mu.Lock()
	m.done = done
	m.mu.Unlock()
	m.add(0)
}
