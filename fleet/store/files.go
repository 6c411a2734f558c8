package store

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// bigFile names an uploaded image or pack, which the server keeps under its digest.
var bigFile = regexp.MustCompile(`^(images|packs)/[0-9a-f]{64}$`)

// validFile lets a follower read and write nothing but what belongs to a store: blobs, uploaded images and packs, each named by its digest.
func validFile(path string) bool {
	return path != fileName && validBackupPath(path) || bigFile.MatchString(path)
}

func errFile(path string) error {
	return fleet.Errorf(fleet.Invalid, "MC-STORE-VALUE", "%q is no file of a store", path)
}

// Files names every file that the store's records may name: blobs, uploaded images, packs.
func (db *DB) Files(ctx context.Context) ([]string, error) { return filesIn(ctx, db.dir) }

func filesIn(ctx context.Context, root string) ([]string, error) {
	var out []string
	for _, dir := range []string{"blobs", "images", "packs"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil || ctx.Err() != nil:
				return errors.Join(err, ctx.Err())
			}
			name, err := filepath.Rel(root, path)
			if name = filepath.ToSlash(name); err == nil && !d.IsDir() && validFile(name) {
				out = append(out, name)
			}
			return err
		})
		if err != nil {
			return nil, storeError("list the store's files", err)
		}
	}
	return out, nil
}

// OpenFile opens one of Files as it lies there: a sealed one stays sealed. NotFound where it is gone.
func (db *DB) OpenFile(path string) (io.ReadCloser, error) {
	if !validFile(path) {
		return nil, errFile(path)
	}
	f, err := os.Open(filepath.Join(db.dir, filepath.FromSlash(path)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fleet.Errorf(fleet.NotFound, "MC-STORE-ABSENT", "there is no %s", path)
	}
	return f, storeError("open a file of the store", err)
}

// Has reports whether a file is here already.
func (r *Replica) Has(path string) bool {
	_, err := os.Lstat(filepath.Join(r.dir, filepath.FromSlash(path)))
	return err == nil && validFile(path)
}

// PutFile takes one of the other server's files. It is compared with the digest that it is named by, and is durable or not there at all.
func (r *Replica) PutFile(ctx context.Context, path string, in io.Reader) error {
	if !validFile(path) {
		return errFile(path)
	}
	to := filepath.Join(r.dir, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return storeError("store a file", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(to), ".tmp-*")
	if err != nil {
		return storeError("store a file", err)
	}
	defer os.Remove(tmp.Name())
	got, err := copyBlob(ctx, tmp, in, maxFile)
	want := "sha256:" + path[strings.LastIndexByte(path, '/')+1:]
	if err == nil && strings.HasPrefix(path, "blobs/"+BlobUserData+"/") {
		got, err = r.unsealedDigest(ctx, want, tmp)
	}
	if err == nil && got != want {
		err = errBlobDamaged(want)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return storeError("store a file", err)
	}
	if err := os.Rename(tmp.Name(), to); err != nil {
		return storeError("store a file", err)
	}
	// The folders may be new, so that their own names have to last as well.
	dir := r.dir
	for _, part := range strings.Split(path, "/") {
		if err := syncDir(dir); err != nil {
			return storeError("store a file", err)
		}
		dir = filepath.Join(dir, part)
	}
	return nil
}

// maxFile bounds one file: images are the largest.
const maxFile = 1 << 40

// unsealedDigest is the digest of what is sealed in f, which is what such a file is named by.
func (r *Replica) unsealedDigest(ctx context.Context, name string, f *os.File) (string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	sealed, err := io.ReadAll(io.LimitReader(f, maxSealedBlob+4096))
	if err != nil {
		return "", err
	}
	plain, err := r.seal.open([]byte(name), sealed)
	if err != nil {
		return "", errBlobDamaged(name)
	}
	return copyBlob(ctx, io.Discard, &byteReader{plain}, maxSealedBlob)
}

// DropFiles removes files that are older than a day and that the other server has no more: tenants' data go there, so that they go here.
func (r *Replica) DropFiles(ctx context.Context, there []string) error {
	keep := make(map[string]bool, len(there))
	for _, path := range there {
		keep[path] = true
	}
	here, err := filesIn(ctx, r.dir)
	if err != nil {
		return err
	}
	for _, path := range here {
		full := filepath.Join(r.dir, filepath.FromSlash(path))
		info, err := os.Lstat(full)
		if keep[path] || err != nil || info.ModTime().After(r.now().Add(-24*time.Hour)) {
			continue
		}
		if err := os.Remove(full); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return storeError("remove a file", err)
		}
	}
	return nil
}
