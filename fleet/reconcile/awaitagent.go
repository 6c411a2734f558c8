package reconcile

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// MediaLayout is where the parts of the boot medium lie, in bytes from its start.
type MediaLayout struct {
	// HeaderBytes is the end of the volume descriptors and the boot catalog: what firmware reads to see that this is a boot CD at all.
	HeaderBytes int64
	// KernelOffset and KernelBytes are the unified kernel image within the medium.
	KernelOffset, KernelBytes int64
}

// verdictLead is how long before a step's limit it must have its verdict.
const verdictLead = 15 * time.Second

// awaitAgent waits for the agent of this boot generation, and where it does not come says how far the boot went.
func (l *Loop) awaitAgent(ctx context.Context, c step.Call) (step.Outcome, error) {
	began := l.Now()
	tick := time.NewTicker(l.Tick)
	defer tick.Stop()
	for {
		v, err := l.look(ctx, c.Node)
		if err != nil {
			return step.Outcome{}, err
		}
		n := v.node.v
		if up, _ := l.Agents.Up(c.Node, n.Boot.Generation); up && n.Boot.Generation > 0 {
			return step.Outcome{Evidence: map[string]any{"generation": n.Boot.Generation, "waited": l.Now().Sub(began).Round(time.Second).String()}}, nil
		}
		deadline, _ := ctx.Deadline()
		select {
		case <-tick.C:
			if time.Until(deadline) > verdictLead {
				c.Progress(fmt.Sprintf("waiting for the agent of boot generation %d", n.Boot.Generation), 0, 0)
				continue
			}
			return step.Outcome{}, l.bootVerdict(ctx, n)
		case <-ctx.Done():
			return step.Outcome{}, ctx.Err()
		}
	}
}

// bootVerdict reads the timeline of the node's boot generation.
func (l *Loop) bootVerdict(ctx context.Context, n *fleet.Node) error {
	var entries []fleet.TimelineEntry
	if l.Timeline != nil {
		var err error
		if entries, err = l.Timeline.ReadTimeline(ctx, n.ID, n.Boot.IssuedAt, 0); err != nil {
			return fmt.Errorf("read the timeline: %w", err)
		}
	}
	return BootVerdict(*n, l.Layout, entries)
}

// BootVerdict says from what was read of the boot medium how far a boot went whose agent never called. It is pure.
func BootVerdict(n fleet.Node, layout MediaLayout, entries []fleet.TimelineEntry) error {
	header := layout.HeaderBytes
	if header == 0 {
		header = 64 << 10
	}
	var read, last, kernel int64
	serial := ""
	for _, e := range entries {
		switch {
		case e.Source == "media" && e.Generation == n.Boot.Generation && e.Length > 0:
			end := e.Offset + e.Length
			read += e.Length
			last = max(last, end)
			kernel += max(0, min(end, layout.KernelOffset+layout.KernelBytes)-max(e.Offset, layout.KernelOffset))
		case e.Source == "serial" && strings.TrimSpace(e.Text) != "":
			serial = "; the console's last line: " + cut(strings.TrimSpace(e.Text), 160)
		}
	}
	look := "metalctl node timeline " + n.Name
	switch {
	case read == 0:
		return fleet.Errorf(fleet.Broken, "MC-BOOT-MEDIA-UNREAD", "the boot medium was never read: the BMC did not mount it, or cannot reach the server%s", serial).
			WithHint("check that the BMC reaches the server's advertise address, or listen_boot where it cannot do https: %s", look)
	case last <= header:
		return fleet.Errorf(fleet.Broken, "MC-BOOT-FIRMWARE", "the BMC mounted the medium and read its headers up to byte %d, but the firmware never booted from it%s", last, serial).
			WithHint("check the boot order and Secure Boot in the firmware: %s", look)
	case layout.KernelBytes > 0 && kernel < layout.KernelBytes:
		return fleet.Errorf(fleet.Broken, "MC-BOOT-MEDIA-CUT", "the firmware began to read the kernel and stopped at byte %d, after %d of %d bytes%s", last, kernel, layout.KernelBytes, serial).
			WithHint("the BMC's connection to the server broke, or the firmware gave up: %s", look)
	}
	return fleet.Errorf(fleet.Broken, "MC-BOOT-KERNEL", "the kernel was read whole (last byte %d), and neither it nor the agent spoke: the kernel died, or the agent found no way to the server%s", last, serial).
		WithHint("look at the console, and at the node's boot_network: %s", look)
}
