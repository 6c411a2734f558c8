package server

import (
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// FuzzGreet: of what an agent of any version says at first contact only its version counts, and only one that has the boot's token leaves words in the node's
// record, which a terminal can show.
func FuzzGreet(f *testing.F) {
	const id, token = "01900000-0000-7000-8000-000000000000", "the-token-of-this-boot"
	for _, body := range []string{
		`{"version":1,"node":"` + id + `","generation":3,"token":"` + token + `"}`,
		`{"version":99,"node":"` + id + `","generation":3,"token":"` + token + `","boot":{"program":"9.9\u001b[2J","more":[1]},"unknown":{}}`,
		`{"version":99,"node":"` + id + `","generation":2,"token":"` + token + `"}`,
		`{"version":-1,"node":"` + id + `","generation":3,"token":"another"}`,
		`{"version":99,"node":"../../x","generation":1e3}`,
		`{"version":1.5}`, `[]`, `null`, `{"version":"1"}`,
	} {
		f.Add([]byte(body))
	}
	db := contract.OpenStore(f)
	key := fleet.KeyOf(fleet.KindNode, fleet.NodeID(id))
	first := fleet.Node{ID: id, Name: "n1", State: fleet.Inspecting, Boot: fleet.BootRecord{Generation: 3, TokenHash: hashToken(token)}}
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := db.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: key, Value: first}}}); err != nil {
			t.Fatal(err)
		}
		s := &Server{Deps: Deps{Store: db, Timeline: db, Log: slog.New(slog.DiscardHandler), Now: time.Now}, agents: api.AgentVersion}
		err := s.greet(t.Context(), body, "192.0.2.1")
		if code := fleet.CodeOf(err); err != nil && code != "MC-AGENT-VERSION" && code != "MC-API-BODY" {
			t.Fatalf("got %v", err)
		}
		if !utf8.ValidString(printableOf(err)) {
			t.Errorf("it says %q", err)
		}
		var n fleet.Node
		if err := db.View(t.Context(), func(sn fleet.Snapshot) (err error) {
			n, _, err = fleet.Get[fleet.Node](sn, key)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if n.Boot.Refused == "" {
			return
		}
		if fleet.CodeOf(err) != "MC-AGENT-VERSION" || !strings.Contains(string(body), token) || s.speaks(n.Boot.Protocol) {
			t.Errorf("the record says %+v of %q, which was answered with %v", n.Boot, body, err)
		}
		for _, text := range []string{n.Boot.Refused, n.Boot.Program} {
			if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(text) > 300 {
				t.Errorf("the record says %q", text)
			}
		}
	})
}

func printableOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
