package pack

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/metalctl/metalctl/fleet"
)

// Trust is what a pack must be to be used.
type Trust struct {
	// Keys are whose signatures count; with none, no pack is good.
	Keys []ed25519.PublicKey
	// KernelRelease and Arch are the machine's; "" accepts packs for any.
	KernelRelease, Arch string
	// SHA256 is the digest of the whole file, 64 hex digits; "" accepts any that is signed.
	SHA256 string
}

// Verify reads a pack and writes its content, a compressed tar, to w; nothing reaches w that is not proven to be what one of the trusted keys signed. Where
// Trust names the digest of the file, that is known only at the end. Errors: MC-PACK-MANIFEST, -SIGNATURE, -KERNEL, -ARCH, -DAMAGED.
func Verify(ctx context.Context, r io.Reader, t Trust, w io.Writer) (*Manifest, error) {
	v, err := open(r, t)
	if err != nil {
		return nil, err
	}
	v.ctx = ctx
	if _, err := io.Copy(w, v); err != nil {
		return nil, err
	}
	return v.m, nil
}

// open proves the header and returns a reader of proven content.
func open(r io.Reader, t Trust) (*verifier, error) {
	v := &verifier{want: t.SHA256}
	if t.SHA256 != "" {
		v.whole = sha256.New()
		r = io.TeeReader(r, v.whole)
	}
	h, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	m := h.manifest
	if err := h.signedBy(t.Keys); err != nil {
		return nil, fleet.Errorf(fleet.Denied, "MC-PACK-SIGNATURE", "pack %s %s: %w", m.Name, m.Version, err).
			WithHint("metalctl pack sign FILE --key KEY")
	}
	if want := m.KernelRelease; want != "" && t.KernelRelease != "" && want != t.KernelRelease {
		return nil, fleet.Errorf(fleet.Invalid, "MC-PACK-KERNEL", "pack %s %s is for kernel %s and this one is %s", m.Name, m.Version, want, t.KernelRelease).
			WithHint("metalctl pack build DIR --name %s --version %s --kernel-release %s --out FILE", m.Name, m.Version, t.KernelRelease)
	}
	if m.Arch != "" && t.Arch != "" && m.Arch != t.Arch {
		return nil, fleet.Errorf(fleet.Invalid, "MC-PACK-ARCH", "pack %s %s is for %s and this machine is %s", m.Name, m.Version, m.Arch, t.Arch).
			WithHint("metalctl pack build DIR --name %s --version %s --arch %s --out FILE", m.Name, m.Version, t.Arch)
	}
	v.r, v.m = r, m
	return v, nil
}

func (h *header) signedBy(keys []ed25519.PublicKey) error {
	if len(h.signature) == 0 || h.manifest.KeyID == "" {
		return errors.New("it is not signed")
	}
	for _, key := range keys {
		if KeyID(key) != h.manifest.KeyID {
			continue
		}
		if !ed25519.Verify(key, append([]byte(domain), h.text...), h.signature) {
			return errors.New("its signature is wrong")
		}
		return nil
	}
	return fmt.Errorf("its key %s is not trusted", h.manifest.KeyID)
}

// verifier reads content part by part and hands a part on once it is proven.
type verifier struct {
	ctx   context.Context // for the one call that reads; nil: none
	r     io.Reader
	m     *Manifest
	want  string    // digest of the whole file; "": not compared
	whole hash.Hash // of what was read, where want is given
	next  int
	buf   []byte
	ready []byte
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.ctx != nil && v.ctx.Err() != nil {
		return 0, v.ctx.Err()
	}
	if len(v.ready) == 0 {
		if v.next == len(v.m.Chunks) {
			if n, err := io.ReadFull(v.r, make([]byte, 1)); n > 0 {
				return 0, v.damaged("something follows its content")
			} else if err != io.EOF {
				return 0, v.damaged("it cannot be read to its end: %w", err)
			}
			if v.want != "" && hex.EncodeToString(v.whole.Sum(nil)) != v.want {
				return 0, v.damaged("its SHA-256 is %x and not %s: it is another pack", v.whole.Sum(nil), v.want)
			}
			return 0, io.EOF
		}
		if v.buf == nil {
			v.buf = make([]byte, min(ChunkBytes, v.m.SizeBytes))
		}
		size := min(ChunkBytes, v.m.SizeBytes-int64(v.next)*ChunkBytes)
		if _, err := io.ReadFull(v.r, v.buf[:size]); err != nil {
			return 0, v.damaged("it ends in part %d of %d: %w", v.next+1, len(v.m.Chunks), err)
		}
		if sum := sha256.Sum256(v.buf[:size]); hex.EncodeToString(sum[:]) != v.m.Chunks[v.next] {
			return 0, v.damaged("part %d of %d differs", v.next+1, len(v.m.Chunks))
		}
		v.ready = v.buf[:size]
		v.next++
	}
	n := copy(p, v.ready)
	v.ready = v.ready[n:]
	return n, nil
}

// damaged says what is wrong with the content. A connection that broke says nothing about it and stays what it is.
func (v *verifier) damaged(format string, args ...any) error {
	for _, a := range args {
		if err, ok := a.(error); ok && fleet.CodeOf(err) == "MC-PACK-FETCH" {
			return err
		}
	}
	return fleet.Errorf(fleet.Broken, "MC-PACK-DAMAGED", "pack %s %s: %w", v.m.Name, v.m.Version, fmt.Errorf(format, args...)).
		WithHint("metalctl pack verify FILE --keys FILE")
}
