//go:build !ramdisk

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

type enrollOptions struct {
	file, bmc, user, passwordFile, class, pin, caFile string
	firstUse, allowReboot                             bool
	labels                                            map[string]string
	serial, uuid                                      string
}

func nodeEnroll(p *program) *cobra.Command {
	var o enrollOptions
	c := &cobra.Command{
		Use:   "enroll [NAME --bmc URL --user U --password-file F | -f FILE]",
		Short: "Enrol a node, or a YAML file of many; only reads reach the BMC",
		Long: `Enrol opens the BMC with reads only, learns its identity and abilities, and records them. Nothing is powered, mounted or erased:
the node waits in "enrolled" until somebody inspects it.`,
		Example: `  metalctl node enroll hgx-001 --bmc https://10.0.0.11 --user admin --password-file secrets/hgx-001 --first-use
  metalctl node enroll -f rack.yaml`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), p, args) },
	}
	f := c.Flags()
	f.StringVarP(&o.file, "file", "f", "", "fleet file (YAML, - for standard input)")
	f.StringVar(&o.bmc, "bmc", "", "the BMC's https URL")
	f.StringVar(&o.user, "user", "", "user at the BMC")
	f.StringVar(&o.passwordFile, "password-file", "", "file with the password (- for standard input)")
	f.StringVar(&o.class, "class", "", "class of the node")
	f.StringToStringVar(&o.labels, "label", nil, "labels, key=value")
	f.StringVar(&o.pin, "pin", "", "trust exactly this key: sha256/BASE64")
	f.StringVar(&o.caFile, "ca-file", "", "trust certificates of this authority")
	f.BoolVar(&o.firstUse, "first-use", false, "pin the key that the BMC shows now")
	f.StringVar(&o.serial, "expect-serial", "", "refuse a machine with another serial")
	f.StringVar(&o.uuid, "expect-uuid", "", "refuse a machine with another UUID")
	f.BoolVar(&o.allowReboot, "allow-reboot", false, "inspections may restart the machine while it runs")
	return c
}

func (o *enrollOptions) run(ctx context.Context, p *program, args []string) error {
	var nodes []api.NodeCreate
	switch {
	case o.file != "" && len(args) > 0:
		return usageError("node enroll: give either a NAME or -f FILE, not both")
	case o.file != "":
		ff, err := readFleetFile(o.file, p.stdin)
		if err != nil {
			return err
		}
		cl, err := p.client()
		if err != nil {
			return err
		}
		if err := applyCatalog(ctx, p, cl, ff); err != nil {
			return err
		}
		nodes = ff.nodes
	case len(args) == 1:
		n, err := o.single(p, args[0])
		if err != nil {
			return err
		}
		nodes = append(nodes, n)
	default:
		return usageError("node enroll: NAME or -f FILE is missing\n  try: metalctl node enroll --help")
	}
	cl, err := p.client()
	if err != nil {
		return err
	}
	var done []api.Node
	failed := 0
	for _, n := range nodes {
		made, err := cl.CreateNode(ctx, n, uuid.NewString())
		if err != nil {
			if len(nodes) == 1 {
				return err
			}
			failed++
			fmt.Fprintf(p.stderr, "%s: ", n.Name)
			printError(p.stderr, err)
			continue
		}
		for _, note := range made.Notes {
			fmt.Fprintf(p.stderr, "%s: %s\n", n.Name, printable(note))
		}
		done = append(done, made.Node)
	}
	if err := nodeView.print(p, done, len(nodes) == 1 && failed == 0); err != nil {
		return err
	}
	if failed > 0 {
		return &exitError{exitSomeFailed, fmt.Errorf("%d of %d nodes were not enrolled", failed, len(nodes))}
	}
	return nil
}

func (o *enrollOptions) single(p *program, name string) (api.NodeCreate, error) {
	n := api.NodeCreate{Name: name, Class: o.class, Labels: o.labels, Address: o.bmc, User: o.user, AllowReboot: o.allowReboot,
		Expect: fleet.Expect{Serial: o.serial, UUID: o.uuid}, TLS: fleet.BMCTLS{Pin: o.pin, FirstUse: o.firstUse}}
	if o.bmc == "" || o.user == "" || o.passwordFile == "" {
		return n, usageError("node enroll: --bmc, --user and --password-file are all needed\n  try: metalctl node enroll --help")
	}
	pw, err := p.readSecretFile(o.passwordFile)
	if err != nil {
		return n, err
	}
	n.Password = pw
	if o.caFile != "" {
		ca, err := os.ReadFile(o.caFile)
		if err != nil {
			return n, fmt.Errorf("read --ca-file: %w", err)
		}
		n.TLS.CAPEM = string(ca)
	}
	return n, nil
}

// readSecretFile reads a password from a file or, for "-", from standard input; the line's end is not part of it.
func (p *program) readSecretFile(path string) (string, error) {
	var b []byte
	var err error
	if path == "-" {
		b = make([]byte, 4096)
		n, rerr := p.stdin.Read(b)
		b = b[:n]
		if n == 0 {
			err = rerr
		}
	} else {
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" {
		return "", errors.New("read password: the file is empty")
	}
	return s, nil
}
