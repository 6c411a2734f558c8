package opensm

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/metalctl/metalctl/fleet"
)

// Process is a running OpenSM.
type Process struct {
	PID int
	// Started tells two processes with one number apart: clock ticks since the machine booted.
	Started string
	// Partitions is the file that it was told to read.
	Partitions string
	// root is its view of the file system, where that may be another than ours.
	root string
}

// Local finds OpenSM among this machine's processes and signals it.
type Local struct {
	// Port is the port that the daemon serves. One that was started without a port serves any.
	Port fleet.GUID
	// Proc is where processes are seen; "" is /proc.
	Proc string
}

// defaults of OpenSM as Debian builds it.
const (
	defaultConf       = "/etc/opensm/opensm.conf"
	defaultPartitions = "/etc/opensm/partitions.conf"
)

func (d Local) proc() string {
	if d.Proc == "" {
		return "/proc"
	}
	return d.Proc
}

// Find returns the one OpenSM of the port. None is NotFound, several are a Conflict.
func (d Local) Find() (Process, error) {
	dirs, err := os.ReadDir(d.proc())
	if err != nil {
		return Process{}, fmt.Errorf("look for OpenSM: %w", err)
	}
	var found []Process
	for _, e := range dirs {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, ok, err := d.read(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it ended meanwhile
		}
		if err != nil {
			return Process{}, fmt.Errorf("look at process %d: %w", pid, err)
		}
		if ok {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 0:
		return Process{}, fleet.Errorf(fleet.NotFound, "MC-FABRIC-DAEMON", "no OpenSM runs here for port %s", d.Port).WithHint("systemctl status opensm")
	case 1:
		return found[0], nil
	}
	return Process{}, fleet.Errorf(fleet.Conflict, "MC-FABRIC-DAEMON", "%d processes are an OpenSM for port %s, among them %d and %d", len(found), d.Port, found[0].PID, found[1].PID).
		WithHint("systemctl status opensm")
}

// read looks at one process; ok is false where it is no OpenSM of the port.
func (d Local) read(pid int) (p Process, ok bool, err error) {
	dir := filepath.Join(d.proc(), strconv.Itoa(pid))
	name, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil || strings.TrimSpace(string(name)) != "opensm" {
		return p, false, err
	}
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil || len(line) == 0 {
		return p, false, err // a zombie has no command line
	}
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return p, false, err
	}
	cwd, err := os.Readlink(filepath.Join(dir, "cwd"))
	if err != nil {
		return p, false, err
	}
	p = Process{PID: pid, root: filepath.Join(dir, "root")}
	if p.Started, err = startTime(string(stat)); err != nil {
		return p, false, err
	}
	port := ""
	p.Partitions, port = settings(strings.Split(strings.TrimRight(string(line), "\x00"), "\x00"), func(conf string) (string, error) {
		b, err := os.ReadFile(filepath.Join(p.root, absolute(cwd, conf)))
		return string(b), err
	})
	p.Partitions = absolute(cwd, p.Partitions)
	if n, used := number(port); used > 0 && n != 0 && fleet.GUIDOf(n) != d.Port {
		return p, false, nil
	}
	return p, true, nil
}

func absolute(cwd, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(cwd, path)
}

// startTime is the 22nd field of /proc/PID/stat; the second is a name in parentheses that may hold anything.
func startTime(stat string) (string, error) {
	rest := stat[strings.LastIndexByte(stat, ')')+1:]
	f := strings.Fields(rest)
	if len(f) < 20 {
		return "", fmt.Errorf("its stat has %d fields", len(f)+2)
	}
	return f[19], nil
}

// settings are the partition file and the port of a command line: options count more than the configuration file, wherever they stand.
func settings(args []string, readConf func(string) (string, error)) (partitions, port string) {
	option := func(short, long string) string {
		v := ""
		for i := 1; i < len(args); i++ {
			switch a := args[i]; {
			case (a == "-"+short || a == "--"+long) && i+1 < len(args):
				v = args[i+1]
				i++
			case strings.HasPrefix(a, "--"+long+"="):
				v = a[len(long)+3:]
			case strings.HasPrefix(a, "-"+short) && !strings.HasPrefix(a, "--"):
				v = a[len(short)+1:]
			}
		}
		return v
	}
	partitions, port = option("P", "Pconfig"), option("g", "guid")
	conf := option("F", "config")
	if conf == "" {
		conf = defaultConf
	}
	text, err := readConf(conf)
	if err != nil {
		text = "" // OpenSM takes its defaults, too
	}
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 2 {
			continue
		}
		if f[0] == "partition_config_file" && partitions == "" {
			partitions = f[1]
		}
		if f[0] == "guid" && port == "" {
			port = f[1]
		}
	}
	if partitions == "" {
		partitions = defaultPartitions
	}
	return partitions, port
}

// Reload makes the process read its partition file again. A process that is another by now is not signalled.
func (d Local) Reload(p Process) error {
	proc, err := os.FindProcess(p.PID) // holds the process by a descriptor, so that its number cannot become another's
	if err != nil {
		return fmt.Errorf("find OpenSM: %w", err)
	}
	defer func() { _ = proc.Release() }() // nothing is left to be done with it
	now, ok, err := d.read(p.PID)
	if err != nil || !ok || now.Started != p.Started {
		return fleet.Errorf(fleet.Conflict, "MC-FABRIC-DAEMON", "OpenSM was restarted while its partitions were changed").WithHint("systemctl status opensm")
	}
	if err := proc.Signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("signal OpenSM: %w", err)
	}
	return nil
}

// Reads reports whether the process reads the file at path: the same folder on the same file system, and the same name.
func (p Process) Reads(path string) bool {
	theirs, err := os.Stat(filepath.Join(p.root, filepath.Dir(p.Partitions)))
	if err != nil {
		return false
	}
	ours, err := os.Stat(filepath.Dir(path))
	return err == nil && os.SameFile(theirs, ours) && filepath.Base(p.Partitions) == filepath.Base(path)
}
