//go:build !ramdisk

package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

const (
	// bundleEntry and bundleBytes bound one file of a bundle and all of them, before compression.
	bundleEntry = 8 << 20
	bundleBytes = 256 << 20
	// bundleNodes is of how many nodes the details are taken where none is named.
	bundleNodes = 200
)

func supportBundle(p *program) *cobra.Command {
	var out string
	var nodes []string
	c := &cobra.Command{
		Use: "support-bundle", Short: "Write what somebody who helps needs to see into one file, without secrets", Args: exactly(),
		Long: `Support-bundle writes a tar.gz with what is known of the server (versions, configuration, the end of its log, its goroutines, store statistics, doctor's
findings, metrics), the site, classes, images, leases and operations, the newest events, and for each node its record, what it waits for, its history
and its timeline. It reads the API alone, calls no BMC and changes nothing. Passwords, tokens, keys, user-data and the signatures of addresses are left
out; what cannot be read is named in errors.txt. The file is complete or not there.`,
		Example: "  metalctl support-bundle --node hgx-001",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			if out == "" {
				out = "metalctl-support-" + time.Now().UTC().Format("20060102T150405Z") + ".tar.gz"
			}
			names, err := expandHosts(nodes)
			if err != nil {
				return err
			}
			missing, err := writeBundle(c.Context(), cl, out, names)
			if err != nil {
				return err
			}
			if missing > 0 {
				fmt.Fprintf(p.stderr, "%d parts could not be read; errors.txt in the bundle names them\n", missing)
			}
			_, err = fmt.Fprintln(p.stdout, out)
			return err
		},
	}
	c.Flags().StringVar(&out, "file", "", "where to write it (default metalctl-support-TIME.tar.gz here)")
	c.Flags().StringSliceVar(&nodes, "node", nil, "details of these nodes only (default: of all, at most 200)")
	return c
}

// writeBundle writes the bundle beside its place and moves it there when it is whole. missing counts what could not be read.
func writeBundle(ctx context.Context, cl *api.Client, path string, names []string) (missing int, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".metalctl-support-")
	if err != nil {
		return 0, fmt.Errorf("make the support bundle: %w", err)
	}
	defer os.Remove(f.Name()) // gone already where all went well
	z := gzip.NewWriter(f)
	b := &bundle{w: tar.NewWriter(z), now: time.Now()}
	b.fill(ctx, cl, names)
	if len(b.errs) > 0 {
		b.add("errors.txt", []byte(strings.Join(b.errs, "\n")+"\n"))
	}
	if err := errors.Join(ctx.Err(), b.broken, b.w.Close(), z.Close(), f.Sync(), f.Close()); err != nil {
		return 0, fmt.Errorf("write the support bundle: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return 0, fmt.Errorf("write the support bundle: %w", err)
	}
	return len(b.errs), nil
}

// bundle collects redacted files.
type bundle struct {
	w      *tar.Writer
	now    time.Time
	size   int64
	errs   []string
	broken error
}

func (b *bundle) add(name string, content []byte) {
	if b.broken != nil {
		return
	}
	content = redact(content)
	if len(content) > bundleEntry {
		content = append(content[:bundleEntry:bundleEntry], "\n… cut here\n"...)
	}
	if b.size+int64(len(content)) > bundleBytes && name != "errors.txt" {
		b.errs = append(b.errs, name+": left out, the bundle is full")
		return
	}
	b.size += int64(len(content))
	err := b.w.WriteHeader(&tar.Header{Name: "metalctl-support/" + name, Mode: 0o600, Size: int64(len(content)), ModTime: b.now})
	if err == nil {
		_, err = b.w.Write(content)
	}
	b.broken = err
}

// part adds what a call answers, or notes why it does not.
func part[T any](b *bundle, name string, read func() (T, error)) T {
	v, err := read()
	if err != nil {
		b.errs = append(b.errs, name+": "+err.Error())
		return v
	}
	j, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		b.errs = append(b.errs, name+": "+err.Error())
		return v
	}
	b.add(name, append(j, '\n'))
	return v
}

func (b *bundle) fill(ctx context.Context, cl *api.Client, names []string) {
	b.add("version.txt", fmt.Appendf(nil, "metalctl %s %s\ntaken at %s\n", version, commit(), b.now.UTC().Format(time.RFC3339)))
	b.server(ctx, cl)
	part(b, "capabilities.json", func() (api.Capabilities, error) { return cl.Capabilities(ctx) })
	part(b, "site.json", func() (fleet.Site, error) { return cl.Site(ctx) })
	part(b, "classes.json", func() ([]fleet.Class, error) { return cl.Classes(ctx) })
	part(b, "images.json", func() ([]fleet.Image, error) { return cl.Images(ctx) })
	part(b, "leases.json", func() (api.List[api.Lease], error) { return cl.Leases(ctx, api.ListOptions{}) })
	part(b, "operations.json", func() (api.List[api.Operation], error) { return cl.Operations(ctx, api.ListOptions{}) })
	part(b, "events.json", func() ([]fleet.Event, error) { return cl.EventsSince(ctx, 0, 100_000) })
	metrics, err := cl.Metrics(ctx, bundleEntry)
	if err != nil {
		b.errs = append(b.errs, "metrics.txt: "+err.Error())
	}
	b.add("metrics.txt", metrics)
	if len(names) == 0 {
		all := part(b, "nodes.json", func() (api.List[api.Node], error) { return cl.Nodes(ctx, api.ListOptions{}) })
		for _, n := range all.Items {
			names = append(names, n.Name)
		}
		if len(names) > bundleNodes {
			b.errs = append(b.errs, fmt.Sprintf("nodes: details of the first %d of %d", bundleNodes, len(names)))
			names = names[:bundleNodes]
		}
	}
	for _, n := range names {
		dir := "nodes/" + strings.ReplaceAll(n, "/", "_") + "/"
		part(b, dir+"node.json", func() (api.Node, error) { return cl.Node(ctx, n) })
		part(b, dir+"explain.json", func() (api.Explain, error) { return cl.Explain(ctx, n) })
		part(b, dir+"history.json", func() (api.History, error) { return cl.History(ctx, n, 1000) })
		part(b, dir+"timeline.json", func() ([]fleet.TimelineEntry, error) {
			return cl.Timeline(ctx, n, api.TimelineQuery{Limit: 10_000})
		})
		part(b, dir+"operations.json", func() (api.List[api.Operation], error) { return cl.Operations(ctx, api.ListOptions{Node: n}) })
	}
}

// server adds what is known of the server's process.
func (b *bundle) server(ctx context.Context, cl *api.Client) {
	part(b, "server/doctor.json", func() (api.Doctor, error) { return examine(ctx, cl) })
	d, err := cl.Diagnostics(ctx)
	if err != nil {
		b.errs = append(b.errs, "server: "+err.Error())
		return
	}
	if d.LogDropped > 0 {
		d.Log = fmt.Sprintf("(%d bytes before this are not kept)\n%s", d.LogDropped, d.Log)
	}
	b.add("server/config.yaml", []byte(d.Config))
	b.add("server/log.txt", []byte(d.Log))
	b.add("server/goroutines.txt", []byte(d.Goroutines))
	part(b, "server/versions.json", func() (api.Versions, error) { return d.Versions, nil })
	part(b, "server/process.json", func() (api.ProcessStats, error) { return d.Process, nil })
	part(b, "server/store.json", func() (api.StoreStats, error) { return d.Store, nil })
}
