package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// An answer that is too large to be kept is not repeated as an empty one.
func TestLargeAnswerIsNotRepeatedEmpty(t *testing.T) {
	w := newWorld(t, nil)
	done := 0
	h := w.idempotent(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		done++
		rw.Header().Set("Location", "/api/v1/things/1")
		rw.WriteHeader(http.StatusCreated)
		rw.Write([]byte(strings.Repeat("x", maxAnswer+1))) //nolint:errcheck // a recorder
	}))
	post := func() *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "/api/v1/things", strings.NewReader("{}"))
		r.Header.Set("Idempotency-Key", "large")
		out := httptest.NewRecorder()
		h.ServeHTTP(out, r)
		return out
	}
	if first := post(); first.Code != http.StatusCreated || first.Body.Len() != maxAnswer+1 {
		t.Fatalf("got %d with %d bytes", first.Code, first.Body.Len())
	}
	again := post()
	if p := problemOf(t, again.Body.Bytes()); again.Code != http.StatusConflict || p.Code != "MC-API-IDEMPOTENCY" || !strings.Contains(p.Detail+p.Hint, "/api/v1/things/1") ||
		again.Header().Get("Location") != "/api/v1/things/1" || done != 1 {
		t.Errorf("got %d %v %s, done %d times", again.Code, again.Header(), again.Body, done)
	}
}
