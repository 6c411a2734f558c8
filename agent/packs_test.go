package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/images/pack"
)

// packMaker makes signed packs and gives them to a fake server.
type packMaker struct {
	l       *lab
	private []byte
	public  string
}

func newPackMaker(t *testing.T, l *lab) *packMaker {
	private, public, err := pack.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return &packMaker{l, private, string(public)}
}

func (m *packMaker) make(o pack.Options, content string) step.PackParams {
	t := m.l.t
	t.Helper()
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "p")
	if err := os.WriteFile(filepath.Join(dir, "what"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	o.Dir = dir
	if _, err := pack.Build(context.Background(), o, file); err != nil {
		t.Fatal(err)
	}
	key, err := pack.ParsePrivateKey(m.private)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pack.Sign(file, key); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	digest := hex.EncodeToString(sum[:])
	m.l.f.mu.Lock()
	if m.l.f.images == nil {
		m.l.f.images = map[string][]byte{}
	}
	m.l.f.images[digest] = b
	m.l.f.mu.Unlock()
	return step.PackParams{Name: o.Name, Version: o.Version, SHA256: digest, SizeBytes: int64(len(b))}
}

func TestFetchPacks(t *testing.T) {
	l := newLab(t, 8*mib)
	l.deps.Packs = filepath.Join(t.TempDir(), "packs")
	l.deps.Inspect.System = &fleet.System{Kernel: "6.1.0-56-amd64", FirmwareMode: "bios"}
	maker := newPackMaker(t, l)
	keys := []string{maker.public}
	old := maker.make(pack.Options{Name: "driver", Version: "1", KernelRelease: "6.1.0-56-amd64"}, "driver 1")
	driver := maker.make(pack.Options{Name: "driver", Version: "2", KernelRelease: "6.1.0-56-amd64"}, "driver 2")
	tools := maker.make(pack.Options{Name: "tools", Version: "1"}, "tools 1")
	l.run()
	holds := func(want map[string]string) {
		t.Helper()
		for name, content := range want {
			b, err := os.ReadFile(filepath.Join(l.deps.Packs, name, "what"))
			if content == "" && !os.IsNotExist(err) || content != "" && string(b) != content {
				t.Errorf("%s holds %q (%v), want %q", name, b, err, content)
			}
		}
		stored, err := os.ReadDir(filepath.Join(l.deps.Packs, storeOfPacks))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, content := range want {
			if content != "" {
				n++
			}
		}
		if len(stored) != n {
			t.Errorf("%v are stored, want %d", stored, n)
		}
	}
	l.ok(step.FetchPacks, step.PacksParams{Packs: []step.PackParams{old, tools}, Keys: keys})
	holds(map[string]string{"driver": "driver 1", "tools": "tools 1"})
	// A newer version takes the place of the older one; what is there is not fetched again.
	ev := l.ok(step.FetchPacks, step.PacksParams{Packs: []step.PackParams{driver, tools}, Keys: keys})
	holds(map[string]string{"driver": "driver 2", "tools": "tools 1"})
	if b, err := json.Marshal(ev); err != nil || !strings.Contains(string(b), `"present":true`) {
		t.Errorf("evidence %s, %v", b, err)
	}
	l.f.mu.Lock()
	if l.f.fetched != 3 {
		t.Errorf("packs were asked for %d times, want 3", l.f.fetched)
	}
	l.f.mu.Unlock()
	l.ok(step.FetchPacks, step.PacksParams{Packs: []step.PackParams{tools}, Keys: keys})
	holds(map[string]string{"driver": "", "tools": "tools 1"})
}

// TestFetchPacksRefuses: a pack that is not what it must be leaves nothing, and the fault names it and why.
func TestFetchPacksRefuses(t *testing.T) {
	l := newLab(t, 8*mib)
	l.deps.Packs = filepath.Join(t.TempDir(), "packs")
	l.deps.Inspect.System = &fleet.System{Kernel: "6.1.0-56-amd64", FirmwareMode: "bios"}
	maker, stranger := newPackMaker(t, l), newPackMaker(t, l)
	l.f.images = map[string][]byte{}
	keys := []string{maker.public}
	good := maker.make(pack.Options{Name: "good", Version: "1"}, "good")
	damaged := maker.make(pack.Options{Name: "driver", Version: "1"}, "damaged")
	bytes := l.f.images[damaged.SHA256]
	bytes[len(bytes)-1] ^= 1
	swapped := good
	swapped.Name, swapped.Version = "driver", "1"
	absent := good
	absent.Name, absent.SHA256 = "driver", strings.Repeat("0", 64)
	outside := good
	outside.Name = "../../driver"
	for name, c := range map[string]struct {
		pack step.PackParams
		keys []string
		code string
	}{
		"another kernel":             {maker.make(pack.Options{Name: "driver", Version: "1", KernelRelease: "6.12.0"}, "x"), keys, "MC-PACK-KERNEL"},
		"another processor":          {maker.make(pack.Options{Name: "driver", Version: "1", Arch: "riscv64"}, "x"), keys, "MC-PACK-ARCH"},
		"signed by a stranger":       {stranger.make(pack.Options{Name: "driver", Version: "1"}, "x"), keys, "MC-PACK-SIGNATURE"},
		"no key is trusted any more": {good, nil, "MC-PACK-SIGNATURE"},
		"damaged":                    {damaged, keys, "MC-PACK-DAMAGED"},
		"another pack in its place":  {swapped, keys, "MC-PACK-DAMAGED"},
		"not on the server":          {absent, keys, "MC-PACK-FETCH"},
		"a name that leads away":     {outside, keys, "MC-AGENT-TASK"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &machine{Deps: l.deps}
			m.Now = time.Now
			trust, err := m.packTrust(c.keys)
			if err != nil {
				t.Fatal(err)
			}
			server := newPackServer(t, l.f.images)
			_, err = m.putPack(t.Context(), c.pack, trust, pack.Source{Client: server.Client(), URL: server.URL + "/" + c.pack.SHA256})
			if fleet.CodeOf(err) != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
			if left, err := filepath.Glob(filepath.Join(m.Packs, storeOfPacks, "*")); err != nil || len(left) > 0 {
				t.Errorf("it left %v, %v", left, err)
			}
		})
	}
	l.run()
	r := l.do(step.FetchPacks, step.PacksParams{Packs: []step.PackParams{good, damaged}, Keys: keys})
	if r.Error == nil || r.Error.Code != "MC-PACK-DAMAGED" || len(r.Error.Faults) != 1 {
		t.Fatalf("result %+v", r.Error)
	}
	f := r.Error.Faults[0]
	if f.Code != "MC-FAULT-PACK" || f.Component != "pack/driver@1" || !strings.HasPrefix(f.Evidence, "MC-PACK-DAMAGED: ") || f.Hint != "metalctl help MC-PACK-DAMAGED" {
		t.Errorf("fault %+v", f)
	}
}

// newPackServer serves packs by their digests, without the agent's protocol.
func newPackServer(t *testing.T, packs map[string][]byte) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := packs[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(s.Close)
	return s
}
