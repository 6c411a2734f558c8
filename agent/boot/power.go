package boot

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
)

// buttonPoll is how often power buttons are looked for: their driver is loaded late.
const buttonPoll = time.Second

// obey ends the machine in an orderly way when somebody presses its power button (a BMC's graceful shutdown does the same), types
// Ctrl-Alt-Del, or sends PID 1 a signal to end.
func (m *Machine) obey(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	defer signal.Stop(signals)
	pressed := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		_ = Keep(ctx, m.Log, "watching power buttons", func(ctx context.Context) error { // it has no error but a panic, which was logged
			watchButtons(ctx, "/sys/class/input", "/dev/input", m.Log, pressed)
			return nil
		})
	})
	var err error
	select {
	case <-ctx.Done():
		return nil
	case s := <-signals:
		m.Log.Warn("this machine ends", "signal", s.String())
		m.Console.Flush(time.Second)
		if s == unix.SIGINT {
			err = Reboot(ctx)
		} else {
			err = PowerOff(ctx)
		}
	case <-pressed:
		m.Log.Warn("this machine ends: its power button was pressed")
		m.Console.Flush(time.Second)
		err = PowerOff(ctx)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// watchButtons finds power buttons and reads them until ctx ends.
func watchButtons(ctx context.Context, class, dev string, log *slog.Logger, pressed chan<- struct{}) {
	var wg sync.WaitGroup
	defer wg.Wait()
	open := map[string]bool{}
	tick := time.NewTicker(buttonPoll)
	defer tick.Stop()
	for {
		names, err := filepath.Glob(filepath.Join(class, "event*/device/name"))
		if err != nil {
			return
		}
		for _, path := range names {
			event := filepath.Base(filepath.Dir(filepath.Dir(path)))
			name, err := os.ReadFile(path)
			if err != nil || open[event] || strings.TrimSpace(string(name)) != "Power Button" {
				continue
			}
			f, err := os.OpenFile(filepath.Join(dev, event), os.O_RDONLY|unix.O_NONBLOCK, 0)
			if err != nil {
				continue // its device file comes a moment later
			}
			open[event] = true
			log.Info("power button found", "device", event)
			wg.Go(func() {
				defer f.Close()
				stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
				defer stop()
				err := fleet.Catch(func() error { return readButton(f) })
				logPanic(log, "reading the power button", err)
				if err == nil {
					select {
					case pressed <- struct{}{}:
					default:
					}
				}
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// readButton returns nil once the power key goes down (struct input_event of a 64-bit kernel: time, type, code, value).
func readButton(r io.Reader) error {
	const (
		size     = 24
		typeKey  = 1
		keyPower = 116
	)
	b := make([]byte, size)
	for {
		if _, err := io.ReadFull(r, b); err != nil {
			return errors.Join(errors.New("the power button is gone"), err)
		}
		le := binary.LittleEndian
		if le.Uint16(b[16:]) == typeKey && le.Uint16(b[18:]) == keyPower && le.Uint32(b[20:]) == 1 {
			return nil
		}
	}
}
