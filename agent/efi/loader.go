package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf16"

	"github.com/metalctl/metalctl/fleet"
)

// maxVendors is how many folders of \EFI are looked into; each costs a walk over the volume.
const maxVendors = 64

// FallbackPath is what firmware starts without any boot entry (UEFI 2.10, 3.5.1.1).
const FallbackPath = `\EFI\BOOT\BOOTX64.EFI`

// Loader is what a boot entry should start.
type Loader struct {
	// Path is on the ESP, with backslashes.
	Path string `json:"path"`
	// Label is what the image's maker calls it; may be empty.
	Label string `json:"label,omitempty"`
	// From says how it was found: the CSV file's path, or "fallback".
	From string `json:"from"`
	// Fallback says that FallbackPath exists, too, so the machine boots even where firmware forgets its entries.
	Fallback bool `json:"fallback"`
}

// FindLoader looks on an ESP for what to start: what a vendor's BOOTX64.CSV names (shim's convention), else the fallback path, else what well-known
// distributions install. None of these is MC-EFI-NO-LOADER.
func FindLoader(esp io.ReaderAt, sizeBytes int64) (Loader, error) {
	v, err := openFAT(esp, sizeBytes)
	if err != nil {
		return Loader{}, fleet.Errorf(fleet.Broken, "MC-EFI-ESP", "the EFI system partition is not a readable FAT volume: %w", err).
			WithHint("metalctl image verify IMAGE")
	}
	l, err := v.findLoader()
	if err != nil {
		return Loader{}, fmt.Errorf("find boot loader: %w", err)
	}
	return l, nil
}

func (v *fatVolume) exists(path string) (bool, error) {
	e, err := v.lookup(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && !e.dir && e.size > 0, err
}

func (v *fatVolume) findLoader() (Loader, error) {
	fallback, err := v.exists(FallbackPath)
	if err != nil {
		return Loader{}, err
	}
	efi, err := v.lookup("EFI")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Loader{}, err
	}
	var names []string
	if err == nil && efi.dir {
		entries, err := v.readDir(efi.cluster)
		if err != nil {
			return Loader{}, err
		}
		for _, e := range entries {
			if e.dir && !strings.HasPrefix(e.name, ".") && len(names) < maxVendors {
				names = append(names, e.name)
			}
		}
	}
	for _, name := range names {
		if strings.EqualFold(name, "BOOT") {
			continue // its CSV, where there is one, belongs to the fallback program itself
		}
		csv := `\EFI\` + name + `\BOOTX64.CSV`
		b, err := v.readFile(csv, 64<<10)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Loader{}, fmt.Errorf("%s: %w", csv, err)
		}
		for _, row := range parseCSV(b) {
			path := `\EFI\` + name + `\` + row.file
			ok, err := v.exists(path)
			if err != nil {
				return Loader{}, err
			}
			if ok {
				return Loader{Path: path, Label: row.label, From: csv, Fallback: fallback}, nil
			}
		}
	}
	if fallback {
		return Loader{Path: FallbackPath, From: "fallback", Fallback: true}, nil
	}
	for _, name := range names {
		for _, file := range []string{"shimx64.efi", "grubx64.efi", "systemd-bootx64.efi"} {
			path := `\EFI\` + name + `\` + file
			ok, err := v.exists(path)
			if err != nil {
				return Loader{}, err
			}
			if ok {
				return Loader{Path: path, Label: name, From: "well-known name"}, nil
			}
		}
	}
	return Loader{}, fleet.Errorf(fleet.Invalid, "MC-EFI-NO-LOADER", `the EFI system partition has neither %s nor a loader that a BOOTX64.CSV names`, FallbackPath).
		WithHint("use an image that boots under UEFI on x86-64")
}

type csvRow struct{ file, label string }

// parseCSV reads shim's BOOTX64.CSV: UTF-16LE rows "file,label,options,comment".
func parseCSV(b []byte) []csvRow {
	text := string(b)
	if len(b) >= 2 && (b[0] == 0xff && b[1] == 0xfe || b[1] == 0) {
		units := make([]uint16, len(b)/2)
		for i := range units {
			units[i] = binary.LittleEndian.Uint16(b[2*i:])
		}
		text = strings.TrimPrefix(string(utf16.Decode(units)), "\ufeff")
	}
	var rows []csvRow
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimRight(line, "\r\n\x00"), ",", 3)
		if len(f) < 2 || f[0] == "" || strings.ContainsAny(f[0], "/\\\x00") {
			continue
		}
		rows = append(rows, csvRow{f[0], f[1]})
	}
	return rows
}
