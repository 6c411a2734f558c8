package ramdisk

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Kernel is a kernel to boot with its modules.
type Kernel struct {
	// Release is what uname -r will say, such as "6.1.0-56-amd64".
	Release string
	// From is where it was found, for messages.
	From string
	// Image is the bzImage.
	Image []byte
	// Modules is the content of lib/modules/RELEASE.
	Modules Files
}

// Files is the content of a folder, wherever it lies.
type Files interface {
	// List returns the paths of all regular files.
	List() ([]string, error)
	// Read returns a file's content.
	Read(path string) ([]byte, error)
}

// FindKernel returns a kernel: spec "" is the newest generic kernel that is installed (/boot and /lib/modules) or whose
// package lies in the user's cache folder (metalctl/kernel); "generic" and "cloud" choose the flavour; else spec is a release,
// a kernel package (.deb) or a folder with boot/ and lib/modules/ as unpacked from one. Error MC-RAMDISK-KERNEL.
func FindKernel(spec string) (Kernel, error) {
	return findKernel(spec, "/", kernelCache())
}

func kernelCache() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "metalctl", "kernel")
}

func findKernel(spec, root, cache string) (Kernel, error) {
	at, err := locateKernel(spec, root, cache)
	if err != nil {
		return Kernel{}, err
	}
	return at.open()
}

// kernelAt is where a kernel lies: a package, or boot/ and lib/modules/ below root; release "" is the only or newest one there.
type kernelAt struct{ pack, root, release string }

func (at kernelAt) open() (Kernel, error) {
	if at.pack != "" {
		return kernelInPackage(at.pack)
	}
	return kernelIn(at.root, at.release)
}

func locateKernel(spec, root, cache string) (kernelAt, error) {
	if info, err := os.Stat(spec); spec != "" && err == nil {
		if info.IsDir() {
			return kernelAt{root: spec}, nil
		}
		return kernelAt{pack: spec}, nil
	}
	if strings.ContainsRune(spec, '/') {
		return kernelAt{}, noKernel("there is no %s", spec)
	}
	flavour := spec
	if spec == "" {
		flavour = "generic"
	}
	if flavour != "generic" && flavour != "cloud" {
		return kernelAt{root: root, release: spec}, nil
	}
	var installed []string
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil {
		return kernelAt{}, err
	}
	for _, image := range images {
		release := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
		if info, err := os.Stat(filepath.Join(root, "lib/modules", release)); err == nil && info.IsDir() && flavourOf(release) == flavour {
			installed = append(installed, release)
		}
	}
	if len(installed) > 0 {
		return kernelAt{root: root, release: newest(installed)}, nil
	}
	packages, err := filepath.Glob(filepath.Join(cache, "linux-image-[0-9]*_amd64.deb"))
	if err != nil {
		return kernelAt{}, err
	}
	var cached []string
	for _, p := range packages {
		release, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(p), "linux-image-"), "_")
		if flavourOf(release) == flavour {
			cached = append(cached, p)
		}
	}
	if cache != "" && len(cached) > 0 {
		return kernelAt{pack: newest(cached)}, nil
	}
	return kernelAt{}, noKernel("no %s kernel is installed in %s or lies in %s", flavour, filepath.Join(root, "boot"), cache)
}

func noKernel(format string, args ...any) error {
	return fleet.Errorf(fleet.NotFound, "MC-RAMDISK-KERNEL", format, args...).
		WithHint("apt-get install linux-image-amd64, or name a kernel package: metalctl ramdisk build --kernel linux-image-….deb")
}

// flavourOf tells Debian's generic kernels from cloud kernels and from all others (rt, unsigned, other architectures).
func flavourOf(release string) string {
	switch {
	case strings.HasSuffix(release, "-cloud-amd64"):
		return "cloud"
	case strings.HasSuffix(release, "-rt-amd64"):
		return "rt"
	case strings.HasSuffix(release, "-amd64"), strings.HasSuffix(release, "-generic"):
		return "generic"
	}
	return ""
}

// kernelIn opens a kernel below root; release "" takes the only or newest one there.
func kernelIn(root, release string) (Kernel, error) {
	if release == "" {
		images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
		if err != nil || len(images) == 0 {
			return Kernel{}, noKernel("%s holds no boot/vmlinuz-*", root)
		}
		release = strings.TrimPrefix(filepath.Base(newest(images)), "vmlinuz-")
	}
	from := filepath.Join(root, "boot", "vmlinuz-"+release)
	image, err := os.ReadFile(from)
	if err != nil {
		return Kernel{}, noKernel("read kernel %s: %w", release, err)
	}
	modules := filepath.Join(root, "lib/modules", release)
	if _, err := os.Stat(modules); err != nil {
		modules = filepath.Join(root, "usr/lib/modules", release)
	}
	if _, err := os.Stat(modules); err != nil {
		return Kernel{}, noKernel("kernel %s has no modules: %w", release, err)
	}
	return checked(Kernel{Release: release, From: from, Image: image, Modules: folder(modules)})
}

// checked refuses what is not a kernel that systemd-stub can start.
func checked(k Kernel) (Kernel, error) {
	if len(k.Image) < 0x260 || string(k.Image[0x202:0x206]) != "HdrS" || k.Image[0] != 'M' || k.Image[1] != 'Z' {
		return Kernel{}, noKernel("%s is not an x86-64 kernel with an EFI stub", k.From)
	}
	return k, nil
}

var digits = regexp.MustCompile(`[0-9]+|[^0-9]+`)

// newest returns the greatest of names, comparing runs of digits as numbers.
func newest(names []string) string {
	sort.Slice(names, func(i, j int) bool {
		a, b := digits.FindAllString(names[i], -1), digits.FindAllString(names[j], -1)
		for k := 0; k < len(a) && k < len(b); k++ {
			if a[k] == b[k] {
				continue
			}
			x, xerr := strconv.Atoi(a[k])
			y, yerr := strconv.Atoi(b[k])
			if xerr == nil && yerr == nil {
				return x < y
			}
			return a[k] < b[k]
		}
		return len(a) < len(b)
	})
	return names[len(names)-1]
}

func (k Kernel) String() string { return fmt.Sprintf("%s (%s)", k.Release, k.From) }

// folder is Files on disk.
type folder string

func (f folder) List() (names []string, err error) {
	err = fs.WalkDir(os.DirFS(string(f)), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, p)
		}
		return err
	})
	return names, err
}

func (f folder) Read(path string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(f), filepath.FromSlash(path)))
}
