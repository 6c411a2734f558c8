// Package pack makes, signs and verifies packs: bundles of drivers or tools, too large for the ramdisk, that the agent fetches.
//
// A pack is one file: magic, length and text of the manifest, length and bytes of an Ed25519 signature over it, then the content, a
// zstd-compressed tar. The manifest holds the SHA-256 of each 4 MiB of content, so that a reader proves every part before using it.
package pack

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"regexp"

	"github.com/metalctl/metalctl/fleet"
)

const (
	magic = "MCPACK1\n"
	// domain keeps a pack's signature from meaning anything elsewhere.
	domain = "metalctl pack manifest 1\n"
	// ChunkBytes is the size of a part that is proven at once.
	ChunkBytes = 4 << 20
	// maxManifest bounds a manifest in bytes: it is read before anything is proven.
	maxManifest = 8 << 20
	// maxSize bounds a pack's content in bytes.
	maxSize = 64 << 30
)

// Manifest says what a pack is and what its content must be.
type Manifest struct {
	// Format is 1.
	Format int `json:"format"`
	// Name and Version are the maker's.
	Name    string `json:"name"`
	Version string `json:"version"`
	// KernelRelease is the kernel that the pack's modules are for; empty: it has none.
	KernelRelease string `json:"kernel_release,omitempty"`
	// Arch is the processor that its programs and modules are for, as Go names it (amd64, arm64); empty: any.
	Arch string `json:"arch,omitempty"`
	// KeyID names the key that signs; empty until Sign.
	KeyID string `json:"key_id,omitempty"`
	// SizeBytes is the size of the content as it is transferred, UnpackedBytes of the files in it.
	SizeBytes     int64 `json:"size_bytes"`
	UnpackedBytes int64 `json:"unpacked_bytes"`
	// Chunks are the SHA-256 of each ChunkBytes of content, in hex.
	Chunks []string `json:"chunks"`
}

var (
	word    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$`)
	arch    = regexp.MustCompile(`^[a-z0-9]{1,32}$`)
	keyName = regexp.MustCompile(`^ed25519/[0-9a-f]{32}$`)
)

// ParseManifest reads a manifest strictly. The error has the code MC-PACK-MANIFEST and names every fault.
func ParseManifest(b []byte) (*Manifest, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var m Manifest
	if err := dec.Decode(&m); err != nil {
		return nil, badManifest(fleet.FieldError{Field: fmt.Sprintf("byte %d", dec.InputOffset()), Message: err.Error()})
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, badManifest(fleet.FieldError{Field: fmt.Sprintf("byte %d", dec.InputOffset()), Message: "something follows the manifest"})
	}
	if faults := m.faults(); len(faults) > 0 {
		return nil, badManifest(faults...)
	}
	return &m, nil
}

func badManifest(faults ...fleet.FieldError) error {
	e := fleet.Errorf(fleet.Invalid, "MC-PACK-MANIFEST", "the manifest of the pack is not valid").WithHint("metalctl pack build DIR --name NAME --version V --out FILE")
	e.Fields = faults
	return e
}

func (m *Manifest) faults() (out []fleet.FieldError) {
	add := func(field, format string, args ...any) {
		out = append(out, fleet.FieldError{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if m.Format != 1 {
		add("format", "is %d, this program reads 1", m.Format)
	}
	if !word.MatchString(m.Name) {
		add("name", "%q is not letters, digits, dots and dashes", m.Name)
	}
	if !word.MatchString(m.Version) {
		add("version", "%q is not letters, digits, dots and dashes", m.Version)
	}
	if m.KernelRelease != "" && !word.MatchString(m.KernelRelease) {
		add("kernel_release", "%q is not a kernel release", m.KernelRelease)
	}
	if m.Arch != "" && !arch.MatchString(m.Arch) {
		add("arch", "%q is no processor such as amd64 or arm64", m.Arch)
	}
	if m.KeyID != "" && !keyName.MatchString(m.KeyID) {
		add("key_id", "%q is not ed25519/ and 32 hex digits", m.KeyID)
	}
	if m.SizeBytes <= 0 || m.SizeBytes > maxSize {
		add("size_bytes", "%d is not between 1 and %d", m.SizeBytes, int64(maxSize))
	} else if want := (m.SizeBytes + ChunkBytes - 1) / ChunkBytes; int64(len(m.Chunks)) != want {
		add("chunks", "are %d where the size needs %d", len(m.Chunks), want)
	}
	if m.UnpackedBytes < 0 {
		add("unpacked_bytes", "is negative")
	}
	for i, c := range m.Chunks {
		if raw, err := hex.DecodeString(c); err != nil || len(raw) != sha256.Size {
			add(fmt.Sprintf("chunks[%d]", i), "is not a SHA-256 in hex")
			break
		}
	}
	return out
}

// header is what stands before the content.
type header struct {
	manifest  *Manifest
	text      []byte // the manifest as it was signed
	signature []byte // empty: not signed
}

func readHeader(r io.Reader) (*header, error) {
	var fixed [len(magic)]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil || string(fixed[:]) != magic {
		return nil, badManifest(fleet.FieldError{Field: "byte 0", Message: "the file is not a pack"})
	}
	text, err := readBlock(r, maxManifest)
	if err != nil {
		return nil, badManifest(fleet.FieldError{Field: "manifest", Message: err.Error()})
	}
	signature, err := readBlock(r, ed25519.SignatureSize)
	if err != nil {
		return nil, badManifest(fleet.FieldError{Field: "signature", Message: err.Error()})
	}
	m, err := ParseManifest(text)
	if err != nil {
		return nil, err
	}
	return &header{m, text, signature}, nil
}

func readBlock(r io.Reader, limit uint32) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, fmt.Errorf("it is cut short: %w", err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > limit {
		return nil, fmt.Errorf("%d bytes are more than %d", n, limit)
	}
	// Growing with what arrives keeps a false length from costing memory.
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && uint32(len(b)) != n {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

func writeHeader(w io.Writer, m *Manifest, sign func(text []byte) []byte) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode the manifest: %w", err)
	}
	var signature []byte
	if sign != nil {
		signature = sign(append([]byte(domain), text...))
	}
	b := []byte(magic)
	for _, block := range [][]byte{text, signature} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(block)))
		b = append(b, block...)
	}
	_, err = w.Write(b)
	return err
}

// Read returns what a pack says of itself, proven by nobody: only to name it.
func Read(r io.Reader) (*Manifest, error) {
	h, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	return h.manifest, nil
}
