//go:build !ramdisk

package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

func TestAgentPackFetch(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.MkdirAll(at("src/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("src/bin/tool"), []byte("a tool"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"pack", "key", at("ops")}, {"pack", "key", at("other")},
		{"pack", "build", at("src"), "--name", "tool", "--version", "1", "--out", at("any.pack")},
		{"pack", "sign", at("any.pack"), "--key", at("ops.key")},
		{"pack", "build", at("src"), "--name", "tool", "--version", "1", "--kernel-release", "1.2.3-another", "--out", at("other-kernel.pack")},
		{"pack", "sign", at("other-kernel.pack"), "--key", at("ops.key")},
		{"pack", "verify", at("any.pack"), "--keys", at("ops.pub")},
	} {
		runPack(t, "", args...)
	}
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(srv.Close)
	for _, c := range []struct{ name, file, keys, code string }{
		{"signed by a trusted key", "any.pack", "ops.pub", ""},
		{"signed by another key", "any.pack", "other.pub", "MC-PACK-SIGNATURE"},
		{"for another kernel", "other-kernel.pack", "ops.pub", "MC-PACK-KERNEL"},
		{"not there", "none.pack", "ops.pub", "MC-PACK-FETCH"},
	} {
		t.Run(c.name, func(t *testing.T) {
			to := filepath.Join(t.TempDir(), "here")
			runPack(t, c.code, "agent", "pack", "fetch", srv.URL+"/"+c.file, "--keys", at(c.keys), "--dir", to)
			b, err := os.ReadFile(filepath.Join(to, "bin/tool"))
			if (err == nil) != (c.code == "") || c.code == "" && string(b) != "a tool" {
				t.Errorf("got %q, %v", b, err)
			}
		})
	}
}

// runPack runs a verb as main does and compares the code of its error.
func runPack(t *testing.T, code string, args ...string) {
	t.Helper()
	p := &program{stdin: os.Stdin, stdout: t.Output(), stderr: t.Output()}
	root := newRoot(p)
	root.SetArgs(args)
	if err := root.ExecuteContext(t.Context()); fleet.CodeOf(err) != code || (err == nil) != (code == "") {
		t.Fatalf("%v: %v, want %q", args, err, code)
	}
}

func TestAProcessWithoutEFIVariablesHasNoUEFI(t *testing.T) {
	for in, want := range map[string]string{
		`{"system":{"firmware_mode":"uefi"}}`: "bios", `{"system":{}}`: "bios", `{"system":{"firmware_mode":"uefi"},"efi_vars":"/vars"}`: "uefi",
	} {
		if spec, err := readProcessSpec(strings.NewReader(in)); err != nil || spec.System.FirmwareMode != want {
			t.Errorf("%s: %q, %v; want %q", in, spec.System.FirmwareMode, err, want)
		}
	}
}
