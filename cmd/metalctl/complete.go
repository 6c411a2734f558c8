//go:build !ramdisk

package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// completionLimit bounds what a shell waits for while somebody types.
const completionLimit = 2 * time.Second

// lister names what a server has of a kind. Completion says nothing where the server does not answer.
type lister func(context.Context, *api.Client) ([]string, error)

func nodeNames(ctx context.Context, cl *api.Client) ([]string, error) {
	l, err := cl.Nodes(ctx, api.ListOptions{})
	return namesOf(l.Items, func(n api.Node) string { return n.Name }), err
}

func leaseNames(ctx context.Context, cl *api.Client) ([]string, error) {
	l, err := cl.Leases(ctx, api.ListOptions{})
	return namesOf(l.Items, func(l api.Lease) string {
		if l.Name != "" {
			return l.Name
		}
		return string(l.ID)
	}), err
}

func imageNames(ctx context.Context, cl *api.Client) ([]string, error) {
	l, err := cl.Images(ctx)
	return namesOf(l, func(i fleet.Image) string { return i.Name }), err
}

func packNames(ctx context.Context, cl *api.Client) ([]string, error) {
	l, err := cl.Packs(ctx)
	return namesOf(l, fleet.Pack.ID), err
}

func ramdiskNames(ctx context.Context, cl *api.Client) ([]string, error) {
	l, err := cl.Ramdisks(ctx)
	return namesOf(l, func(r api.Ramdisk) string { return r.Name }), err
}

func classNames(ctx context.Context, cl *api.Client) ([]string, error) {
	l, err := cl.Classes(ctx)
	return namesOf(l, func(c fleet.Class) string { return c.Name }), err
}

func profileNames(ctx context.Context, cl *api.Client) ([]string, error) {
	l, err := cl.Profiles(ctx)
	return namesOf(l, func(p fleet.BurnProfile) string { return p.Name }), err
}

func operationNames(ctx context.Context, cl *api.Client) ([]string, error) {
	l, err := cl.Operations(ctx, api.ListOptions{Limit: 50})
	return namesOf(l.Items, func(o api.Operation) string { return string(o.ID) }), err
}

func fabricNames(ctx context.Context, cl *api.Client) ([]string, error) {
	l, err := cl.Fabrics(ctx)
	return namesOf(l, func(f api.Fabric) string { return f.Name }), err
}

func partitionNames(ctx context.Context, cl *api.Client) ([]string, error) {
	l, err := cl.Partitions(ctx)
	return namesOf(l, func(x api.Partition) string { return x.Name }), err
}

func switchNames(ctx context.Context, cl *api.Client) ([]string, error) {
	l, err := cl.Switches(ctx)
	return namesOf(l, func(x api.Switch) string { return x.Name }), err
}

func networkNames(ctx context.Context, cl *api.Client) ([]string, error) {
	l, err := cl.Networks(ctx)
	return namesOf(l, func(x api.Network) string { return x.Name }), err
}

func namesOf[T any](items []T, name func(T) string) []string {
	out := make([]string, 0, len(items))
	for _, it := range items {
		out = append(out, name(it))
	}
	return out
}

func topologies() []string {
	var out []string
	for _, t := range fleet.Topologies {
		out = append(out, string(t))
	}
	return out
}

// waitObjects are what `wait` takes: a kind and a name.
func waitObjects(ctx context.Context, cl *api.Client) ([]string, error) {
	var out []string
	for kind, list := range map[string]lister{"node/": nodeNames, "lease/": leaseNames, "operation/": operationNames} {
		names, err := list(ctx, cl)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			out = append(out, kind+n)
		}
	}
	slices.Sort(out)
	return out, nil
}

// addCompletion lets every verb complete the arguments and flags that name things on the server, by the placeholders that its usage shows.
func addCompletion(root *cobra.Command, p *program) {
	args := map[string]lister{"NODE": nodeNames, "LEASE": leaseNames, "IMAGE": imageNames, "CLASS": classNames, "PROFILE": profileNames, "PACK": packNames, "RAMDISK": ramdiskNames, "OPERATION": operationNames, "FABRIC": fabricNames, "PARTITION": partitionNames, "SWITCH": switchNames, "NETWORK": networkNames, "(node/N": waitObjects}
	flags := map[string]lister{"node": nodeNames, "with": nodeNames, "from": nodeNames, "image": imageNames, "class": classNames, "fabric": fabricNames, "partition": partitionNames, "network": networkNames}
	words := map[string][]string{
		"output":       {"table", "wide", "json", "jsonl", "yaml", "name", "csv"},
		"config-drive": {string(fleet.ConfigDriveOpenStack), string(fleet.ConfigDriveNoCloud)},
		"ready":        {string(fleet.ReadyOS), string(fleet.ReadyPhoneHome), string(fleet.ReadyNow)},
		"topology":     topologies(),
		"against":      {fleet.AgainstClass, fleet.AgainstLast, fleet.AgainstFleet, fleet.AgainstBMC},
		"origin":       {originSite, originTemplate},
		"use":          {"inspect", "clean", "burn", "deploy", "rebuild", "release", "resume"},
		"format":       {"raw", "raw.zst", "raw.gz", "raw.xz", "qcow2"},
	}
	for _, c := range append(tree(root), root) {
		use := strings.Fields(c.Use)
		if len(use) > 1 && c.ValidArgsFunction == nil {
			name, many := strings.CutSuffix(use[1], "...")
			if list := args[name]; list != nil {
				c.ValidArgsFunction = p.completion(list, many)
			}
		}
		for flag, list := range flags {
			if c.LocalNonPersistentFlags().Lookup(flag) != nil {
				must(c.RegisterFlagCompletionFunc(flag, p.completion(list, true)))
			}
		}
		for flag, fixed := range words {
			if _, own := c.GetFlagCompletionFunc(flag); !own && c.LocalFlags().Lookup(flag) != nil {
				must(c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(fixed, cobra.ShellCompDirectiveNoFileComp)))
			}
		}
	}
}

// tree lists all commands below c.
func tree(c *cobra.Command) []*cobra.Command {
	var out []*cobra.Command
	for _, sub := range c.Commands() {
		out = append(append(out, sub), tree(sub)...)
	}
	return out
}

func (p *program) completion(list lister, many bool) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && !many {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		parent := c.Context()
		if parent == nil {
			parent = context.Background()
		}
		ctx, cancel := context.WithTimeout(parent, completionLimit)
		defer cancel()
		cl, err := p.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names, err := list(ctx, cl)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, begun) || slices.Contains(args, n) })
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
