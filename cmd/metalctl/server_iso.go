//go:build !ramdisk

package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/images/ramdisk"
)

// mediaKept is how many built media stay in the data folder: the one in use and the one before, for the way back.
const mediaKept = 2

// iso returns the boot medium: the one that the configuration names, else one built from the embedded agent. What was built is
// kept in the data folder, so that a restart takes milliseconds as long as program and kernel are the same.
func (c serverConfig) iso(ctx context.Context, log *slog.Logger) (*ramdisk.ISO, error) {
	if c.RAMDisk != "" {
		return ramdisk.Open(c.RAMDisk)
	}
	o := ramdiskOptions{kernel: c.Kernel, lab: true}
	dir := filepath.Join(c.DataDir, "boot")
	inputs, err := o.inputs()
	if err != nil {
		return nil, err
	}
	if iso := keptISO(dir, inputs, log); iso != nil {
		return iso, nil
	}
	start := time.Now()
	log.Info("building the boot medium; this takes some seconds and is done once for each program and kernel")
	iso, err := o.build(ctx)
	if err != nil {
		return nil, err
	}
	log.Info("boot medium built", "kernel", iso.KernelRelease, "bytes", iso.Size, "seconds", time.Since(start).Seconds())
	debug.FreeOSMemory() // a build takes ten times what the medium keeps
	// Without room for a copy the server still boots nodes; the next start builds anew.
	if err := keepISO(dir, inputs, iso); err != nil {
		log.Warn("the boot medium is not kept", "err", err)
	}
	return iso, nil
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
			err = fleet.Errorf(fleet.Broken, "MC-RAMDISK-ISO", "the kept boot medium %s has digest %s", name, iso.SHA256)
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

// keepISO writes the medium whole or not at all, and drops those that were of use longest ago.
func keepISO(dir, inputs string, iso *ramdisk.ISO) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, inputs+"-"+iso.SHA256+".iso"), iso); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var kept []fs.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || !strings.HasSuffix(e.Name(), ".iso") {
			continue
		}
		if err != nil {
			return err
		}
		kept = append(kept, info)
	}
	var drop []error
	for len(kept) > mediaKept {
		oldest := 0
		for i, info := range kept {
			if info.ModTime().Before(kept[oldest].ModTime()) {
				oldest = i
			}
		}
		drop = append(drop, os.Remove(filepath.Join(dir, kept[oldest].Name())))
		kept = append(kept[:oldest], kept[oldest+1:]...)
	}
	return errors.Join(drop...)
}
