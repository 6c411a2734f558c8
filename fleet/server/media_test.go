package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// fetch reads an address as a BMC does.
func (w *world) fetch(method, address string, header map[string]string) (*http.Response, []byte) {
	w.t.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: patience}
	defer c.CloseIdleConnections()
	req, err := http.NewRequest(method, address, nil)
	must(w.t, err)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := c.Do(req)
	must(w.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(w.t, err)
	return res, b
}

func TestBootMediumRanges(t *testing.T) {
	w := newWorld(t, nil)
	n := w.enrol("n1")
	address, _, _, err := w.Issue(context.Background(), n.ID)
	must(t, err)
	res, whole := w.fetch(http.MethodGet, address, nil)
	if res.StatusCode != 200 || int64(len(whole)) != sharedISO.size || res.Header.Get("Accept-Ranges") != "bytes" {
		t.Fatalf("the whole medium: %s, %d bytes", res.Status, len(whole))
	}
	etag := res.Header.Get("ETag")
	tests := []struct {
		name, method, rng string
		header            map[string]string
		status            int
		from, to          int
	}{
		{"the size alone", "HEAD", "", nil, 200, 0, 0},
		{"one range", "GET", "bytes=100-199", nil, 206, 100, 200},
		{"one range across the window", "GET", "bytes=1048000-1070000", nil, 206, 1048000, 1070001},
		{"to the end", "GET", "bytes=8388000-", nil, 206, 8388000, 8388608},
		{"the last bytes", "GET", "bytes=-16", nil, 206, 8388592, 8388608},
		{"beyond the end", "GET", "bytes=9000000-", nil, 416, 0, 0},
		{"two ranges", "GET", "bytes=0-1,4-5", nil, 416, 0, 0},
		{"a range of what it still is", "GET", "bytes=0-9", map[string]string{"If-Range": etag}, 206, 0, 10},
		{"a range of what it was", "GET", "bytes=0-9", map[string]string{"If-Range": `"old"`}, 200, 0, 8388608},
		{"what is known already", "GET", "", map[string]string{"If-None-Match": etag}, 304, 0, 0},
		{"another method", "POST", "", nil, 404, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := map[string]string{}
			for k, v := range tt.header {
				h[k] = v
			}
			if tt.rng != "" {
				h["Range"] = tt.rng
			}
			res, b := w.fetch(tt.method, address, h)
			if res.StatusCode != tt.status {
				t.Fatalf("got %s, want %d", res.Status, tt.status)
			}
			if tt.status < 300 && !bytes.Equal(b, whole[tt.from:tt.to]) {
				t.Errorf("got %d bytes that are not [%d,%d)", len(b), tt.from, tt.to)
			}
		})
	}
	entries, err := w.client.Timeline(context.Background(), "n1", api.TimelineQuery{})
	must(t, err)
	var read int64
	for _, e := range entries {
		if e.Source == "media" {
			read += e.Length
			if e.Generation != 1 || !strings.Contains(e.Text, "127.0.0.1 over https") {
				t.Errorf("got %+v", e)
			}
		}
	}
	if want := int64(2*8388608 + 100 + 22001 + 608 + 16 + 10); read < want {
		t.Errorf("the timeline shows %d bytes, want at least %d", read, want)
	}

	// Another node's medium differs in its credential alone, and in its ETag.
	other := w.enrol("n2")
	address2, _, _, err := w.Issue(context.Background(), other.ID)
	must(t, err)
	res2, whole2 := w.fetch(http.MethodGet, address2, nil)
	if res2.Header.Get("ETag") == etag {
		t.Error("two media have one ETag")
	}
	window := int(sharedISO.window)
	if !bytes.Equal(whole[:window], whole2[:window]) || !bytes.Equal(whole[window+fleet.CredentialWindow:], whole2[window+fleet.CredentialWindow:]) || bytes.Equal(whole, whole2) {
		t.Error("two media differ elsewhere than in the window")
	}
}

func TestBootMediumExpires(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	w := newWorld(t, func(_ *Config, d *Deps) {
		d.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	n := w.enrol("n1")
	first, _, _, err := w.Issue(context.Background(), n.ID)
	must(t, err)
	second, _, _, err := w.Issue(context.Background(), n.ID)
	must(t, err)
	want := func(what, address string, status int) {
		t.Helper()
		if res, _ := w.fetch(http.MethodHead, address, nil); res.StatusCode != status {
			t.Errorf("%s: got %s, want %d", what, res.Status, status)
		}
	}
	want("a medium that was replaced", first, 404)
	want("the medium", second, 200)
	want("a made-up address", w.URL()+"/boot/"+newToken()+"/metalctl.iso", 404)
	mu.Lock()
	now = now.Add(25 * time.Hour)
	mu.Unlock()
	want("a medium after a day", second, 404)
	third, _, _, err := w.Issue(context.Background(), n.ID)
	must(t, err)
	must(t, w.Expire(context.Background(), n.ID))
	must(t, w.Expire(context.Background(), n.ID))
	want("a medium that was expired", third, 404)
}

// A restart in the middle of a boot: firmware reads on, and the token still works.
func TestBootMediumSurvivesRestart(t *testing.T) {
	w := newWorld(t, func(c *Config, _ *Deps) {})
	n := w.enrol("n1")
	address, ca, _, err := w.Issue(context.Background(), n.ID)
	must(t, err)
	before := w.readCredential(address, ca)
	old := w.URL()
	w.restart()
	after := w.readCredential(strings.Replace(address, old, w.URL(), 1), w.CACert())
	if before.Token.Reveal() != after.Token.Reveal() || before.Generation != after.Generation {
		t.Error("the restarted server shows another credential")
	}
	_, err = w.agent(after).register()
	must(t, err)
}

func TestPlainBootIsRecorded(t *testing.T) {
	for _, tt := range []struct {
		secureBoot string
		want       bool
	}{{"off", true}, {"unknown", true}, {"on", false}} {
		t.Run("Secure Boot "+tt.secureBoot, func(t *testing.T) {
			w := newWorld(t, nil)
			n := w.enrol("n1")
			address, ca, _, err := w.Issue(context.Background(), n.ID)
			must(t, err)
			plain := w.PlainAddress(address)
			if !strings.HasPrefix(plain, "http://") {
				t.Fatalf("got %q", plain)
			}
			if res, _ := w.fetch(http.MethodGet, plain, nil); res.StatusCode != 200 {
				t.Fatalf("got %s", res.Status)
			}
			a := w.agent(w.readCredential(address, ca))
			reg := a.request()
			reg.Boot.SecureBoot = tt.secureBoot
			_, err = a.call(http.MethodPost, "/agent/v1/register", reg, nil)
			must(t, err)
			if got := w.nodeNow(n.ID).Boot.Unauthenticated; got != tt.want {
				t.Errorf("got unauthenticated %v, want %v", got, tt.want)
			}
		})
	}
}

// TestFirmwareAddress: firmware sits in the nodes' network and holds no certificate of ours.
func TestFirmwareAddress(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Config)
		want   string // the host's port is what was listened on, where it says PORT or BOOT
	}{
		"one network":                 {func(*Config) {}, "http://127.0.0.1:BOOT"},
		"nodes elsewhere":             {func(c *Config) { c.AdvertiseNodes = "https://10.0.2.2" }, "http://10.0.2.2:BOOT"},
		"nodes elsewhere, version 6":  {func(c *Config) { c.AdvertiseNodes = "https://[fd00::1]" }, "http://[fd00::1]:BOOT"},
		"no listener for http":        {func(c *Config) { c.ListenBoot = "" }, "https://127.0.0.1:PORT"},
		"http under another name":     {func(c *Config) { c.AdvertiseBoot = "http://boot.example:81" }, "http://boot.example:81"},
		"both under other names":      {func(c *Config) { c.AdvertiseBoot, c.AdvertiseNodes = "http://boot.example:81", "https://10.0.2.2" }, "http://10.0.2.2:81"},
		"both under names, port 80":   {func(c *Config) { c.AdvertiseBoot, c.AdvertiseNodes = "http://boot.example", "https://10.0.2.2" }, "http://10.0.2.2"},
		"nodes elsewhere, only https": {func(c *Config) { c.ListenBoot, c.AdvertiseNodes = "", "https://10.0.2.2" }, "https://10.0.2.2:PORT"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *Config, _ *Deps) { tt.change(c) })
			_, port, _ := net.SplitHostPort(w.listener.Addr().String())
			want := strings.Replace(tt.want, "PORT", port, 1)
			if w.bootListener != nil {
				_, port, _ = net.SplitHostPort(w.bootListener.Addr().String())
				want = strings.Replace(want, "BOOT", port, 1)
			}
			if got := w.FirmwareAddress(w.URL() + "/boot/x/metalctl.iso"); got != want+"/boot/x/metalctl.iso" {
				t.Errorf("got %s, want %s", got, want)
			}
			if !slices.Contains(w.MediaOrigins(), want) || !slices.Contains(w.MediaOrigins(), w.URL()) {
				t.Errorf("the origins of media are %q", w.MediaOrigins())
			}
		})
	}
}

// What listens without TLS serves media and images alone.
func TestPlainListenerServesNothingElse(t *testing.T) {
	w := newWorld(t, nil)
	base := "http://" + w.bootListener.Addr().String()
	for _, path := range []string{"/api/v1/nodes", "/api/openapi.json", "/agent/v1/register", "/metrics", "/healthz", "/"} {
		if res, _ := w.fetch(http.MethodGet, base+path, map[string]string{"Authorization": "Bearer " + w.token}); res.StatusCode != 404 {
			t.Errorf("%s: got %s", path, res.Status)
		}
	}
}

// Many machines read one shared medium at once. What the server holds must not grow with them: nothing is copied per reader but a buffer.
func TestManyReadersShareOneMedium(t *testing.T) {
	w := newWorld(t, nil)
	const nodes, readers, reads = 8, 200, 20
	var addresses []string
	for i := range nodes {
		n := w.enrol(fmt.Sprintf("n%d", i))
		address, _, _, err := w.Issue(context.Background(), n.ID)
		must(t, err)
		addresses = append(addresses, w.PlainAddress(address))
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: readers}, Timeout: patience}
	defer client.CloseIdleConnections()
	read := func(address string, from, to int64) error {
		req, err := http.NewRequest(http.MethodGet, address, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to))
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		n, err := io.Copy(io.Discard, res.Body)
		if err == nil && (n != to-from+1 || res.StatusCode != 206) {
			err = fmt.Errorf("%s: %d bytes of %d", res.Status, n, to-from+1)
		}
		return err
	}
	must(t, read(addresses[0], 0, 10))
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	errs := make(chan error, readers)
	hold := make(chan struct{})
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			var err error
			for range reads {
				from := rand.Int64N(sharedISO.size - 70000)
				err = errors.Join(err, read(addresses[i%nodes], from, from+65535))
			}
			errs <- err
			<-hold // connections stay open while memory is looked at
		})
	}
	for range readers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	close(hold)
	wg.Wait()
	// One copy of the 8 MiB medium per reader would be 1.6 GiB. Buffers of both ends of 200 connections are what stays, in this process.
	perReader := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / readers
	t.Logf("%d bytes of heap stay per reader, both ends", perReader)
	if perReader > 512<<10 {
		t.Errorf("%d bytes of heap stay per reader", perReader)
	}
}
