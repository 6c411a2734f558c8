package inspect

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"github.com/siderolabs/go-smbios/smbios"
)

// dmi is the machine's SMBIOS table, decoded.
type dmi struct{ *smbios.SMBIOS }

// readDMI decodes the firmware's table where the kernel shows it.
func (r *reading) readDMI() {
	table, err := r.fs.Bytes("sys/firmware/dmi/tables/DMI")
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("the kernel shows no SMBIOS table (/sys/firmware/dmi/tables/DMI)")
		}
		r.missing("smbios", err)
		return
	}
	entry, err := r.fs.Bytes("sys/firmware/dmi/tables/smbios_entry_point")
	if err != nil {
		r.missing("smbios", err)
		return
	}
	version, err := entryVersion(entry)
	if err != nil {
		r.missing("smbios", err)
		return
	}
	r.dmi, err = decodeDMI(table, version)
	if err != nil {
		r.missing("smbios", err)
	}
}

// decodeDMI decodes a table; what it trips over is an error.
func decodeDMI(table []byte, version smbios.Version) (d *dmi, err error) {
	defer func() {
		if p := recover(); p != nil {
			d, err = nil, fmt.Errorf("the SMBIOS table is malformed: %v", p)
		}
	}()
	s, err := smbios.Decode(bytes.NewReader(table), version)
	if err != nil {
		return nil, fmt.Errorf("the SMBIOS table is malformed: %w", err)
	}
	return &dmi{s}, nil
}

// entryVersion reads the version of an entry point (DSP0134 section 5.2): "_SM_" has it at bytes 6 and 7, "_SM3_" at 7 to 9.
func entryVersion(b []byte) (smbios.Version, error) {
	switch {
	case bytes.HasPrefix(b, []byte("_SM3_")) && len(b) >= 10:
		return smbios.Version{Major: int(b[7]), Minor: int(b[8]), Revision: int(b[9])}, nil
	case bytes.HasPrefix(b, []byte("_SM_")) && len(b) >= 8:
		return smbios.Version{Major: int(b[6]), Minor: int(b[7])}, nil
	}
	return smbios.Version{}, errors.New("the SMBIOS entry point is of no known form")
}
