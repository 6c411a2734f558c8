//go:build !ramdisk

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/redfish"
)

type probeOptions struct {
	user, passwordFile, pin, caFile, record string
	firstUse                                bool
}

func bmcNoun(p *program) *cobra.Command {
	var o probeOptions
	probe := &cobra.Command{
		Use: "probe URL", Short: "Print what a BMC can do, what would be used to boot it, and which licence it lacks; reads only", Args: exactly("URL"),
		Long: `Probe opens a BMC with reads only (besides the session that reading needs) and needs no server. With --record it writes what the BMC
answers to a read of each of its resources, without secrets, as a file that the emulator replays.`,
		Example: "  metalctl bmc probe https://10.0.0.11 --user admin --password-file secrets/hgx-001 --first-use",
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), p, args[0]) },
	}
	f := probe.Flags()
	f.StringVar(&o.user, "user", "", "user at the BMC")
	f.StringVar(&o.passwordFile, "password-file", "", "file with the password (- for standard input)")
	f.StringVar(&o.pin, "pin", "", "trust exactly this key: sha256/BASE64")
	f.StringVar(&o.caFile, "ca-file", "", "trust certificates of this authority")
	f.BoolVar(&o.firstUse, "first-use", false, "trust the key that the BMC shows now, and print its pin")
	f.StringVar(&o.record, "record", "", "write a redacted recording to this file")
	return noun("bmc", "Look at management controllers", probe, bmcCredential(p))
}

func (o *probeOptions) run(ctx context.Context, p *program, url string) error {
	if o.user == "" || o.passwordFile == "" {
		return usageError("bmc probe: --user and --password-file are needed\n  try: metalctl bmc probe --help")
	}
	pw, err := p.readSecretFile(o.passwordFile)
	if err != nil {
		return err
	}
	opts := redfish.Options{Credentials: redfish.Credentials{User: o.user, Password: fleet.NewSecret(pw)}}
	switch {
	case o.pin != "":
		opts.Trust = redfish.Trust{Mode: redfish.TrustPin, Pin: o.pin}
	case o.firstUse:
		opts.Trust = redfish.Trust{Mode: redfish.TrustFirstUse}
	default:
		opts.Trust = redfish.Trust{Mode: redfish.TrustCA}
		if o.caFile != "" {
			if opts.CAPEM, err = os.ReadFile(o.caFile); err != nil {
				return fmt.Errorf("read --ca-file: %w", err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	rep, err := redfish.Probe(ctx, url, opts)
	if err != nil {
		if rep.Pin != "" {
			fmt.Fprintf(p.stderr, "the BMC shows the key %s\n", rep.Pin)
		}
		return err
	}
	if err := printProbe(p, rep); err != nil {
		return err
	}
	if o.record != "" {
		return o.writeRecording(ctx, p, url, opts)
	}
	return nil
}

func printProbe(p *program, rep redfish.Report) error {
	if p.flags.output != "" && p.flags.output != "table" && p.flags.output != "wide" {
		v := view[redfish.Report]{name: func(r redfish.Report) string { return r.URL }}
		return v.print(p, []redfish.Report{rep}, true)
	}
	var rows [][]string
	add := func(k, format string, args ...any) {
		rows = append(rows, []string{k, printable(fmt.Sprintf(format, args...))})
	}
	id, c := rep.Identity, rep.Capabilities
	add("bmc", "%s %s, firmware %s, Redfish %s", orDash(id.Vendor), orDash(id.BMCModel), orDash(id.BMCFirmware), id.RedfishVersion)
	add("key", "%s", rep.Pin)
	add("machine", "%s %s, serial %s, uuid %s, power %s", id.Vendor, id.Model, orDash(id.Serial), orDash(id.UUID), id.PowerState)
	add("quirks", "%s", orDash(id.Quirk))
	add("login", "%s, times out after %d s, locks after %d wrong passwords", id.Auth, id.SessionTimeoutSeconds, id.LockoutThreshold)
	if c.Method == "" {
		add("boots by", "nothing: %s", c.Why)
	} else {
		add("boots by", "%s %s: %s", c.Method, c.Boots, c.Why)
	}
	for _, s := range c.Slots {
		what := strings.Join(s.Why, "; ")
		if s.Unfit != "" {
			what = "not used: " + s.Unfit
		}
		add("slot", "%s (score %d) %s", s.URI, s.Score, what)
	}
	if c.EnableMedia != "" {
		add("slots may appear by", "%s", c.EnableMedia)
	}
	add("boot targets", "%v, modes %v, override now %s %s", c.BootTargets, c.BootModes, orDash(rep.Boot.Enabled), rep.Boot.Target)
	add("boot progress", "%v", c.BootProgress)
	add("power", "%s", strings.Join(c.ResetTypes, ", "))
	if len(c.Licences) == 0 {
		add("licences", "none missing, as far as the BMC tells")
	}
	for _, f := range c.Licences {
		add("licence", "%s", licenceText(f))
	}
	return printTable(p.stdout, rows)
}

func (o *probeOptions) writeRecording(ctx context.Context, p *program, url string, opts redfish.Options) error {
	f, err := os.OpenFile(o.record, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	bmc, err := redfish.Dial(ctx, url, opts)
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(o.record))
	}
	err = redfish.Record(ctx, bmc, f)
	err = errors.Join(err, bmc.Close(ctx), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(o.record))
	}
	fmt.Fprintf(p.stderr, "recorded to %s; look through it before giving it away\n", o.record)
	return nil
}

// licenceText says what a feature needs and whether the BMC has it.
func licenceText(f redfish.Finding) string {
	s := f.Feature + ": " + f.State
	if f.Need != "" {
		s += ", needs " + f.Need
	}
	if len(f.Have) > 0 {
		s += ", has " + strings.Join(f.Have, ", ")
	}
	return s
}
