package reconcile

import (
	"context"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// Console reads what machines say on their serial consoles, where a BMC keeps that.
type Console interface {
	// ConsoleLines returns the lines behind position after (-1: the beginning), oldest first, and the position to go on from. A BMC that keeps no
	// console gives none.
	ConsoleLines(ctx context.Context, id fleet.NodeID, after int64) ([]ConsoleLine, int64, error)
}

// ConsoleLine is one line of a console. At is zero where nobody knows when it was said.
type ConsoleLine struct {
	At   time.Time
	Text string
}

// Firmware tells how a machine's firmware boots.
type Firmware interface {
	// SecureBoot is Redfish's SecureBootCurrentBoot: "Enabled", "Disabled", or "" where it is not known.
	SecureBoot(ctx context.Context, id fleet.NodeID) (string, error)
}

// maxConsoleLines of one look go onto the timeline; of more, the last.
const maxConsoleLines = 500

// markConsole notes where a machine's console ends before a boot, so that what it says from then on is this boot's. Only boots of the agent are
// followed: the console of a tenant's system is the tenant's.
func (l *Loop) markConsole(f step.Func) step.Func {
	return func(ctx context.Context, c step.Call) (step.Outcome, error) {
		ask, cancel := context.WithTimeout(ctx, l.CallDeadline)
		_, end, err := l.Console.ConsoleLines(ask, c.Node, -1)
		cancel()
		if err != nil {
			l.Log.DebugContext(ctx, "the console is not read", fleet.LogNode, l.nameOf(ctx, c.Node), "err", err) // the boot goes on without its lines
		} else {
			l.setConsole(c.Node, end)
		}
		return f(ctx, c)
	}
}

func (l *Loop) setConsole(id fleet.NodeID, at int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.consoles[id] = at
}

// dropConsole forgets how far a console was read; the next boot marks it anew.
func (l *Loop) dropConsole(id fleet.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.consoles, id)
}

// followConsole puts what the machine said since the last look onto the timeline of its boot. After a restart of the server only lines with a time of
// this boot count at first.
func (l *Loop) followConsole(ctx context.Context, n *fleet.Node) {
	if l.Console == nil || l.Timeline == nil {
		return
	}
	l.mu.Lock()
	after, marked := l.consoles[n.ID]
	l.mu.Unlock()
	if !marked {
		after = -1
	}
	ask, cancel := context.WithTimeout(ctx, l.CallDeadline)
	defer cancel()
	lines, end, err := l.Console.ConsoleLines(ask, n.ID, after)
	if err != nil {
		l.Log.DebugContext(ctx, "the console is not read", fleet.LogNode, n.Name, "err", err)
		return
	}
	l.setConsole(n.ID, end)
	for _, line := range lines[max(0, len(lines)-maxConsoleLines):] {
		if line.At.IsZero() || line.At.After(l.Now()) {
			if !marked {
				continue
			}
			line.At = l.Now()
		}
		if !marked && line.At.Before(n.Boot.IssuedAt) {
			continue
		}
		l.Timeline.AppendTimeline(n.ID, fleet.TimelineEntry{At: line.At.UTC(), Source: "serial", Generation: n.Boot.Generation, Text: line.Text})
	}
}

// secureBoot asks the BMC; what cannot be known is "".
func (l *Loop) secureBoot(ctx context.Context, id fleet.NodeID) string {
	if l.Firmware == nil {
		return ""
	}
	ask, cancel := context.WithTimeout(ctx, min(l.CallDeadline, verdictLead/2))
	defer cancel()
	s, err := l.Firmware.SecureBoot(ask, id)
	if err != nil {
		l.Log.DebugContext(ctx, "the Secure Boot state is not known", fleet.LogNode, l.nameOf(ctx, id), "err", err)
	}
	return s
}
