package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/agent"
	"github.com/metalctl/metalctl/agent/boot"
	"github.com/metalctl/metalctl/agent/inspect"
	"github.com/metalctl/metalctl/agent/rdma"
	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// pid1 is the agent of a booted machine. It does not return while the machine runs.
func pid1() {
	ctx := context.Background()
	stages := map[string]float64{"kernel": boot.Uptime()}
	var m *boot.Machine
	err := fleet.Catch(func() (err error) { m, err = boot.Init(ctx, boot.Options{}); return err })
	if err != nil {
		fmt.Fprintf(os.Stderr, "metalctl agent: %v\n", err)
		time.Sleep(time.Minute) // leaves the message on the screen before the machine restarts
		_ = boot.Reboot(ctx)
		select {}
	}
	stages["devices"] = boot.Uptime()
	home := &agent.Home{}
	log := slog.New(fleet.LogHandler(home.Handler(m.Log.Handler())))
	guarded := boot.Guarded{Console: m.Console, Now: time.Now, Send: func(_ context.Context, r boot.Report) error {
		home.Report("panic", append([]string{r.Reason}, strings.Split(r.Stack, "\n")...)...)
		return nil
	}}
	go func() {
		if err := boot.Keep(ctx, log, "the machine", m.Run); err != nil {
			log.Error("devices are not watched any more", "err", err)
		}
	}()
	var cred *fleet.Credential
	err = boot.Guard(ctx, guarded, func() (err error) {
		if cred, err = boot.ReadCredential(ctx); err == nil {
			m.Apply(cred)
		}
		return err
	})
	if err != nil {
		log.Error("no work for this machine", "err", err)
		select {}
	}
	stages["credential"] = boot.Uptime()
	if cred.DebugShell {
		guarded.Shell = func(ctx context.Context) { _ = fleet.Catch(func() error { m.Shell(ctx); return nil }) } // the panic before it was reported
	}
	err = boot.Guard(ctx, guarded, func() error { machineAgent(ctx, m, cred, home, log, stages); return nil })
	if err != nil {
		log.Error("the agent ended", "err", err)
	}
	select {} // PID 1 must not end: the machine waits to be powered off or booted again
}

// machineAgent connects the machine and works for its server until the session is over. stages are when those of the boot ended so far.
func machineAgent(ctx context.Context, m *boot.Machine, cred *fleet.Credential, home *agent.Home, log *slog.Logger, stages map[string]float64) {
	anonymous := log // the agent says who it is by itself: by its name, once it knows it
	log = log.With(fleet.LogNode, cred.Node)
	for {
		net, err := boot.Network(ctx, cred.Network, log)
		if err != nil {
			log.Error("no network; trying again", "err", err)
			time.Sleep(5 * time.Second)
			continue
		}
		if err := net.WriteResolvConf("/etc/resolv.conf"); err != nil {
			log.Warn("names cannot be resolved", "err", err)
		}
		go func() {
			if err := boot.Keep(ctx, log, "the network's leases", net.Run); err != nil {
				log.Error("the network's leases are not renewed any more", "err", err)
			}
		}()
		log.Info("network is up", "link", net.Link, "addresses", fmt.Sprint(net.Addresses))
		break
	}
	stages["network"] = boot.Uptime()
	inv, err := inspect.Read(ctx, inspect.Options{Only: []string{inspect.PartSystem, inspect.PartNIC}})
	if err != nil {
		log.Error("the machine's identity cannot be read", "err", err)
	}
	stages["identity"] = boot.Uptime()
	simulated := sync.OnceValues(func() (string, error) { return takeSimulated(m, log) })
	err = agent.Run(ctx, agent.Config{
		Credential: *cred, Home: home, Log: anonymous, Identity: identityOf(inv, stages), Uptime: boot.Uptime, Clock: boot.SetClock, PowerOff: boot.PowerOff,
		Funcs: agent.Steps(agent.Deps{Home: home, Inspect: inspect.Options{Log: anonymous, LLDPWait: lldpWait(inv.NICs), GPUs: readGPUs, HCAs: rdma.Read}, CleanGPUs: cleanGPUs, Simulated: simulated, Burn: burnPlace{simulated: simulated}.stage, Probe: probePlace{anonymous}.answer}),
	})
	if err != nil {
		log.Error("this boot's work is over", "err", err)
		fmt.Fprintf(m.Console, "metalctl: %v\nThis machine waits to be powered off or booted again.\n", err)
	}
}

// takeSimulated makes the GPUs ready that a simulated rack offers its QEMU machines; "" on all other hardware. The inventory then says so, and the server
// refuses it of a node that is not enrolled as simulated.
func takeSimulated(m *boot.Machine, log *slog.Logger) (string, error) {
	if _, err := os.Stat(agent.SimulatedDevice); err != nil {
		return "", nil // no emulator
	}
	if m.Modules != nil {
		if err := m.Modules.Load("qemu_fw_cfg"); err != nil {
			log.Warn("what the emulator offers cannot be seen", "err", err)
		}
	}
	dir, err := agent.TakeSimulated(agent.SimulatedOffer)
	if dir != "" {
		log.Warn("this machine's GPUs are simulated", "path", dir)
	}
	return dir, err
}

// lldpWait is a little more than the 30 s at which switches speak by default (IEEE 802.1AB 9.2.5.7), where there is a card that may lead to one.
func lldpWait(nics []fleet.NIC) time.Duration {
	for _, n := range nics {
		if n.Carrier && n.Driver != "virtio_net" {
			return 32 * time.Second
		}
	}
	return time.Second
}

func identityOf(inv fleet.Inventory, stages map[string]float64) agent.Identity {
	id := agent.Identity{UUID: inv.System.UUID, Serial: inv.System.Serial, Boot: api.AgentBootInfo{
		Program: version, Kernel: inv.System.Kernel, SecureBoot: inv.System.SecureBoot, Uptime: boot.Uptime(), Stages: stages,
	}}
	for _, n := range inv.NICs {
		id.MACs = append(id.MACs, n.MAC)
	}
	return id
}

// processSpec is what `agent process` reads from standard input: one JSON object that stands in for a machine.
type processSpec struct {
	Credential json.RawMessage `json:"credential"`
	System     fleet.System    `json:"system"`
	Disks      []fleet.Disk    `json:"disks"`
	NICs       []fleet.NIC     `json:"nics"`
	// HCAs are what the reader of RDMA devices would find; none: it looks by itself.
	HCAs []fleet.HCA `json:"hcas,omitempty"`
	// EFIVars is the folder of the machine's EFI variables.
	EFIVars string `json:"efi_vars"`
	// Packs is the folder that packs are put into: a process must not write into its host's.
	Packs string `json:"packs"`
	// Fixture is the folder of the machine that the agent reads in place of its host; "" reads the host.
	Fixture string `json:"fixture,omitempty"`
}

func agentNoun(p *program) *cobra.Command {
	process := &cobra.Command{
		Use: "process", Short: "Be the agent of a simulated machine (used by metalctl sim)", Args: exactly(), Hidden: true,
		Example: "  metalctl agent process < machine.json",
		RunE:    func(c *cobra.Command, _ []string) error { return runProcessAgent(c.Context(), p) },
	}
	return noun("agent", "The node's side: inventory and work on the machine itself", agentInspect(p), agentBurn(p), process, gpuHelper(p), agentPack(p))
}

func readProcessSpec(r io.Reader) (spec processSpec, err error) {
	b, err := io.ReadAll(io.LimitReader(r, 4<<20))
	if err != nil {
		return spec, err
	}
	if err := json.Unmarshal(b, &spec); err != nil {
		return spec, err
	}
	// Without variables there is no firmware to tell what to start: boot-entry then says that it was skipped, and why, instead of failing.
	if spec.EFIVars == "" {
		spec.System.FirmwareMode = "bios"
	}
	return spec, nil
}

// runProcessAgent is an agent as a process: it has file-backed disks and never touches this machine's clock, network or power.
func runProcessAgent(ctx context.Context, p *program) error {
	spec, err := readProcessSpec(p.stdin)
	if err != nil {
		return fmt.Errorf("read the machine's description: %w", err)
	}
	if spec.Packs == "" {
		if spec.Packs, err = os.MkdirTemp("", "metalctl-packs-"); err != nil {
			return fmt.Errorf("make a folder for packs: %w", err)
		}
		defer os.RemoveAll(spec.Packs)
	}
	cfg, err := spec.agent(slog.NewTextHandler(p.stderr, nil))
	if err != nil {
		return err
	}
	err = agent.Run(ctx, cfg)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// agent is the agent of the machine that spec describes; it logs to console and to its server.
func (spec *processSpec) agent(console slog.Handler) (agent.Config, error) {
	cred, err := fleet.ParseCredential(spec.Credential)
	if err != nil {
		return agent.Config{}, err
	}
	home := &agent.Home{}
	log := slog.New(fleet.LogHandler(home.Handler(console)))
	opts := inspect.Options{Root: spec.Fixture, System: &spec.System, Disks: spec.Disks, NICs: spec.NICs, Log: log, GPUs: readGPUs, HCAs: rdma.Read}
	if opts.Disks == nil {
		opts.Disks = []fleet.Disk{}
	}
	if opts.NICs == nil {
		opts.NICs = []fleet.NIC{}
	}
	if len(spec.HCAs) > 0 {
		opts.HCAs = func(context.Context, sysfs.Tree) ([]fleet.HCA, []fleet.Missing) { return spec.HCAs, nil }
	}
	// What a process measures says nothing about hardware: the parts of its machine are stand-ins, whose time goes faster.
	burns := burnPlace{root: spec.Fixture, fixture: "process", speed: fixtureSpeed}
	return agent.Config{
		Credential: *cred, Home: home, Log: log, Identity: identityOf(fleet.Inventory{System: spec.System, NICs: spec.NICs}, nil),
		Funcs:    agent.Steps(agent.Deps{Home: home, Inspect: opts, CleanGPUs: cleanGPUs, Burn: burns.stage, Probe: probePlace{log}.answer, Vars: spec.EFIVars, Packs: spec.Packs}),
		PowerOff: func(context.Context) error { return nil },
	}, nil
}
