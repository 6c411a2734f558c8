package ramdisk

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// The fixed layout of the ISO, in sectors of 2,048 bytes: descriptors, El Torito catalogue, path tables, root folder, partition.
const (
	isoSector   = 2048
	isoPrimary  = 16
	isoBoot     = 17
	isoEnd      = 18
	isoCatalog  = 19
	isoPathL    = 20
	isoPathM    = 21
	isoRoot     = 22
	isoESP      = 24
	isoESPName  = "ESP.IMG;1"
	isoAppUse   = 883 // of the primary descriptor: 512 bytes for whatever the medium's maker likes (ECMA-119 8.4.32)
	isoDate     = "2020010100000000"
	maxElTorito = 65535 * 512
)

// writeISO wraps an EFI system partition into an ISO 9660 volume (ECMA-119) that boots it by El Torito without emulation,
// platform EFI (UEFI 2.10 section 13.3.2.1).
func writeISO(esp []byte, window fleet.Window, build, release string, signed bool) ([]byte, error) {
	signature := "UNSIGNED"
	if signed {
		signature = "SIGNED"
	}
	if len(release) > 100 {
		return nil, fmt.Errorf("the kernel release %q is too long", release)
	}
	if len(esp) > maxElTorito {
		return nil, fmt.Errorf("the EFI system partition has %d bytes, and El Torito can name %d", len(esp), maxElTorito)
	}
	sectors := isoESP + (len(esp)+isoSector-1)/isoSector
	img := make([]byte, isoESP*isoSector, sectors*isoSector)

	primary := descriptor(img, isoPrimary, 1)
	copy(primary[8:40], pad("", 32))
	copy(primary[40:72], pad(fleet.VolumeLabel, 32))
	both32(primary[80:], uint32(sectors))
	both16(primary[120:], 1)
	both16(primary[124:], 1)
	both16(primary[128:], isoSector)
	both32(primary[132:], 10)
	binary.LittleEndian.PutUint32(primary[140:], isoPathL)
	binary.BigEndian.PutUint32(primary[148:], isoPathM)
	copy(primary[156:190], record("\x00", isoRoot, isoSector, true))
	for _, f := range [][2]int{{190, 128}, {318, 128}, {446, 128}, {574, 128}, {702, 37}, {739, 37}, {776, 37}} {
		copy(primary[f[0]:f[0]+f[1]], pad("", f[1]))
	}
	copy(primary[318:], "METALCTL")
	copy(primary[574:], release+" "+signature) // the application identifier: what Open reads back
	for i, at := range []int{813, 830, 847, 864} {
		date := isoDate
		if i >= 2 {
			date = "0000000000000000" // no expiry, effective at once
		}
		copy(primary[at:], date)
	}
	primary[881] = 1
	copy(primary[isoAppUse:], window.Mark(build))

	boot := descriptor(img, isoBoot, 0)
	copy(boot[7:39], "EL TORITO SPECIFICATION")
	binary.LittleEndian.PutUint32(boot[71:], isoCatalog)
	descriptor(img, isoEnd, 255)

	elTorito(img[isoCatalog*isoSector:], len(esp))

	for at, order := range map[int]binary.ByteOrder{isoPathL: binary.LittleEndian, isoPathM: binary.BigEndian} {
		p := img[at*isoSector:]
		p[0] = 1
		order.PutUint32(p[2:], isoRoot)
		order.PutUint16(p[6:], 1)
	}
	dir := img[isoRoot*isoSector:]
	for _, r := range [][]byte{
		record("\x00", isoRoot, isoSector, true), record("\x01", isoRoot, isoSector, true), record(isoESPName, isoESP, len(esp), false),
	} {
		dir = dir[copy(dir, r):]
	}
	img = append(img, esp...)
	return append(img, make([]byte, sectors*isoSector-len(img))...), nil
}

func descriptor(img []byte, sector int, kind byte) []byte {
	d := img[sector*isoSector : (sector+1)*isoSector]
	d[0] = kind
	copy(d[1:], "CD001\x01")
	return d
}

// elTorito writes the boot catalogue: validation entry and one default entry (El Torito 1.0, figures 2 and 3).
func elTorito(c []byte, size int) {
	c[0], c[1] = 1, 0xef // header, platform EFI
	copy(c[4:], "METALCTL")
	c[30], c[31] = 0x55, 0xaa
	var sum uint16
	for i := 0; i < 32; i += 2 {
		sum += binary.LittleEndian.Uint16(c[i:])
	}
	binary.LittleEndian.PutUint16(c[28:], -sum)
	c[32] = 0x88 // bootable, no emulation
	binary.LittleEndian.PutUint16(c[38:], uint16((size+511)/512))
	binary.LittleEndian.PutUint32(c[40:], isoESP)
}

// record returns a directory record (ECMA-119 9.1).
func record(name string, sector, size int, dir bool) []byte {
	length := 33 + len(name) + (1+len(name))%2
	r := make([]byte, length)
	r[0] = byte(length)
	both32(r[2:], uint32(sector))
	both32(r[10:], uint32(size))
	copy(r[18:], []byte{120, 1, 1, 0, 0, 0, 0}) // 2020-01-01
	if dir {
		r[25] = 2
	}
	both16(r[28:], 1)
	r[32] = byte(len(name))
	copy(r[33:], name)
	return r
}

func pad(s string, n int) string { return s + strings.Repeat(" ", n-len(s)) }

func both16(b []byte, v uint16) {
	binary.LittleEndian.PutUint16(b, v)
	binary.BigEndian.PutUint16(b[2:], v)
}

func both32(b []byte, v uint32) {
	binary.LittleEndian.PutUint32(b, v)
	binary.BigEndian.PutUint32(b[4:], v)
}
