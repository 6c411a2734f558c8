//go:build ramdisk

package main

import (
	"context"
	"os"
	"path/filepath"
)

// fixtureLibrary is the library that lies in a recording's folder: the ramdisk's build carries none of its own.
func fixtureLibrary(_ context.Context, root string) (library string, done func() error, err error) {
	library = filepath.Join(root, "libnvidia-ml.so.1")
	if _, err := os.Stat(library); err != nil {
		library = ""
	}
	return library, func() error { return nil }, nil
}

// fixtureUnderLoad is the same: what lies in the folder answers as it is.
func fixtureUnderLoad(ctx context.Context, root string) (string, func() error, error) {
	return fixtureLibrary(ctx, root)
}
