package server

import (
	"bytes"
	"context"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// Passwords, tokens and addresses of media stand in no answer, event, timeline or log, and in no file but the admin token's own.
func TestSecretsStayInside(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	n := w.enrol("n1")
	address, ca, _, err := w.Issue(ctx, n.ID)
	must(t, err)
	medium := strings.Split(address, "/")[4]
	cred := w.readCredential(address, ca)
	a := w.agent(cred)
	_, err = a.register()
	must(t, err)
	op, err := w.client.NodeVerb(ctx, "n1", "inspect", api.NodeVerb{})
	must(t, err)
	img := fleet.Image{Name: "i", Format: "raw", SHA256: digestOf([]byte("x"))}
	_, err = w.client.AddImage(ctx, api.ImageCreate{Image: img})
	must(t, err)
	_, err = w.client.UploadImage(ctx, "i", strings.NewReader("x"), nil)
	must(t, err)
	path, err := w.ImagePath(op, img)
	must(t, err)
	w.fetch(http.MethodGet, w.URL()+path, nil)
	w.fetch(http.MethodGet, w.URL()+path+"x", nil)
	w.fetch(http.MethodGet, address+"x", nil)
	var data []byte
	_, err = a.call(http.MethodGet, api.AgentUserDataPath, nil, &data)
	must(t, err)
	_, err = w.client.CreateLease(ctx, api.LeaseCreate{LeaseRequest: fleet.LeaseRequest{Nodes: []string{"n1"}, Image: "i"}, UserData: []byte(userData)}, "k")
	must(t, err)
	thief := w.agent(cred)
	thief.register() //nolint:errcheck // it is refused, and logged
	w.bmcs.fail = fleet.Errorf(fleet.Broken, "", "some inner trouble with %s", bmcPassword)
	_, err = w.client.CreateNode(ctx, createRequest("n2"), "k2")
	if err == nil || strings.Contains(err.Error(), bmcPassword) {
		t.Errorf("an error without a code is shown to callers: %v", err)
	}
	w.bmcs.fail = nil

	hidden := map[string]string{"BMC password": bmcPassword, "admin token": w.token, "boot token": cred.Token.Reveal(), "medium": medium,
		"image token": strings.Split(path, "/")[2], "user-data": "tenant-secret-userdata", "private key": "EC PRIVATE KEY"}
	look := func(where string, text []byte) {
		for what, secret := range hidden {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s: shows the %s", where, what)
			}
		}
	}
	for _, path := range []string{"/nodes", "/nodes/n1", "/nodes/n1/timeline", "/nodes/n1/history", "/nodes/n1/explain", "/operations", "/operations/" + string(op),
		"/leases", "/images", "/events", "/events?format=sse&follow=false&progress=true", "/capabilities", "/site"} {
		status, header, body := w.raw(http.MethodGet, api.Base+path, "", nil)
		if status != 200 {
			t.Errorf("%s: %d %s", path, status, body)
		}
		look(path, body)
		for _, values := range header {
			look(path+" headers", []byte(strings.Join(values, "\n")))
		}
	}
	_, _, metrics := w.raw(http.MethodGet, "/metrics", "", nil)
	look("/metrics", metrics)
	// The log gets the inner trouble of a neighbour, which is that neighbour's to keep clean; here it holds the password on purpose.
	logged := strings.ReplaceAll(w.log.String(), "some inner trouble with "+bmcPassword, "")
	look("the log", []byte(logged))
	if !strings.Contains(logged, "request failed") || !strings.Contains(logged, "agent registered") {
		t.Errorf("the log says too little:\n%s", logged)
	}
	w.stop()
	must(t, w.db.Close())
	must(t, filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "admin.token" {
			return err
		}
		text, err := os.ReadFile(path)
		look(path, text)
		return err
	}))
	if info, err := os.Stat(filepath.Join(w.dir, "admin.token")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the admin token's file: %v, %v", info.Mode(), err)
	}
}
