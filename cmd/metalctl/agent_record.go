//go:build !ramdisk

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fixtures/nvml"
	"github.com/metalctl/metalctl/fixtures/profiles"
	"github.com/metalctl/metalctl/fleet"
)

// newRecorder refuses a folder that could not be made, before anything is read.
func newRecorder(dir string) (*sysfs.Recorder, error) {
	for name, hint := range map[string]string{dir: "record into another folder", sysfs.Partial(dir): "rm -r " + sysfs.Partial(dir) + " removes what a recording left that was broken off"} {
		if _, err := os.Lstat(name); err == nil {
			return nil, fleet.Errorf(fleet.Conflict, "MC-PROFILE-RECORD", "%s is there already", name).WithHint("%s", hint)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look for the recording's folder: %w", err)
		}
	}
	return &sysfs.Recorder{}, nil
}

// record makes a fixture of what was read: with what NVIDIA's library answered, and where each part is.
func record(dir string, r *sysfs.Recorder, inv *fleet.Inventory) error {
	if m := nvml.Recorded(inv); m != nil {
		conf := m.Conf()
		if _, err := nvml.Parse(conf); err != nil {
			return fmt.Errorf("record what NVIDIA's library answered: %w", err)
		}
		r.Keep(profiles.NVMLFile, conf)
	}
	parts, err := profiles.PartsOf(inv, r.Device)
	if err != nil {
		return err
	}
	r.Keep(profiles.ComponentsFile, parts)
	if err := r.Write(dir); err != nil {
		return fmt.Errorf("write the recording: %w", err)
	}
	return nil
}
