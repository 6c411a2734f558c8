package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Describe computes what is to be known of the image file at path: format, length, digests, and the disk's size and digest, for which it reads and
// unpacks all of it. A file that is not what its name says, is not a whole disk, or is cut short or damaged is refused with a *fleet.Error that says
// at which byte.
func Describe(ctx context.Context, path string) (Image, error) {
	f, err := OpenFile(path)
	if err != nil {
		return Image{}, err
	}
	defer f.Close()
	img := Image{Name: imageName(path), SizeBytes: f.size}
	head, err := readHead(io.NewSectionReader(f.f, 0, f.size))
	if err != nil {
		return Image{}, fmt.Errorf("describe %s: %w", path, err)
	}
	if img.Format, err = Sniff(head); err == nil {
		err = checkName(filepath.Base(path), img.Format)
	}
	if err != nil {
		return Image{}, fmt.Errorf("describe %s: %w", path, err)
	}
	if err := describe(ctx, f, &img); err != nil {
		return Image{}, fmt.Errorf("describe %s: %w", path, err)
	}
	return img, nil
}

// imageName is the file's name without what says the format.
func imageName(path string) string {
	name := filepath.Base(path)
	for _, ext := range []string{".zst", ".zstd", ".gz", ".xz", ".raw", ".img", ".qcow2", ".qcow"} {
		name = strings.TrimSuffix(name, ext)
	}
	return name
}

func describe(ctx context.Context, f *File, img *Image) error {
	content := &contentHash{Hash: sha256.New()}
	file := content // a raw image is its contents: one pass
	if img.Format != Raw {
		file = &contentHash{Hash: sha256.New()}
	}
	r, err := f.Stream(ctx)
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for err == nil {
		var n int
		n, err = r.Read(buf)
		file.put(buf[:n])
	}
	if err != io.EOF {
		return err
	}
	img.SHA256 = hex.EncodeToString(file.Sum(nil))
	switch err = nil; img.Format {
	case Raw:
	case QCOW2:
		err = content.qcow2(ctx, f)
	default:
		_, err = Decode(ctx, f, *img, func(e Extent) error {
			defer e.Release()
			return content.extent(e)
		})
	}
	if err != nil {
		return err
	}
	if _, err := Sniff(content.head); err != nil {
		var refused *fleet.Error
		if img.Format != Raw && errors.As(err, &refused) {
			return fleet.Errorf(fleet.Invalid, refused.Code, "its contents: %w", err).WithHint("%s", refused.Hint)
		}
		return err
	}
	if content.n%sectorBytes != 0 {
		return fleet.Errorf(fleet.Invalid, "MC-IMAGE-TRUNCATED", "a disk of %d bytes is not a whole number of sectors", content.n).
			WithHint("fetch or upload the file again")
	}
	img.VirtualSizeBytes = content.n
	if img.Format != Raw {
		img.DiskSHA256 = hex.EncodeToString(content.Sum(nil))
	}
	return nil
}

// contentHash takes a disk's contents in order.
type contentHash struct {
	hash.Hash
	head []byte
	n    int64
}

func (c *contentHash) extent(e Extent) error {
	if e.Off != c.n {
		panic(fmt.Sprintf("images: extent at %d where %d was due", e.Off, c.n))
	}
	if e.Data != nil {
		c.put(e.Data)
		return nil
	}
	for left := e.Len; left > 0; {
		k := min(left, zeroGrain)
		c.put(zeros[:k])
		left -= k
	}
	return nil
}

func (c *contentHash) put(b []byte) {
	if room := SniffLen - len(c.head); room > 0 {
		c.head = append(c.head, b[:min(room, len(b))]...)
	}
	c.Write(b)
	c.n += int64(len(b))
}

// qcow2 goes through the disk in its own order, which a file, unlike a stream, allows.
func (c *contentHash) qcow2(ctx context.Context, f *File) error {
	m, err := readQCOW2(ctx, f.size, f.ReadRange)
	if err != nil {
		return err
	}
	var u unpacker
	defer u.close()
	out := make([]byte, m.cluster())
	zeroTo := func(off int64) error { return c.extent(Extent{Off: c.n, Len: off - c.n}) }
	for _, r := range m.byGuest() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := zeroTo(r.guest); err != nil {
			return err
		}
		data, err := f.ReadRange(ctx, r.host, r.n)
		if err != nil {
			return err
		}
		if r.kind == runPacked {
			n := m.guestBytes(r.guest)
			if err := u.unpack(m, []run{r}, data, out[:n]); err != nil {
				return err
			}
			data = out[:n]
		}
		c.put(data)
	}
	return zeroTo(m.qcow2Header.size)
}
