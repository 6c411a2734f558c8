//go:build !ramdisk

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/metalctl/metalctl/fixtures/bmc"
	"github.com/metalctl/metalctl/fixtures/profiles"
	"github.com/metalctl/metalctl/fixtures/rack"
	"github.com/metalctl/metalctl/fleet"
)

func simNoun(p *program) *cobra.Command {
	return noun("sim", "Simulated racks: BMCs that are emulated, machines that really boot", simUp(p), simDown(p), simStatus(p), simConsole(p), simExec(p), simProfile(p), simRequests(p))
}

// defaultRackDir is where a rack lives that was given no folder.
func defaultRackDir() string { return filepath.Join(os.TempDir(), "metalctl-rack") }

type simUpOptions struct {
	file, dir, profile   string
	nodes                int
	qemu, detach, keep   bool
	verbose, noNamespace bool
}

func simUp(p *program) *cobra.Command {
	var o simUpOptions
	c := &cobra.Command{
		Use: "up [-f lab.yaml | --nodes N]", Short: "Start a simulated rack and keep it until it is interrupted", Args: exactly(),
		Long: `Up starts machines behind emulated BMCs: QEMU machines with UEFI firmware (mode qemu), or processes that act the agent (mode process).
BMCs listen on loopback; "sim status" says where, and names a fleet file that enrols them all.

A machine in the lab file chooses its BMC: "personality" is one of ` + strings.Join(bmc.Personalities(), ", ") + `. Some break the Redfish
specification as the vendor's hardware does; "bmc: {no_defects: true}" leaves that out.`,
		Example: "  metalctl sim up --nodes 2 --qemu\n  metalctl sim up -f lab.yaml --detach",
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c.Context(), p) },
	}
	f := c.Flags()
	f.StringVarP(&o.file, "file", "f", "", "lab file (YAML)")
	f.IntVar(&o.nodes, "nodes", 2, "how many machines, without a lab file")
	f.StringVar(&o.profile, "profile", "", "GPU server that the machines show, of those that \"sim profile\" lists, without a lab file")
	f.BoolVar(&o.qemu, "qemu", false, "QEMU machines instead of processes, without a lab file")
	f.StringVar(&o.dir, "dir", defaultRackDir(), "folder for disks, logs and certificates")
	f.BoolVar(&o.detach, "detach", false, "return when the rack is up; end it with sim down")
	f.BoolVar(&o.keep, "keep", false, "keep disks and logs when the rack goes down")
	f.BoolVar(&o.noNamespace, "no-namespaces", false, "run process machines without network namespaces")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log what the rack does")
	must(c.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions(profiles.Names(), cobra.ShellCompDirectiveNoFileComp)))
	return c
}

func (o *simUpOptions) lab() (rack.Lab, error) {
	if o.file != "" {
		if o.profile != "" {
			return rack.Lab{}, usageError("sim up: --profile is for racks without a lab file; in one, a machine says: profile: %s", o.profile)
		}
		b, err := os.ReadFile(o.file)
		if err != nil {
			return rack.Lab{}, fmt.Errorf("read lab file: %w", err)
		}
		return rack.Parse(o.file, b)
	}
	mode := rack.ModeProcess
	if o.qemu {
		mode = rack.ModeQEMU
	}
	lab := rack.Default(o.nodes, mode)
	lab.Machines[0].Profile = o.profile
	return lab, nil
}

func (o *simUpOptions) run(ctx context.Context, p *program) error {
	lab, err := o.lab()
	if err != nil {
		return err
	}
	if o.detach {
		return o.startDetached(ctx, p)
	}
	log := slog.New(slog.DiscardHandler)
	if o.verbose {
		log = slog.New(slog.NewTextHandler(p.stderr, nil))
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	r, err := rack.Up(ctx, lab, rack.Options{Dir: o.dir, Keep: o.keep, Plain: o.noNamespace, Log: log, Agent: rack.Command(self, "agent", "process")})
	if err != nil {
		return err
	}
	if err := rackView.print(p, r.Status().Machines, false); err != nil {
		return errors.Join(err, r.Down(context.WithoutCancel(ctx)))
	}
	fmt.Fprintf(p.stderr, "the rack is up; enrol it with: metalctl node enroll -f %s\nit goes down with ctrl-C, or: metalctl sim down --dir %s\n", r.Status().Nodes, o.dir)
	sayEthernet(p, r.Status())
	return r.Run(ctx)
}

// startDetached runs the same command in a session of its own and waits until its rack answers.
func (o *simUpOptions) startDetached(ctx context.Context, p *program) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return fmt.Errorf("make the rack's folder: %w", err)
	}
	logFile := filepath.Join(filepath.Dir(filepath.Clean(o.dir)), filepath.Base(o.dir)+".log")
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("open the rack's log: %w", err)
	}
	defer out.Close()
	args := []string{"sim", "up", "--verbose", "--dir", o.dir, "-o", "name"}
	if o.file != "" {
		args = append(args, "-f", o.file)
	} else {
		args = append(args, "--nodes", fmt.Sprint(o.nodes), fmt.Sprintf("--qemu=%v", o.qemu), "--profile", o.profile)
	}
	args = append(args, fmt.Sprintf("--keep=%v", o.keep), fmt.Sprintf("--no-namespaces=%v", o.noNamespace))
	cmd := exec.Command(self, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the rack: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		s, err := rack.StatusOf(ctx, o.dir)
		if err == nil && s.PID == cmd.Process.Pid {
			sayEthernet(p, s)
			return rackView.print(p, s.Machines, false)
		}
		select {
		case err := <-ended:
			said, _ := os.ReadFile(logFile) // its words are the message; without them the exit code is
			return fmt.Errorf("the rack did not come up (%v):\n%s", err, strings.TrimSpace(string(said)))
		case <-ctx.Done():
			return errors.Join(ctx.Err(), cmd.Process.Signal(syscall.SIGTERM))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

var rackView = view[rack.MachineStatus]{
	name: func(m rack.MachineStatus) string { return "machine/" + m.Name },
	columns: []column[rack.MachineStatus]{
		{"NAME", false, func(m rack.MachineStatus) string { return m.Name }},
		{"STATE", false, func(m rack.MachineStatus) string { return m.State }},
		{"MODE", false, func(m rack.MachineStatus) string { return m.Mode }},
		{"BMC", false, func(m rack.MachineStatus) string { return m.BMC.URL }},
		{"PERSONALITY", false, func(m rack.MachineStatus) string { return m.Personality }},
		{"DISKS", false, func(m rack.MachineStatus) string { return fmt.Sprint(len(m.Disks)) }},
		{"SERIAL-LOG", false, func(m rack.MachineStatus) string { return m.SerialLog }},
	},
}

func dirFlag(c *cobra.Command, dir *string) *cobra.Command {
	c.Flags().StringVar(dir, "dir", defaultRackDir(), "folder of the rack")
	return c
}

func simStatus(p *program) *cobra.Command {
	var dir string
	return dirFlag(&cobra.Command{
		Use: "status", Short: "Show the machines of a running rack; with -o json also how to reach them", Args: exactly(), Example: "  metalctl sim status -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := rack.StatusOf(c.Context(), dir)
			if err != nil {
				return err
			}
			switch p.flags.output {
			case "json", "jsonl", "yaml":
				v := view[rack.Status]{name: func(s rack.Status) string { return s.Dir }}
				return v.print(p, []rack.Status{s}, true)
			}
			return rackView.print(p, s.Machines, false)
		},
	}, &dir)
}

func simDown(p *program) *cobra.Command {
	var dir string
	return dirFlag(&cobra.Command{
		Use: "down", Short: "Take a rack down and leave nothing behind", Args: exactly(), Example: "  metalctl sim down",
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), 3*time.Minute)
			defer cancel()
			if err := rack.DownIn(ctx, dir); err != nil {
				return err
			}
			fmt.Fprintln(p.stderr, "the rack is down")
			return nil
		},
	}, &dir)
}

func simRequests(p *program) *cobra.Command {
	var dir string
	return dirFlag(&cobra.Command{
		Use: "requests MACHINE", Short: "Print what a machine's BMC was asked, from outside", Args: exactly("MACHINE"), Example: "  metalctl sim requests node-1",
		RunE: func(c *cobra.Command, args []string) error {
			log, err := rack.RequestsOf(c.Context(), dir, args[0])
			if err != nil {
				return err
			}
			for _, r := range log {
				if _, err := fmt.Fprintf(p.stdout, "%s %s %s %d\n", r.Time.UTC().Format("15:04:05.000"), r.Method, printable(r.Path), r.Status); err != nil {
					return err
				}
			}
			return nil
		},
	}, &dir)
}

func simConsole(p *program) *cobra.Command {
	var dir string
	return dirFlag(&cobra.Command{
		Use: "console MACHINE", Short: "Connect to a machine's serial console; ctrl-] ends", Args: exactly("MACHINE"), Example: "  metalctl sim console node-1",
		RunE: func(c *cobra.Command, args []string) error {
			s, err := rack.StatusOf(c.Context(), dir)
			if err != nil {
				return err
			}
			m, err := rackMachine(s, args[0])
			if err != nil {
				return err
			}
			if m.Console == "" {
				return fleet.Errorf(fleet.Conflict, "MC-SIM-CONSOLE", "%s has no console now: it is %s, mode %s", m.Name, m.State, m.Mode).
					WithHint("its log: less %s", m.SerialLog)
			}
			return attach(c.Context(), p, m.Console)
		},
	}, &dir)
}

// attach connects a terminal with a serial console's socket until ctrl-] or the console's end.
func attach(ctx context.Context, p *program, socket string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("open the console: %w", err)
	}
	defer conn.Close()
	if f, ok := p.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		old, err := term.MakeRaw(int(f.Fd()))
		if err != nil {
			return fmt.Errorf("set the terminal: %w", err)
		}
		defer term.Restore(int(f.Fd()), old) //nolint:errcheck // the program ends
		fmt.Fprint(p.stderr, "connected; ctrl-] ends\r\n")
	}
	ended := make(chan error, 2)
	go func() { _, err := io.Copy(p.stdout, conn); ended <- err }()
	go func() {
		b := make([]byte, 256)
		for {
			n, err := p.stdin.Read(b)
			if i := strings.IndexByte(string(b[:n]), 0x1d); i >= 0 {
				ended <- nil
				return
			}
			if _, werr := conn.Write(b[:n]); err != nil || werr != nil {
				if errors.Is(err, io.EOF) {
					return // piped input ended; the output goes on until the console does
				}
				ended <- errors.Join(err, werr)
				return
			}
		}
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}
