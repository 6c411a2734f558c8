package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/agent"
	"github.com/metalctl/metalctl/agent/inspect"
	"github.com/metalctl/metalctl/agent/rdma"
	"github.com/metalctl/metalctl/fleet"
	judge "github.com/metalctl/metalctl/fleet/verdict"
)

// fixtureSpeed is how much faster than the clock a machine that is not there is burned in: smoke, which has five minutes, ends within half a one.
const fixtureSpeed = 60

type agentBurnOptions struct {
	profile, fixture, fault, class string
	speed                          int
	disks                          []string
	files                          reportFiles
}

// agentBurn is in the ramdisk's build, too.
func agentBurn(p *program) *cobra.Command {
	var o agentBurnOptions
	c := &cobra.Command{
		Use: "burn --profile PROFILE", Short: "Burn this machine in and judge it; no server needed", Args: exactly(),
		Long: `Burn runs a burn-in profile on this machine and judges what it measured, as a server would: the same stages, the same judge. The profile is one that ships (metalctl burnin
profiles lists them) or a file of kind Profile. Nothing is overwritten: stages that load disks do so only with the devices that --disk names.
The exit code is the verdict: 0 passed (maybe with warnings), 7 failed, 10 could not tell, 6 aborted.
With --fixture the same code runs on a machine that is not there, and the report says so; --fault breaks a copy of it first.`,
		Example: "  metalctl agent burn --profile smoke --junit smoke.xml\n  metalctl agent burn --profile smoke --fixture hgx-h200 --fault nvlink-down --html report.html",
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c.Context(), p) },
	}
	f := c.Flags()
	f.StringVar(&o.profile, "profile", "", "profile that ships, or a file with one")
	f.StringVar(&o.class, "class", "", "what the machine must be: a class that ships, or a file with one; without it nothing is expected of it")
	f.StringArrayVar(&o.disks, "disk", nil, "serial of a disk that may be overwritten")
	f.StringVar(&o.fixture, "fixture", "", "folder of a machine to burn in instead of this one, or the name of a profile of hardware")
	f.StringVar(&o.fault, "fault", "", "a fault's name, or a fault file (YAML), to apply to a copy of the fixture")
	f.IntVar(&o.speed, "speed", 0, fmt.Sprintf("how much faster than the clock the time of a fixture goes (default %d)", fixtureSpeed))
	o.files.flags(c)
	completeFixture(c)
	must(c.RegisterFlagCompletionFunc("profile", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		all, err := standardProfiles()
		if err != nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		var names []string
		for _, x := range all {
			names = append(names, x.Name)
		}
		return names, cobra.ShellCompDirectiveDefault
	}))
	return c
}

// readProfile is a profile that ships, by its name, or the one of a file.
func readProfile(nameOrFile string) (fleet.BurnProfile, error) {
	all, err := standardProfiles()
	if err != nil {
		return fleet.BurnProfile{}, err
	}
	if x, ok := fleet.FindProfile(all, nameOrFile); ok {
		return x, nil
	}
	b, err := os.ReadFile(nameOrFile)
	if errors.Is(err, os.ErrNotExist) && !strings.ContainsAny(nameOrFile, "./") {
		return fleet.BurnProfile{}, fleet.Errorf(fleet.NotFound, "MC-BURN-PROFILE", "no profile %q ships, and there is no such file; there are %s", nameOrFile, strings.Join(fleet.StandardProfiles, ", ")).
			WithHint("metalctl agent burn --profile smoke")
	}
	if err != nil {
		return fleet.BurnProfile{}, fmt.Errorf("read the profile: %w", err)
	}
	return parseProfile(nameOrFile, b)
}

func (o *agentBurnOptions) run(ctx context.Context, p *program) (err error) {
	switch {
	case o.profile == "":
		return usageError("agent burn: --profile is needed; smoke takes five minutes")
	case o.fault != "" && o.fixture == "":
		return usageError("agent burn: --fault needs --fixture: faults are for machines that are not there")
	case o.speed != 0 && o.fixture == "":
		return usageError("agent burn: --speed needs --fixture: the time of this machine goes by the clock")
	case o.speed < 0:
		return usageError("agent burn: --speed is at least 1")
	}
	profile, err := readProfile(o.profile)
	if err != nil {
		return err
	}
	class, err := o.readClass()
	if err != nil {
		return err
	}
	if err := o.files.check(); err != nil {
		return err
	}
	root, done, err := openFixture(o.fixture, o.fault)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	place := burnPlace{root: root}
	read := func(ctx context.Context) (fleet.Inventory, error) {
		return inspect.Read(ctx, inspect.Options{Root: root, GPUs: readGPUs, HCAs: rdma.Read, SmartLog: agent.SmartLog})
	}
	if o.fixture != "" {
		place.fixture, place.speed = filepath.Base(o.fixture), max(o.speed, 1)
		if o.speed == 0 {
			place.speed = fixtureSpeed
		}
		fmt.Fprintf(p.stderr, "the machine %s is not there: this shows what the judge says of it, and nothing about any hardware\n", place.fixture)
	}
	rep, err := o.burn(ctx, p, place, read, profile, class)
	if err != nil {
		return err
	}
	return o.files.write(p, rep)
}

// burn runs the profile's stages until one is fatal or ctx ends, and judges what was measured.
func (o *agentBurnOptions) burn(ctx context.Context, p *program, place burnPlace, read func(context.Context) (fleet.Inventory, error), profile fleet.BurnProfile, class fleet.Class) (fleet.BurnReport, error) {
	in := judge.BurnInput{Program: version, Profile: profile, Class: class}
	accepted, err := o.accepted(ctx, read)
	if err != nil {
		return fleet.BurnReport{}, err
	}
	for round := 1; round <= profile.Rounds && in.Stopped == ""; round++ {
		for _, s := range profile.Stages {
			began := time.Now()
			part, err := place.stage(ctx, agent.BurnTask{Stage: s, Round: round, Accepted: accepted, Read: read})
			part.Profile = profile.Name
			if part.Stage != "" {
				in.Parts = append(in.Parts, part)
			}
			switch x := judge.Fatal(&part, class); {
			case ctx.Err() != nil:
				in.Stopped = "aborted"
			case err != nil:
				return fleet.BurnReport{}, err
			case x != nil:
				in.Stopped = x.Words
			}
			fmt.Fprintf(p.stderr, "round %d of %d  %-12s %6s  %s\n", round, profile.Rounds, s.Name, time.Since(began).Round(100*time.Millisecond), printable(stageWords(part)))
			if in.Stopped != "" {
				break
			}
		}
	}
	in.Finished, in.Now = in.Stopped == "", time.Now().UTC()
	return judge.BurnIn(in), nil
}

// accepted are the disks that were named; naming one that is not there is refused before anything begins.
func (o *agentBurnOptions) accepted(ctx context.Context, read func(context.Context) (fleet.Inventory, error)) ([]fleet.AcceptedDevice, error) {
	if len(o.disks) == 0 {
		return nil, nil
	}
	inv, err := read(ctx)
	if err != nil {
		return nil, err
	}
	var out []fleet.AcceptedDevice
	all := inv.WouldErase()
	for _, serial := range o.disks {
		i := slices.IndexFunc(all, func(d fleet.AcceptedDevice) bool { return d.Serial == serial })
		if i < 0 {
			return nil, fleet.Errorf(fleet.NotFound, "MC-ACCEPT-SERIAL", "%q is no disk of this machine that may be overwritten", serial).WithHint("metalctl agent inspect -o json shows the disks")
		}
		out = append(out, all[i])
	}
	return out, nil
}

// stageWords say in a few words what became of a stage.
func stageWords(part fleet.BurnPart) string {
	text := fmt.Sprintf("%d values", len(part.Measured))
	if n := len(part.Untold); n > 0 {
		text += fmt.Sprintf(", %d not told", n)
	}
	if part.Stopped != "" {
		text += ", stopped: " + part.Stopped
	}
	return text
}
