//go:build !ramdisk

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

var operationView = view[api.Operation]{
	name: func(o api.Operation) string { return "operation/" + string(o.ID) },
	columns: []column[api.Operation]{
		{"ID", false, func(o api.Operation) string { return string(o.ID) }},
		{"NODE", false, func(o api.Operation) string { return o.NodeName }},
		{"USE", false, func(o api.Operation) string { return o.Use }},
		{"STATE", false, func(o api.Operation) string { return string(o.State) }},
		{"PERCENT", false, func(o api.Operation) string { return fmt.Sprintf("%.0f", o.Percent) }},
		{"STEP", false, func(o api.Operation) string { n, _, _ := currentStep(o); return orDash(n) }},
		{"TOOK", false, func(o api.Operation) string { return took(o.StartedAt, o.EndedAt) }},
		{"ERROR", true, func(o api.Operation) string {
			if o.Error == nil {
				return "-"
			}
			return o.Error.Detail
		}},
	},
}

func took(from, to time.Time) string {
	if from.IsZero() {
		return "-"
	}
	if to.IsZero() {
		to = time.Now()
	}
	return to.Sub(from).Round(100 * time.Millisecond).String()
}

func operationNoun(p *program) *cobra.Command {
	return noun("operation", "What runs and what ran", operationList(p), operationShow(p), operationCancel(p))
}

func operationList(p *program) *cobra.Command {
	var o api.ListOptions
	c := &cobra.Command{
		Use: "list", Short: "List operations", Args: exactly(), Example: "  metalctl operation list --node hgx-001",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			ops, err := cl.Operations(c.Context(), o)
			if err != nil {
				return err
			}
			return operationView.print(p, ops.Items, false)
		},
	}
	c.Flags().StringVar(&o.Node, "node", "", "only this node's")
	c.Flags().StringVar(&o.State, "state", "", "only those in this state")
	return c
}

func operationShow(p *program) *cobra.Command {
	var follow bool
	c := &cobra.Command{
		Use: "show OPERATION...", Short: "Show an operation: every step with its time, tries and evidence; --follow shows how it goes on", Args: some("OPERATION"),
		Example: "  metalctl operation show 0199… -o json\n  metalctl operation show 0199… --follow",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			ids := make([]fleet.OperationID, len(args))
			for i, a := range args {
				ids[i] = operationID(a)
			}
			if follow {
				return followOperations(c.Context(), p, cl, ids)
			}
			for _, id := range ids {
				op, err := cl.Operation(c.Context(), id, 0)
				if err != nil {
					return err
				}
				if err := showOperation(p, op); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "follow it to its end; the exit code is its outcome")
	return c
}

// operationID takes an id as the program prints it, with or without its kind.
func operationID(arg string) fleet.OperationID {
	return fleet.OperationID(strings.TrimPrefix(arg, "operation/"))
}

func showOperation(p *program, op api.Operation) error {
	if !p.readable() {
		return operationView.print(p, []api.Operation{op}, true)
	}
	rows := [][]string{{"STEP", "STATE", "TRY", "TOOK", "EVIDENCE"}}
	for _, s := range op.Steps {
		ev := string(s.Evidence)
		if s.Error != nil {
			ev = s.Error.Detail
		}
		rows = append(rows, []string{s.Name, string(s.State), fmt.Sprint(s.Try), took(s.StartedAt, s.FinishedAt), printable(ev)})
	}
	return printTable(p.stdout, rows)
}

func operationCancel(p *program) *cobra.Command {
	var reason string
	var noWait bool
	c := &cobra.Command{
		Use: "cancel OPERATION", Short: "Ask an operation to stop where its step allows it, and follow it to its end", Args: exactly("OPERATION"),
		Example: "  metalctl operation cancel 0199… --reason 'wrong node'",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			op, err := cl.CancelOperation(c.Context(), operationID(args[0]), reason)
			if err != nil {
				return err
			}
			if !noWait && !op.State.Over() {
				ops, err := watchOperations(c.Context(), p, cl, []fleet.OperationID{op.ID})
				if err != nil {
					return err
				}
				op = ops[0]
			}
			return operationView.print(p, []api.Operation{op}, true)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why")
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it has stopped")
	return c
}

func eventsVerb(p *program) *cobra.Command {
	var follow bool
	var after int64
	c := &cobra.Command{
		Use: "events", Short: "Print committed changes; --follow waits for more", Args: exactly(), Example: "  metalctl events --follow -o jsonl",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			if !follow {
				ev, err := cl.EventsSince(c.Context(), after, 10_000)
				if err != nil {
					return err
				}
				return eventView.print(p, ev, false)
			}
			return cl.Events(c.Context(), after, func(e fleet.Event) error {
				if p.flags.output == "jsonl" || p.flags.output == "json" {
					v := eventView
					saved := p.flags.output
					p.flags.output = "jsonl"
					defer func() { p.flags.output = saved }()
					return v.print(p, []fleet.Event{e}, false)
				}
				_, err := fmt.Fprintf(p.stdout, "%d %s %s %s\n", e.ID, e.At.UTC().Format(time.RFC3339), e.Type, printable(e.Text))
				return err
			})
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on printing")
	c.Flags().Int64Var(&after, "after", 0, "only events with a greater id")
	return c
}

type waitOptions struct {
	want    string
	timeout time.Duration
}

func waitVerb(p *program) *cobra.Command {
	var o waitOptions
	c := &cobra.Command{
		Use: "wait (node/N | lease/L | operation/O)", Short: "Wait for a state; returns at once when it can no longer be reached", Args: exactly("OBJECT"),
		Example: "  metalctl wait node/hgx-001 --for state=available --timeout 30m",
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), p, args[0]) },
	}
	c.Flags().StringVar(&o.want, "for", "", "state=STATE")
	c.Flags().DurationVar(&o.timeout, "timeout", 30*time.Minute, "how long to wait")
	return c
}

func (o *waitOptions) run(ctx context.Context, p *program, object string) error {
	want, ok := strings.CutPrefix(o.want, "state=")
	if !ok {
		return usageError("wait: --for state=STATE is needed")
	}
	kind, id, _ := strings.Cut(object, "/")
	cl, err := p.client()
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	last := ""
	late := func() error {
		return fleet.Errorf(fleet.Timeout, "MC-CLI-WAIT", "%s is still %s after %s", object, last, o.timeout).WithHint("metalctl node explain NODE says what it waits for")
	}
	for {
		is, dead, err := waitState(ctx, cl, kind, id, want)
		ctx = bounded // the first look is not bounded: there is always a state to tell of
		switch {
		case err != nil && bounded.Err() != nil && last != "":
			return late()
		case err != nil:
			return err
		case is == want:
			_, err := fmt.Fprintf(p.stderr, "%s is %s\n", object, is)
			return err
		case dead != "":
			return &exitError{exitNodeFailed, fmt.Errorf("%s is %s and will not become %s: %s", object, is, want, dead)}
		}
		last = is
		select {
		case <-ctx.Done():
			return late()
		case <-time.After(time.Second):
		}
	}
}

// unleased are the states in which no lease has a node.
var unleased = []fleet.State{fleet.Enrolled, fleet.Inspecting, fleet.Managed, fleet.Cleaning, fleet.Burning, fleet.Available, fleet.Retired}

// failedFor says why a node on which nothing runs does not go on by itself: what it last did failed, or its BMC's credential was refused.
func failedFor(ctx context.Context, cl *api.Client, node, want string) (string, error) {
	e, err := cl.Explain(ctx, node)
	if err != nil || !e.Stuck() {
		return "", err
	}
	switch r := e.Reasons[0]; r.Kind {
	case "unfit":
		if slices.Contains(unleased, fleet.State(want)) { // what no lease may have can still be inspected, cleaned or retired
			return "", nil
		}
		fallthrough
	case "failed", "breaker":
		return r.Text + "; then: " + r.Command, nil
	}
	if slices.ContainsFunc(e.Reasons, func(r api.Reason) bool { return r.Kind == "failed" }) {
		return e.Reasons[0].Text + "; then: " + e.Reasons[0].Command, nil
	}
	return "", nil
}

// waitState reads the object's state, and why the wanted one can no longer be reached, or "".
func waitState(ctx context.Context, cl *api.Client, kind, id, want string) (is, dead string, err error) {
	switch kind {
	case "node":
		n, err := cl.Node(ctx, id)
		if err != nil {
			return "", "", err
		}
		if n.State == fleet.Retired {
			dead = "it is retired"
		} else if n.Operation == "" && n.Wish == nil && string(n.State) != want {
			if dead, err = failedFor(ctx, cl, id, want); err != nil {
				return "", "", err
			}
		}
		return string(n.State), dead, nil
	case "lease":
		l, err := cl.Lease(ctx, id)
		if err != nil {
			return "", "", err
		}
		if l.State.Over() {
			dead = "it is over: " + orDash(l.Fault)
		}
		return string(l.State), dead, nil
	case "operation":
		op, err := cl.Operation(ctx, fleet.OperationID(id), 0)
		if err != nil {
			return "", "", err
		}
		if op.State.Over() {
			dead = "it is over"
		}
		return string(op.State), dead, nil
	}
	return "", "", usageError("wait: %q is none of node/N, lease/L, operation/O", kind)
}
