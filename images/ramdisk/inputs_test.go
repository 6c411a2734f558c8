package ramdisk

import (
	"os"
	"path/filepath"
	"testing"
)

// TestInputsTellMediaApart: the same digest means the same medium, so that each input must change it.
func TestInputsTellMediaApart(t *testing.T) {
	needFiles(t, DefaultStub)
	tree := func() string {
		return writeTree(t, map[string][]byte{"boot/vmlinuz-6.1.0-9-amd64": fakeImage(), "lib/modules/6.1.0-9-amd64/modules.builtin": []byte("kernel/x.ko\n")})
	}
	root := tree()
	module := filepath.Join(root, "lib/modules/6.1.0-9-amd64/modules.builtin")
	image := filepath.Join(root, "boot/vmlinuz-6.1.0-9-amd64")
	pack := filepath.Join(writeTree(t, map[string][]byte{"linux.deb": debPackage(t, ".xz", fakeKernel())}), "linux.deb")
	options := func(change func(*Options)) Options {
		o := Options{Agent: fakeAgent(), Roots: os.DevNull}
		change(&o)
		return o
	}
	seen := map[string]string{}
	digest := func(name, spec string, o Options) string {
		t.Helper()
		d, err := Inputs(spec, o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return d
	}
	add := func(name, spec string, o Options) {
		t.Helper()
		d := digest(name, spec, o)
		if other, ok := seen[d]; ok {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[d] = name
	}
	plain := options(func(*Options) {})
	add("a kernel in a folder", root, plain)
	if digest("again", root, plain) != digest("and again", root, plain) {
		t.Error("the same inputs have two digests")
	}
	add("a package", pack, plain)
	add("another agent", root, options(func(o *Options) { o.Agent = append(fakeAgent(), 0) }))
	add("another command line", root, options(func(o *Options) { o.Cmdline = "quiet" }))
	add("compressed less", root, options(func(o *Options) { o.Lab = true }))
	add("a further module", root, options(func(o *Options) { o.ExtraModules = []string{"x"} }))
	add("other roots", root, options(func(o *Options) { o.Roots = module }))
	if err := os.WriteFile(module, []byte("kernel/y.ko\nkernel/z.ko\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	add("other modules", root, plain)
	if err := os.WriteFile(image, append(fakeImage(), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	add("another kernel of the same name", root, plain)

	if _, err := Inputs("/no/such", plain); err == nil {
		t.Error("a kernel that is not there has inputs")
	}
	if _, err := Inputs(root, options(func(o *Options) { o.Agent = nil })); err == nil {
		t.Error("a medium without an agent has inputs")
	}
}
