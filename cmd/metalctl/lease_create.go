//go:build !ramdisk

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

type leaseOptions struct {
	name, image, partition, network, userData, hostname, networkData, configDrive, ready, until string
	class, topology, selector                                                                   string
	count                                                                                       int
	nodes, sshKeys                                                                              []string
	meta                                                                                        map[string]string
	grace, deadline                                                                             time.Duration
	minReady                                                                                    int
	wipeData, noWait                                                                            bool
}

func leaseCreate(p *program) *cobra.Command {
	var o leaseOptions
	c := &cobra.Command{
		Use: "create (--node N[,N] | --count N --class C) --image I", Short: "Reserve nodes, write the image, boot it", Args: exactly(),
		Example: "  metalctl lease create --node hgx-001 --image debian-12 --ssh-key ~/.ssh/id_ed25519.pub --user-data cloud.yaml\n  metalctl lease create --count 8 --class hgx-h200 --topology same-leaf --image debian-12 --ssh-key ~/.ssh/id_ed25519.pub",
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c.Context(), p) },
	}
	o.flags(c.Flags())
	c.Flags().BoolVar(&o.noWait, "no-wait", false, "do not follow the deployment")
	return c
}

// flags are those that say what is asked for.
func (o *leaseOptions) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&o.nodes, "node", nil, "nodes, by name or hostlist")
	f.IntVar(&o.count, "count", 0, "so many nodes of --class, which the server chooses")
	f.StringVar(&o.class, "class", "", "class of the nodes that --count asks for")
	f.StringVar(&o.topology, "topology", "", "how near to each other the chosen nodes must be: same-leaf, same-rail-group or any (default any)")
	f.StringVarP(&o.selector, "label-selector", "l", "", "labels that the chosen nodes must have, such as rack=r7,!old")
	f.StringVar(&o.name, "name", "", "a name for the lease")
	f.StringVar(&o.image, "image", "", "image to write")
	f.StringVar(&o.partition, "partition", "", "InfiniBand partition that the nodes' fabric ports are put into; default: one of the lease's own")
	f.StringVar(&o.network, "network", "", "network that the nodes' Ethernet ports for tenants are put into; default: one of the lease's own")
	f.StringVar(&o.userData, "user-data", "", "file that cloud-init reads")
	f.StringArrayVar(&o.sshKeys, "ssh-key", nil, "file with SSH public keys; may be given again")
	f.StringVar(&o.hostname, "hostname-template", "", "host names, such as gpu-{index}.{lease}; default: the node's name")
	f.StringToStringVar(&o.meta, "meta", nil, "metadata for the config drive, key=value")
	f.StringVar(&o.networkData, "network-data", "", "file with OpenStack network_data.json")
	f.StringVar(&o.configDrive, "config-drive", "openstack", "layout of the config drive: openstack or nocloud")
	f.StringVar(&o.ready, "ready", "os-running", "what ready means: os-running, phone-home or now")
	f.StringVar(&o.until, "until", "", "when the lease ends by itself: RFC 3339, or a duration such as 72h")
	f.DurationVar(&o.grace, "grace", 72*time.Hour, "how long the disks stay untouched after the end; 0 for none")
	f.DurationVar(&o.deadline, "deadline", 0, "how long allocating and deploying may take (default: the server's)")
	f.IntVar(&o.minReady, "min-ready", 0, "this many ready nodes suffice (default: all)")
	f.BoolVar(&o.wipeData, "wipe-data", false, "erase every accepted disk before the image is written; otherwise only the root disk is touched")
}

func (o *leaseOptions) run(ctx context.Context, p *program) error {
	req, err := o.request()
	if err != nil {
		return err
	}
	cl, err := p.client()
	if err != nil {
		return err
	}
	l, err := cl.CreateLease(ctx, req, uuid.NewString())
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stderr, "lease/%s\n", l.ID)
	if !o.noWait {
		if l, err = followLease(ctx, p, cl, l, fleet.LeaseActive); err != nil {
			return err
		}
	}
	return leaseView.print(p, []api.Lease{l}, true)
}

func (o *leaseOptions) request() (api.LeaseCreate, error) {
	var req api.LeaseCreate
	switch {
	case o.image == "" || len(o.nodes) == 0 && o.count == 0:
		return req, usageError("lease create: --image is needed, and --node or --count\n  try: metalctl lease create --help")
	case len(o.nodes) > 0 && (o.count != 0 || o.class != "" || o.topology != "" || o.selector != ""):
		return req, usageError("lease create: --count, --class, --topology and --label-selector choose nodes; --node names them")
	case o.count != 0 && o.class == "":
		return req, usageError("lease create: --count needs --class\n  try: metalctl class list")
	}
	nodes, err := expandHosts(o.nodes)
	if err != nil {
		return req, err
	}
	until, err := parseUntil(o.until, time.Now())
	if err != nil {
		return req, err
	}
	req.Name = o.name
	req.LeaseRequest = fleet.LeaseRequest{
		Nodes: nodes, Count: o.count, Class: o.class, Topology: fleet.Topology(o.topology), Selector: o.selector, Image: o.image, HostnameTemplate: o.hostname, Meta: o.meta, Partition: o.partition, Network: o.network, ConfigDrive: fleet.ConfigDriveForm(o.configDrive), Ready: fleet.Ready(o.ready), MinReady: o.minReady,
		Until: until, GraceSeconds: int64(o.grace.Seconds()), WipeData: o.wipeData, DeadlineSeconds: int64(o.deadline.Seconds()),
	}
	for _, path := range o.sshKeys {
		keys, err := readKeys(path)
		if err != nil {
			return req, err
		}
		req.SSHKeys = append(req.SSHKeys, keys...)
	}
	if o.userData != "" {
		if req.UserData, err = os.ReadFile(o.userData); err != nil {
			return req, fmt.Errorf("read --user-data: %w", err)
		}
	}
	if o.networkData != "" {
		b, err := os.ReadFile(o.networkData)
		if err != nil {
			return req, fmt.Errorf("read --network-data: %w", err)
		}
		if !json.Valid(b) {
			return req, fleet.Errorf(fleet.Invalid, "MC-LEASE-NETWORK-DATA", "%s is not JSON", o.networkData).WithHint("write it as OpenStack network_data.json")
		}
		req.NetworkData = b
	}
	return req, nil
}

// readKeys reads a file of SSH public keys, a line each; a private key is refused before it travels.
func readKeys(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read --ssh-key: %w", err)
	}
	var keys []string
	for i, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if strings.Contains(line, "PRIVATE KEY") {
			return nil, fleet.Errorf(fleet.Invalid, "MC-LEASE-SSH-KEY", "%s:%d: this is a private key", path, i+1).WithHint("give the .pub file")
		}
		if len(strings.Fields(line)) < 2 {
			return nil, fleet.Errorf(fleet.Invalid, "MC-LEASE-SSH-KEY", "%s:%d: not an SSH public key", path, i+1)
		}
		keys = append(keys, line)
	}
	if len(keys) == 0 {
		return nil, fleet.Errorf(fleet.Invalid, "MC-LEASE-SSH-KEY", "%s holds no key", path)
	}
	return keys, nil
}

// parseUntil reads an absolute time or a duration from now; "" is no end.
func parseUntil(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(d).UTC(), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, usageError("%q is neither a duration such as 72h nor a time such as 2027-01-31T12:00:00Z", s)
	}
	return t.UTC(), nil
}
