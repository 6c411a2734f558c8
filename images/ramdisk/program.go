package ramdisk

import (
	"bytes"
	"debug/pe"
	"errors"
	"io"
)

// HeaderBytes is the end of what firmware reads to see that this is a boot CD at all: volume descriptors and boot catalog.
const HeaderBytes = isoESP * isoSector

// Program returns where the unified kernel image lies within the medium, so that whoever serves the medium can tell by the ranges that
// firmware reads how far a boot came.
func (i *ISO) Program() (offset, size int64, err error) {
	for off := HeaderBytes; off+512 <= len(i.data); off += 512 {
		if !bytes.HasPrefix(i.data[off:], []byte("MZ")) {
			continue
		}
		f, err := pe.NewFile(io.NewSectionReader(bytes.NewReader(i.data), int64(off), int64(len(i.data)-off)))
		if err != nil {
			continue // two letters of a file system, no program
		}
		for _, s := range f.Sections {
			size = max(size, int64(s.Offset)+int64(s.Size))
		}
		return int64(off), size, nil
	}
	return 0, 0, errors.New("the medium holds no EFI program")
}
