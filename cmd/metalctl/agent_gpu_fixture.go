//go:build !ramdisk

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/metalctl/metalctl/fixtures/nvml"
)

// fixtureLibrary makes a library that answers as the nvml.conf below root says, in a folder of its own that done takes away. "" where there is no such file.
func fixtureLibrary(ctx context.Context, root string) (library string, done func() error, err error) {
	done = func() error { return nil }
	conf, err := os.ReadFile(filepath.Join(root, nvml.ConfName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", done, nil
	}
	if err != nil {
		return "", done, fmt.Errorf("read what NVIDIA's library is to answer: %w", err)
	}
	dir, err := os.MkdirTemp("", "metalctl-nvml-")
	if err != nil {
		return "", done, fmt.Errorf("make a folder for the fixture library: %w", err)
	}
	done = func() error { return os.RemoveAll(dir) }
	if library, err = nvml.Serve(ctx, dir, conf); err != nil {
		return "", func() error { return nil }, errors.Join(err, done())
	}
	return library, done, nil
}
