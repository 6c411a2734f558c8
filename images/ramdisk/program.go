package ramdisk

import (
	"bufio"
	"debug/pe"
	"errors"
	"io"
)

// HeaderBytes is the end of what firmware reads to see that this is a boot CD at all: volume descriptors and boot catalog.
const HeaderBytes = isoESP * isoSector

// Program returns where the unified kernel image lies within the medium, so that whoever serves the medium can tell by the ranges that
// firmware reads how far a boot came.
func (i *ISO) Program() (offset, size int64, err error) {
	in := bufio.NewReaderSize(io.NewSectionReader(i.from, HeaderBytes, i.Size-HeaderBytes), 64<<10)
	for off := int64(HeaderBytes); off+512 <= i.Size; off += 512 {
		start, err := in.Peek(2)
		if err != nil {
			return 0, 0, err
		}
		if _, err := in.Discard(512); err != nil {
			return 0, 0, err
		}
		if string(start) != "MZ" {
			continue
		}
		f, err := pe.NewFile(io.NewSectionReader(i.from, off, i.Size-off))
		if err != nil {
			continue // two letters of a file system, no program
		}
		for _, s := range f.Sections {
			size = max(size, int64(s.Offset)+int64(s.Size))
		}
		return off, size, nil
	}
	return 0, 0, errors.New("the medium holds no EFI program")
}
