package ramdisk

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// libcSet is what programs and libraries that the agent opens later expect of a glibc system; those that a newer glibc has merged
// into libc may be absent.
var libcSet = []string{"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libresolv.so.2"}

// libcFolders are where the loaders of Debian and its like look, in order.
var libcFolders = []string{"lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64"}

// installLibc puts the loader and the libraries that agent needs into the archive at the places they have below root.
// An agent that is linked statically needs none.
func installLibc(a *archive, agent []byte, root string) error {
	f, err := elf.NewFile(bytes.NewReader(agent))
	if err != nil {
		return fmt.Errorf("read the agent: %w", err)
	}
	loader, err := interpreter(f)
	if err != nil || loader == "" {
		return err
	}
	data, err := os.ReadFile(filepath.Join(root, loader))
	if err != nil {
		return fmt.Errorf("read the agent's loader: %w", err)
	}
	a.file(loader, 0o755, data)
	needed, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read the agent's libraries: %w", err)
	}
	optional := map[string]bool{}
	for _, name := range libcSet {
		optional[name] = true
	}
	for _, name := range needed {
		optional[name] = false
	}
	queue := append(needed, libcSet...)
	seen := map[string]bool{filepath.Base(loader): true}
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		place, data, err := findLibrary(root, name)
		if errors.Is(err, fs.ErrNotExist) && optional[name] {
			continue
		}
		if err != nil {
			return fmt.Errorf("read library %s: %w", name, err)
		}
		a.file(place, 0o755, data)
		lib, err := elf.NewFile(bytes.NewReader(data))
		if err != nil {
			return fmt.Errorf("read library %s: %w", name, err)
		}
		more, err := lib.ImportedLibraries()
		if err != nil {
			return fmt.Errorf("read library %s: %w", name, err)
		}
		queue = append(queue, more...)
	}
	return nil
}

func interpreter(f *elf.File) (string, error) {
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(p.Open())
			return strings.TrimRight(string(b), "\x00"), err
		}
	}
	return "", nil
}

func findLibrary(root, name string) (place string, data []byte, err error) {
	for _, dir := range libcFolders {
		data, err = os.ReadFile(filepath.Join(root, dir, name))
		if !errors.Is(err, fs.ErrNotExist) {
			return dir + "/" + name, data, err
		}
	}
	return "", nil, err
}
