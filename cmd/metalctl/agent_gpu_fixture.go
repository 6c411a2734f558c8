//go:build !ramdisk

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/metalctl/metalctl/fixtures/cuda"
	"github.com/metalctl/metalctl/fixtures/nvml"
)

// fixtureLibrary makes a library that answers as the nvml.conf below root says, and beside it CUDA's, in a folder of its own that done takes away. "" where there
// is no such file.
func fixtureLibrary(ctx context.Context, root string) (library string, done func() error, err error) {
	return serveFixture(ctx, root, func(conf []byte) []byte { return conf })
}

// fixtureUnderLoad is fixtureLibrary for a machine that is loaded.
func fixtureUnderLoad(ctx context.Context, root string) (library string, done func() error, err error) {
	return serveFixture(ctx, root, nvml.Loaded)
}

func serveFixture(ctx context.Context, root string, as func([]byte) []byte) (library string, done func() error, err error) {
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
	done = func() error {
		now, err := os.ReadFile(filepath.Join(dir, nvml.ConfName))
		if err == nil && !bytes.Equal(now, conf) {
			err = os.WriteFile(filepath.Join(root, nvml.ConfName), now, 0o644)
		}
		return errors.Join(err, os.RemoveAll(dir))
	}
	if library, err = nvml.Serve(ctx, dir, as(conf)); err == nil {
		_, err = cuda.Serve(ctx, dir)
	}
	if err != nil {
		return "", func() error { return nil }, errors.Join(err, os.RemoveAll(dir))
	}
	return library, done, nil
}
