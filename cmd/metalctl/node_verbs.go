//go:build !ramdisk

package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// verbDoc is what the CLI adds to a lifecycle verb: help, flags, and whether it must be confirmed.
type verbDoc struct {
	verb, short string
	// use is the kind of plan that --dry-run prints, "" where the verb runs none.
	use string
	// destroys: the verb names its target in full and asks unless --yes.
	destroys bool
	flags    func(c *cobra.Command, v *api.NodeVerb)
}

func reasonFlag(c *cobra.Command, v *api.NodeVerb) {
	c.Flags().StringVar(&v.Reason, "reason", "", "why")
}

var verbDocs = []verbDoc{
	{"inspect", "Find out what a node is made of; nothing is erased, a running machine is not restarted unasked", "inspect", false, func(c *cobra.Command, v *api.NodeVerb) {
		c.Flags().BoolVar(&v.AllowReboot, "allow-reboot", false, "restart the machine although it runs")
		c.Flags().BoolVar(&v.OutOfBand, "out-of-band", false, "ask the BMC only; boot nothing")
	}},
	{"accept", "Agree to the devices that may be erased, and clean the node", "clean", true, func(c *cobra.Command, v *api.NodeVerb) {
		c.Flags().StringSliceVar(&v.Devices, "device", nil, "serial of a device that may be erased (default: all that node show lists, which are printed first)")
	}},
	{"clean", "Erase every accepted device and prove it", "clean", true, func(c *cobra.Command, v *api.NodeVerb) {
		c.Flags().BoolVar(&v.WaiveGrace, "waive-grace", false, "do not wait for the end of the grace time")
	}},
	{"burn", "Burn the node in again", "burn", false, nil},
	{"rebuild", "Write the root disk of a leased node anew", "rebuild", true, func(c *cobra.Command, v *api.NodeVerb) {
		c.Flags().StringVar(&v.Image, "image", "", "another image than the lease's")
	}},
	{"release", "Take one node out of its lease", "release", true, nil},
	{"retire", "Take a clean node out of service", "", true, func(c *cobra.Command, v *api.NodeVerb) {
		c.Flags().StringSliceVar(&v.Destroyed, "destroyed", nil, "serials of media that were physically destroyed")
	}},
	{"retry", "Go on at the first unfinished step", "", false, nil},
	{"abort", "Stop what runs on the node, where its step allows it", "", false, reasonFlag},
	{"hold", "Hands off: start no further step on the node", "", false, reasonFlag},
	{"unhold", "End the hold", "", false, nil},
	{"protect", "Make the node refuse release, rebuild, erase and power-off", "", false, nil},
	{"unprotect", "End the protection", "", false, nil},
	{"repair", "Record that a part was replaced: the next inventory shows whether, and a burn-in follows", "", false, func(c *cobra.Command, v *api.NodeVerb) {
		c.Flags().StringVar(&v.Replaced, "replaced", "", "the part, such as gpu/3, dimm/A1, hca/mlx5_4 or disk/nvme2n1")
		c.Flags().StringVar(&v.OldSerial, "old", "", "serial of the part that was taken out")
		c.Flags().StringVar(&v.NewSerial, "new", "", "serial of the part that was put in")
		c.Flags().StringVar(&v.Note, "note", "", "what else is to be known: a ticket, a bay")
		c.Example = "  metalctl node repair hgx-001 --replaced gpu/3 --old 1654922000123 --new 1654923000456"
	}},
	{"clear-fault", "Clear a fault that a person looked into", "", false, func(c *cobra.Command, v *api.NodeVerb) {
		c.Flags().StringVar(&v.FaultCode, "code", "", "the fault's code")
		c.Flags().StringVar(&v.FaultComponent, "component", "", "the fault's component")
		reasonFlag(c, v)
	}},
}

func nodeVerbs(p *program) []*cobra.Command {
	var out []*cobra.Command
	for _, d := range verbDocs {
		out = append(out, nodeVerb(p, d))
	}
	return out
}

type verbOptions struct {
	body                api.NodeVerb
	yes, dryRun, noWait bool
	// agreed are the serials that accept printed, by node.
	agreed map[string][]string
}

func nodeVerb(p *program, d verbDoc) *cobra.Command {
	var o verbOptions
	c := &cobra.Command{
		Use: d.verb + " NODE...", Short: d.short, Args: some("NODE"),
		Example: "  metalctl node " + d.verb + " hgx-001",
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), p, d, args) },
	}
	f := c.Flags()
	if d.use != "" {
		f.BoolVar(&o.dryRun, "dry-run", false, "print the plan with its digest and change nothing")
		f.StringVar(&o.body.Plan, "plan", "", "run exactly the plan with this digest, or nothing")
		f.BoolVar(&o.noWait, "no-wait", false, "do not follow the work")
	}
	if d.destroys {
		f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	}
	if d.flags != nil {
		d.flags(c, &o.body)
	}
	return c
}

// printPlans prints what would run on each node.
func printPlans(ctx context.Context, p *program, cl *api.Client, names []string, q api.PlanQuery) error {
	for _, n := range names {
		plan, err := cl.NodePlan(ctx, n, q)
		if err != nil {
			return fmt.Errorf("plan %s of %s: %w", q.Use, n, err)
		}
		if err := printPlan(p, n, plan); err != nil {
			return err
		}
	}
	return nil
}

func (o *verbOptions) run(ctx context.Context, p *program, d verbDoc, args []string) error {
	names, err := expandHosts(args)
	if err != nil {
		return err
	}
	cl, err := p.client()
	if err != nil {
		return err
	}
	if o.dryRun {
		return printPlans(ctx, p, cl, names, api.PlanQuery{Use: d.use, Devices: o.body.Devices, OutOfBand: o.body.OutOfBand, AllowReboot: o.body.AllowReboot, Image: o.body.Image})
	}
	if d.verb == string(fleet.VerbAccept) {
		if err := o.show(ctx, p, cl, names); err != nil {
			return err
		}
	}
	if d.destroys && !o.yes {
		if err := p.confirm(fmt.Sprintf("%s %s?", d.verb, strings.Join(names, ", "))); err != nil {
			return err
		}
	}
	if err := leave(ctx, cl, api.Leave{Verb: d.verb, Image: o.body.Image, WaiveGrace: o.body.WaiveGrace, Nodes: names}); err != nil {
		return err
	}
	ids, failed := o.ask(ctx, p, cl, d.verb, names)
	if len(names) == 1 && failed != nil {
		return failed
	}
	if len(ids) > 0 && !o.noWait {
		if err := followOperations(ctx, p, cl, ids); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if o.noWait {
			fmt.Fprintf(p.stdout, "operation/%s\n", id)
		}
	}
	if failed != nil {
		return &exitError{exitSomeFailed, fmt.Errorf("%d of %d nodes refused %s", len(names)-len(ids), len(names), d.verb)}
	}
	return nil
}

// show prints what accept would erase and keeps exactly that to be sent: a disk that appears meanwhile is not among it.
func (o *verbOptions) show(ctx context.Context, p *program, cl *api.Client, names []string) error {
	o.agreed = map[string][]string{}
	for _, name := range names {
		n, err := cl.Node(ctx, name)
		if err != nil {
			return err
		}
		for _, d := range agreed(n.WouldErase, o.body.Devices) {
			fmt.Fprintf(p.stderr, "%s: may erase %s  %s  %s\n", name, printable(d.Serial), bytesText(d.SizeBytes), orDash(printable(d.Model)))
			o.agreed[name] = append(o.agreed[name], d.Serial)
		}
	}
	return nil
}

// agreed are the listed devices that were asked for: all where none was named. A serial that is not listed stays, for the server to refuse.
func agreed(listed []fleet.AcceptedDevice, serials []string) []fleet.AcceptedDevice {
	if len(serials) == 0 {
		return listed
	}
	var out []fleet.AcceptedDevice
	for _, s := range serials {
		d := fleet.AcceptedDevice{Serial: s, Model: "not listed"}
		for _, l := range listed {
			if l.Serial == s {
				d = l
			}
		}
		out = append(out, d)
	}
	return out
}

// ask sends the verb to every node side by side; refusals are printed where there are several nodes.
func (o *verbOptions) ask(ctx context.Context, p *program, cl *api.Client, verb string, names []string) ([]fleet.OperationID, error) {
	ids, errs := make([]fleet.OperationID, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	gate := make(chan struct{}, 16)
	for i, n := range names {
		wg.Add(1)
		go func() {
			defer wg.Done()
			gate <- struct{}{}
			body := o.body
			if serials := o.agreed[n]; len(serials) > 0 {
				body.Devices = serials
			}
			ids[i], errs[i] = cl.NodeVerb(ctx, n, verb, body)
			<-gate
		}()
	}
	wg.Wait()
	var out []fleet.OperationID
	var failed error
	for i, n := range names {
		switch {
		case errs[i] != nil:
			failed = errs[i]
			if len(names) > 1 {
				fmt.Fprintf(p.stderr, "%s: ", n)
				printError(p.stderr, errs[i])
			}
		case ids[i] != "":
			out = append(out, ids[i])
		default:
			fmt.Fprintf(p.stderr, "%s: %s done\n", n, verb)
		}
	}
	return out, failed
}

// confirm asks a person; without a terminal to ask on, it refuses.
func (p *program) confirm(question string) error {
	if !isTerminalReader(p.stdin) {
		return fleet.Errorf(fleet.Refused, "MC-CLI-CONFIRM", "%s needs a yes, and there is no terminal to ask on", question).WithHint("add --yes")
	}
	fmt.Fprintf(p.stderr, "%s [y/N] ", question)
	line, err := bufio.NewReader(p.stdin).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(line)); a != "y" && a != "yes" {
		return fleet.Errorf(fleet.Refused, "MC-CLI-CONFIRM", "not confirmed; nothing was changed")
	}
	return nil
}
