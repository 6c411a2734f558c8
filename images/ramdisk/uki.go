package ramdisk

import (
	"encoding/binary"
	"fmt"
)

// section is one part of a unified kernel image (UAPI.5).
type section struct {
	name string
	data []byte
}

// pageSize aligns the sections in memory: the kernel wants it, and the stub's own alignment is smaller.
const pageSize = 4096

// assembleUKI appends sections to an EFI stub (systemd-stub(7)). The stub must have room for their headers, as systemd's has.
func assembleUKI(stub []byte, sections []section) ([]byte, error) {
	if len(stub) < 0x40 || stub[0] != 'M' || stub[1] != 'Z' {
		return nil, fmt.Errorf("the stub is not a PE file")
	}
	le := binary.LittleEndian
	pe := int(le.Uint32(stub[0x3c:]))
	if pe < 0x40 || pe+24+112 > len(stub) || string(stub[pe:pe+4]) != "PE\x00\x00" {
		return nil, fmt.Errorf("the stub has no PE header")
	}
	if machine := le.Uint16(stub[pe+4:]); machine != 0x8664 {
		return nil, fmt.Errorf("the stub is for machine %#x, not x86-64", machine)
	}
	count := int(le.Uint16(stub[pe+6:]))
	optional := pe + 24
	table := optional + int(le.Uint16(stub[pe+20:]))
	fileAlign := le.Uint32(stub[optional+36:])
	headers := int(le.Uint32(stub[optional+60:]))
	if le.Uint16(stub[optional:]) != 0x20b || fileAlign == 0 || fileAlign > 1<<16 || table+40*(count+len(sections)) > headers || headers > len(stub) {
		return nil, fmt.Errorf("the stub has no room for the headers of %d more sections", len(sections))
	}

	out := append([]byte(nil), stub...)
	var end uint32
	for i := range count {
		h := stub[table+40*i:]
		end = max(end, le.Uint32(h[12:])+le.Uint32(h[8:]))
	}
	var initialised uint32
	for i, s := range sections {
		for uint32(len(out))%fileAlign != 0 {
			out = append(out, 0)
		}
		end = roundUp(end, pageSize)
		raw := roundUp(uint32(len(s.data)), fileAlign)
		h := out[table+40*(count+i):]
		clear(h[:40])
		copy(h[:8], s.name)
		le.PutUint32(h[8:], uint32(len(s.data)))
		le.PutUint32(h[12:], end)
		le.PutUint32(h[16:], raw)
		le.PutUint32(h[20:], uint32(len(out)))
		le.PutUint32(h[36:], 0x40000040) // initialised data, readable
		out = append(out, s.data...)
		out = append(out, make([]byte, int(raw)-len(s.data))...)
		end += uint32(len(s.data))
		initialised += raw
	}
	le.PutUint16(out[pe+6:], uint16(count+len(sections)))
	le.PutUint32(out[optional+8:], le.Uint32(out[optional+8:])+initialised)
	le.PutUint32(out[optional+56:], roundUp(end, pageSize))
	le.PutUint32(out[optional+64:], 0) // the checksum is only looked at for drivers
	return out, nil
}

func roundUp(n, to uint32) uint32 { return (n + to - 1) / to * to }
