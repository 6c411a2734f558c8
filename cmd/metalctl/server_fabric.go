//go:build !ramdisk

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/switchboard"
	"github.com/metalctl/metalctl/provision/fabric"
	"github.com/metalctl/metalctl/provision/fabric/opensm"
)

// fabricConfig says how this machine reaches one InfiniBand fabric.
type fabricConfig struct {
	// Driver is opensm: an OpenSM on this machine reads the partition file that the server writes; or ufm: NVIDIA's UFM is asked for it.
	Driver string `yaml:"driver"`
	// Partitions is that file. Its folder is the server's alone.
	Partitions string `yaml:"partitions,omitempty"`
	// Port is the GUID of this machine's port that the subnet manager serves; datagrams leave by it.
	Port string `yaml:"port,omitempty"`
	// ManagementKeyFile holds the fabric's m_key as 0x and hex digits.
	ManagementKeyFile string `yaml:"management_key_file,omitempty"`
	// Simulator is the socket of an ibsim and the host there, joined by a slash, of a rack that "sim up" started. It is for laboratories.
	Simulator string `yaml:"simulator,omitempty"`
	// Address of a UFM is https://HOST[:PORT].
	Address string `yaml:"address,omitempty"`
	// TokenFile holds an access token alone; without it User and PasswordFile are used.
	TokenFile    string `yaml:"token_file,omitempty"`
	User         string `yaml:"user,omitempty"`
	PasswordFile string `yaml:"password_file,omitempty"`
	// TLS says how UFM's certificate is trusted.
	TLS *switchTLS `yaml:"tls,omitempty"`
}

const driverOpenSM = "opensm"

func (f fabricConfig) check(name string) error {
	if !fleet.ValidName(name) {
		return usageError("fabrics: %q is no name of a fabric", name)
	}
	switch f.Driver {
	case driverUFM:
		return f.checkUFM("fabrics." + name)
	case driverOpenSM:
	default:
		return usageError("fabrics.%s.driver %q: there are %s and %s", name, f.Driver, driverOpenSM, driverUFM)
	}
	if f.Address != "" || f.TokenFile != "" || f.User != "" || f.PasswordFile != "" || f.TLS != nil {
		return usageError("fabrics.%s: driver %s takes none of address, token_file, user, password_file and tls", name, driverOpenSM)
	}
	if !filepath.IsAbs(f.Partitions) {
		return usageError("fabrics.%s.partitions %q is no absolute path", name, f.Partitions)
	}
	if _, err := fleet.ParseGUID(f.Port); err != nil {
		return usageError("fabrics.%s.port: %v", name, err)
	}
	if socket, host, both := strings.Cut(f.Simulator, "/"); f.Simulator != "" && (!both || socket == "" || host == "") {
		return usageError("fabrics.%s.simulator %q is no SOCKET/HOST", name, f.Simulator)
	}
	return nil
}

// managementKey is 0 where none is configured.
func (f fabricConfig) managementKey() (uint64, error) {
	if f.ManagementKeyFile == "" {
		return 0, nil
	}
	b, err := os.ReadFile(f.ManagementKeyFile)
	if err != nil {
		return 0, fmt.Errorf("read the management key: %w", err)
	}
	key, err := strconv.ParseUint(strings.TrimPrefix(strings.TrimSpace(string(b)), "0x"), 16, 64)
	if err != nil {
		return 0, fleet.Errorf(fleet.Invalid, "MC-FABRIC-KEY", "%s holds no management key: want 0x and up to 16 hex digits", f.ManagementKeyFile).WithHint("it is m_key of opensm.conf")
	}
	return key, nil
}

// networkDrivers names what moves wires here.
func (c serverConfig) networkDrivers() string {
	names := map[string]bool{}
	for _, f := range c.Fabrics {
		names[f.Driver] = true
	}
	for _, x := range c.Switches {
		names[x.Driver] = true
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), ",")
}

// fabricDrivers binds drivers to fabrics: with the ports that they ask through, which outlive a change of a fabric's record.
type fabricDrivers struct {
	configs map[string]fabricConfig
	// locks is a folder of the server's.
	locks string

	mu       sync.Mutex // guards stations
	stations map[string]*station
}

func (c serverConfig) drivers() *fabricDrivers {
	return &fabricDrivers{configs: c.Fabrics, locks: c.DataDir, stations: map[string]*station{}}
}

// close gives all ports back.
func (d *fabricDrivers) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, s := range d.stations {
		s.mu.Lock()
		if s.end != nil {
			errs = append(errs, s.end.Close())
		}
		s.open, s.end = nil, nil
		s.mu.Unlock()
	}
	return errors.Join(errs...)
}

// drive makes the driver of a fabric.
func (d *fabricDrivers) drive(f fleet.Fabric) (switchboard.Driver, error) {
	c, ok := d.configs[f.Name]
	if !ok {
		return nil, fleet.Errorf(fleet.Refused, "MC-NET-NO-DRIVER", "this server has no driver for the fabric %s", f.Name).
			WithHint("add it to the configuration of the server beside its subnet manager, under fabrics.%s", f.Name)
	}
	if c.Driver == driverUFM {
		return c.driveUFM(f, d.locks)
	}
	guid, err := fleet.ParseGUID(c.Port)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(c.Partitions), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the partition file: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stations[f.Name] == nil {
		d.stations[f.Name] = &station{config: c, port: guid}
	}
	return opensm.New(opensm.Options{Fabric: f, Path: c.Partitions, Sweeper: d.stations[f.Name], Daemon: opensm.Local{Port: guid}})
}

// station asks a fabric, by a port that is opened when it is needed and again after it failed.
type station struct {
	config fabricConfig
	port   fleet.GUID

	mu   sync.Mutex // guards all below
	open *fabric.Station
	end  io.Closer
}

// answerTime is how long the kernel waits for a datagram's answer; the station waits longer.
const answerTime = 300 * time.Millisecond

func (s *station) dial() (*fabric.Station, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != nil {
		return s.open, nil
	}
	key, err := s.config.managementKey()
	if err != nil {
		return nil, err
	}
	var port interface {
		fabric.Port
		io.Closer
	}
	if socket, host, simulated := strings.Cut(s.config.Simulator, "/"); simulated {
		port, err = wires.Dial(socket, host)
	} else {
		port, err = fabric.OpenDevice(s.port, answerTime)
	}
	if err != nil {
		if fleet.CodeOf(err) == "" {
			err = fleet.Errorf(fleet.Unavailable, "MC-FABRIC-PORT", "open the InfiniBand port: %w", err).WithHint("metalctl sim status")
		}
		return nil, err
	}
	s.open, s.end = fabric.NewStation(port, fabric.Options{MKey: key}), port
	return s.open, nil
}

// failed gives a port back that does not work any more.
func (s *station) failed(of *fabric.Station, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fleet.CodeOf(err) == "MC-FABRIC-PORT" && s.open == of {
		err = errors.Join(err, s.end.Close())
		s.open, s.end = nil, nil
	}
	return err
}

func (s *station) Sweep(ctx context.Context) (*fabric.Sweep, error) {
	st, err := s.dial()
	if err != nil {
		return nil, err
	}
	sweep, err := st.Sweep(ctx)
	return sweep, s.failed(st, err)
}

func (s *station) SetTable(ctx context.Context, e fabric.End, table []uint16) error {
	st, err := s.dial()
	if err != nil {
		return err
	}
	return s.failed(st, st.SetTable(ctx, e, table))
}
