package disk

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Sanitize actions (NVM Express Base 2.0, figure 303).
const (
	sanitizeExit   = 1
	sanitizeBlock  = 2
	sanitizeOver   = 3
	sanitizeCrypto = 4
	// unrestricted lets the drive be used again after a sanitize that failed (AUSE).
	unrestricted = 1 << 3

	actionMask = 7
)

// sanitize starts the action and waits for its end.
func sanitize(action uint32) func(context.Context, *eraser) error {
	return func(ctx context.Context, e *eraser) error {
		before, err := readSanitizeLog(ctx, e.admin)
		if err != nil {
			return err
		}
		command := action
		if e.policy.Level != Purge {
			command |= unrestricted // a weaker method may follow
		}
		e.evidence.CDW10, e.evidence.LogBefore = fmt.Sprintf("%#08x", command), hex.EncodeToString(before.raw)
		if err := e.admin.Admin(ctx, Command{Opcode: opSanitize, CDW10: command}); err != nil {
			return err
		}
		// From here on only the drive can end it: an abort of ours must not leave a half sanitized drive in anybody's hands.
		ctx = context.WithoutCancel(ctx)
		log, ran, err := e.awaitSanitize(ctx, before.limit(action))
		if err != nil {
			return err
		}
		e.evidence.LogAfter = hex.EncodeToString(log.raw)
		switch {
		case log.state == sanFailed && command&unrestricted != 0:
			return errors.Join(errors.New("the drive reports that the sanitize failed"), e.exitFailure(ctx))
		case log.state == sanFailed:
			return errors.New("the drive reports that the sanitize failed")
		case log.command != command:
			return fmt.Errorf("the log is about command %#x, not ours (%#x)", log.command, command)
		case !ran && e.evidence.LogBefore == e.evidence.LogAfter:
			return errors.New("the log did not change: nothing shows that the drive did anything")
		}
		return nil
	}
}

// awaitSanitize waits while the drive sanitizes, with its own progress, and returns the log that ends it; ran: it was seen at work.
func (e *eraser) awaitSanitize(ctx context.Context, limit time.Duration) (log sanitizeLog, ran bool, err error) {
	for start := e.now(); ; {
		if log, err = readSanitizeLog(ctx, e.admin); err != nil {
			return log, ran, err
		}
		switch log.state {
		case sanRunning:
			ran = true
			e.meter.set(int64(float64(e.h.size) * float64(log.progress) / 65536))
		case sanDone, sanDoneDe, sanFailed:
			return log, ran, nil
		}
		if e.now().Sub(start) > limit {
			return log, ran, e.overdue(log, limit)
		}
		if err := e.wait(ctx, time.Second); err != nil {
			return log, ran, err
		}
	}
}

func (e *eraser) overdue(log sanitizeLog, limit time.Duration) error {
	at := e.h.dev.Place
	if at == "" {
		at = "a place that nobody told"
	}
	return fleet.Errorf(fleet.Broken, "MC-ERASE-SANITIZE", "the drive with the serial %s in %s is at %d %% of its sanitize after %s, and was to be done by then", e.h.dev.Serial, at, int(log.progress)*100/65536, limit).
		WithHint("it goes on by itself, and the next cleaning waits for it: metalctl node clean NODE; a drive that never ends has to be replaced and destroyed")
}

// takeOver comes first of all: a sanitize that somebody started goes on through resets and power cycles, and while it runs, or where it failed, the drive does
// nothing else. A drive that is stuck with one that failed is let out, or sanitized until it takes reads and writes again.
func (e *eraser) takeOver(ctx context.Context, sanitizes []method) error {
	log, err := readSanitizeLog(ctx, e.admin)
	if err != nil {
		return err
	}
	if log.state == sanRunning {
		e.evidence.TakenOver = fmt.Sprintf("a sanitize (%#x) of before was at %d %%", log.command, int(log.progress)*100/65536)
		if log, _, err = e.awaitSanitize(ctx, log.limit(log.command&actionMask)); err != nil {
			return err
		}
		e.evidence.TakenOver += "; waited for its end"
	}
	if log.state != sanFailed {
		return nil
	}
	said := fmt.Sprintf("a sanitize (%#x) of before had failed", log.command)
	if e.evidence.TakenOver != "" {
		said = e.evidence.TakenOver + ", and it failed"
	}
	left := e.exitFailure(ctx)
	if left == nil {
		e.evidence.TakenOver = said + "; the drive left its failure mode"
		return nil
	}
	causes := []error{fmt.Errorf("leave the failure mode: %w", left)}
	for _, m := range sanitizes {
		if err := m.run(ctx, e); err != nil {
			if fleet.CodeOf(err) == "MC-ERASE-SANITIZE" {
				return err
			}
			causes = append(causes, fmt.Errorf("%s: %w", m.name, err))
			continue
		}
		e.evidence.TakenOver = said + "; ended by " + m.name
		return nil
	}
	return fleet.Errorf(fleet.Broken, "MC-ERASE-FAILED", "%s, and the drive takes nothing else: %w", said, errors.Join(causes...)).
		WithHint("metalctl node show NODE; the drive has to be replaced and destroyed")
}

// exitFailure lets the drive be used again after a sanitize that failed; it refuses where that was to be so only by another sanitize.
func (e *eraser) exitFailure(ctx context.Context) error {
	return e.admin.Admin(ctx, Command{Opcode: opSanitize, CDW10: sanitizeExit})
}

// maxSanitize bounds what is waited for one drive: the step has six hours for all of it, and says nothing of the drive.
const maxSanitize = 5*time.Hour + 30*time.Minute

// limit is twice the drive's own estimate for an action; where it gives none, ten minutes for a crypto erase and four hours for others.
func (l sanitizeLog) limit(action uint32) time.Duration {
	seconds := uint32(0)
	if i := map[uint32]int{sanitizeOver: 0, sanitizeBlock: 1, sanitizeCrypto: 2}; action >= sanitizeBlock && action <= sanitizeCrypto {
		seconds = l.estimate[i[action]]
	}
	switch {
	case seconds != 0 && seconds != 0xffffffff:
		return min(2*time.Duration(seconds)*time.Second+time.Minute, maxSanitize)
	case action == sanitizeCrypto:
		return 10 * time.Minute
	}
	return 4 * time.Hour
}
