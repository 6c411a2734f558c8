// Package boot is what PID 1 owes a machine: mounts, modules, console, clock, network, children and an orderly end.
package boot

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
)

// Options of Init. The zero value is right for PID 1.
type Options struct {
	// Level is what the machine's log shows; default Info.
	Level slog.Level
	// Hostname is the name until the node's is known; default "metalctl".
	Hostname string
}

// Machine is a machine that Init has set up. Run must be running for hot-plugged devices to get their modules and for
// orphans to be reaped.
type Machine struct {
	// Console is every terminal that the kernel uses as its console. It never blocks.
	Console *Console
	// Log writes to Console.
	Log *slog.Logger
	// Modules loads kernel modules.
	Modules *Modules

	events *uevents
}

// early are modules that no device asks for by modalias.
var early = []string{"efivarfs", "efi_pstore", "ipmi_devintf", "msr"}

// Init sets up the machine: mounts, consoles, host name, and the modules of the hardware that booting needs (storage, network,
// virtual CD). It is called once, by PID 1, before anything else, and leaves the rest of the modules to Run. What is optional is
// logged and left out; an error means that nothing can work.
func Init(ctx context.Context, o Options) (*Machine, error) {
	if err := mountAll(earlyMounts, unix.Mount); err != nil {
		return nil, err
	}
	// The kernel's own attempts to run modprobe would fail one by one; modules come from here.
	_ = os.WriteFile("/proc/sys/kernel/modprobe", []byte("\n"), 0o644)
	m := &Machine{Console: OpenConsole("/sys/class/tty/console/active", "/dev")}
	m.Log = slog.New(slog.NewTextHandler(m.Console, &slog.HandlerOptions{Level: o.Level}))
	setEnv()
	// Ctrl-Alt-Del from a BMC's keyboard must not reset the machine in the middle of a write: it becomes SIGINT.
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
		m.Log.Warn("ctrl-alt-del still resets this machine", "err", err)
	}
	hostname := o.Hostname
	if hostname == "" {
		hostname = "metalctl"
	}
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		m.Log.Warn("host name not set", "err", err)
	}
	if err := linkUp("lo"); err != nil {
		m.Log.Warn("loopback interface not set up", "err", err)
	}

	var err error
	if m.events, err = listenUevents(); err != nil {
		m.Log.Warn("hot-plugged devices will not be noticed", "err", err)
	}
	if m.Modules, err = OpenModules("/"); err != nil {
		m.Log.Warn("kernel modules cannot be loaded", "err", err)
		return m, nil
	}
	for _, name := range early {
		if err := m.Modules.Load(name); err != nil && !isNotFound(err) {
			m.Log.Warn("kernel module not loaded", "module", name, "err", err)
		}
	}
	m.coldplug(ctx)
	if err := mountAll(lateMounts, unix.Mount); err != nil {
		m.Log.Warn("a file system is not mounted", "err", err)
	}
	return m, nil
}

// setEnv gives children what a program expects of its surroundings.
func setEnv() {
	for k, v := range map[string]string{"PATH": "/bin:/sbin:/usr/bin:/usr/sbin", "HOME": "/", "TERM": "linux", "TMPDIR": "/tmp"} {
		_ = os.Setenv(k, v) // cannot fail: neither is empty nor holds a NUL
	}
}

// coldplug loads modules for the devices that are there, urgent ones first, until a pass finds nothing new: a bus driver reveals
// further devices. Two passes do on real machines; a bound keeps a broken device from holding the boot.
func (m *Machine) coldplug(ctx context.Context) {
	start := time.Now()
	for pass := 1; pass <= 6 && ctx.Err() == nil; pass++ {
		names := m.Modules.Wanted(m.Modules.Aliases())
		var urgent []string
		for _, name := range names {
			if m.Modules.Urgent(name) {
				urgent = append(urgent, name)
			}
		}
		if len(urgent) == 0 {
			break
		}
		m.load(ctx, urgent)
		m.Log.Info("modules loaded", "pass", pass, "modules", strings.Join(urgent, " "), "seconds", time.Since(start).Round(time.Millisecond).Seconds())
	}
}

func (m *Machine) load(ctx context.Context, names []string) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, runtime.NumCPU()))
	for _, name := range names {
		g.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			if err := fleet.Catch(func() error { return m.Modules.Load(name) }); err != nil && !logPanic(m.Log, "loading "+name, err) && !isNotFound(err) {
				m.Log.Warn("kernel module not loaded", "module", name, "err", err)
			}
			return nil
		})
	}
	_ = g.Wait() // every error was logged: a module that does not load must not stop the boot
}

// Run loads the modules that Init left for later and those of devices that appear, reaps orphans, and ends the machine when its power
// button is pressed, until ctx ends.
func (m *Machine) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return Keep(ctx, m.Log, "obeying the power button", m.obey) })
	g.Go(func() error {
		return Keep(ctx, m.Log, "reaping orphans", func(ctx context.Context) error { return reap(ctx, "/proc", os.Getpid(), wait4) })
	})
	if m.Modules != nil {
		g.Go(func() error { return Keep(ctx, m.Log, "watching devices", m.hotplug) })
	}
	return g.Wait()
}

func (m *Machine) hotplug(ctx context.Context) error {
	want := func(aliases []string) bool {
		names := m.Modules.Wanted(aliases)
		if len(names) > 0 {
			m.load(ctx, names)
			m.Log.Info("modules loaded", "modules", strings.Join(names, " "))
		}
		return len(names) > 0
	}
	scan := func() {
		for pass := 1; pass <= 6 && ctx.Err() == nil && want(m.Modules.Aliases()); pass++ {
		}
	}
	scan()
	if m.events == nil {
		<-ctx.Done()
		return nil
	}
	return m.events.run(ctx, func(alias string) { want([]string{alias}) }, scan)
}

// Apply makes the machine what its credential says: host name, clock at least the time of issue, a further console.
func (m *Machine) Apply(c *fleet.Credential) {
	name, _, _ := strings.Cut(c.Node, ".")
	if err := unix.Sethostname([]byte(name)); err != nil {
		m.Log.Warn("host name not set", "err", err)
	}
	if moved, err := ClockAtLeast(c.IssuedAt); err != nil {
		m.Log.Warn("clock not set", "err", err)
	} else if moved {
		m.Log.Info("clock was behind the credential and was set", "time", c.IssuedAt)
	}
	if c.Console != "" {
		if err := m.Console.Add(c.Console); err != nil {
			m.Log.Warn("console not opened", "console", c.Console, "err", err)
		}
	}
}

// ClockAtLeast sets the clock to t if it shows less, and says whether it did. A machine whose RTC lost its battery says 1970, and
// no certificate is valid then.
func ClockAtLeast(t time.Time) (moved bool, err error) {
	if !time.Now().Before(t) {
		return false, nil
	}
	return true, SetClock(t)
}

// SinceBoot is how long ago the kernel started, by a clock that nobody sets and that runs on while the machine sleeps. It needs no file system.
func SinceBoot() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0, fmt.Errorf("clock_gettime(CLOCK_BOOTTIME): %w", err)
	}
	return time.Duration(t.Nano()), nil
}

// Uptime is SinceBoot in seconds; 0 where the kernel does not say.
func Uptime() float64 {
	d, err := SinceBoot()
	if err != nil {
		return 0
	}
	return d.Seconds()
}

// SetClock sets the clock to t, as the server says it.
func SetClock(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}
