//go:build !ramdisk

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// asking reads the API of a script's server as its administrator.
type asking struct {
	ts     *testscript.TestScript
	http   *http.Client
	server string
	token  string
}

func newAsking(ts *testscript.TestScript) *asking {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(ts.ReadFile(ts.Getenv("METALCTL_CACERT")))) {
		ts.Fatalf("no authority in METALCTL_CACERT")
	}
	return &asking{ts: ts, server: ts.Getenv("METALCTL_SERVER"), token: strings.TrimSpace(ts.ReadFile(ts.Getenv("METALCTL_TOKEN_FILE"))),
		http: &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}}
}

// get returns what a path is answered with, and whether it was a success.
func (a *asking) get(path string) (string, bool) {
	req, err := http.NewRequest(http.MethodGet, a.server+path, nil)
	a.ts.Check(err)
	req.Header.Set("Authorization", "Bearer "+a.token)
	res, err := a.http.Do(req)
	a.ts.Check(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	a.ts.Check(err)
	return string(b), res.StatusCode < 300
}

// ids are the names or ids of all items of a collection.
func (a *asking) ids(collection string) (out []string) {
	body, ok := a.get(collection + "?limit=1000")
	if !ok {
		a.ts.Fatalf("%s: %s", collection, body)
	}
	var l struct {
		Items []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"items"`
	}
	a.ts.Check(json.Unmarshal([]byte(body), &l))
	for _, i := range l.Items {
		if i.ID == "" {
			i.ID = i.Name
		}
		out = append(out, i.ID)
	}
	return out
}

// scriptNowhere reads every answer that the API's own description names, of every item, the support bundle, and what was logged, for a
// text that must be in none of them.
func scriptNowhere(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: nowhere TEXT")
	}
	look := func(where, text string) {
		if i := strings.Index(text, args[0]); i >= 0 {
			ts.Fatalf("%s shows %q: …%s", where, args[0], text[max(0, i-300):i])
		}
	}
	a := newAsking(ts)
	description, _ := a.get("/api/openapi.json")
	var api struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	ts.Check(json.Unmarshal([]byte(description), &api))
	asked := 0
	for path, methods := range api.Paths {
		if methods["get"] == nil || strings.HasPrefix(path, "/api/v1/backups") { // a backup is the store, with all that agents need
			continue
		}
		paths := []string{path}
		if collection, rest, ok := strings.Cut(path, "/{id}"); ok {
			paths = nil
			named := collection
			if collection == "/api/v1/reports" { // they have the ids of operations
				named = "/api/v1/operations"
			}
			for _, id := range a.ids(named) {
				paths = append(paths, collection+"/"+id+rest)
			}
		}
		for _, p := range paths {
			if strings.HasSuffix(p, "/plan") {
				for _, use := range []string{"inspect", "clean", "deploy", "rebuild"} {
					body, _ := a.get(p + "?allow_reboot=true&use=" + use) // a node takes few of them at a time
					look(p+" for "+use, body)
				}
				continue
			}
			if strings.HasSuffix(p, "/timeline") || strings.HasSuffix(p, "/history") {
				p += "?limit=10000"
			}
			if strings.HasSuffix(p, "/events") {
				p += "?follow=false&format=json"
			}
			body, _ := a.get(p) // a node without an inventory refuses, in words that count as well
			look(p, body)
			asked++
		}
	}
	if asked < 20 {
		ts.Fatalf("only %d answers were read", asked)
	}
	bundle := ts.MkAbs("nowhere.tar.gz")
	ts.Check(ts.Exec("metalctl", "support-bundle", "--file", bundle))
	f, err := os.Open(bundle)
	ts.Check(err)
	defer f.Close()
	parts := 0
	ts.Check(readBundle(f, func(name string, content []byte) {
		parts++
		look(name+" of the support bundle", string(content))
		look(name+" of the support bundle, decoded", string(unwrapped(content)))
	}))
	if parts < 20 {
		ts.Fatalf("the support bundle has only %d parts", parts)
	}
	ts.Check(os.Remove(bundle))
	look("the server's log", (*ts.Value(runKey{}).(**scriptRun)).out.String())
	consoles, err := filepath.Glob(ts.MkAbs("rack/*/serial.log"))
	ts.Check(err)
	if len(consoles) == 0 {
		ts.Fatalf("no machine has a console")
	}
	for _, c := range slices.Sorted(slices.Values(consoles)) {
		b, err := os.ReadFile(c)
		ts.Check(err)
		look(c, string(b))
	}
}
