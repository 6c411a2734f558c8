package inspect

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/siderolabs/go-smbios/smbios"
)

// dmi is the machine's SMBIOS table, decoded.
type dmi struct{ *smbios.SMBIOS }

const dmiTable = "sys/firmware/dmi/tables/DMI"

// decodedTypes are the structures of SMBIOS that are decoded: BIOS, system, board, chassis, processors, memory, and those of the BMC. Others, such as the free
// texts of type 11, may hold what a hypervisor or an installer handed over in confidence.
var decodedTypes = []byte{0, 1, 2, 3, 4, 16, 17, 19, 38, 42, 127}

// decodedStructures is a table without the other structures (DSP0134 section 6.1: type, length, handle, formatted area, texts that end in two zeros).
func decodedStructures(table []byte) []byte {
	var out []byte
	for len(table) >= 4 {
		size := int(table[1])
		if size < 4 || size > len(table) {
			break
		}
		end := bytes.Index(table[size:], []byte{0, 0})
		if end < 0 {
			break
		}
		end += size + 2
		if slices.Contains(decodedTypes, table[0]) {
			out = append(out, table[:end]...)
		}
		if table[0] == 127 {
			break
		}
		table = table[end:]
	}
	return out
}

// readDMI decodes the firmware's table where the kernel shows it.
func (r *reading) readDMI() {
	table, err := r.fs.Aside().Bytes(dmiTable)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("the kernel shows no SMBIOS table (/" + dmiTable + ")")
		}
		r.missing("smbios", err)
		return
	}
	r.fs.Keep(dmiTable, decodedStructures(table))
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
