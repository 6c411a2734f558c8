package boot

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
)

// shellLimit bounds what a command prints of one file, in bytes.
const shellLimit = 1 << 20

// Shell reads commands from all serial terminals until somebody types exit or ctx ends. The ramdisk has no shell program: the
// commands are the few that a person needs to see why a machine did not come up.
func (m *Machine) Shell(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for _, f := range m.Console.serial() {
		_ = f.SetReadDeadline(time.Time{})
		stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
		defer stop()
		wg.Go(func() {
			defer cancel()
			s := shell{out: m.Console, root: "/", load: m.loadNamed}
			err := fleet.Catch(func() error { s.run(ctx, f); return nil })
			logPanic(m.Log, "the shell", err)
		})
	}
	wg.Wait()
}

func (m *Machine) loadNamed(name string) error {
	if m.Modules == nil {
		return fmt.Errorf("no kernel modules are known")
	}
	return m.Modules.Load(name)
}

// shell is one person's session.
type shell struct {
	out  io.Writer
	root string
	load func(module string) error
}

// verb is a command: what it takes and says, and what it does.
type verb struct {
	usage string
	run   func(s *shell, ctx context.Context, args []string) error
}

// verbs is a function and not a table because help lists it.
func verbs() map[string]verb {
	return map[string]verb{
		"help":  {"help: this list", (*shell).help},
		"ls":    {"ls [DIR]: names, sizes", (*shell).ls},
		"cat":   {"cat FILE…: contents", (*shell).cat},
		"dmesg": {"dmesg: the kernel's messages", (*shell).dmesg},
		"ps":    {"ps: processes", (*shell).ps},
		"ip":    {"ip: links and addresses", (*shell).ip},
		"mount": {"mount: what is mounted", func(s *shell, ctx context.Context, _ []string) error {
			return s.cat(ctx, []string{"/proc/self/mounts"})
		}},
		"lsmod":    {"lsmod: loaded modules", func(s *shell, ctx context.Context, _ []string) error { return s.cat(ctx, []string{"/proc/modules"}) }},
		"modprobe": {"modprobe MODULE…: load modules", (*shell).modprobe},
		"reboot":   {"reboot: restart the machine", func(_ *shell, ctx context.Context, _ []string) error { return Reboot(ctx) }},
		"poweroff": {"poweroff: switch the machine off", func(_ *shell, ctx context.Context, _ []string) error { return PowerOff(ctx) }},
		"exit":     {"exit: go on with what the agent does after a panic", nil},
	}
}

// run reads and does commands until exit, the end of in, or of ctx.
func (s *shell) run(ctx context.Context, in io.Reader) {
	fmt.Fprint(s.out, "\nmetalctl debug shell; type help\n# ")
	// Terminals in this state echo; both carriage return and newline end a line.
	lines := bufio.NewScanner(in)
	lines.Split(splitLine)
	for lines.Scan() && ctx.Err() == nil {
		words := strings.Fields(lines.Text())
		if len(words) > 0 {
			if words[0] == "exit" {
				return
			}
			if v, ok := verbs()[words[0]]; !ok {
				fmt.Fprintf(s.out, "%s: no such command; type help\n", words[0])
			} else if err := v.run(s, ctx, words[1:]); err != nil {
				fmt.Fprintf(s.out, "%s: %v\n", words[0], err)
			}
		}
		fmt.Fprint(s.out, "# ")
	}
}

// say prints a list as one piece: the console drops pieces where more of them wait than it queues, as a long list's lines would.
func (s *shell) say(b *strings.Builder) error {
	_, err := io.WriteString(s.out, b.String())
	return err
}

func splitLine(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := strings.IndexAny(string(data), "\r\n"); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

func (s *shell) help(context.Context, []string) error {
	var list []string
	for _, v := range verbs() {
		list = append(list, v.usage)
	}
	slices.Sort(list)
	fmt.Fprintln(s.out, strings.Join(list, "\n"))
	return nil
}

func (s *shell) ls(_ context.Context, args []string) error {
	dir := "/"
	if len(args) > 0 {
		dir = args[0]
	}
	list, err := os.ReadDir(filepath.Join(s.root, dir))
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, e := range list {
		size := int64(0)
		if info, err := e.Info(); err == nil {
			size = info.Size()
		}
		fmt.Fprintf(&b, "%s %12d %s\n", fs.FileMode(e.Type()), size, e.Name())
	}
	return s.say(&b)
}

func (s *shell) cat(_ context.Context, args []string) error {
	for _, name := range args {
		f, err := os.Open(filepath.Join(s.root, name))
		if err != nil {
			return err
		}
		_, err = io.Copy(s.out, io.LimitReader(f, shellLimit))
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *shell) dmesg(context.Context, []string) error {
	b := make([]byte, shellLimit)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, b)
	if err != nil {
		return err
	}
	_, err = s.out.Write(b[:n])
	return err
}

func (s *shell) ps(context.Context, []string) error {
	dirs, err := filepath.Glob(filepath.Join(s.root, "proc/[0-9]*"))
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, dir := range dirs {
		cmd, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(cmd) == 0 {
			continue // gone, or a thread of the kernel
		}
		fmt.Fprintf(&b, "%8s %s\n", filepath.Base(dir), strings.ReplaceAll(strings.TrimRight(string(cmd), "\x00"), "\x00", " "))
	}
	return s.say(&b)
}

func (s *shell) ip(context.Context, []string) error {
	nics, err := listNICs()
	if err != nil {
		return err
	}
	for _, n := range nics {
		var list []netip.Prefix
		if list, err = addresses(n.name); err != nil {
			return err
		}
		fmt.Fprintf(s.out, "%-15s %s up=%v carrier=%v %v\n", n.name, n.mac, n.up, n.carrier, list)
	}
	return nil
}

func (s *shell) modprobe(_ context.Context, args []string) error {
	for _, name := range args {
		if err := s.load(name); err != nil {
			return err
		}
	}
	return nil
}
