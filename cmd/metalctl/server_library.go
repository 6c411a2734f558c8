//go:build !ramdisk

package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/server"
	"github.com/metalctl/metalctl/images/ramdisk"
)

// mediaLibrary is every boot medium that the server has: its program's own, and those of programs before it that lie in the data folder.
type mediaLibrary struct {
	dir   string
	own   *ramdisk.ISO
	built bool // own was made of the agent that this program carries
	log   *slog.Logger

	mu   sync.Mutex              // guards open
	open map[string]*ramdisk.ISO // by digest; a medium that is in use stays open
}

var _ server.Media = (*mediaLibrary)(nil)

// media opens the library. A medium of this program's own is always in it.
func (c serverConfig) media(ctx context.Context, log *slog.Logger) (*mediaLibrary, error) {
	iso, built, err := c.iso(ctx, log)
	if err != nil {
		return nil, err
	}
	if _, _, err := iso.Program(); err != nil {
		return nil, fleet.Errorf(fleet.Invalid, "MC-RAMDISK-ISO", "look into the boot medium: %w", err).WithHint("metalctl ramdisk build -o FILE")
	}
	return &mediaLibrary{dir: c.mediaDir(), own: iso, built: built, log: log, open: map[string]*ramdisk.ISO{iso.SHA256: iso}}, nil
}

// isoDigest is the digest that a kept medium's name carries, "" where it is no such name.
func isoDigest(name string) string {
	stem, ok := strings.CutSuffix(name, ".iso")
	if i := strings.LastIndexByte(stem, '-'); ok && i > 0 && len(stem)-i-1 == 64 {
		return stem[i+1:]
	}
	return ""
}

// files are the media of the data folder, by digest.
func (m *mediaLibrary) files() (map[string][]string, error) {
	out := map[string][]string{}
	entries, err := os.ReadDir(m.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	for _, e := range entries {
		if d := isoDigest(e.Name()); d != "" {
			out[d] = append(out[d], filepath.Join(m.dir, e.Name()))
		}
	}
	return out, err
}

// Ramdisks implements server.Media.
func (m *mediaLibrary) Ramdisks() ([]fleet.Ramdisk, error) {
	own := described(m.own)
	if m.built {
		own.Program, own.Protocol = version, api.AgentVersion
	}
	out := []fleet.Ramdisk{own}
	files, err := m.files()
	if err != nil {
		return nil, fleet.Errorf(fleet.Broken, "MC-SERVER-DATADIR", "list the boot media: %w", err).WithHint("look at %s", m.dir)
	}
	for digest := range files {
		if digest == own.SHA256 {
			continue
		}
		iso, err := m.read(files[digest], digest) // only to describe it: what is not booted does not stay open
		if err != nil {
			m.log.Warn("a kept boot medium is of no use", "ramdisk", digest, "err", err)
			continue
		}
		out = append(out, described(iso))
		if err := iso.Close(); err != nil {
			m.log.Warn("close a boot medium", "ramdisk", digest, "err", err)
		}
	}
	return out, nil
}

func described(iso *ramdisk.ISO) fleet.Ramdisk {
	return fleet.Ramdisk{SHA256: iso.SHA256, Kernel: iso.KernelRelease, Signed: iso.Signed, SizeBytes: iso.Size}
}

// get opens a medium by its digest; its bytes are compared with it.
func (m *mediaLibrary) get(digest string) (*ramdisk.ISO, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if digest == "" {
		return m.own, nil
	}
	if iso := m.open[digest]; iso != nil {
		return iso, nil
	}
	files, err := m.files()
	if err != nil {
		return nil, err
	}
	iso, err := m.read(files[digest], digest)
	if err == nil {
		m.open[digest] = iso
	}
	return iso, err
}

// read opens the first of some files that is the medium with that digest.
func (m *mediaLibrary) read(paths []string, digest string) (*ramdisk.ISO, error) {
	why := "it is not there"
	for _, path := range paths {
		iso, err := ramdisk.Open(path)
		if err == nil && iso.SHA256 == digest {
			return iso, nil
		}
		why = "it is not what it was"
		if err == nil {
			err = iso.Close()
		}
		if err != nil {
			why = err.Error()
		}
	}
	return nil, fleet.Errorf(fleet.NotFound, "MC-RAMDISK-UNKNOWN", "the file of ramdisk %s cannot be used: %s", digest[:min(len(digest), 12)], why).
		WithHint("let its nodes boot another: metalctl ramdisk list, then: metalctl ramdisk promote RAMDISK")
}

// Medium implements server.Media.
func (m *mediaLibrary) Medium(digest string) (server.Medium, error) {
	iso, err := m.get(digest)
	if err != nil {
		return nil, err
	}
	return sharedISO{iso}, nil
}

// Drop implements server.Media.
func (m *mediaLibrary) Drop(digest string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	files, err := m.files()
	if err != nil {
		return err
	}
	delete(m.open, digest) // a node that is still reading it keeps the file; with its last reader it is closed
	for _, path := range files[digest] {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// close lets go of all files. Nobody may be reading any more.
func (m *mediaLibrary) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, iso := range m.open {
		errs = append(errs, iso.Close())
	}
	clear(m.open)
	return errors.Join(errs...)
}

// layout tells the engine where on a node's medium the kernel lies, for the verdict over a boot that did not arrive.
func (m *mediaLibrary) layout(n fleet.Node) reconcile.MediaLayout {
	iso, err := m.get(n.Boot.Ramdisk)
	if err != nil {
		return reconcile.MediaLayout{}
	}
	off, size, err := iso.Program()
	if err != nil {
		return reconcile.MediaLayout{}
	}
	return reconcile.MediaLayout{HeaderBytes: ramdisk.HeaderBytes, KernelOffset: off, KernelBytes: size, Signed: iso.Signed}
}

// sharedISO shows a boot medium as the server wants it.
type sharedISO struct{ iso *ramdisk.ISO }

func (s sharedISO) Size() int64                              { return s.iso.Size }
func (s sharedISO) Overlay(cred []byte) (io.ReaderAt, error) { return s.iso.Overlay(cred) }
