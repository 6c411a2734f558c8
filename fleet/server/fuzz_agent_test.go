package server

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// heard keeps what reaches the engine and the timeline.
type heard struct {
	Work
	fleet.Timeline
	results []api.Result
	lines   []string
}

func (h *heard) Report(_ context.Context, _ fleet.NodeID, _ int64, r api.Result) error {
	h.results = append(h.results, r)
	return nil
}

func (h *heard) AppendTimeline(_ fleet.NodeID, e fleet.TimelineEntry) {
	h.lines = append(h.lines, e.Text)
}

// FuzzAgentBodies: whatever an agent sends is refused as invalid, or reaches the engine with a place in a plan, the readers as a share of one, and the
// timeline as bounded lines that a terminal can show. A session that was taken over cannot speak for another operation.
func FuzzAgentBodies(f *testing.F) {
	op := "01900000-0000-7000-8000-000000000000"
	f.Add(uint8(0), []byte(`{"operation":"`+op+`","index":3,"try":1,"step":"inventory","evidence":{"a":[1]}}`))
	f.Add(uint8(0), []byte(`{"operation":"`+op+`","index":-1,"try":1,"step":"x"}`))
	f.Add(uint8(1), []byte(`{"operation":"`+op+`","percent":1e9,"stage":"\u001b[2J"}`))
	f.Add(uint8(1), []byte(`{"operation":"another","percent":5}`))
	f.Add(uint8(2), []byte(`{"kind":"log","lines":["a\u001b]0;x\u0007","b"]}`))
	f.Add(uint8(2), []byte(`{"kind":"panic","lines":[`+strings.Repeat(`"x",`, 300)+`"y"]}`))
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		h := &heard{}
		s := &Server{Deps: Deps{Timeline: h, Log: slog.New(slog.DiscardHandler), Now: time.Now}, engine: Engine{Work: h}, progress: newProgressHub()}
		who := caller{id: "01900000-0000-7000-8000-000000000001", generation: 1, operation: fleet.OperationID(op)}
		handlers := []func(http.ResponseWriter, *http.Request, caller) error{s.agentResult, s.agentProgress, s.agentReport}
		err := handlers[int(which)%len(handlers)](httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body)), who)
		if err != nil {
			if fleet.KindOf(err) != fleet.Invalid || fleet.CodeOf(err) == "" {
				t.Fatalf("got %v", err)
			}
			if len(h.results)+len(h.lines)+len(s.progress.latest) > 0 {
				t.Fatal("what was refused had an effect")
			}
			return
		}
		for _, r := range h.results {
			if r.Index < 0 || r.Try < 0 || r.Step == "" {
				t.Fatalf("took %+v", r)
			}
		}
		for id, p := range s.progress.latest {
			if id != who.id || p.Operation != who.operation || p.Percent < 0 || p.Percent > 100 || len(p.Stage) > 300 || len(p.Step) > 300 {
				t.Fatalf("shows %+v of %s", p, id)
			}
		}
		if len(h.lines) > 201 {
			t.Fatalf("%d lines of one report", len(h.lines))
		}
		for _, line := range h.lines {
			if len(line) > 4096 || !utf8.ValidString(line) || strings.ContainsAny(line, "\x1b\x07\n\r\x00") {
				t.Fatalf("the timeline has %q", line)
			}
		}
	})
}
