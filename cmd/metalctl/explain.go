//go:build !ramdisk

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet/api"
)

// readable reports whether -o asks for words, and not for a form that programs read.
func (p *program) readable() bool {
	return p.flags.output == "" || p.flags.output == "table" || p.flags.output == "wide"
}

func nodeExplain(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "explain NODE", Short: "What the node waits for, since when, until when, and the command that unsticks it", Args: exactly("NODE"),
		Long: `Explain says in words what keeps a node where it is: what it waits for, since when and until when, what happens then by itself, and the exact
command that unsticks it. What counts most comes first. It asks the server alone and changes nothing.

With -o json, reasons[0].on says whom the node waits for: nobody, server, machine, time or person.`,
		Example: "  metalctl node explain hgx-001",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			e, err := cl.Explain(c.Context(), args[0])
			if err != nil {
				return err
			}
			if !p.readable() {
				v := view[api.Explain]{name: func(e api.Explain) string { return "node/" + e.Node }}
				return v.print(p, []api.Explain{e}, true)
			}
			return showExplain(p, e, time.Now())
		},
	}
}

func showExplain(p *program, e api.Explain, now time.Time) error {
	fmt.Fprintf(p.stdout, "%s is %s since %s (%s)\n", e.Node, e.State, e.Since.UTC().Format(time.RFC3339), span(now.Sub(e.Since)))
	if err := showReasons(p, e.Reasons, now); err != nil {
		return err
	}
	if e.Operation != "" && waitsForMachine(e) && !e.AgentHeard.IsZero() {
		fmt.Fprintf(p.stdout, "the agent is %s: it last spoke %s ago, and does so every half minute\n", printable(e.Agent), span(now.Sub(e.AgentHeard)))
	}
	if l := e.Last; l != nil && l.Stage != "" {
		fmt.Fprintf(p.stdout, "%s last said: %s (%s ago)\n", printable(e.Step), printable(l.Stage), span(now.Sub(l.At)))
	}
	var rows [][]string
	for _, a := range e.Next {
		if !isReason(e.Reasons, a.Command) {
			rows = append(rows, []string{"  " + a.Command, printable(a.Why)})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(p.stdout, "it takes, too:")
	return printTable(p.stdout, rows)
}

func waitsForMachine(e api.Explain) bool {
	return len(e.Reasons) > 0 && e.Reasons[0].On == api.OnMachine
}

func isReason(reasons []api.Reason, command string) bool {
	for _, r := range reasons {
		if r.Command == command {
			return true
		}
	}
	return false
}

// whom says in words whom a reason waits for.
var whom = map[string]string{
	api.OnNobody: "waits for nobody", api.OnServer: "waits for the server", api.OnMachine: "waits for the machine", api.OnTime: "waits for its time",
	api.OnPerson: "waits for you",
}

// showReasons prints what keeps a node or lease where it is.
func showReasons(p *program, reasons []api.Reason, now time.Time) error {
	for i, r := range reasons {
		head := "besides"
		if i == 0 {
			head = whom[r.On]
		}
		if err := showReason(p.stdout, head, r, now); err != nil {
			return err
		}
	}
	return nil
}

func showReason(w io.Writer, head string, r api.Reason, now time.Time) error {
	fmt.Fprintf(w, "%s: %s\n", head, printable(strings.ReplaceAll(r.Text, "\n  ", "; ")))
	when := ""
	if !r.Since.IsZero() {
		when = fmt.Sprintf("since %s (%s)", r.Since.UTC().Format(time.RFC3339), span(now.Sub(r.Since)))
	}
	if !r.Until.IsZero() {
		if when != "" {
			when += ", "
		}
		when += "until " + r.Until.UTC().Format(time.RFC3339)
		if left := r.Until.Sub(now); left > 0 {
			when += " (in " + span(left) + ")"
		}
	}
	if r.Then != "" {
		if when != "" {
			when += "; "
		}
		when += "then " + r.Then
	}
	if when != "" {
		fmt.Fprintf(w, "  %s\n", printable(when))
	}
	if r.Command != "" {
		fmt.Fprintf(w, "  %s: %s\n", commandWord(r), printable(r.Command))
	}
	if r.Code != "" {
		fmt.Fprintf(w, "  more: metalctl help %s\n", printable(r.Code))
	}
	return nil
}

// commandWord says what a reason's command is good for.
func commandWord(r api.Reason) string {
	switch {
	case r.Kind == "failed":
		return "when the cause is mended, type"
	case r.On == api.OnPerson:
		return "type"
	case r.Kind == "backoff":
		return "to try at once, type"
	case r.Kind == "bmc":
		return "to ask it now, type"
	case r.Kind == "agent", r.Kind == "undo":
		return "to wait no longer, type"
	case r.Kind == "grace" && r.On == api.OnTime:
		return "to wait no longer, type"
	}
	return "you may type"
}

// span is a duration in the two units that matter.
func span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours()/24), int(d.Hours())%24)
}

func firstText(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
