package ramdisk

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// unneeded are the folders of modules that no ramdisk takes anything from; leaving them out keeps memory small.
var unneeded = []string{
	"kernel/sound/", "kernel/drivers/media/", "kernel/drivers/gpu/", "kernel/drivers/staging/", "kernel/drivers/iio/",
	"kernel/drivers/net/wireless/", "kernel/net/bluetooth/", "kernel/net/wireless/", "kernel/net/mac80211/",
}

// maxPackage bounds what is kept of a kernel package in bytes.
const maxPackage = 1 << 30

// memory is Files in memory.
type memory map[string][]byte

func (m memory) List() ([]string, error) {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	return names, nil
}

func (m memory) Read(path string) ([]byte, error) {
	b, ok := m[path]
	if !ok {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fs.ErrNotExist}
	}
	return b, nil
}

// kernelInPackage reads a Debian kernel package into memory.
func kernelInPackage(file string) (Kernel, error) {
	f, err := os.Open(file)
	if err != nil {
		return Kernel{}, noKernel("open kernel package: %w", err)
	}
	defer f.Close()
	k, err := readPackage(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return Kernel{}, noKernel("read kernel package %s: %w", file, err)
	}
	k.From = file
	return checked(k)
}

// readPackage finds data.tar in an ar archive (deb(5)) and the one kernel and its modules in it.
func readPackage(r io.Reader) (Kernel, error) {
	magic := make([]byte, 8)
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != "!<arch>\n" {
		return Kernel{}, errors.New("it is not a Debian package")
	}
	header := make([]byte, 60)
	for {
		if _, err := io.ReadFull(r, header); err != nil {
			return Kernel{}, errors.New("it has no data.tar")
		}
		name := strings.TrimRight(strings.TrimSpace(string(header[:16])), "/")
		size, err := strconv.ParseInt(strings.TrimSpace(string(header[48:58])), 10, 64)
		if err != nil || size < 0 || string(header[58:]) != "`\n" {
			return Kernel{}, errors.New("its archive header is damaged")
		}
		member := io.LimitReader(r, size)
		if strings.HasPrefix(name, "data.tar") {
			return readData(path.Ext(name), member)
		}
		if _, err := io.Copy(io.Discard, member); err != nil {
			return Kernel{}, err
		}
		if size%2 == 1 {
			if _, err := io.CopyN(io.Discard, r, 1); err != nil {
				return Kernel{}, err
			}
		}
	}
}

func readData(ext string, r io.Reader) (Kernel, error) {
	var err error
	switch ext {
	case ".xz":
		r, err = xz.NewReader(r)
	case ".gz":
		r, err = gzip.NewReader(r)
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1)); err == nil {
			defer d.Close()
			r = d
		}
	case ".tar":
	default:
		return Kernel{}, fmt.Errorf("its data is compressed as %s", ext)
	}
	if err != nil {
		return Kernel{}, err
	}
	var k Kernel
	files := memory{}
	var kept int64
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return Kernel{}, err
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		release, isImage := strings.CutPrefix(name, "boot/vmlinuz-")
		rest, isModule := strings.CutPrefix(strings.TrimPrefix(name, "usr/"), "lib/modules/")
		if h.Typeflag != tar.TypeReg || (!isImage && !isModule) {
			continue
		}
		if isModule {
			if _, rest, isModule = strings.Cut(rest, "/"); !isModule || hasPrefix(rest, unneeded) {
				continue
			}
		}
		if kept += h.Size; kept > maxPackage {
			return Kernel{}, fmt.Errorf("it holds more than %d bytes", int64(maxPackage))
		}
		var b bytes.Buffer
		if _, err := io.Copy(&b, t); err != nil {
			return Kernel{}, err
		}
		if isImage {
			k.Release, k.Image = release, b.Bytes()
		} else {
			files[rest] = b.Bytes()
		}
	}
	// The archive ends before its compression does, whose checksum is at the end.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return Kernel{}, err
	}
	if k.Release == "" {
		return Kernel{}, errors.New("it holds no boot/vmlinuz-*")
	}
	k.Modules = files
	return k, nil
}

func hasPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
