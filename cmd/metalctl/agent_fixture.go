//go:build !ramdisk

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/agent/burn"
	"github.com/metalctl/metalctl/fixtures/profiles"
	"github.com/metalctl/metalctl/fixtures/sick"
	"github.com/metalctl/metalctl/fleet"
)

// completeFixture completes the names of machines and faults that are built in; folders and files are the shell's.
func completeFixture(c *cobra.Command) {
	must(c.RegisterFlagCompletionFunc("fixture", cobra.FixedCompletions(profiles.Names(), cobra.ShellCompDirectiveDefault)))
	must(c.RegisterFlagCompletionFunc("fault", cobra.FixedCompletions(profiles.FaultNames(), cobra.ShellCompDirectiveDefault)))
}

// openFixture makes ready the folder that is to be read in place of this machine: one that is there, one that holds only a machine.yaml, or a profile by its
// name. "" is this machine. A fault, built in or of a file, is applied to a copy. done takes away what was made.
func openFixture(name, fault string) (root string, done func() error, err error) {
	done = func() error { return nil }
	if name == "" {
		return "", done, nil
	}
	var faults *profiles.Faults
	if fault != "" {
		if faults, err = profiles.ReadFaults(fault); err != nil {
			return "", done, err
		}
	}
	machine, err := fixtureMachine(name)
	if err != nil {
		return "", done, err
	}
	if machine == nil && faults == nil {
		return name, done, nil
	}
	dir, err := os.MkdirTemp("", "metalctl-fixture-")
	if err != nil {
		return "", done, fmt.Errorf("make a folder for the machine: %w", err)
	}
	remove := func() error { return os.RemoveAll(dir) }
	if machine != nil {
		err = machine.Materialise(dir)
	} else {
		err = profiles.Copy(name, dir)
	}
	if err == nil && faults != nil {
		err = faults.Apply(dir)
	}
	if err != nil {
		return "", done, errors.Join(err, remove())
	}
	return dir, remove, nil
}

// standIns adds processors, memory and disks of a machine that is not there to what a stage runs on.
func standIns(root string, m *burn.Machine) error {
	host, err := sick.Open(root)
	if err != nil {
		return err
	}
	m.Stressors = host.Stressors()
	if log := filepath.Join(root, "kmsg"); root != "" {
		if _, err := os.Stat(log); err == nil {
			m.Logs = []string{log}
		}
	}
	return nil
}

// readClass is the class that --class names: one that ships, or that of a file.
func (o *agentBurnOptions) readClass() (fleet.Class, error) {
	if o.class == "" {
		return fleet.Class{}, nil
	}
	if t, err := classTemplateOf(o.class); err == nil {
		return t.class, nil
	}
	f, err := readFleetFile(o.class, nil)
	if err != nil {
		return fleet.Class{}, err
	}
	if len(f.classes) != 1 {
		return fleet.Class{}, fleet.Errorf(fleet.Invalid, "MC-FILE-VALUE", "%s holds %d classes; want one", o.class, len(f.classes))
	}
	return f.classes[0], nil
}

// fixtureMachine is the description that a fixture has to be made of; nil where its files are there already.
func fixtureMachine(name string) (*profiles.Machine, error) {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return profiles.Load(name)
	}
	if err != nil {
		return nil, fmt.Errorf("look for the machine: %w", err)
	}
	unknown := fleet.Errorf(fleet.Invalid, "MC-PROFILE-UNKNOWN", "%s holds no machine: neither sys nor machine.yaml", name).WithHint("metalctl sim profile NAME DIR writes one")
	if !info.IsDir() {
		return nil, unknown
	}
	if _, err := os.Stat(filepath.Join(name, "sys")); err == nil {
		return nil, nil
	}
	file := filepath.Join(name, "machine.yaml")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unknown
	}
	if err != nil {
		return nil, fmt.Errorf("read the machine's description: %w", err)
	}
	return profiles.Parse(file, b)
}
