package ramdisk

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"io"
	"io/fs"
	"os"
)

// inputsFormat changes whenever Build lays the medium out in another way.
const inputsFormat = "metalctl boot medium 1"

// Inputs returns a digest, in hex, of all that FindKernel(spec) and Build(o) would read, without reading the modules themselves:
// where it is the same, a medium that was built before is the one that Build would make. o.Kernel is not looked at. Of installed
// modules it takes names, sizes and times; of everything else the content. Errors are those of FindKernel and Build.
func Inputs(spec string, o Options) (string, error) {
	at, err := locateKernel(spec, "/", kernelCache())
	if err != nil {
		return "", err
	}
	return o.inputs(at)
}

func (o *Options) inputs(at kernelAt) (string, error) {
	h := sha256.New()
	field := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	field([]byte(inputsFormat))
	if err := at.digest(h); err != nil {
		return "", err
	}
	stub, err := o.stub()
	if err != nil {
		return "", err
	}
	base := newArchive()
	if err := o.base(base); err != nil {
		return "", err
	}
	for _, b := range [][]byte{o.Agent, stub, base.bytes(1), []byte(o.Cmdline)} {
		field(b)
	}
	if o.Lab {
		field([]byte("lab"))
	}
	if o.SignCert != nil {
		field(o.SignCert.Raw)
	}
	for _, m := range o.ExtraModules {
		field([]byte(m))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// digest writes to h what tells this kernel from another one at the same place.
func (at kernelAt) digest(h hash.Hash) error {
	if at.pack != "" {
		return hashFile(h, at.pack)
	}
	k, err := kernelIn(at.root, at.release)
	if err != nil {
		return err
	}
	h.Write(k.Image)
	root, ok := k.Modules.(folder)
	if !ok {
		return nil
	}
	return fs.WalkDir(os.DirFS(string(root)), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		_, err = io.WriteString(h, p+" "+info.ModTime().UTC().String()+" "+hex.EncodeToString(binary.BigEndian.AppendUint64(nil, uint64(info.Size())))+"\n")
		return err
	})
}

func hashFile(h hash.Hash, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return noKernel("read %s: %w", path, err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	if _, err := io.Copy(h, f); err != nil {
		return noKernel("read %s: %w", path, err)
	}
	return nil
}
