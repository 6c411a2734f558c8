package pack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"

	"github.com/klauspost/compress/zstd"

	"github.com/metalctl/metalctl/fleet"
)

// Source is where a pack is fetched from.
type Source struct {
	Client *http.Client
	URL    string
	// Progress is told the bytes of the file that came so far; may be nil.
	Progress func(doneBytes int64)
}

// Install fetches a pack and unpacks it into dir, which must not exist and appears whole or not at all. Errors: those of Verify; MC-PACK-FETCH where it is
// not handed out or the connection breaks; MC-PACK-ROOM where dir has no room for it. The client's or the context's deadline bounds it.
func Install(ctx context.Context, from Source, t Trust, dir string) (*Manifest, error) {
	body, err := from.open(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	v, err := open(body, t)
	if body.broke != nil {
		return nil, body.broke
	}
	if err != nil {
		return nil, err
	}
	v.ctx = ctx
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return nil, noRoom(v.m, err)
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return nil, noRoom(v.m, err)
	}
	if err := unpack(v, tmp); err != nil {
		if body.broke != nil {
			err = body.broke // what was made of half a pack says nothing
		}
		return nil, errors.Join(err, os.RemoveAll(tmp))
	}
	if err := os.Rename(tmp, dir); err != nil {
		return nil, errors.Join(noRoom(v.m, err), os.RemoveAll(tmp))
	}
	return v.m, nil
}

func noRoom(m *Manifest, err error) error {
	return fleet.Errorf(fleet.Broken, "MC-PACK-ROOM", "put pack %s %s into place: %w", m.Name, m.Version, err).
		WithHint("it unpacks to %d bytes; make it smaller, or give the machine more memory", m.UnpackedBytes)
}

// open begins to fetch. Reading tells progress and says MC-PACK-FETCH where the connection breaks.
func (s Source) open(ctx context.Context) (*arriving, error) {
	const hint = "look into the log of the server that has it, then again: metalctl agent pack fetch URL --keys FILE --dir DIR"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if err != nil {
		return nil, fleet.Errorf(fleet.Invalid, "MC-PACK-FETCH", "fetch a pack: %w", err)
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		return nil, fleet.Errorf(fleet.Unavailable, "MC-PACK-FETCH", "fetch a pack: %w", err).WithHint(hint)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		kind := fleet.Unavailable
		if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone {
			kind = fleet.NotFound
		}
		return nil, fleet.Errorf(kind, "MC-PACK-FETCH", "fetch a pack from %s: %s", req.URL.Redacted(), resp.Status).WithHint(hint)
	}
	return &arriving{body: resp.Body, progress: s.Progress}, nil
}

// arriving is a pack on its way.
type arriving struct {
	body     io.ReadCloser
	done     int64
	progress func(int64)
	broke    error // how the connection broke, or nil
}

func (a *arriving) Read(p []byte) (int, error) {
	n, err := a.body.Read(p)
	a.done += int64(n)
	if a.progress != nil && n > 0 {
		a.progress(a.done)
	}
	if err != nil && err != io.EOF {
		a.broke = fleet.Errorf(fleet.Unavailable, "MC-PACK-FETCH", "fetch a pack: the connection broke after %d bytes: %w", a.done, err)
		err = a.broke
	}
	return n, err
}

func (a *arriving) Close() error { return a.body.Close() }

// unpack writes a pack's proven content below dir.
func unpack(v *verifier, dir string) error {
	switch err := Extract(v, dir, v.m.UnpackedBytes); {
	case errors.Is(err, errTooLarge):
		return v.damaged("it unpacks to more than its manifest says")
	case fleet.NoSpace(err):
		return noRoom(v.m, err)
	default:
		return err
	}
}

var errTooLarge = errors.New("the files are larger than they may be")

// Extract writes what Archive wrote below dir, which is there; no name leads out of it. Files may have most bytes in all. r is read to its end.
func Extract(r io.Reader, dir string, most int64) error {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer z.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer root.Close()
	left := most
	w := &unpacker{root: root, buf: make([]byte, 64<<10)}
	defer w.close()
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		if left -= h.Size; left < 0 {
			return fmt.Errorf("unpack: %w", errTooLarge)
		}
		if err := w.write(h, t); err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
	// What follows the archive is part of what r proves.
	_, err = io.Copy(io.Discard, z)
	return err
}

// maxNames is how many entries List reads at most.
const maxNames = 2_000_000

// List reads what Archive wrote and says the name of each file in it; r is read to its end.
func List(r io.Reader, each func(name string)) error {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	defer z.Close()
	t := tar.NewReader(z)
	for range maxNames {
		h, err := t.Next()
		if err == io.EOF {
			_, err = io.Copy(io.Discard, z)
			return err
		}
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		each(h.Name)
	}
	return fmt.Errorf("list: there are more than %d files", maxNames)
}

// unpacker writes entries below root. What lies in one folder comes one after the other, so that folder stays open: each name on the way to it costs a call.
type unpacker struct {
	root, in *os.Root
	dir      string // of in, which is nil before the first
	buf      []byte
}

func (u *unpacker) close() {
	if u.in != nil {
		u.in.Close()
	}
}

// enter opens the folder that an entry lies in, made where nobody named it.
func (u *unpacker) enter(dir string) error {
	if u.in != nil && u.dir == dir {
		return nil
	}
	in, err := u.root.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = u.root.MkdirAll(dir, 0o755); err == nil {
			in, err = u.root.OpenRoot(dir)
		}
	}
	if err != nil {
		return err
	}
	u.close()
	u.in, u.dir = in, dir
	return nil
}

func (u *unpacker) write(h *tar.Header, r io.Reader) error {
	name := path.Clean(h.Name)
	mode := os.FileMode(h.Mode).Perm()
	if name == "." && h.Typeflag == tar.TypeDir {
		return nil
	}
	if err := u.enter(path.Dir(name)); err != nil {
		return err
	}
	name = path.Base(name)
	switch h.Typeflag {
	case tar.TypeDir:
		return u.in.MkdirAll(name, mode|0o700)
	case tar.TypeSymlink:
		return u.in.Symlink(h.Linkname, name)
	case tar.TypeReg:
		f, err := u.in.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
		if err != nil {
			return err
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{f}, r, u.buf) // a file by itself would take a buffer of its own
		return errors.Join(err, f.Close())
	}
	return fmt.Errorf("entries of type %q have no place in a pack", h.Typeflag)
}
