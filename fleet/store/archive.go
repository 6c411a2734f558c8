package store

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// maxManifest bounds the manifest of an archive: 100,000 blobs and a few.
const maxManifest = 64 << 20

// WriteArchive writes the backup in the folder dir as one tar stream, the manifest first. The same backup gives the same bytes.
func WriteArchive(ctx context.Context, dir string, w io.Writer) error {
	b, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return errNoBackup(dir, err)
	}
	m, err := parseManifest(b)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	put := func(name string, size int64, r io.Reader) error {
		h := &tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: m.MadeAt, Format: tar.FormatPAX, Typeflag: tar.TypeReg}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.Copy(tw, contextReader{ctx, r})
		return err
	}
	if err := putBytes(put, manifestName, b); err != nil {
		return storeError("write the backup", err)
	}
	for _, f := range m.Files {
		if err := putFile(put, f, filepath.Join(dir, filepath.FromSlash(f.Path))); err != nil {
			return storeError("write the backup", fmt.Errorf("%s: %w", f.Path, err))
		}
	}
	return storeError("write the backup", tw.Close())
}

type putFunc func(name string, size int64, r io.Reader) error

func putBytes(put putFunc, name string, b []byte) error {
	return put(name, int64(len(b)), &byteReader{b})
}

// byteReader is a reader of bytes that is used up.
type byteReader struct{ b []byte }

func (r *byteReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

func putFile(put putFunc, f ManifestFile, path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	return put(f.Path, f.SizeBytes, in)
}

// ReadArchive reads an archive to its end and compares every file with the manifest. With a folder it also unpacks it there; with "" it only looks.
// What is cut off, changed, or holds anything else is refused with MC-STORE-BACKUP.
func ReadArchive(ctx context.Context, r io.Reader, dir string) (Manifest, error) {
	tr := tar.NewReader(contextReader{ctx, r})
	h, err := tr.Next()
	if err != nil || h.Name != manifestName || h.Size > maxManifest {
		if ctx.Err() != nil {
			return Manifest{}, ctx.Err()
		}
		return Manifest{}, errNoBackup("the file", errors.Join(err, errors.New("it does not begin with a manifest")))
	}
	b, err := io.ReadAll(tr)
	if err != nil {
		return Manifest{}, errBackupDamaged("its manifest is cut off: %v", err)
	}
	m, err := parseManifest(b)
	if err != nil {
		return m, err
	}
	for _, f := range m.Files {
		h, err := tr.Next()
		switch {
		case ctx.Err() != nil:
			return m, ctx.Err()
		case err != nil:
			return m, errBackupDamaged("it ends before %s", f.Path)
		case h.Typeflag != tar.TypeReg || h.Name != f.Path || h.Size != f.SizeBytes:
			return m, errBackupDamaged("%s is not where it belongs", f.Path)
		}
		if err := takeFile(ctx, tr, f, dir); err != nil {
			return m, err
		}
	}
	if _, err := tr.Next(); !errors.Is(err, io.EOF) {
		return m, errBackupDamaged("it holds more than its manifest says")
	}
	if dir == "" {
		return m, nil
	}
	if err := writeSynced(filepath.Join(dir, manifestName), b); err != nil {
		return m, storeError("unpack the backup", err)
	}
	return m, nil
}

// takeFile digests one file of an archive, and writes it below dir where that is given.
func takeFile(ctx context.Context, r io.Reader, f ManifestFile, dir string) error {
	var w io.Writer = io.Discard
	if dir != "" {
		path := filepath.Join(dir, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return storeError("unpack the backup", err)
		}
		out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return storeError("unpack the backup", err)
		}
		defer func() { out.Close() }() //nolint:errcheck // after the sync below there is nothing to lose
		w = out
	}
	digest, err := copyBlob(ctx, w, r, f.SizeBytes)
	if err != nil {
		var known *fleet.Error
		if dir != "" && !errors.As(err, &known) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return storeError("unpack the backup", err)
		}
		return errBackupDamaged("%s cannot be read: %v", f.Path, err)
	}
	if digest != "sha256:"+f.SHA256 {
		return errBackupDamaged("%s is not what the manifest says", f.Path)
	}
	if out, ok := w.(*os.File); ok {
		return storeError("unpack the backup", out.Sync())
	}
	return nil
}

// Text is the manifest without its files, for people.
func (m Manifest) Text() string {
	return fmt.Sprintf("made %s at revision %d, generation %d, schema %d, %d blobs", m.MadeAt.Format(time.RFC3339), m.Identity.Revision, m.Identity.Generation(), m.Schema, len(m.Files)-1)
}

// UnmarshalManifest reads a manifest without looking at the files that it names, for lists of backups.
func UnmarshalManifest(dir string) (Manifest, error) {
	b, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return Manifest{}, errNoBackup(dir, err)
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return m, errBackupDamaged("its manifest cannot be read: %v", err)
	}
	return m, nil
}
