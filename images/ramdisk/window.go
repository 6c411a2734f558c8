package ramdisk

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// ISO is a boot medium in memory, shared by all nodes and never changed.
type ISO struct {
	data []byte
	// Size is in bytes.
	Size int64
	// SHA256 is of the medium with an empty window, in hex.
	SHA256 string
	// Window is where the credential of a node belongs.
	Window fleet.Window
	// Parts says where the bytes went; empty for an ISO that was opened.
	Parts []Part
	// Missing are modules of the built-in sets that the kernel lacks.
	Missing       []string
	KernelRelease string
	// Signed: the image carries a signature for Secure Boot.
	Signed bool
}

func newISO(data []byte, w fleet.Window, release string, signed bool) *ISO {
	sum := sha256.Sum256(data)
	return &ISO{data: data, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:]), Window: w, KernelRelease: release, Signed: signed}
}

// account fills Parts: the medium's overhead is what no part takes.
func (i *ISO) account(segments []*segment, stub int, kernel []byte, uki int) {
	var known int64
	add := func(name string, raw, packed int64) {
		i.Parts = append(i.Parts, Part{name, raw, packed})
		known += packed
	}
	add("kernel", int64(len(kernel)), int64(len(kernel)))
	for _, s := range segments {
		add(s.name, s.raw, int64(len(s.packed)))
	}
	add("stub and alignment", int64(stub), int64(uki)-known)
	add("credential window", i.Window.Size, i.Window.Size)
	i.Parts = append(i.Parts, Part{"file systems", i.Size - known, i.Size - known})
}

// ReadAt reads the medium with its empty window.
func (i *ISO) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(i.data).ReadAt(p, off) }

// WriteTo writes the medium with its empty window.
func (i *ISO) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(i.data)
	return int64(n), err
}

// Overlay returns the medium as one node sees it: the shared bytes with cred, padded with spaces, in the window. Only cred is
// kept beside them. Error MC-RAMDISK-CREDENTIAL when cred does not fit.
func (i *ISO) Overlay(cred []byte) (io.ReaderAt, error) {
	if int64(len(cred)) > i.Window.Size {
		return nil, fleet.Errorf(fleet.Invalid, "MC-RAMDISK-CREDENTIAL", "the boot credential has %d bytes and its window %d", len(cred), i.Window.Size).
			WithHint("shorten the node's boot_network: fewer routes, addresses or DNS servers")
	}
	return &overlay{i, bytes.Clone(cred)}, nil
}

type overlay struct {
	iso  *ISO
	cred []byte
}

// ReadAt reads the shared medium and puts the credential over it. The window is blank in the medium, which is the padding.
func (o *overlay) ReadAt(p []byte, off int64) (int, error) {
	n, err := o.iso.ReadAt(p, off)
	from := o.iso.Window.Offset - off // where the credential begins in p
	if from < int64(n) && from+int64(len(o.cred)) > 0 {
		if from >= 0 {
			copy(p[from:n], o.cred)
		} else {
			copy(p[:n], o.cred[-from:])
		}
	}
	return n, err
}

// Open reads an ISO that Build made. Error MC-RAMDISK-ISO when it is something else or damaged.
func Open(path string) (*ISO, error) {
	data, err := os.ReadFile(path)
	if err == nil {
		var iso *ISO
		if iso, err = parseISO(data); err == nil {
			return iso, nil
		}
	}
	return nil, fleet.Errorf(fleet.Invalid, "MC-RAMDISK-ISO", "open boot medium %s: %w", path, err).
		WithHint("metalctl ramdisk build -o %s", path)
}

func parseISO(data []byte) (*ISO, error) {
	if len(data) < isoESP*isoSector {
		return nil, errors.New("it is too short")
	}
	d := data[isoPrimary*isoSector : (isoPrimary+1)*isoSector]
	if string(d[:6]) != "\x01CD001" || strings.TrimRight(string(d[40:72]), " ") != fleet.VolumeLabel {
		return nil, errors.New("it is not an ISO 9660 volume " + fleet.VolumeLabel)
	}
	w, _, err := fleet.ParseMark(d[isoAppUse : isoAppUse+512])
	if err != nil {
		return nil, err
	}
	if w.Offset < isoESP*isoSector || w.Offset+w.Size > int64(len(data)) {
		return nil, fmt.Errorf("it ends at %d, before its credential window", len(data))
	}
	if len(bytes.Trim(data[w.Offset:w.Offset+w.Size], " ")) > 0 {
		return nil, errors.New("its credential window is not empty; it was copied from a node's medium")
	}
	var sectors uint32
	for i := 3; i >= 0; i-- {
		sectors = sectors<<8 | uint32(d[80+i])
	}
	if int64(sectors)*isoSector != int64(len(data)) {
		return nil, fmt.Errorf("it has %d bytes instead of %d", len(data), int64(sectors)*isoSector)
	}
	release, signature, ok := strings.Cut(strings.TrimSpace(string(d[574:702])), " ")
	if !ok {
		return nil, errors.New("it does not name its kernel")
	}
	return newISO(data, w, release, signature == "SIGNED"), nil
}
