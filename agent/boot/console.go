package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
)

// Console writes to several terminals at once. A terminal that takes nothing (a BMC's serial line under flow control) loses text;
// it never holds up the machine.
type Console struct {
	dev string

	mu    sync.Mutex // guards lines
	lines map[string]*line
}

// line is one terminal: a queue and the goroutine that empties it, for as long as the process lives.
type line struct {
	queue chan []byte
	file  *os.File
}

// queued is how many writes a slow terminal may be behind.
const queued = 512

// OpenConsole opens the terminals that the file active names, which is how the kernel tells its consoles; without it, dev's console.
func OpenConsole(active, dev string) *Console {
	c := &Console{dev: dev, lines: map[string]*line{}}
	names := []string{"console"}
	if b, err := os.ReadFile(active); err == nil && len(strings.Fields(string(b))) > 0 {
		names = strings.Fields(string(b))
	}
	for _, name := range names {
		_ = c.Add(name) // a console without its device is left out: the others still speak
	}
	return c
}

// Add opens a further terminal, such as "ttyS1,115200"; one that is open already is fine.
func (c *Console) Add(spec string) error {
	name, mode, _ := strings.Cut(spec, ",")
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lines[name] != nil {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(c.dev, name), os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open console: %w", err)
	}
	if digits := strings.TrimRight(mode, "noe78r"); digits != "" {
		if err := setSpeed(f, digits); err != nil {
			f.Close()
			return fmt.Errorf("set the speed of console %s: %w", spec, err)
		}
	}
	l := &line{make(chan []byte, queued), f}
	c.lines[name] = l
	go func() {
		// A panic loses one piece of text; it is not told, because this is where it would be.
		for fleet.Catch(func() error { l.run(); return nil }) != nil {
		}
	}()
	return nil
}

// run writes what is queued. A write that stalls for a while is given up, together with what waits behind it.
func (l *line) run() {
	for b := range l.queue {
		_ = l.file.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := l.file.Write(b); err != nil {
			for len(l.queue) > 0 {
				<-l.queue
			}
		}
	}
}

// Write queues p, with the line ends that terminals want, and reports success always.
func (c *Console) Write(p []byte) (int, error) {
	b := []byte(strings.ReplaceAll(string(p), "\n", "\r\n"))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lines {
		select {
		case l.queue <- b:
		default:
		}
	}
	return len(p), nil
}

// Flush waits until everything is with the terminals, or for at most d.
func (c *Console) Flush(d time.Duration) {
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		c.mu.Lock()
		left := 0
		for _, l := range c.lines {
			left += len(l.queue)
		}
		c.mu.Unlock()
		if left == 0 {
			time.Sleep(50 * time.Millisecond) // the last write is under way
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// serial returns the serial terminals among the consoles.
func (c *Console) serial() (files []*os.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, l := range c.lines {
		if strings.HasPrefix(name, "ttyS") || strings.HasPrefix(name, "ttyAMA") {
			files = append(files, l.file)
		}
	}
	return files
}

var speeds = map[int]uint32{
	9600: unix.B9600, 19200: unix.B19200, 38400: unix.B38400, 57600: unix.B57600, 115200: unix.B115200,
	230400: unix.B230400, 460800: unix.B460800, 921600: unix.B921600,
}

func setSpeed(f *os.File, digits string) error {
	n, err := strconv.Atoi(digits)
	if err != nil || speeds[n] == 0 {
		return fmt.Errorf("%q is no speed of a serial line", digits)
	}
	var result error
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	err = conn.Control(func(fd uintptr) {
		t, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		if err != nil {
			result = err
			return
		}
		t.Cflag = t.Cflag&^(unix.CBAUD|unix.CRTSCTS) | speeds[n] | unix.CLOCAL
		t.Ispeed, t.Ospeed = speeds[n], speeds[n]
		result = unix.IoctlSetTermios(int(fd), unix.TCSETS, t)
	})
	if err != nil {
		return err
	}
	return result
}
