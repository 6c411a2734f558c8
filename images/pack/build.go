package pack

import (
	"archive/tar"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/metalctl/metalctl/fleet"
)

// Options says what a pack is made from.
type Options struct {
	// Dir is the folder whose content is packed: files, folders and links.
	Dir           string
	Name, Version string
	// KernelRelease is needed where Dir holds kernel modules.
	KernelRelease string
	// Arch is needed where Dir holds programs or modules: amd64, arm64.
	Arch string
}

// Build packs a folder into the file out, unsigned. The same folder gives the same bytes. Error MC-PACK-SOURCE; out appears whole or
// not at all.
func Build(ctx context.Context, o Options, out string) (*Manifest, error) {
	m := &Manifest{Format: 1, Name: o.Name, Version: o.Version, KernelRelease: o.KernelRelease, Arch: o.Arch}
	if info, err := os.Stat(o.Dir); err != nil || !info.IsDir() {
		return nil, fleet.Errorf(fleet.NotFound, "MC-PACK-SOURCE", "%s is not a folder", o.Dir).WithHint("metalctl pack build DIR --name NAME --version V --out FILE")
	}
	body, err := os.CreateTemp(filepath.Dir(out), ".pack-*")
	if err != nil {
		return nil, fmt.Errorf("make room for the pack: %w", err)
	}
	defer os.Remove(body.Name())
	defer body.Close()
	chunks := &chunker{w: body, hash: sha256.New()}
	if m.UnpackedBytes, err = Archive(ctx, o.Dir, chunks); err != nil {
		return nil, fleet.Errorf(fleet.Invalid, "MC-PACK-SOURCE", "pack %s: %w", o.Dir, err).WithHint("remove it from the folder")
	}
	m.Chunks, m.SizeBytes = chunks.sums(), chunks.size
	if faults := m.faults(); len(faults) > 0 {
		return nil, badManifest(faults...)
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read the pack back: %w", err)
	}
	return m, replace(out, m, nil, body)
}

// Sign signs the pack in file with key, in place: whole or not at all.
func Sign(file string, key ed25519.PrivateKey) (*Manifest, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fleet.Errorf(fleet.NotFound, "MC-PACK-SOURCE", "open the pack: %w", err).WithHint("metalctl pack build DIR --name NAME --version V --out FILE")
	}
	defer f.Close()
	h, err := readHeader(f)
	if err != nil {
		return nil, err
	}
	h.manifest.KeyID = KeyID(key.Public().(ed25519.PublicKey))
	// What is signed is proven first: a signature says that the maker stands for this content.
	body := &verifier{r: f, m: h.manifest}
	return h.manifest, replace(file, h.manifest, func(text []byte) []byte { return ed25519.Sign(key, text) }, body)
}

// replace writes a pack beside file and then puts it in its place.
func replace(file string, m *Manifest, sign func([]byte) []byte, body io.Reader) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".pack-*")
	if err != nil {
		return fmt.Errorf("write the pack: %w", err)
	}
	defer os.Remove(tmp.Name())
	err = writeHeader(tmp, m, sign)
	if err == nil {
		_, err = io.Copy(tmp, body)
	}
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("write the pack: %w", err)
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return fmt.Errorf("write the pack: %w", err)
	}
	return nil
}

// chunker passes bytes on and hashes each ChunkBytes of them.
type chunker struct {
	w    io.Writer
	hash hash.Hash
	in   int64 // bytes in the present chunk
	size int64
	done []string
}

func (c *chunker) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	for q := p[:n]; len(q) > 0; {
		part := q[:min(int64(len(q)), ChunkBytes-c.in)]
		c.hash.Write(part)
		c.in += int64(len(part))
		c.size += int64(len(part))
		if q = q[len(part):]; c.in == ChunkBytes {
			c.close()
		}
	}
	return n, err
}

func (c *chunker) close() {
	c.done = append(c.done, hex.EncodeToString(c.hash.Sum(nil)))
	c.hash.Reset()
	c.in = 0
}

func (c *chunker) sums() []string {
	if c.in > 0 {
		c.close()
	}
	return c.done
}

// Archive writes dir as a compressed tar in the order of names, without owners and times. unpacked is what its files hold in all.
func Archive(ctx context.Context, dir string, w io.Writer) (unpacked int64, err error) {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return 0, err
	}
	t := tar.NewWriter(z)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: filepath.ToSlash(name), Mode: int64(info.Mode().Perm()), Format: tar.FormatPAX, ModTime: time.Unix(0, 0)}
		switch {
		case d.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case d.Type() == fs.ModeSymlink:
			h.Typeflag = tar.TypeSymlink
			if h.Linkname, err = os.Readlink(path); err != nil {
				return err
			}
		case d.Type().IsRegular():
			h.Typeflag, h.Size = tar.TypeReg, info.Size()
			unpacked += h.Size
		default:
			return fmt.Errorf("%s is neither file, folder nor link", path)
		}
		if err := t.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(t, f)
		return err
	})
	return unpacked, errors.Join(err, t.Close(), z.Close())
}
