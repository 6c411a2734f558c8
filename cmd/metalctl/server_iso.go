//go:build !ramdisk

package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/images/ramdisk"
)

// iso returns this program's own boot medium: the one that the configuration names, else one built from the embedded agent, and whether that was it. It
// is kept in the data folder, so that a restart takes milliseconds as long as program and kernel are the same, and so that nodes can boot it after an upgrade.
func (c serverConfig) iso(ctx context.Context, log *slog.Logger) (iso *ramdisk.ISO, built bool, err error) {
	dir := c.mediaDir()
	if c.RAMDisk != "" {
		if iso, err = ramdisk.Open(c.RAMDisk); err != nil {
			return nil, false, err
		}
		name := filepath.Join(dir, "file-"+iso.SHA256+".iso")
		if _, err := os.Stat(name); err != nil {
			keep(dir, "file", iso, log)
		}
		defer func(given *ramdisk.ISO) { err = errors.Join(err, given.Close()) }(iso)
		if kept, err := ramdisk.Open(name); err == nil && kept.SHA256 == iso.SHA256 {
			return kept, false, nil
		} else if err == nil {
			log.Warn("the kept boot medium is not what it was", "err", kept.Close())
		}
		iso, err = iso.Load() // somebody may write over that file while nodes boot
		return iso, false, err
	}
	o := ramdiskOptions{kernel: c.Kernel, lab: true}
	inputs, err := o.inputs()
	if err != nil {
		return nil, false, err
	}
	if iso := keptISO(dir, inputs, log); iso != nil {
		return iso, true, nil
	}
	start := time.Now()
	log.Info("building the boot medium; this takes some seconds and is done once for each program and kernel")
	if iso, err = o.build(ctx); err != nil {
		return nil, false, err
	}
	log.Info("boot medium built", "kernel", iso.KernelRelease, "bytes", iso.Size, "seconds", time.Since(start).Seconds())
	debug.FreeOSMemory() // a build takes ten times what the medium keeps
	keep(dir, inputs, iso, log)
	if kept := keptISO(dir, inputs, log); kept != nil {
		return kept, true, nil // it is read from there, and takes no memory
	}
	return iso, true, nil
}

func (c serverConfig) mediaDir() string { return filepath.Join(c.DataDir, "boot") }

// keep puts a medium into the folder. Without room for it the server still boots nodes; the next start builds or reads it anew.
func keep(dir, inputs string, iso *ramdisk.ISO, log *slog.Logger) {
	if err := keepISO(dir, inputs, iso); err != nil {
		log.Warn("the boot medium is not kept", "err", err)
	}
}

// keptISO is a medium that was built from the same inputs, or nil. Its name carries its digest: one that was damaged is not used.
func keptISO(dir, inputs string, log *slog.Logger) *ramdisk.ISO {
	names, err := filepath.Glob(filepath.Join(dir, inputs+"-*.iso"))
	if err != nil || len(names) == 0 {
		return nil
	}
	for _, name := range names {
		iso, err := ramdisk.Open(name)
		if err == nil && !strings.HasSuffix(name, "-"+iso.SHA256+".iso") {
			err = errors.Join(fleet.Errorf(fleet.Broken, "MC-RAMDISK-ISO", "the kept boot medium %s has digest %s", name, iso.SHA256), iso.Close())
		}
		if err == nil {
			// The time says when it was last of use.
			now := time.Now()
			if err := os.Chtimes(name, now, now); err != nil {
				log.Debug("mark the kept boot medium", "err", err)
			}
			return iso
		}
		log.Warn("a kept boot medium is of no use", "err", err)
		if err := os.Remove(name); err != nil {
			log.Warn("remove it", "err", err)
		}
	}
	return nil
}

// keepISO writes the medium whole or not at all.
func keepISO(dir, inputs string, iso *ramdisk.ISO) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, inputs+"-"+iso.SHA256+".iso"), iso)
}
