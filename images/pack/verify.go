package pack

import (
	"archive/tar"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/metalctl/metalctl/fleet"
)

// Verify reads a pack and writes its content, a compressed tar, to w; nothing reaches w that is not proven to be what one of keys
// signed. kernelRelease is the running kernel; "" accepts packs for any. Errors: MC-PACK-MANIFEST, -SIGNATURE, -KERNEL, -DAMAGED.
func Verify(ctx context.Context, r io.Reader, keys []ed25519.PublicKey, kernelRelease string, w io.Writer) (*Manifest, error) {
	v, err := open(r, keys, kernelRelease)
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
func open(r io.Reader, keys []ed25519.PublicKey, kernelRelease string) (*verifier, error) {
	h, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	if err := h.signedBy(keys); err != nil {
		return nil, fleet.Errorf(fleet.Denied, "MC-PACK-SIGNATURE", "pack %s %s: %w", h.manifest.Name, h.manifest.Version, err).
			WithHint("metalctl pack sign FILE --key KEY")
	}
	if want := h.manifest.KernelRelease; want != "" && kernelRelease != "" && want != kernelRelease {
		return nil, fleet.Errorf(fleet.Invalid, "MC-PACK-KERNEL", "pack %s %s is for kernel %s and this one is %s", h.manifest.Name, h.manifest.Version, want, kernelRelease).
			WithHint("metalctl pack build DIR --name %s --version %s --kernel-release %s --out FILE", h.manifest.Name, h.manifest.Version, kernelRelease)
	}
	return &verifier{r: r, m: h.manifest}, nil
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
			if n, err := io.ReadFull(v.r, make([]byte, 1)); n > 0 || err != io.EOF {
				return 0, v.damaged("something follows its content")
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

func (v *verifier) damaged(format string, args ...any) error {
	return fleet.Errorf(fleet.Broken, "MC-PACK-DAMAGED", "pack %s %s: %w", v.m.Name, v.m.Version, fmt.Errorf(format, args...)).
		WithHint("metalctl pack verify FILE --keys FILE")
}

// Fetch gets a pack by http and does with it what Verify does. Error MC-PACK-FETCH when the server does not hand it out; the client's
// or the context's deadline bounds it.
func Fetch(ctx context.Context, client *http.Client, url string, keys []ed25519.PublicKey, kernelRelease string, w io.Writer) (*Manifest, error) {
	body, err := get(ctx, client, url)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return Verify(ctx, body, keys, kernelRelease, w)
}

func get(ctx context.Context, client *http.Client, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fleet.Errorf(fleet.Invalid, "MC-PACK-FETCH", "fetch a pack: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fleet.Errorf(fleet.Unavailable, "MC-PACK-FETCH", "fetch a pack: %w", err).WithHint("look into the log of the server that has it, then again: metalctl agent pack fetch URL --keys FILE --dir DIR")
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		kind := fleet.Unavailable
		if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone {
			kind = fleet.NotFound
		}
		return nil, fleet.Errorf(kind, "MC-PACK-FETCH", "fetch a pack from %s: %s", req.URL.Redacted(), resp.Status).WithHint("look into the log of the server that has it, then again: metalctl agent pack fetch URL --keys FILE --dir DIR")
	}
	return resp.Body, nil
}

// Install fetches a pack and unpacks it into dir, which must not exist and appears whole or not at all.
func Install(ctx context.Context, client *http.Client, url string, keys []ed25519.PublicKey, kernelRelease, dir string) (*Manifest, error) {
	body, err := get(ctx, client, url)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	v, err := open(body, keys, kernelRelease)
	if err != nil {
		return nil, err
	}
	v.ctx = ctx
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return nil, fmt.Errorf("make room for the pack: %w", err)
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return nil, fmt.Errorf("make room for the pack: %w", err)
	}
	if err := unpack(v, tmp); err != nil {
		return nil, errors.Join(err, os.RemoveAll(tmp))
	}
	if err := os.Rename(tmp, dir); err != nil {
		return nil, errors.Join(fmt.Errorf("put the pack into place: %w", err), os.RemoveAll(tmp))
	}
	return v.m, nil
}

// unpack writes a pack's proven content below dir; no name leads out of it.
func unpack(v *verifier, dir string) error {
	z, err := zstd.NewReader(v, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer z.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer root.Close()
	left := v.m.UnpackedBytes
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		if left -= h.Size; left < 0 {
			return v.damaged("it unpacks to more than its manifest says")
		}
		if err := unpackOne(root, h, t); err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
	// What follows the archive must be proven too.
	_, err = io.Copy(io.Discard, z)
	return err
}

func unpackOne(root *os.Root, h *tar.Header, r io.Reader) error {
	name := strings.TrimSuffix(h.Name, "/")
	mode := os.FileMode(h.Mode).Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, mode|0o700)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		if dir := path.Dir(name); dir != "." {
			if err := root.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	}
	return fmt.Errorf("entries of type %q have no place in a pack", h.Typeflag)
}
