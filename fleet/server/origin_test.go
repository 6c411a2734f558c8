package server

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// No image comes from a BMC, whatever the site lists, and the node is named.
func TestImagesDoNotComeFromBMCs(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	_, err := w.client.PutSite(ctx, fleet.Site{Isolation: "none", Origins: []string{"https://127.0.0.1:444"}})
	must(t, err)
	n := w.enrol("n1")
	img := fleet.Image{Name: "a", Format: "raw", SHA256: strings.Repeat("ab", 32), SizeBytes: 1}
	for _, host := range []string{"127.0.0.1:444", "127.0.0.1", "localhost", "[::ffff:127.0.0.1]"} {
		img.URL = "https://" + host + "/a"
		_, err = w.client.AddImage(ctx, api.ImageCreate{Image: img})
		wantCode(t, err, fleet.Refused, "MC-IMAGE-ORIGIN")
		if !strings.Contains(err.Error(), "BMC of n1") {
			t.Errorf("%s: the node is not named: %v", host, err)
		}
	}
	_, err = w.client.PutSite(ctx, fleet.Site{Isolation: "none", Origins: []string{"https://127.0.0.1:444"}})
	wantCode(t, err, fleet.Refused, "MC-IMAGE-ORIGIN")
	site, err := w.imageSite(ctx)
	must(t, err)
	if len(site.Denied) != 1 || site.Denied[0] != "127.0.0.1/32" {
		t.Errorf("denied: %v", site.Denied)
	}
	if got := w.BMCRanges(ctx, n.BMC); len(got) != 1 || got[0] != "127.0.0.1/32" {
		t.Errorf("ranges: %v", got)
	}
}

// The signature in an image's address is the agents' alone.
func TestSignedAddressIsMasked(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	_, err := w.client.PutSite(ctx, fleet.Site{Isolation: "none", Origins: []string{"https://cdn.example.org"}})
	must(t, err)
	signed := "https://cdn.example.org/a?X-Signature=hunter2"
	_, err = w.client.AddImage(ctx, api.ImageCreate{Image: fleet.Image{Name: "a", Format: "raw", SHA256: strings.Repeat("ab", 32), SizeBytes: 1, URL: signed}})
	must(t, err)
	_, err = w.client.VerifyImage(ctx, "a")
	must(t, err)
	for _, path := range []string{"/api/v1/images/a", "/api/v1/images"} {
		if status, _, body := w.raw(http.MethodGet, path, "", nil); status != 200 || strings.Contains(string(body), "hunter2") || !strings.Contains(string(body), "cdn.example.org/a?***") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	kept, _, err := w.image(ctx, "a")
	must(t, err)
	if kept.URL != signed {
		t.Errorf("the agent would get %s", kept.URL)
	}
}
