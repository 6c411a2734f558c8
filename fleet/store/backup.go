package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

// manifestName is the file of a backup that says what belongs to it.
const manifestName = "manifest.json"

// ManifestFormat is the form of a backup that this program writes and reads.
const ManifestFormat = 1

// Manifest says what a backup holds: the store's file and every blob at one revision, each with its digest. Secrets in it are sealed; the key that
// opens them is not in it.
type Manifest struct {
	Format int `json:"format"`
	// Schema is the store's; a program that reads an older one migrates it when it opens the restored store.
	Schema  uint64 `json:"schema"`
	Program string `json:"program,omitempty"`
	// Identity is the store's at the revision that the backup holds.
	Identity fleet.StoreIdentity `json:"identity"`
	MadeAt   time.Time           `json:"made_at"`
	Files    []ManifestFile      `json:"files"`
}

// ManifestFile is one file of a backup.
type ManifestFile struct {
	// Path is relative, with slashes: store.db, or blobs/KIND/xx/HEX.
	Path      string `json:"path"`
	SizeBytes int64  `json:"size_bytes"`
	SHA256    string `json:"sha256"`
}

// Backup writes a copy of the store at one revision, with all blobs, into the folder dir, which must not exist: it is there whole or not at all. The
// store goes on meanwhile. Blobs never change, so that they are linked where dir lies on the same file system.
func (db *DB) Backup(ctx context.Context, dir, program string) (Manifest, error) {
	m, err := db.backup(ctx, dir, program)
	return m, storeError("back up the store", err)
}

func (db *DB) backup(ctx context.Context, dir, program string) (m Manifest, err error) {
	if _, err := os.Lstat(dir); err == nil {
		return m, fleet.Errorf(fleet.Conflict, "MC-STORE-EXISTS", "%s exists already", dir).WithHint("give another name")
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return m, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".tmp-*")
	if err != nil {
		return m, err
	}
	defer os.RemoveAll(tmp)
	m = Manifest{Format: ManifestFormat, Program: program, MadeAt: db.now().UTC().Truncate(time.Second)}
	// The store's file comes first: blobs are only added, and what a record names was there before the record.
	if err := db.copyStore(filepath.Join(tmp, fileName), &m); err != nil {
		return m, err
	}
	if err := db.linkBlobs(ctx, tmp); err != nil {
		return m, err
	}
	if m.Files, err = listFiles(ctx, tmp); err != nil {
		return m, err
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return m, fmt.Errorf("encode the manifest: %w", err)
	}
	if err := writeSynced(filepath.Join(tmp, manifestName), b); err != nil {
		return m, err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return m, err
	}
	return m, syncDir(filepath.Dir(dir))
}

// copyStore copies the file in one read transaction.
func (db *DB) copyStore(path string, m *Manifest) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = db.bolt.View(func(tx *bbolt.Tx) (err error) {
		m.Schema = getUint(tx.Bucket(bucketMeta), metaSchema)
		if m.Identity, err = identityOf(tx); err != nil {
			return err
		}
		_, err = tx.WriteTo(f)
		return err
	})
	return errors.Join(err, f.Sync(), f.Close())
}

func (db *DB) linkBlobs(ctx context.Context, to string) error {
	root := db.blobDir()
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // swept meanwhile, or there are none: the check of the backup says whether a record misses it
		case err != nil || ctx.Err() != nil:
			return errors.Join(err, ctx.Err())
		case d.IsDir() || strings.HasPrefix(d.Name(), "."):
			return nil
		}
		err = linkOrCopy(path, filepath.Join(to, "blobs", strings.TrimPrefix(path, root)))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// linkOrCopy gives an immutable file a second name, or copies it where that cannot be.
func linkOrCopy(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if err := os.Link(from, to); err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return copyFile(from, to)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// listFiles digests every file below dir and makes their folders durable.
func listFiles(ctx context.Context, dir string) ([]ManifestFile, error) {
	var files []ManifestFile
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if d.IsDir() {
			return syncDir(path)
		}
		size, sum, err := digestFile(ctx, path)
		name, relErr := filepath.Rel(dir, path)
		files = append(files, ManifestFile{filepath.ToSlash(name), size, sum})
		return errors.Join(err, relErr)
	})
	slices.SortFunc(files, func(a, b ManifestFile) int { return strings.Compare(a.Path, b.Path) })
	return files, err
}

func digestFile(ctx context.Context, path string) (int64, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, contextReader{ctx, f})
	return n, hex.EncodeToString(h.Sum(nil)), err
}

// ReadManifest reads what a backup's folder says of itself and compares every file with it.
func ReadManifest(ctx context.Context, dir string) (Manifest, error) {
	b, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return Manifest{}, errNoBackup(dir, err)
	}
	m, err := parseManifest(b)
	if err != nil {
		return m, err
	}
	for _, f := range m.Files {
		size, sum, err := digestFile(ctx, filepath.Join(dir, filepath.FromSlash(f.Path)))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return m, errBackupDamaged("%s is missing", f.Path)
		case err != nil:
			return m, storeError("read the backup", err)
		case size != f.SizeBytes || sum != f.SHA256:
			return m, errBackupDamaged("%s is not what the manifest says", f.Path)
		}
	}
	return m, nil
}

func parseManifest(b []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return m, errBackupDamaged("its manifest cannot be read: %v", err)
	}
	if m.Format != ManifestFormat {
		return m, fleet.Errorf(fleet.Refused, "MC-STORE-NEWER", "the backup has form %d and this program reads %d", m.Format, ManifestFormat).
			WithHint("restore it with the version of the program that made it")
	}
	seen := map[string]bool{}
	for _, f := range m.Files {
		if !validBackupPath(f.Path) || seen[f.Path] || f.SizeBytes < 0 {
			return m, errBackupDamaged("its manifest names %q", f.Path)
		}
		seen[f.Path] = true
	}
	if !seen[fileName] {
		return m, errBackupDamaged("its manifest names no store")
	}
	return m, nil
}

// validBackupPath lets no file of a backup be written outside of where it belongs.
func validBackupPath(path string) bool {
	if path == fileName {
		return true
	}
	parts := strings.Split(path, "/")
	if len(parts) != 4 || parts[0] != "blobs" || !blobKind.MatchString(parts[1]) {
		return false
	}
	return blobDigest.MatchString("sha256:"+parts[3]) && parts[2] == parts[3][:2]
}

func errBackupDamaged(format string, args ...any) error {
	return fleet.Errorf(fleet.Broken, "MC-STORE-BACKUP", "the backup is damaged: "+format, args...).WithHint("take another backup: ls DATA_DIR/backups")
}

func errNoBackup(path string, err error) error {
	return fleet.Errorf(fleet.Invalid, "MC-STORE-BACKUP", "%s is no backup: %w", path, err).
		WithHint("give a file that metalctl server backup wrote, or a folder of DATA_DIR/backups")
}
