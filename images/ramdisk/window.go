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

// ISO is a boot medium, in memory where it was built and in its file where it was opened; shared by all nodes and never changed.
type ISO struct {
	from io.ReaderAt
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

func newISO(from io.ReaderAt, size int64, w fleet.Window, release string, signed bool) (*ISO, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(from, 0, size)); err != nil {
		return nil, err
	}
	return &ISO{from: from, Size: size, SHA256: hex.EncodeToString(sum.Sum(nil)), Window: w, KernelRelease: release, Signed: signed}, nil
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
func (i *ISO) ReadAt(p []byte, off int64) (int, error) { return i.from.ReadAt(p, off) }

func (i *ISO) reader() *io.SectionReader { return io.NewSectionReader(i.from, 0, i.Size) }

// WriteTo writes the medium with its empty window.
func (i *ISO) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, i.reader()) }

// Load takes a medium that was opened into memory, for a file that somebody else may write. Error MC-RAMDISK-ISO when somebody did.
func (i *ISO) Load() (*ISO, error) {
	data := make([]byte, i.Size)
	_, err := io.ReadFull(i.reader(), data)
	if err == nil {
		var held *ISO
		if held, err = parseISO(bytes.NewReader(data), i.Size); err == nil && held.SHA256 == i.SHA256 {
			return held, nil
		}
	}
	if err == nil {
		err = errors.New("its digest is another now")
	}
	return nil, fleet.Errorf(fleet.Invalid, "MC-RAMDISK-ISO", "the boot medium was changed while it was read: %w", err).
		WithHint("metalctl ramdisk build -o FILE")
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

// Open opens an ISO that Build made; it is read from the file until Close. Error MC-RAMDISK-ISO when it is something else or damaged.
func Open(path string) (*ISO, error) {
	iso, err := open(path)
	if err != nil {
		return nil, fleet.Errorf(fleet.Invalid, "MC-RAMDISK-ISO", "open boot medium %s: %w", path, err).WithHint("metalctl ramdisk build -o %s", path)
	}
	return iso, nil
}

func open(path string) (iso *ISO, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		iso, err = parseISO(f, info.Size())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return iso, nil
}

// Close lets go of the file of a medium that was opened; who reads from it then gets an error. One that is held in memory stays.
func (i *ISO) Close() error {
	if f, ok := i.from.(io.Closer); ok {
		return f.Close()
	}
	return nil
}

func parseISO(from io.ReaderAt, size int64) (*ISO, error) {
	if size < isoESP*isoSector {
		return nil, errors.New("it is too short")
	}
	d := make([]byte, isoSector)
	if _, err := from.ReadAt(d, isoPrimary*isoSector); err != nil {
		return nil, err
	}
	if string(d[:6]) != "\x01CD001" || strings.TrimRight(string(d[40:72]), " ") != fleet.VolumeLabel {
		return nil, errors.New("it is not an ISO 9660 volume " + fleet.VolumeLabel)
	}
	w, _, err := fleet.ParseMark(d[isoAppUse : isoAppUse+512])
	if err != nil {
		return nil, err
	}
	if w.Offset < isoESP*isoSector || w.Size < 0 || w.Offset+w.Size > size {
		return nil, fmt.Errorf("it ends at %d, before its credential window", size)
	}
	window := make([]byte, w.Size)
	if _, err := from.ReadAt(window, w.Offset); err != nil && err != io.EOF {
		return nil, err
	}
	if len(bytes.Trim(window, " ")) > 0 {
		return nil, errors.New("its credential window is not empty; it was copied from a node's medium")
	}
	var sectors uint32
	for i := 3; i >= 0; i-- {
		sectors = sectors<<8 | uint32(d[80+i])
	}
	if int64(sectors)*isoSector != size {
		return nil, fmt.Errorf("it has %d bytes instead of %d", size, int64(sectors)*isoSector)
	}
	release, signature, ok := strings.Cut(strings.TrimSpace(string(d[574:702])), " ")
	if !ok {
		return nil, errors.New("it does not name its kernel")
	}
	return newISO(from, size, w, release, signature == "SIGNED")
}
