package server

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// fakePacks takes "NAME VERSION KEY" for a pack that KEY signed, "NAME VERSION KEY PART" for one that brings a part in its version.
type fakePacks struct{}

func (fakePacks) CheckPack(_ context.Context, path string, keys []string) (fleet.Pack, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return fleet.Pack{}, err
	}
	f := strings.Fields(string(b))
	if len(f) < 3 {
		return fleet.Pack{}, fleet.Errorf(fleet.Invalid, "MC-PACK-MANIFEST", "no pack")
	}
	for _, k := range keys {
		if k == "key "+f[2] {
			p := fleet.Pack{Name: f[0], Version: f[1], KeyID: f[2]}
			if len(f) > 3 {
				p.Carries = map[string]string{f[3]: p.Version}
			}
			return p, nil
		}
	}
	return fleet.Pack{}, fleet.Errorf(fleet.Denied, "MC-PACK-SIGNATURE", "its key %s is not trusted", f[2])
}

func (fakePacks) CheckPackKey(k string) error {
	if !strings.HasPrefix(k, "key ") {
		return errors.New("is no key")
	}
	return nil
}

func TestPacks(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	add := func(id, content string) (fleet.Pack, error) {
		return w.client.AddPack(ctx, id, strings.NewReader(content), nil)
	}
	_, err := add("nvidia@580", "nvidia 580 ours")
	wantCode(t, err, fleet.Conflict, "MC-PACK-KEYS")
	_, err = w.client.PutSite(ctx, fleet.Site{Isolation: "none", PackKeys: []string{"nonsense"}})
	wantCode(t, err, fleet.Invalid, "MC-API-INVALID")
	_, err = w.client.PutSite(ctx, fleet.Site{Isolation: "none", PackKeys: []string{"key theirs", "key ours"}})
	must(t, err)
	for name, c := range map[string]struct{ id, content, code string }{
		"no pack":              {"nvidia@580", "x", "MC-PACK-MANIFEST"},
		"signed by a stranger": {"nvidia@580", "nvidia 580 stranger", "MC-PACK-SIGNATURE"},
		"another name":         {"nvidia@580", "nvidia 581 ours", "MC-PACK-NAME"},
	} {
		if _, err := add(c.id, c.content); fleet.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if names, err := os.ReadDir(filepath.Join(w.dir, "packs")); err != nil || len(names) != 0 {
		t.Errorf("refused packs are left: %v, %v", names, err)
	}
	p, err := add("nvidia@580", "nvidia 580 ours")
	must(t, err)
	if p.SHA256 != digestOf([]byte("nvidia 580 ours")) || p.SizeBytes != 15 || p.ID() != "nvidia@580" || p.AddedAt.IsZero() {
		t.Errorf("got %s", asJSON(t, p))
	}
	// The same again is no error and mends a file that is gone; another one is.
	must(t, os.Remove(filepath.Join(w.dir, "packs", p.SHA256)))
	again, err := add("nvidia@580", "nvidia 580 ours")
	must(t, err)
	if !reflect.DeepEqual(again, p) {
		t.Errorf("the same pack again: %s", asJSON(t, again))
	}
	_, err = add("nvidia@580", "nvidia 580 theirs")
	wantCode(t, err, fleet.Conflict, "MC-PACK-TWICE")
	for _, ref := range []string{"nvidia@580", "sha256:" + p.SHA256} {
		if got, err := w.client.Pack(ctx, ref); err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%s: %s, %v", ref, asJSON(t, got), err)
		}
	}
	_, err = w.client.Pack(ctx, "nvidia@1")
	wantCode(t, err, fleet.NotFound, "MC-PACK-UNKNOWN")

	// A class names packs that are there, each once.
	class := fleet.Class{Name: "gpu", BurnIn: "none", EraseLevel: "clear"}
	other, err := add("nvidia@581", "nvidia 581 theirs")
	must(t, err)
	for name, refs := range map[string][]string{"not there": {"absent@1"}, "no reference": {"nvidia"}, "two versions": {"nvidia@580", "sha256:" + other.SHA256}} {
		class.Packs = refs
		if _, err := w.client.PutClass(ctx, class); fleet.CodeOf(err) != "MC-API-INVALID" || !strings.Contains(asJSON(t, err), "packs[") {
			t.Errorf("%s: %v", name, err)
		}
	}
	class.Packs = []string{"sha256:" + p.SHA256}
	_, err = w.client.PutClass(ctx, class)
	must(t, err)
	wantCode(t, w.client.RemovePack(ctx, "nvidia@580"), fleet.Conflict, "MC-PACK-USED")
	must(t, w.client.RemovePack(ctx, "sha256:"+other.SHA256))
	all, err := w.client.Packs(ctx)
	must(t, err)
	files, err := os.ReadDir(filepath.Join(w.dir, "packs"))
	must(t, err)
	if len(all) != 1 || len(files) != 1 || files[0].Name() != p.SHA256 {
		t.Errorf("left are %s and the files %v", asJSON(t, all), files)
	}
}

// TestClassOfPacksThatDoNotFit: a class is refused whose driver and fabric manager are of two releases.
func TestClassOfPacksThatDoNotFit(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	_, err := w.client.PutSite(ctx, fleet.Site{Isolation: "none", PackKeys: []string{"key ours"}})
	must(t, err)
	for id, content := range map[string]string{"nvidia@580": "nvidia 580 ours driver", "fm@580": "fm 580 ours fabric-manager", "fm@570": "fm 570 ours fabric-manager"} {
		_, err := w.client.AddPack(ctx, id, strings.NewReader(content), nil)
		must(t, err)
	}
	class := fleet.Class{Name: "hgx", BurnIn: "none", EraseLevel: "clear", Packs: []string{"nvidia@580", "fm@570"}}
	_, err = w.client.PutClass(ctx, class)
	if wantCode(t, err, fleet.Invalid, "MC-API-INVALID"); !strings.Contains(err.Error()+asJSON(t, err), "fabric-manager 570") {
		t.Errorf("refused with %v", err)
	}
	class.Packs[1] = "fm@580"
	_, err = w.client.PutClass(ctx, class)
	must(t, err)
}

// TestAgentFetchesPack: only a live session gets a pack, and the timeline shows it.
func TestAgentFetchesPack(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	_, err := w.client.PutSite(ctx, fleet.Site{Isolation: "none", PackKeys: []string{"key ours"}})
	must(t, err)
	p, err := w.client.AddPack(ctx, "tools@1", strings.NewReader("tools 1 ours"), nil)
	must(t, err)
	path := api.AgentPackPath + p.SHA256
	if res, b := w.fetch(http.MethodGet, w.URL()+path, nil); res.StatusCode != http.StatusUnauthorized || bytes.Contains(b, []byte("ours")) {
		t.Errorf("without a certificate: %s %s", res.Status, b)
	}
	a := w.boot(w.enrol("n1").ID)
	_, err = a.register()
	must(t, err)
	var got []byte
	if status, err := a.call(http.MethodGet, path, nil, &got); err != nil || string(got) != "tools 1 ours" {
		t.Errorf("the pack: %d %v %q", status, err, got)
	}
	for _, bad := range []string{strings.Repeat("0", 64), "..%2fx", "short"} {
		_, err := a.call(http.MethodGet, api.AgentPackPath+bad, nil, nil)
		wantCode(t, err, fleet.NotFound, "MC-PACK-UNKNOWN")
	}
	must(t, os.Remove(filepath.Join(w.dir, "packs", p.SHA256)))
	_, err = a.call(http.MethodGet, path, nil, nil)
	wantCode(t, err, fleet.NotFound, "MC-PACK-CONTENT")
	entries, err := w.client.Timeline(ctx, "n1", api.TimelineQuery{})
	must(t, err)
	if text := asJSON(t, entries); !strings.Contains(text, `"source":"pack"`) {
		t.Errorf("the timeline shows no read: %s", text)
	}
}
