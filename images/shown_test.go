package images

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

// TestSignaturesAreNotShown: whatever goes wrong with an origin, no error repeats the query of the address or of where it redirects to.
func TestSignaturesAreNotShown(t *testing.T) {
	const canary = "X-Signature-0c4n4ry"
	mux := http.NewServeMux()
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://elsewhere.example.org/i?sig="+canary, http.StatusFound)
	})
	mux.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/round?sig="+canary, http.StatusFound)
	})
	mux.HandleFunc("/odd", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://[::1/?sig="+canary)
		w.WriteHeader(http.StatusFound)
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("cut"))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	policy := Policy{Origins: []string{s.URL, "http://" + closed}, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Tries: 1}
	for name, address := range map[string]string{
		"not there":          s.URL + "/nothing",
		"leads away":         s.URL + "/away",
		"leads round":        s.URL + "/round",
		"leads nowhere":      s.URL + "/odd",
		"breaks":             s.URL + "/broken",
		"nobody answers":     "http://" + closed + "/i",
		"not on the list":    "https://elsewhere.example.org/i",
		"denied":             "http://169.254.169.254/i",
		"not to be read":     "http://[::1/i",
		"of another scheme":  "ftp://elsewhere.example.org/i",
		"with a user before": "https://user:" + canary + "@elsewhere.example.org/i",
	} {
		t.Run(name, func(t *testing.T) {
			o, err := Open(t.Context(), address+"?sig="+canary+"#"+canary, policy)
			if err == nil {
				_, err = o.ReadRange(t.Context(), 0, 10)
				_, err2 := Decode(t.Context(), o, Image{Name: "i", Format: Raw, SHA256: strings.Repeat("0", 64), SizeBytes: 1000}, func(e Extent) error { e.Release(); return nil })
				err = errors.Join(err, err2)
			}
			if err == nil {
				t.Fatal("it was fetched")
			}
			var e *fleet.Error
			if !errors.As(err, &e) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			} else if text := err.Error() + e.Hint; strings.Contains(text, canary) {
				t.Errorf("it shows the signature: %s", text)
			}
		})
	}
}
