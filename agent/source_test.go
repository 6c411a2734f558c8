package agent

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/images/configdrive"
)

// connectProxy is an HTTP proxy that leads every CONNECT to address and counts them.
func connectProxy(t *testing.T, address string) (string, *atomic.Int32) {
	t.Helper()
	var count atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != "metalctl.invalid:443" {
			http.Error(w, "only CONNECT to the server", http.StatusForbidden)
			return
		}
		count.Add(1)
		there, err := net.Dial("tcp", address)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer here.Close()
		if _, err := io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
		go func() { _, _ = io.Copy(there, here); _ = there.(*net.TCPConn).CloseWrite() }()
		_, _ = io.Copy(here, there)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, &count
}

func TestImagesOfTheOwnServerComeThroughTheProxy(t *testing.T) {
	raw := append([]byte("an image "), make([]byte, mib-9)...)
	l := newLab(t, 16*mib, "A")
	l.f.images = map[string][]byte{"debian": raw}
	proxy, count := connectProxy(t, l.f.addr)
	cfg := config(l.f, Steps(l.deps))
	cfg.Home = l.deps.Home
	cfg.Credential.Servers[0].URL = "https://metalctl.invalid"
	cfg.Credential.Network = &fleet.BootNetwork{Proxy: proxy}
	start(t, cfg)
	l.ok(step.WriteImage, step.ImageParams{
		Image:    fleet.Image{Name: "debian", Format: "raw", SHA256: hexSum(raw), SizeBytes: mib, VirtualSizeBytes: mib},
		Accepted: l.accepted("A"), Root: fleet.RootDiskHints{Serial: "A"}, Sources: []step.ImageSource{{URL: "/images/debian", Ours: true}},
	})
	if !bytes.HasPrefix(l.content(0), []byte("an image")) || count.Load() < 2 {
		t.Errorf("the proxy was asked %d times", count.Load())
	}
}

func TestAConfigDriveOnAnotherDiskFailsTheStep(t *testing.T) {
	l := newLab(t, 160*mib, "ROOT", "DATA")
	drive, err := configdrive.Build(configdrive.Content{Form: configdrive.NoCloud, InstanceID: "old", Hostname: "old"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(l.disks[1].Path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(drive, 0); err != nil {
		t.Fatal(err)
	}
	before := [][]byte{l.content(0), l.content(1)}
	l.run()
	r := l.do(step.ConfigDrive, step.ConfigDriveParams{Root: fleet.RootDiskHints{Serial: "ROOT"}, Accepted: l.accepted("ROOT"), InstanceID: "i", Hostname: "h", Form: fleet.ConfigDriveNoCloud})
	if r.Error == nil || r.Error.Code != "MC-CONFIGDRIVE-STRAY" || !strings.Contains(r.Error.Detail, "DATA") {
		t.Errorf("result = %s", mustJSON(t, r))
	}
	for i, b := range before {
		if !bytes.Equal(b, l.content(i)) {
			t.Errorf("disk %d was touched", i)
		}
	}
}
