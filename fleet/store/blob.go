package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// BlobUserData is the kind of blob that holds what tenants hand to their systems; it is sealed like a secret record.
const BlobUserData = "user-data"

// maxSealedBlob bounds what is sealed as one piece in memory.
const maxSealedBlob = 16 << 20

var (
	blobKind   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	blobDigest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

func (db *DB) blobDir() string { return filepath.Join(db.dir, "blobs") }

// blobPath fans out by the digest's first byte, so that no folder grows beyond what old file systems like.
func (db *DB) blobPath(kind, digest string) string {
	hexa := digest[len("sha256:"):]
	return filepath.Join(db.blobDir(), kind, hexa[:2], hexa)
}

// PutBlob implements fleet.Blobs. The blob is durable under its name before the digest is returned; a read or write that fails leaves nothing.
func (db *DB) PutBlob(ctx context.Context, kind string, r io.Reader) (string, error) {
	if !blobKind.MatchString(kind) {
		return "", fleet.Errorf(fleet.Invalid, "MC-STORE-VALUE", "%q is no kind of blob", kind)
	}
	r, digest, err := peekBlob(ctx, r)
	if err != nil {
		return "", storeError("store a blob", err)
	}
	if db.durable.has(kind, digest) {
		// It is young again: nobody sweeps what was just stored.
		now := db.now()
		if err := os.Chtimes(db.blobPath(kind, digest), now, now); err == nil {
			return digest, nil
		}
	}
	dir := filepath.Join(db.blobDir(), kind)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", storeError("store a blob", err)
	}
	tmp, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return "", storeError("store a blob", err)
	}
	defer os.Remove(tmp.Name())
	limit := db.limits.BlobBytes
	write := copyBlob
	if kind == BlobUserData {
		limit, write = min(limit, maxSealedBlob), db.sealBlob
	}
	if digest, err = write(ctx, tmp, r, limit); err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return "", storeError("store a blob", err)
	}
	path := db.blobPath(kind, digest)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", storeError("store a blob", err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return "", storeError("store a blob", err)
	}
	// The fan-out folder may be new, so that its own name has to last as well.
	for _, d := range []string{filepath.Dir(path), dir, db.blobDir(), db.dir} {
		if err := syncDir(d); err != nil {
			return "", storeError("store a blob", err)
		}
	}
	db.durable.add(kind, digest)
	db.relay.stored(blobName(kind, digest))
	return digest, nil
}

// peekBytes is how much of a blob is read before anything is written: machines send the same inventory again and again.
const peekBytes = 1 << 20

// peekBlob returns the digest of a small blob, or "" of a larger one, and a reader of the whole.
func peekBlob(ctx context.Context, r io.Reader) (io.Reader, string, error) {
	var head bytes.Buffer
	n, err := io.Copy(&head, io.LimitReader(contextReader{ctx, r}, peekBytes+1))
	if err != nil {
		return nil, "", err
	}
	if n > peekBytes {
		return io.MultiReader(&head, r), "", nil
	}
	sum := sha256.Sum256(head.Bytes())
	return &head, "sha256:" + hex.EncodeToString(sum[:]), nil
}

// durable are blobs that this process has stored, down to the names of their folders.
type durable struct {
	mu  sync.Mutex
	all map[[2]string]bool // guarded by mu
}

// durableMost is how many are remembered; beyond, all are forgotten.
const durableMost = 4096

func (d *durable) has(kind, digest string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return digest != "" && d.all[[2]string{kind, digest}]
}

func (d *durable) add(kind, digest string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil || len(d.all) >= durableMost {
		d.all = map[[2]string]bool{}
	}
	d.all[[2]string{kind, digest}] = true
}

// blobName is a blob's path as backups have it.
func blobName(kind, digest string) string {
	hexa := digest[len("sha256:"):]
	return "blobs/" + kind + "/" + hexa[:2] + "/" + hexa
}

func copyBlob(ctx context.Context, w io.Writer, r io.Reader, limit int64) (string, error) {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(contextReader{ctx, r}, limit+1))
	if err != nil {
		return "", err
	}
	if n > limit {
		return "", errBlobSize(limit)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

func errBlobSize(limit int64) error {
	return fleet.Errorf(fleet.Invalid, "MC-STORE-LIMIT", "the blob is larger than %d bytes", limit)
}

func (db *DB) sealBlob(ctx context.Context, w io.Writer, r io.Reader, limit int64) (string, error) {
	var plain bytes.Buffer
	digest, err := copyBlob(ctx, &plain, r, limit)
	if err != nil {
		return "", err
	}
	sealed, err := db.seal.seal([]byte(digest), plain.Bytes())
	if err != nil {
		return "", err
	}
	_, err = w.Write(sealed)
	return digest, err
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// OpenBlob implements fleet.Blobs. The whole blob is compared with its digest first: kind NotFound where there is none, Broken where it does not match.
func (db *DB) OpenBlob(ctx context.Context, digest string) (io.ReadSeekCloser, error) {
	if !blobDigest.MatchString(digest) {
		return nil, fleet.Errorf(fleet.Invalid, "MC-STORE-VALUE", "%q is no digest", digest)
	}
	kinds, err := db.blobKinds()
	if err != nil {
		return nil, err
	}
	for _, kind := range kinds {
		f, err := os.Open(db.blobPath(kind, digest))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, storeError("open a blob", err)
		}
		return db.verified(ctx, kind, digest, f)
	}
	return nil, fleet.Errorf(fleet.NotFound, "MC-STORE-ABSENT", "there is no blob %s", digest)
}

func (db *DB) verified(ctx context.Context, kind, digest string, f *os.File) (io.ReadSeekCloser, error) {
	var blob io.ReadSeekCloser = f
	if kind == BlobUserData {
		sealed, err := io.ReadAll(io.LimitReader(f, maxSealedBlob+4096))
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, storeError("open a blob", err)
		}
		plain, err := db.seal.open([]byte(digest), sealed)
		if err != nil {
			return nil, errBlobDamaged(digest)
		}
		blob = memoryBlob{bytes.NewReader(plain)}
	}
	got, err := copyBlob(ctx, io.Discard, blob, db.limits.BlobBytes)
	if err == nil && got != digest {
		err = errBlobDamaged(digest)
	}
	if err == nil {
		_, err = blob.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(storeError("open a blob", err), blob.Close())
	}
	return blob, nil
}

func errBlobDamaged(digest string) error {
	return fleet.Errorf(fleet.Broken, "MC-STORE-BLOB", "the blob %s is damaged", digest).WithHint("metalctl server check")
}

type memoryBlob struct{ *bytes.Reader }

func (memoryBlob) Close() error { return nil }

func (db *DB) blobKinds() ([]string, error) {
	entries, err := os.ReadDir(db.blobDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, storeError("list blobs", err)
	}
	var kinds []string
	for _, e := range entries {
		if e.IsDir() && blobKind.MatchString(e.Name()) {
			kinds = append(kinds, e.Name())
		}
	}
	return kinds, nil
}

// SweepBlobs removes blobs of a kind that are older than keep and that inUse does not name, and returns how many. It is what retention per kind
// is made of; half-written files of a crash go with it.
func (db *DB) SweepBlobs(ctx context.Context, kind string, keep time.Duration, inUse func(digest string) bool) (int, error) {
	if !blobKind.MatchString(kind) {
		return 0, fleet.Errorf(fleet.Invalid, "MC-STORE-VALUE", "%q is no kind of blob", kind)
	}
	limit, removed := db.now().Add(-keep), 0
	err := filepath.WalkDir(filepath.Join(db.blobDir(), kind), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return errors.Join(err, ctx.Err())
		}
		info, err := d.Info()
		if err != nil || info.ModTime().After(limit) {
			return err
		}
		if digest := "sha256:" + d.Name(); blobDigest.MatchString(digest) && inUse(digest) {
			return nil
		}
		removed++
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove a blob: %w", err)
		}
		return nil
	})
	return removed, storeError("sweep blobs", err)
}
