package pack

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// newKey returns a fresh key pair that went through its files' form.
func newKey(t *testing.T) (ed25519.PrivateKey, []ed25519.PublicKey) {
	t.Helper()
	private, public, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ParsePublicKeys(public)
	if err != nil {
		t.Fatal(err)
	}
	return key, keys
}

// source is a folder to pack, with content of several chunks.
func source(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	noise := make([]byte, ChunkBytes+ChunkBytes/2)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(noise)
	for name, content := range map[string]string{
		"lib/modules/x.ko": string(noise), "bin/tool": "#!/bin/true\n", "empty": "", "etc/ä.conf": "x",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "bin/tool"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("tool", filepath.Join(dir, "bin/alias")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// signed returns a signed pack's bytes.
func signed(t *testing.T, key ed25519.PrivateKey) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "gpu.pack")
	if _, err := Build(t.Context(), Options{Dir: source(t), Name: "gpu", Version: "570.1", KernelRelease: "6.1.0-56-amd64", Arch: "amd64"}, file); err != nil {
		t.Fatal(err)
	}
	m, err := Sign(file, key)
	if err != nil {
		t.Fatal(err)
	}
	if want := KeyID(key.Public().(ed25519.PublicKey)); m.KeyID != want || len(m.Chunks) != 2 {
		t.Fatalf("key %s, want %s; %d chunks, want 2", m.KeyID, want, len(m.Chunks))
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func serve(t *testing.T, b []byte) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/gpu.pack" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestInstall(t *testing.T) {
	key, keys := newKey(t)
	pack := signed(t, key)
	s := serve(t, pack)
	dir := filepath.Join(t.TempDir(), "gpu")
	seen := int64(0)
	m, err := Install(t.Context(), Source{Client: s.Client(), URL: s.URL + "/gpu.pack", Progress: func(n int64) { seen = n }}, Trust{Keys: keys, KernelRelease: "6.1.0-56-amd64", Arch: "amd64", SHA256: digest(pack)}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "gpu" || m.Version != "570.1" {
		t.Errorf("installed %+v", m)
	}
	want := source(t)
	for _, name := range []string{"lib/modules/x.ko", "bin/tool", "empty", "etc/ä.conf", "bin/alias"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		exp, err := os.ReadFile(filepath.Join(want, name))
		if err != nil || !bytes.Equal(got, exp) {
			t.Errorf("%s differs (%v)", name, err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "bin/tool")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the tool's mode: %v, %v", info, err)
	}
	if seen != int64(len(pack)) {
		t.Errorf("progress ended at %d of %d bytes", seen, len(pack))
	}
	if _, err := Install(t.Context(), Source{Client: s.Client(), URL: s.URL + "/nothing"}, Trust{Keys: keys}, dir+"2"); fleet.CodeOf(err) != "MC-PACK-FETCH" || fleet.KindOf(err) != fleet.NotFound {
		t.Errorf("a pack that is not there: %v", err)
	}
}

// TestInstallAgainAfterABreak: a connection that breaks says nothing about the pack, in the header as in the content.
func TestInstallAgainAfterABreak(t *testing.T) {
	key, keys := newKey(t)
	pack := signed(t, key)
	for _, at := range []int{3, 60, len(pack) / 2} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(pack)))
			_, _ = w.Write(pack[:at])
		}))
		dir := filepath.Join(t.TempDir(), "d")
		_, err := Install(t.Context(), Source{Client: s.Client(), URL: s.URL}, Trust{Keys: keys}, dir)
		if fleet.CodeOf(err) != "MC-PACK-FETCH" || fleet.KindOf(err) != fleet.Unavailable {
			t.Errorf("cut at byte %d: %v", at, err)
		}
		if left, err := filepath.Glob(dir + "*"); err != nil || len(left) > 0 {
			t.Errorf("cut at byte %d: it left %v, %v", at, left, err)
		}
		s.Close()
	}
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func TestBuildIsReproducible(t *testing.T) {
	var packs [2][]byte
	for i := range packs {
		file := filepath.Join(t.TempDir(), "p")
		if _, err := Build(t.Context(), Options{Dir: source(t), Name: "a", Version: "1"}, file); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		packs[i] = b
	}
	if !bytes.Equal(packs[0], packs[1]) {
		t.Error("the same folder gave different packs")
	}
}

func TestVerifyRefuses(t *testing.T) {
	key, keys := newKey(t)
	_, others := newKey(t)
	good := signed(t, key)
	manifest := int(binary.BigEndian.Uint32(good[len(magic):]))
	content := len(magic) + 4 + manifest + 4 + ed25519.SignatureSize
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	unsigned := append(append(bytes.Clone(good[:len(magic)+4+manifest]), 0, 0, 0, 0), good[content:]...)
	for _, c := range []struct {
		name    string
		pack    []byte
		keys    []ed25519.PublicKey
		kernel  string
		code    string
		written int
	}{
		{"as it should be", good, append(others, keys...), "6.1.0-56-amd64", "", len(good) - content},
		{"the kernel does not matter", good, keys, "", "", len(good) - content},
		{"another kernel", good, keys, "6.12.0-1-amd64", "MC-PACK-KERNEL", 0},
		{"a key that is not trusted", good, others, "", "MC-PACK-SIGNATURE", 0},
		{"no key is trusted", good, nil, "", "MC-PACK-SIGNATURE", 0},
		{"the signature is gone", unsigned, keys, "", "MC-PACK-SIGNATURE", 0},
		{"the version was edited", bytes.Replace(good, []byte("570.1"), []byte("570.2"), 1), keys, "", "MC-PACK-SIGNATURE", 0},
		{"the first part was changed", edit(func(b []byte) []byte { b[content+5] ^= 1; return b }), keys, "", "MC-PACK-DAMAGED", 0},
		{"the last byte was changed", edit(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), keys, "", "MC-PACK-DAMAGED", ChunkBytes},
		{"it is cut short", good[:len(good)-1], keys, "", "MC-PACK-DAMAGED", ChunkBytes},
		{"it ends after a part", good[:content+ChunkBytes], keys, "", "MC-PACK-DAMAGED", ChunkBytes},
		{"something follows", append(bytes.Clone(good), 'x'), keys, "", "MC-PACK-DAMAGED", len(good) - content},
		{"the header is cut short", good[:20], keys, "", "MC-PACK-MANIFEST", 0},
		{"it is another file", []byte("PK\x03\x04 and so on"), keys, "", "MC-PACK-MANIFEST", 0},
		{"nothing", nil, keys, "", "MC-PACK-MANIFEST", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w bytes.Buffer
			_, err := Verify(t.Context(), bytes.NewReader(c.pack), Trust{Keys: c.keys, KernelRelease: c.kernel}, &w)
			if fleet.CodeOf(err) != c.code || (err == nil) != (c.code == "") {
				t.Errorf("got %v, want %q", err, c.code)
			}
			if w.Len() != c.written || !bytes.Equal(w.Bytes(), good[content:content+c.written]) {
				t.Errorf("%d bytes were handed on, want %d", w.Len(), c.written)
			}
			s := serve(t, c.pack)
			dir := filepath.Join(t.TempDir(), "d")
			_, err = Install(t.Context(), Source{Client: s.Client(), URL: s.URL + "/gpu.pack"}, Trust{Keys: c.keys, KernelRelease: c.kernel}, dir)
			if fleet.CodeOf(err) != c.code {
				t.Errorf("install: got %v, want %q", err, c.code)
			}
			left, gerr := filepath.Glob(dir + "*")
			if gerr != nil || (len(left) > 0) != (c.code == "") {
				t.Errorf("install left %v, %v", left, gerr)
			}
		})
	}
}

func TestVerifyRefusesAnother(t *testing.T) {
	key, keys := newKey(t)
	pack := signed(t, key)
	for name, c := range map[string]struct {
		trust Trust
		code  string
	}{
		"another processor":              {Trust{Keys: keys, Arch: "arm64"}, "MC-PACK-ARCH"},
		"another pack by the same maker": {Trust{Keys: keys, SHA256: digest(pack[1:])}, "MC-PACK-DAMAGED"},
	} {
		if _, err := Verify(t.Context(), bytes.NewReader(pack), c.trust, io.Discard); fleet.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerifyEndsWithContext(t *testing.T) {
	key, keys := newKey(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Verify(ctx, bytes.NewReader(signed(t, key)), Trust{Keys: keys}, io.Discard); err == nil {
		t.Error("it went on")
	}
}

func TestSignProvesFirst(t *testing.T) {
	key, _ := newKey(t)
	b := signed(t, key)
	b[len(b)-1] ^= 1
	file := filepath.Join(t.TempDir(), "bad.pack")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(file, key); fleet.CodeOf(err) != "MC-PACK-DAMAGED" {
		t.Errorf("a damaged pack was signed: %v", err)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(after, b) {
		t.Errorf("the file was changed (%v)", err)
	}
}

func TestBuildRefuses(t *testing.T) {
	dir := source(t)
	for _, c := range []struct {
		name string
		o    Options
		code string
	}{
		{"a folder that is not there", Options{Dir: dir + "/none", Name: "a", Version: "1"}, "MC-PACK-SOURCE"},
		{"a name with a slash", Options{Dir: dir, Name: "a/b", Version: "1"}, "MC-PACK-MANIFEST"},
		{"no version", Options{Dir: dir, Name: "a"}, "MC-PACK-MANIFEST"},
	} {
		out := filepath.Join(t.TempDir(), "p")
		if _, err := Build(t.Context(), c.o, out); fleet.CodeOf(err) != c.code {
			t.Errorf("%s: got %v, want %s", c.name, err, c.code)
		}
		if left, err := os.ReadDir(filepath.Dir(out)); err != nil || len(left) != 0 {
			t.Errorf("%s: left %v, %v", c.name, left, err)
		}
	}
}

func TestKeys(t *testing.T) {
	private, public, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"a public key as private": second(ParsePrivateKey(public)), "a private key as public": second(ParsePublicKeys(private)),
		"nothing": second(ParsePublicKeys(nil)), "text": second(ParsePrivateKey([]byte("hello"))),
	} {
		if fleet.CodeOf(err) != "MC-PACK-SIGNATURE" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if keys, err := ParsePublicKeys(append(public, public...)); err != nil || len(keys) != 2 {
		t.Errorf("two keys in a file: %d, %v", len(keys), err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestParseManifest(t *testing.T) {
	good := `{"format":1,"name":"gpu","version":"1","size_bytes":10,"unpacked_bytes":20,"chunks":["` + strings.Repeat("ab", 32) + `"]}`
	m, err := ParseManifest([]byte(good))
	want := &Manifest{Format: 1, Name: "gpu", Version: "1", SizeBytes: 10, UnpackedBytes: 20, Chunks: []string{strings.Repeat("ab", 32)}}
	if diff := cmp.Diff(m, want); err != nil || diff != "" {
		t.Errorf("%v (-got +want):\n%s", err, diff)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"an unknown key", `"format":1`, `"format":1,"x":2`, "unknown field"},
		{"another format", `"format":1`, `"format":2`, "format: "},
		{"a name that leads elsewhere", `"gpu"`, `"../gpu"`, "name: "},
		{"more chunks than content", `"size_bytes":10`, `"size_bytes":9999999`, "chunks: "},
		{"no content", `"size_bytes":10`, `"size_bytes":0`, "size_bytes: "},
		{"a chunk that is no digest", `abab`, `zzzz`, "chunks[0]"},
		{"a size below nothing", `"unpacked_bytes":20`, `"unpacked_bytes":-1`, "unpacked_bytes: "},
		{"a key of another kind", `"format":1`, `"format":1,"key_id":"rsa/1"`, "key_id: "},
		{"half of it", `]}`, ``, "byte"},
		{"two of them", `]}`, `]}{}`, "something follows"},
	} {
		if _, err := ParseManifest([]byte(strings.Replace(good, c.old, c.new, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"name":"gpu","version":"1","size_bytes":10,"unpacked_bytes":20,"chunks":["` + strings.Repeat("ab", 32) + `"]}`))
	f.Add([]byte(`{"format":1,"chunks":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if (m == nil) == (err == nil) {
			t.Fatalf("%v and %v", m, err)
		}
		if err == nil && (m.Name == "" || m.SizeBytes <= 0 || len(m.Chunks) == 0) {
			t.Errorf("accepted %+v", m)
		}
	})
}

// FuzzVerify: nothing that a key did not sign comes through.
func FuzzVerify(f *testing.F) {
	f.Add([]byte(magic + "\x00\x00\x00\x02{}\x00\x00\x00\x00"))
	f.Add([]byte(magic + "\xff\xff\xff\xff"))
	public := ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)
	f.Fuzz(func(t *testing.T, b []byte) {
		var w bytes.Buffer
		if _, err := Verify(context.Background(), bytes.NewReader(b), Trust{Keys: []ed25519.PublicKey{public}}, &w); err == nil || w.Len() > 0 {
			t.Errorf("%q was accepted", b)
		}
	})
}
