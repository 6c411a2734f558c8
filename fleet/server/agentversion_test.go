package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// recorded is a body that an agent of version 1 sent.
func recorded(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "agent-v1", name))
	must(t, err)
	return b
}

const recordedNode fleet.NodeID = "01900000-0000-7000-8000-000000000001"

// serverOf is a server that speaks version and the one before, with the node that the recorded agent was booted for.
func serverOf(t *testing.T, version int) *world {
	t.Helper()
	w := newWorld(t, func(c *Config, _ *Deps) { c.agentVersion = version })
	now := time.Now().UTC()
	n := fleet.Node{ID: recordedNode, Name: "hgx-1", State: fleet.Inspecting, Dirty: fleet.DirtyUnknown, StateSince: now, CreatedAt: now,
		BMC:  fleet.BMC{Address: "https://bmc", UUID: "c0ffee00-0000-4000-8000-000000000001", Serial: "1660224000001"},
		Boot: fleet.BootRecord{Generation: 3, TokenHash: hashToken("recorded-token"), IssuedAt: now}}
	_, err := w.db.Commit(context.Background(), fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindNode, n.ID), Value: n}}})
	must(t, err)
	return w
}

// greeting posts a registration and returns the status and what was answered.
func (w *world) greeting(body []byte) (int, []byte) {
	w.t.Helper()
	c := w.trusting()
	defer c.CloseIdleConnections()
	res, err := c.Post(w.URL()+api.AgentRegisterPath, "application/json", bytes.NewReader(body))
	must(w.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(w.t, err)
	return res.StatusCode, b
}

// TestAgentOfTheVersionBefore: an agent of version 1 registers with a server of version 2, is answered as a server of version 1 did, and is heard.
func TestAgentOfTheVersionBefore(t *testing.T) {
	for _, version := range []int{1, 2} {
		w := serverOf(t, version)
		status, body := w.greeting(recorded(t, "register.json"))
		if status != http.StatusOK {
			t.Fatalf("a server of version %d: %d %s", version, status, body)
		}
		var got map[string]any
		must(t, json.Unmarshal(body, &got))
		var fields []string
		for f := range got {
			fields = append(fields, f)
		}
		slices.Sort(fields)
		if diff := cmp.Diff(fields, []string{"certificate", "name", "now", "version"}); diff != "" || got["version"] != 1.0 || got["name"] != "hgx-1" {
			t.Errorf("a server of version %d answers version %v with fields that such an agent refuses (-got +want):\n%s", version, got["version"], diff)
		}
		if n := w.nodeNow(recordedNode); n.Boot.Protocol != 1 || n.Boot.Program != "91fb252" || n.Boot.Refused != "" {
			t.Errorf("the boot record says %+v", n.Boot)
		}
		if up, _ := w.Up(recordedNode, 3); !up {
			t.Error("the agent is not up")
		}
	}

	h := &heard{}
	s := &Server{Deps: Deps{Timeline: h, Log: slog.New(slog.DiscardHandler), Now: time.Now}, engine: Engine{Work: h}, progress: newProgressHub(), agents: 2}
	who := caller{id: recordedNode, generation: 3, operation: "01900000-0000-7000-8000-0000000000aa"}
	for name, handle := range map[string]func(http.ResponseWriter, *http.Request, caller) error{
		"result.json": s.agentResult, "result-error.json": s.agentResult, "progress.json": s.agentProgress, "report.json": s.agentReport,
	} {
		rec := httptest.NewRecorder()
		if err := handle(rec, httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(recorded(t, name))), who); err != nil || rec.Code != http.StatusNoContent {
			t.Errorf("%s: %d, %v", name, rec.Code, err)
		}
	}
	if len(h.results) != 2 || len(h.lines) == 0 || s.progress.latest[recordedNode].Stage != "nvme0n1" {
		t.Errorf("heard %d results, %d lines, progress %+v", len(h.results), len(h.lines), s.progress.latest)
	}
	for _, r := range h.results {
		if r.Step == "inventory" {
			var inv fleet.Inventory
			dec := json.NewDecoder(bytes.NewReader(r.Attachment))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&inv); err != nil {
				t.Errorf("the inventory of an agent of version 1 has become something else: %v", err)
			}
		} else if r.Error == nil || r.Error.Code != "MC-AGENT-STEP" {
			t.Errorf("result %+v", r)
		}
	}
}

// TestAgentTooManyVersionsApart: it is refused in words, the node's record and timeline say so once, and whoever has no token leaves no trace.
func TestAgentTooManyVersionsApart(t *testing.T) {
	tomorrow := strings.Replace(string(recorded(t, "register.json")), `"version": 1`, `"version": 4, "colour": {"of": "tomorrow"}`, 1)
	for name, c := range map[string]struct {
		server int
		body   string
		want   string
	}{
		"an agent older than the one before": {3, string(recorded(t, "register.json")), "the agent (metalctl 91fb252) speaks version 1 of the protocol and the server 3 and 2: the ramdisk is too old for this server"},
		"an agent of tomorrow":               {3, tomorrow, "the agent (metalctl 91fb252) speaks version 4 of the protocol and the server 3 and 2: this server is too old for the ramdisk"},
		"an agent without a version":         {1, strings.Replace(tomorrow, `"version": 4, `, "", 1), "the agent (metalctl 91fb252) speaks version 0 of the protocol and the server 1: the ramdisk is too old for this server"},
	} {
		t.Run(name, func(t *testing.T) {
			w := serverOf(t, c.server)
			refused := func(body string) {
				t.Helper()
				status, b := w.greeting([]byte(body))
				var p api.Problem
				must(t, json.Unmarshal(b, &p))
				// 403 of this kind is what agents of every version take for the end.
				if status != http.StatusForbidden || p.Code != "MC-AGENT-VERSION" || p.Kind != fleet.Denied.String() || !strings.Contains(p.Detail, c.want) || p.Hint == "" {
					t.Errorf("refused with %d %s", status, b)
				}
			}
			refused(strings.Replace(c.body, "recorded-token", "guessed", 1))
			if n := w.nodeNow(recordedNode); n.Boot.Refused != "" {
				t.Errorf("whoever has no token wrote %q on the node", n.Boot.Refused)
			}
			refused(c.body)
			refused(c.body)
			n := w.nodeNow(recordedNode)
			if n.Boot.Refused != c.want || n.Boot.AgentKey != "" {
				t.Errorf("the boot record says %+v", n.Boot)
			}
			if up, _ := w.Up(recordedNode, 3); up {
				t.Error("a refused agent is up")
			}
			entries, err := w.db.ReadTimeline(context.Background(), recordedNode, time.Time{}, 0)
			must(t, err)
			said := 0
			for _, e := range entries {
				if strings.Contains(e.Text, "MC-AGENT-VERSION") && strings.Contains(e.Text, c.want) {
					said++
				}
			}
			if said != 1 {
				t.Errorf("the timeline says it %d times: %+v", said, entries)
			}
		})
	}
}

// TestServerTwoVersionsOn: the session of an agent ends with a server that does not speak its version any more, and the node says why.
func TestServerTwoVersionsOn(t *testing.T) {
	w := newWorld(t, nil)
	n := w.enrol("n1")
	a := w.boot(n.ID)
	_, err := a.register()
	must(t, err)
	w.stop()
	must(t, w.db.Close())
	w.start(func(c *Config, _ *Deps) { c.agentVersion = api.AgentVersion + 2 })
	for range 2 {
		if status, err := a.call(http.MethodGet, api.AgentTaskPath, nil, nil); status != http.StatusForbidden || fleet.CodeOf(err) != "MC-AGENT-VERSION" {
			t.Fatalf("the poll of an agent two versions behind: %d, %v", status, err)
		}
	}
	if got := w.nodeNow(n.ID); !strings.Contains(got.Boot.Refused, "the ramdisk is too old") {
		t.Errorf("the boot record says %+v", got.Boot)
	}
	w.boot(n.ID)
	if got := w.nodeNow(n.ID); got.Boot.Refused != "" || got.Boot.Protocol != 0 {
		t.Errorf("the next boot begins with %+v", got.Boot)
	}
}
