package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
)

// Vars are the firmware's variables of the EFI global namespace; names are plain, such as "Boot0001".
type Vars interface {
	// List returns the names in any order.
	List() ([]string, error)
	// Read returns the data; an error that is fs.ErrNotExist where there is no such variable.
	Read(name string) ([]byte, error)
	// Write creates or replaces a variable that is non-volatile and visible at run time; nil data removes it.
	Write(name string, data []byte) error
}

const (
	globalGUID = fleet.EFIGlobal
	// attributes: non-volatile, boot services, run time.
	attributes = 7
	// fsImmutable is FS_IMMUTABLE_FL of linux/fs.h.
	fsImmutable = 0x10
	// maxVarBytes is more than any firmware stores in one variable.
	maxVarBytes = 1 << 20
)

// FileVars are the variables in a mounted efivarfs, or in a folder of that shape.
type FileVars struct{ dir string }

// OpenVars looks at dir, normally /sys/firmware/efi/efivars. An empty or missing folder is MC-EFI-NO-VARS: the machine did not boot by UEFI, or the kernel's
// efivarfs is not mounted.
func OpenVars(dir string) (FileVars, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return FileVars{}, fmt.Errorf("open EFI variables: %w", err)
	}
	if len(entries) == 0 {
		return FileVars{}, fleet.Errorf(fleet.Unavailable, "MC-EFI-NO-VARS", "%s shows no EFI variables: the machine was not booted by UEFI, or efivarfs is not mounted", dir).
			WithHint("set the node's boot mode to UEFI and boot the agent again: metalctl node inspect NODE")
	}
	return FileVars{dir}, nil
}

func (v FileVars) file(name string) string { return filepath.Join(v.dir, name+"-"+globalGUID) }

// List returns the names of all variables of the global namespace.
func (v FileVars) List() ([]string, error) {
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		return nil, fmt.Errorf("list EFI variables: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), "-"+globalGUID); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// Read returns a variable's data without its attributes.
func (v FileVars) Read(name string) ([]byte, error) {
	b, err := os.ReadFile(v.file(name))
	if err != nil {
		return nil, fmt.Errorf("read EFI variable %s: %w", name, err)
	}
	if len(b) < 4 || len(b) > maxVarBytes {
		return nil, fmt.Errorf("read EFI variable %s: %d bytes", name, len(b))
	}
	return b[4:], nil
}

// Write writes a variable with one call, as efivarfs demands; nil data removes it, and removing what is not there is no error.
func (v FileVars) Write(name string, data []byte) error {
	if data == nil {
		return v.Remove(name, globalGUID)
	}
	path := v.file(name)
	if err := mutable(path); err != nil {
		return fmt.Errorf("write EFI variable %s: %w", name, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("write EFI variable %s: %w", name, err)
	}
	_, err = f.Write(append(binary.LittleEndian.AppendUint32(nil, attributes), data...))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write EFI variable %s: %w", name, err)
	}
	return nil
}

// Remove takes a variable of any namespace away; one that is not there is no error.
func (v FileVars) Remove(name, guid string) error {
	path := filepath.Join(v.dir, name+"-"+guid)
	err := mutable(path)
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove EFI variable %s: %w", name, err)
	}
	return nil
}

// Has reports whether the firmware shows a variable.
func (v FileVars) Has(name, guid string) (bool, error) {
	_, err := os.Lstat(filepath.Join(v.dir, name+"-"+guid))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// mutable takes away the flag by which efivarfs protects variables that it does not know (Documentation/filesystems/efivarfs.rst).
func mutable(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return nil //nolint:nilerr // a file system without flags protects nothing
	}
	if flags&fsImmutable == 0 {
		return nil
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags&^fsImmutable)
}
