package reconcile

import (
	"context"
	"fmt"
	"regexp"
	"slices"
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
	// Signed: the kernel carries a signature for Secure Boot.
	Signed bool
}

// verdictLead is how long before a step's limit it must have its verdict.
const verdictLead = 15 * time.Second

// awaitAgent waits for the agent of this boot generation, and where it does not come says how far the boot went.
func (l *Loop) awaitAgent(ctx context.Context, c step.Call) (step.Outcome, error) {
	began := l.Now()
	looked, lost := began, false
	var seen bootSeen
	tick := time.NewTicker(l.Tick)
	defer tick.Stop()
	for {
		v, err := l.look(ctx, c.Node)
		if err != nil {
			return step.Outcome{}, err
		}
		n := v.node.v
		if up, _ := l.Agents.Up(c.Node, n.Boot.Generation); up && n.Boot.Generation > 0 {
			l.followConsole(ctx, n)
			l.dropConsole(c.Node)
			ev := map[string]any{"generation": n.Boot.Generation, "waited": l.Now().Sub(began).Round(time.Second).String()}
			if len(n.Boot.Stages) > 0 {
				ev["boot_stages"] = n.Boot.Stages
			}
			return step.Outcome{Evidence: ev}, nil
		}
		if n.Boot.Refused != "" {
			return step.Outcome{}, refusedAgent(n)
		}
		moved := l.Origin != "" && n.Boot.Origin != "" && n.Boot.Origin != l.Origin
		if moved && l.Now().Sub(began) >= l.MovedPatience {
			return step.Outcome{}, movedMedium(n)
		}
		deadline, _ := ctx.Deadline()
		select {
		case <-tick.C:
			if time.Until(deadline) > verdictLead {
				if now := l.Now(); now.Sub(looked) >= l.ConsoleTick {
					looked = now
					entries, err := l.bootEvidence(ctx, n)
					if err != nil {
						return step.Outcome{}, err
					}
					seen = seeBoot(*n, l.layout(*n), entries)
					verdict, sure := BootVerdict(*n, l.layout(*n), "", entries)
					if sure && lost && moved {
						return step.Outcome{}, movedMedium(n)
					}
					if sure && lost {
						return step.Outcome{}, verdict
					}
					lost = sure // what is seen twice is not about to change
				}
				c.Progress(seen.stage(*n, l.layout(*n)), 0, 0)
				continue
			}
			entries, err := l.bootEvidence(ctx, n)
			if err != nil {
				return step.Outcome{}, err
			}
			verdict, _ := BootVerdict(*n, l.layout(*n), l.secureBoot(ctx, n.ID), entries)
			return step.Outcome{}, verdict
		case <-ctx.Done():
			return step.Outcome{}, ctx.Err()
		}
	}
}

func (l *Loop) layout(n fleet.Node) MediaLayout {
	if l.Layout == nil {
		return MediaLayout{}
	}
	return l.Layout(n)
}

// refusedAgent ends the wait for an agent that came and that the server does not work with: another boot from the same medium would end alike.
func refusedAgent(n *fleet.Node) error {
	return fleet.Errorf(fleet.Refused, "MC-AGENT-VERSION", "the agent came up and was refused: %s", n.Boot.Refused).
		WithHint("give the node a ramdisk of this server, then: metalctl node retry %s", n.Name)
}

// codeMoved ends the wait for a machine whose medium is another server's: the boot is begun anew with a medium of this one.
const codeMoved = "MC-BOOT-MOVED"

func movedMedium(n *fleet.Node) error {
	return fleet.Errorf(fleet.Unavailable, codeMoved, "the agent of boot generation %d did not come, and its medium is served by %s, which acts no more", n.Boot.Generation, n.Boot.Origin).
		WithHint("metalctl node retry %s", n.Name)
}

// bootEvidence reads the console, and the timeline of the node's boot generation.
func (l *Loop) bootEvidence(ctx context.Context, n *fleet.Node) ([]fleet.TimelineEntry, error) {
	l.followConsole(ctx, n)
	if l.Timeline == nil {
		return nil, nil
	}
	entries, err := l.Timeline.ReadTimeline(ctx, n.ID, n.Boot.IssuedAt, 0)
	if err != nil {
		return nil, fmt.Errorf("read the timeline: %w", err)
	}
	return entries, nil
}

// BootVerdict says how far a boot went whose agent never called: from what was read of its medium, from what its console said, and from secure, the
// firmware's Secure Boot state ("" where it is not known). sure says that the console showed the end of this boot. It is pure.
func BootVerdict(n fleet.Node, layout MediaLayout, secure string, entries []fleet.TimelineEntry) (verdict error, sure bool) {
	header := layout.HeaderBytes
	if header == 0 {
		header = 64 << 10
	}
	b := seeBoot(n, layout, entries)
	read, last, kernel, said := b.read, b.last, b.kernel, b.said
	serial := said.tail()
	look := "metalctl node timeline " + n.Name
	switch {
	case read == 0:
		return fleet.Errorf(fleet.Broken, "MC-BOOT-MEDIA-UNREAD", "the boot medium was never read: the BMC did not mount it, or cannot reach the server%s", serial).
			WithHint("check that the BMC reaches the server's advertise address, or listen_boot where it cannot do https: %s", look), false
	case last <= header:
		return fleet.Errorf(fleet.Broken, "MC-BOOT-FIRMWARE", "the BMC mounted the medium and read its headers up to byte %d, but the firmware never booted from it%s", last, serial).
			WithHint("check the boot order and Secure Boot in the firmware: %s", look), false
	case layout.KernelBytes > 0 && kernel < layout.KernelBytes:
		return fleet.Errorf(fleet.Broken, "MC-BOOT-MEDIA-CUT", "the firmware began to read the kernel and stopped at byte %d, after %d of %d bytes%s", last, kernel, layout.KernelBytes, serial).
			WithHint("the BMC's connection to the server broke, or the firmware gave up: %s", look), false
	case said.death != "":
		return fleet.Errorf(fleet.Broken, "MC-BOOT-KERNEL", "the kernel started and died; the console says: %s", said.death).
			WithHint("the lines before it say why: %s", look), true
	case said.kernel:
		return fleet.Errorf(fleet.Broken, "MC-BOOT-KERNEL", "the kernel started, and the agent found no way to the server%s", serial).
			WithHint("look at the node's boot_network, and whether the machine's network reaches the server: %s", look), false
	case said.refusal != "":
		return fleet.Errorf(fleet.Broken, "MC-BOOT-REFUSED", "the firmware read the kernel whole and refused it; the console says: %s", said.refusal).
			WithHint("sign the ramdisk with a key that this firmware trusts (metalctl ramdisk build --sign-key), or enrol its key there: %s", look), true
	case secure == "Enabled" && !layout.Signed:
		return fleet.Errorf(fleet.Broken, "MC-BOOT-REFUSED", "the firmware read the kernel whole and started nothing: Secure Boot is on, and this server's ramdisk is not signed%s", serial).
			WithHint("sign the ramdisk with a key that this firmware trusts (metalctl ramdisk build --sign-key), or switch Secure Boot off: %s", look), false
	}
	return fleet.Errorf(fleet.Broken, "MC-BOOT-KERNEL", "the kernel was read whole (last byte %d), and neither it nor the agent spoke: the kernel died, or the agent found no way to the server%s", last, serial).
		WithHint("look at the console, and at the node's boot_network: %s", look), false
}

// bootSeen is what a boot has shown so far: the bytes that were read of its medium, the end of the last of them, how many are of the kernel, and its console.
type bootSeen struct {
	read, last, kernel int64
	said               console
}

func seeBoot(n fleet.Node, layout MediaLayout, entries []fleet.TimelineEntry) (b bootSeen) {
	for _, e := range entries {
		switch {
		case e.Source == "media" && e.Generation == n.Boot.Generation && e.Length > 0:
			end := e.Offset + e.Length
			b.read += e.Length
			b.last = max(b.last, end)
			b.kernel += max(0, min(end, layout.KernelOffset+layout.KernelBytes)-max(e.Offset, layout.KernelOffset))
		case e.Source == "serial" && e.Generation == n.Boot.Generation:
			b.said.hear(e.Text)
		}
	}
	return b
}

// stage is how far the boot is, for whoever watches it. It is in words only: bytes of the kernel are a small part of a boot's time.
func (b bootSeen) stage(n fleet.Node, layout MediaLayout) string {
	wait := fmt.Sprintf("waiting for the agent of boot generation %d", n.Boot.Generation)
	switch {
	case b.said.kernel && b.kernel > 0:
		return "the kernel runs, " + wait
	case b.kernel > 0 && b.kernel < layout.KernelBytes:
		return fmt.Sprintf("the machine has read %d %% of the kernel from its boot medium", 100*b.kernel/layout.KernelBytes)
	case b.kernel > 0:
		return "the kernel was read, " + wait
	case b.read > 0:
		return "the BMC has mounted the boot medium, " + wait
	}
	return wait
}

// console is what a boot's lines come to.
type console struct {
	last, refusal, death string
	// kernel: a Linux kernel spoke.
	kernel bool
}

// What firmware says of an image that it does not trust (EDK II's boot manager; AMI Aptio), what a kernel says first, and what it says last.
var (
	refusals = []string{"Access Denied", "Security Violation", "Secure Boot Violation", "Invalid signature detected"}
	starts   = []string{"Linux version ", "Command line: ", "EFI stub: ", "Run /init as init process"}
	deaths   = []string{"Kernel panic", "Attempted to kill init"}
)

func (c *console) hear(line string) {
	if line = strings.TrimSpace(line); line == "" {
		return
	}
	c.last = line
	has := func(words []string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(line, w) })
	}
	switch {
	case has(deaths):
		c.kernel = true
		if c.death == "" {
			c.death = cut(line, 160)
		}
	case has(starts), kernelStamp.MatchString(line):
		c.kernel = true
	case has(refusals):
		c.refusal = cut(line, 160)
	}
}

// kernelStamp is the time since the start that a kernel puts before each line.
var kernelStamp = regexp.MustCompile(`^\[ *[0-9]+\.[0-9]{6}\] `)

func (c *console) tail() string {
	if c.last == "" {
		return ""
	}
	return "; the console's last line: " + cut(c.last, 160)
}
