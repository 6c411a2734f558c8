package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/pmorjan/kmod"
	"golang.org/x/sys/unix"
)

// Modules knows the ramdisk's kernel modules and loads them.
type Modules struct {
	sys     string
	aliases []alias
	paths   map[string]string // by name, below lib/modules/RELEASE
	insert  func(name, params string) error

	mu    sync.Mutex // guards tried
	tried map[string]bool
}

type alias struct{ pattern, module string }

// OpenModules reads the tables of the running kernel's modules below root.
func OpenModules(root string) (*Modules, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("read the kernel's release: %w", err)
	}
	k, err := kmod.New(kmod.SetRootDir(filepath.Join(root, "lib/modules")))
	if err != nil {
		return nil, fmt.Errorf("read kernel modules: %w", err)
	}
	m, err := readModules(filepath.Join(root, "lib/modules", unix.ByteSliceToString(u.Release[:])), filepath.Join(root, "sys"))
	if err != nil {
		return nil, err
	}
	m.insert = func(name, params string) error { return k.Load(name, params, 0) }
	return m, nil
}

func readModules(dir, sys string) (*Modules, error) {
	m := &Modules{sys: sys, paths: map[string]string{}, tried: map[string]bool{}}
	b, err := os.ReadFile(filepath.Join(dir, "modules.alias"))
	if err != nil {
		return nil, fmt.Errorf("read module aliases: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		// Patterns of the device tree hold no spaces either, so that fields are enough.
		if f := strings.Fields(line); len(f) == 3 && f[0] == "alias" {
			m.aliases = append(m.aliases, alias{f[1], f[2]})
		}
	}
	if b, err = os.ReadFile(filepath.Join(dir, "modules.dep")); err != nil {
		return nil, fmt.Errorf("read module dependencies: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if path, _, ok := strings.Cut(line, ":"); ok {
			name := strings.TrimSuffix(filepath.Base(path), ".ko")
			m.paths[strings.ReplaceAll(name, "-", "_")] = path
		}
	}
	return m, nil
}

// Aliases returns the modaliases of all devices that the kernel knows now.
func (m *Modules) Aliases() []string {
	seen := map[string]bool{}
	// A device that goes away while it is walked over is no error.
	_ = filepath.WalkDir(filepath.Join(m.sys, "devices"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "modalias" {
			if b, err := os.ReadFile(p); err == nil {
				seen[strings.TrimSpace(string(b))] = true
			}
		}
		return nil
	})
	delete(seen, "")
	out := make([]string, 0, len(seen))
	for a := range seen {
		out = append(out, a)
	}
	slices.Sort(out)
	return out
}

// Wanted returns the modules that match modaliases and that nobody tried to load yet.
func (m *Modules) Wanted(modaliases []string) (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range modaliases {
		for _, a := range m.aliases {
			if !m.tried[a.module] && !slices.Contains(names, a.module) && matchAlias(a.pattern, s) {
				names = append(names, a.module)
			}
		}
	}
	slices.Sort(names)
	return names
}

// urgentPlaces are where the drivers live that booting waits for: without them there is no credential and no server.
var urgentPlaces = []string{"drivers/nvme/", "drivers/ata/", "drivers/scsi/", "drivers/usb/", "drivers/cdrom/", "drivers/block/",
	"drivers/virtio/", "drivers/net/", "drivers/pci/"}

// Urgent reports whether a module drives storage, a network card or a bus to one.
func (m *Modules) Urgent(name string) bool {
	path := m.paths[name]
	return slices.ContainsFunc(urgentPlaces, func(place string) bool { return strings.Contains(path, place) })
}

// Load loads a module by name, after those that it needs. One that is loaded or built in is fine. The error is
// kmod.ErrModuleNotFound where the ramdisk does not carry it.
func (m *Modules) Load(name string) error { return m.LoadWith(name, "") }

// LoadWith is Load with the module's parameters, such as "max_bonds=0".
func (m *Modules) LoadWith(name, params string) error {
	name = strings.ReplaceAll(name, "-", "_")
	m.mu.Lock()
	m.tried[name] = true
	m.mu.Unlock()
	// A driver whose hardware turns out not to be there says ENODEV; that is an answer, not a fault.
	if err := m.insert(name, params); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("load module %s: %w", name, err)
	}
	return nil
}

func isNotFound(err error) bool { return errors.Is(err, kmod.ErrModuleNotFound) }
