//go:build !ramdisk

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/report"
)

func burninNoun(p *program) *cobra.Command {
	return noun("burnin", "Burn nodes in, and read what it came to", burninRun(p), burninReport(p), burninList(p), burninProfiles(p), burninCompare(p), burninAbort(p), burninResume(p), burninPower(p))
}

type burninRunOptions struct {
	profile        string
	dryRun, noWait bool
	plan           string
	files          reportFiles
}

func burninRun(p *program) *cobra.Command {
	var o burninRunOptions
	c := &cobra.Command{
		Use: "run NODE...", Short: "Burn nodes in, and exit with the verdict", Args: some("NODE"),
		Long: `Run burns nodes in and follows it. Without --profile the profile runs that is due: the class's own for a new node, the one for after a repair, or the one for after a
tenancy. A shorter one than is due shows what is wrong, but does not make the node available. The exit code is the verdict: 0 passed (maybe with warnings), 7 failed,
10 could not tell, 6 aborted, 8 where some of many nodes did not pass.`,
		Example: "  metalctl burnin run hgx-001 --profile handover\n  metalctl burnin run hgx[001-008] --profile smoke --junit smoke.xml",
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), p, args) },
	}
	f := c.Flags()
	f.StringVar(&o.profile, "profile", "", "burn-in profile; without it the one that is due")
	f.BoolVar(&o.dryRun, "dry-run", false, "print the plan with its digest and change nothing")
	f.StringVar(&o.plan, "plan", "", "run exactly the plan with this digest, or nothing")
	f.BoolVar(&o.noWait, "no-wait", false, "do not follow the work")
	o.files.flags(c)
	must(c.RegisterFlagCompletionFunc("profile", p.completion(profileNames, true)))
	return c
}

func (o *burninRunOptions) run(ctx context.Context, p *program, args []string) error {
	names, err := expandHosts(args)
	if err != nil {
		return err
	}
	if err := o.files.check(); err != nil {
		return err
	}
	cl, err := p.client()
	if err != nil {
		return err
	}
	if o.dryRun {
		return printPlans(ctx, p, cl, names, api.PlanQuery{Use: "burn", Profile: o.profile})
	}
	ask := verbOptions{body: api.NodeVerb{Profile: o.profile, Plan: o.plan}}
	ids, failed := ask.ask(ctx, p, cl, string(fleet.VerbBurn), names)
	if len(names) == 1 && failed != nil {
		return failed
	}
	if o.noWait {
		for _, id := range ids {
			fmt.Fprintf(p.stdout, "operation/%s\n", id)
		}
	} else if len(ids) > 0 {
		if err := o.follow(ctx, p, cl, ids); err != nil {
			return err
		}
	}
	if failed != nil {
		return &exitError{exitSomeFailed, fmt.Errorf("%d of %d nodes refused a burn-in", len(names)-len(ids), len(names))}
	}
	return nil
}

// follow waits until all are over. What has a report is judged by that; what failed without one, as a boot that never arrived, by its operation.
func (o *burninRunOptions) follow(ctx context.Context, p *program, cl *api.Client, ids []fleet.OperationID) error {
	ops, err := watchOperations(ctx, p, cl, ids)
	if err != nil {
		return err
	}
	var all []fleet.BurnReport
	var without []api.Operation
	for _, op := range ops {
		switch rep, err := cl.Report(ctx, op.ID); {
		case err == nil:
			if op.State == fleet.OperationAborted {
				rep.Stopped = "aborted"
			}
			all = append(all, rep)
		case fleet.KindOf(err) == fleet.NotFound:
			without = append(without, op)
		default:
			return err
		}
	}
	var judged error
	if len(all) > 0 {
		judged = o.files.write(p, all...)
	}
	if len(without) > 0 {
		return errors.Join(verdict(p, without), judged)
	}
	return judged
}

// findReport reads a report: of a file, of an operation, or the newest of a node.
func findReport(ctx context.Context, p *program, what string) (fleet.BurnReport, error) {
	if strings.ContainsAny(what, "./") {
		b, err := os.ReadFile(what)
		if err != nil {
			return fleet.BurnReport{}, fmt.Errorf("read the report: %w", err)
		}
		r, err := report.Read(b)
		if err != nil {
			return r, fmt.Errorf("%s: %w", what, err)
		}
		return r, nil
	}
	cl, err := p.client()
	if err != nil {
		return fleet.BurnReport{}, err
	}
	heads, err := cl.Reports(ctx, what, api.ListOptions{Limit: 1})
	switch {
	case err == nil && len(heads.Items) > 0:
		return cl.Report(ctx, heads.Items[0].ID)
	case err == nil:
		return fleet.BurnReport{}, fleet.Errorf(fleet.NotFound, "MC-BURN-NONE", "%s was never burned in", what).WithHint("metalctl burnin run %s", what)
	case fleet.KindOf(err) != fleet.NotFound:
		return fleet.BurnReport{}, err
	}
	if r, byID := cl.Report(ctx, fleet.OperationID(what)); byID == nil {
		return r, nil
	}
	return fleet.BurnReport{}, err
}

func burninReport(p *program) *cobra.Command {
	var format, output string
	c := &cobra.Command{
		Use: "report NODE", Short: "Show the report of a node's newest burn-in, or of one by its operation", Args: exactly("NODE"),
		Long:    `Report shows what a burn-in came to; one that still runs shows what was judged so far. NODE is a node, the operation of a burn-in (metalctl burnin list NODE), or a JSON file.`,
		Example: "  metalctl burnin report hgx-001\n  metalctl burnin report hgx-001 --format html --file hgx-001.html",
		RunE: func(c *cobra.Command, args []string) error {
			r, err := findReport(c.Context(), p, args[0])
			if err != nil {
				return err
			}
			if format == "" || format == "text" {
				return printReport(p, r)
			}
			i := slices.IndexFunc(reportForms, func(f reportForm) bool { return f.name == format })
			if i < 0 {
				return usageError("--format %s: want text, json, junit, sarif or html", format)
			}
			if output != "" {
				return writeReport(output, reportForms[i].write, []fleet.BurnReport{r})
			}
			return reportForms[i].write(p.stdout, r)
		},
	}
	c.Flags().StringVar(&format, "format", "", "text, json, junit, sarif or html")
	c.Flags().StringVar(&output, "file", "", "file to write it to")
	must(c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "json", "junit", "sarif", "html"}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

var reportHeadView = view[api.ReportHead]{
	name: func(h api.ReportHead) string { return "report/" + string(h.ID) },
	columns: []column[api.ReportHead]{
		{"REPORT", false, func(h api.ReportHead) string { return string(h.ID) }},
		{"PROFILE", false, func(h api.ReportHead) string { return h.Profile }},
		{"BEGAN", false, func(h api.ReportHead) string { return orDash(timeText(h.BeganAt)) }},
		{"VERDICT", false, func(h api.ReportHead) string { return string(h.Verdict) }},
		{"HEADLINE", false, func(h api.ReportHead) string { return orDash(h.Headline) }},
		{"ENDED", true, func(h api.ReportHead) string { return orDash(timeText(h.EndedAt)) }},
		{"STOPPED", true, func(h api.ReportHead) string { return orDash(h.Stopped) }},
		{"FIXTURE", true, func(h api.ReportHead) string { return orDash(h.Fixture) }},
	},
}

func burninList(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "list NODE", Short: "List a node's burn-ins, newest first", Args: exactly("NODE"), Example: "  metalctl burnin list hgx-001",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			all, err := cl.Reports(c.Context(), args[0], api.ListOptions{})
			if err != nil {
				return err
			}
			return reportHeadView.print(p, all.Items, false)
		},
	}
}

func burninProfiles(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "profiles", Short: "List the profiles that ship; no server is asked", Args: exactly(), Example: "  metalctl burnin profiles",
		RunE: func(*cobra.Command, []string) error {
			all, err := standardProfiles()
			if err != nil {
				return err
			}
			return burnProfileView.print(p, all, false)
		},
	}
}

func burninCompare(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "compare A B", Short: "Say what became other from one burn-in to another", Args: exactly("A", "B"),
		Long:    `Compare holds two reports against each other: of two runs, two nodes or two dates. Each is a node (its newest), the operation of a burn-in, or a JSON file. It exits with 9 where they differ.`,
		Example: "  metalctl burnin compare hgx-001 hgx-002\n  metalctl burnin compare before.json after.json",
		RunE: func(c *cobra.Command, args []string) error {
			was, err := findReport(c.Context(), p, args[0])
			if err != nil {
				return err
			}
			is, err := findReport(c.Context(), p, args[1])
			if err != nil {
				return err
			}
			x := report.Compare(was, is)
			if p.flags.output != "" && p.flags.output != "table" && p.flags.output != "wide" {
				v := view[report.Comparison]{name: func(report.Comparison) string { return "comparison" }}
				if err := v.print(p, []report.Comparison{x}, true); err != nil {
					return err
				}
			} else if err := x.Text(p.stdout, p.textOptions()); err != nil {
				return err
			}
			if x.Different() {
				return &exitError{code: exitDiffers}
			}
			return nil
		},
	}
}
