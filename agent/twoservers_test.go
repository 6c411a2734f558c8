package agent

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

func TestAServerThatDoesNotActSendsTheAgentToTheOther(t *testing.T) {
	for _, code := range []string{"MC-STANDBY-FOLLOWS", "MC-STANDBY-RETIRED", "MC-STANDBY-UNSURE"} {
		t.Run(code, func(t *testing.T) {
			f := newFakeServer(t)
			var passive atomic.Bool
			f.onRequest = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Host != f.addr || !passive.Load() {
					return false
				}
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusServiceUnavailable)
				_ = json.NewEncoder(w).Encode(api.Problem{Status: http.StatusServiceUnavailable, Kind: "unavailable", Code: code})
				return true
			}
			cfg := config(f, step.Funcs{step.Inventory: nothing})
			cfg.Credential.Servers = append(cfg.Credential.Servers, f.second())
			start(t, cfg)
			f.push(task(step.Inventory, 1))
			receive(t, f.results, "result")
			passive.Store(true)
			f.push(task(step.Inventory, 2))
			for receive(t, f.results, "result at the other server").Try != 2 {
			}
		})
	}
}

// halved sends the first half of what is written, and then the server dies.
type halved struct {
	http.ResponseWriter
	left int
	die  func()
}

func (h *halved) Write(p []byte) (int, error) {
	if h.left < len(p) {
		_, _ = h.ResponseWriter.Write(p[:h.left])
		h.die()
		panic(http.ErrAbortHandler)
	}
	h.left -= len(p)
	return h.ResponseWriter.Write(p)
}

func TestAnImageGoesOnAtTheServerThatTookOver(t *testing.T) {
	raw := bytes.Repeat([]byte("an image "), 8*mib/9+1)[:8*mib]
	l := newLab(t, 16*mib, "A")
	l.f.images = map[string][]byte{"debian": raw}
	var dead, resumed atomic.Bool
	l.f.onRequest = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/images/") {
			return false
		}
		span := r.Header.Get("Range")
		if r.Host == l.f.addr && span != "bytes=0-0" && dead.CompareAndSwap(false, true) {
			http.ServeContent(&halved{w, len(raw) / 2, l.f.stop}, r, "", time.Time{}, bytes.NewReader(raw))
			return true
		}
		if r.Host != l.f.addr && strings.HasPrefix(span, "bytes=") && span != "bytes=0-0" {
			resumed.Store(true)
		}
		return false
	}
	cfg := config(l.f, Steps(l.deps))
	cfg.Home = l.deps.Home
	cfg.Credential.Servers = append(cfg.Credential.Servers, l.f.second())
	start(t, cfg)
	l.ok(step.WriteImage, step.ImageParams{
		Image:    fleet.Image{Name: "debian", Format: "raw", SHA256: hexSum(raw), SizeBytes: int64(len(raw)), VirtualSizeBytes: int64(len(raw))},
		Accepted: l.accepted("A"), Root: fleet.RootDiskHints{Serial: "A"}, Sources: []step.ImageSource{{URL: "/images/debian", Ours: true}},
	})
	if got := l.content(0)[:len(raw)]; !bytes.Equal(got, raw) {
		t.Error("the disk holds something else than the image")
	}
	if !dead.Load() || !resumed.Load() {
		t.Errorf("the first server died: %v; the other one was asked for the rest: %v", dead.Load(), resumed.Load())
	}
}
