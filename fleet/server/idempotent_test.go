package server

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func nodeBody(name string, port int) string {
	return fmt.Sprintf(`{"name":%q,"bmc_address":"https://127.0.0.1:%d","bmc_user":"root","bmc_password":%q,"bmc_tls":{"first_use":true}}`, name, port, bmcPassword)
}

func TestIdempotencyKey(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	w := newWorld(t, func(_ *Config, d *Deps) {
		d.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	post := func(key, body string) (int, http.Header, []byte) {
		return w.raw(http.MethodPost, "/api/v1/nodes", body, map[string]string{"Idempotency-Key": key})
	}
	status, h, first := post("k1", nodeBody("n1", 1001))
	if status != 201 || h.Get("Location") == "" || h.Get("ETag") == "" {
		t.Fatalf("got %d %v %s", status, h, first)
	}
	status, h2, again := post("k1", nodeBody("n1", 1001))
	if status != 201 || !bytes.Equal(first, again) || h2.Get("Location") != h.Get("Location") || h2.Get("ETag") != h.Get("ETag") || h2.Get("Idempotency-Replayed") != "true" {
		t.Errorf("the repeat got %d %v %s", status, h2, again)
	}
	if status, _, body := post("k1", nodeBody("n2", 1002)); status != 409 || problemOf(t, body).Code != "MC-API-IDEMPOTENCY" {
		t.Errorf("another request with the same key got %d %s", status, body)
	}
	// A refusal is an answer, too, and stays the same although it would succeed by now.
	if status, _, _ := post("k2", nodeBody("n1", 1003)); status != 409 {
		t.Errorf("got %d", status)
	}
	must(t, w.client.ForgetNode(context.Background(), "n1"))
	if status, _, _ := post("k2", nodeBody("n1", 1003)); status != 409 {
		t.Errorf("the repeat of a refusal got %d", status)
	}
	// What the server could not do is tried again.
	w.bmcs.fail = fleet.Errorf(fleet.Unavailable, "MC-BMC-UNREACHABLE", "the BMC does not answer")
	if status, h, _ := post("k3", nodeBody("n3", 1004)); status != 503 || h.Get("Retry-After") == "" {
		t.Errorf("got %d %v", status, h)
	}
	w.bmcs.fail = nil
	if status, _, body := post("k3", nodeBody("n3", 1004)); status != 201 {
		t.Errorf("got %d %s", status, body)
	}
	// A day later the key is free again, and the record is gone.
	mu.Lock()
	now = now.Add(25 * time.Hour)
	mu.Unlock()
	must(t, w.dropOldAnswers(context.Background()))
	must(t, w.db.View(context.Background(), func(sn fleet.Snapshot) error {
		return sn.List(fleet.KindMeta, func(r fleet.Record) bool {
			if r.Key != adminKey && r.Key != tallyKey {
				t.Errorf("%s is left", r.Key)
			}
			return true
		})
	}))
	if status, _, body := post("k1", nodeBody("n5", 1005)); status != 201 {
		t.Errorf("got %d %s", status, body)
	}
}

func TestIdempotencyKeySurvivesRestart(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	req := createRequest("n1")
	first, err := w.client.CreateNode(ctx, req, "k1")
	must(t, err)
	// A request that the server was stopped in the middle of: nobody knows whether it was done.
	record := fleet.Key(answersPrefix + fmt.Sprintf("%x", w.ca.mac("idempotency", "k2")))
	body := nodeBody("n2", 1002)
	kept := keptAnswer{At: time.Now(), Process: "an earlier one", Request: fmt.Sprintf("%x", w.ca.mac("request", "POST", "/api/v1/nodes", body))}
	_, err = w.db.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: record, Value: kept}}})
	must(t, err)
	w.restart()
	again, err := w.client.CreateNode(ctx, req, "k1")
	must(t, err)
	if first.ID != again.ID {
		t.Errorf("got %s and %s", first.ID, again.ID)
	}
	if status, _, b := w.raw(http.MethodPost, "/api/v1/nodes", body, map[string]string{"Idempotency-Key": "k2"}); status != 409 || problemOf(t, b).Code != "MC-API-IDEMPOTENCY" {
		t.Errorf("got %d %s", status, b)
	}
}

// Many callers with one key at once: the thing is done once.
func TestIdempotencyKeyAtTheSameTime(t *testing.T) {
	w := newWorld(t, nil)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, err := w.client.CreateLease(context.Background(), api.LeaseCreate{LeaseRequest: fleet.LeaseRequest{Nodes: []string{"n"}, Image: "i"}}, "one")
			if err != nil && fleet.CodeOf(err) != "MC-API-IDEMPOTENCY" {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if w.engine.leases != 1 {
		t.Errorf("%d leases were made", w.engine.leases)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	w := newWorld(t, nil)
	big := `{"name":"` + string(bytes.Repeat([]byte("x"), maxBody)) + `"}`
	status, _, body := w.raw(http.MethodPost, "/api/v1/nodes", big, nil)
	if p := problemOf(t, body); status != 413 || p.Code != "MC-API-BODY-SIZE" {
		t.Errorf("got %d %s", status, body)
	}
}
