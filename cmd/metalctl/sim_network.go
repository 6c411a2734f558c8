//go:build !ramdisk

package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fixtures/rack"
	"github.com/metalctl/metalctl/fleet"
)

// sayEthernet tells what the rack's switches are: whether packets take notice of them is not to be guessed.
func sayEthernet(p *program, s rack.Status) {
	if s.Ethernet == nil {
		return
	}
	for _, x := range s.Ethernet.Switches {
		fmt.Fprintf(p.stderr, "the switch %s is %s\n", x.Name, s.Ethernet.Words)
	}
	fmt.Fprintf(p.stderr, "serve them with: metalctl server --config %s; declare them with: metalctl switch apply -f %s\n", s.Ethernet.Server, s.Ethernet.Fleet)
}

func simExec(p *program) *cobra.Command {
	var dir string
	c := dirFlag(&cobra.Command{
		Use: "exec MACHINE COMMAND...", Short: "Run a command of this machine in the network of a machine of mode process, as software on it would", Args: cobra.MinimumNArgs(2),
		Example: "  metalctl sim exec n1 ip addr add 10.9.0.1/24 dev eth1\n  metalctl sim exec n1 ping 10.9.0.2",
		RunE: func(c *cobra.Command, args []string) error {
			s, err := rack.StatusOf(c.Context(), dir)
			if err != nil {
				return err
			}
			m, err := rackMachine(s, args[0])
			if err != nil {
				return err
			}
			path, err := exec.LookPath(args[1])
			if err != nil {
				return usageError("sim exec: %v", err)
			}
			// The command takes this process's place, so that its exit code is the command's.
			return m.Enter(func() error { return syscall.Exec(path, args[1:], os.Environ()) })
		},
	}, &dir)
	c.Flags().SetInterspersed(false)
	return c
}

// rackMachine is the machine of that name.
func rackMachine(s rack.Status, name string) (rack.MachineStatus, error) {
	i := slices.IndexFunc(s.Machines, func(m rack.MachineStatus) bool { return m.Name == name })
	if i < 0 {
		return rack.MachineStatus{}, fleet.Errorf(fleet.NotFound, "MC-SIM-NONE", "the rack has no machine %s", name).WithHint("metalctl sim status")
	}
	return s.Machines[i], nil
}
