package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// caller is an agent whose certificate was checked.
type caller struct {
	id         fleet.NodeID
	generation int64
	name       string
	operation  fleet.OperationID
}

// session lets requests with the client certificate of the node's present boot pass.
func (s *Server) session(next func(http.ResponseWriter, *http.Request, caller) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, err := s.identify(r)
		if err == nil {
			s.presence.see(who.id, who.generation, remoteHost(r))
			err = next(w, r, who)
		}
		if err != nil {
			s.refuse(w, r, err)
		}
	}
}

// identify checks the certificate against the authority and the node's boot record. Generations decide, not dates: a session ends with its boot.
func (s *Server) identify(r *http.Request) (caller, error) {
	unknown := fleet.Errorf(fleet.Denied, "MC-AGENT-CERT", "the request carries no client certificate of this server's authority")
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return caller{}, unknown
	}
	cert := r.TLS.PeerCertificates[0]
	if err := cert.CheckSignatureFrom(s.ca.ca); err != nil || len(cert.URIs) != 1 {
		return caller{}, unknown
	}
	id, generation, err := parseBootURI(cert.URIs[0])
	if err != nil {
		return caller{}, unknown
	}
	n, _, err := s.node(r.Context(), string(id))
	switch {
	case fleet.KindOf(err) == fleet.NotFound:
		return caller{}, fleet.Errorf(fleet.Conflict, "MC-AGENT-GENERATION", "the node of this session is no longer known")
	case err != nil:
		return caller{}, err
	case generation != n.Boot.Generation:
		return caller{}, errOlderBoot(&n)
	case n.Boot.AgentKey == keyRevoked:
		return caller{}, errRevoked(&n)
	case !sameText(n.Boot.AgentKey, fleet.PinOf(cert)):
		return caller{}, unknown
	}
	if err := s.stillSpoken(r.Context(), &n, remoteHost(r)); err != nil {
		return caller{}, err
	}
	return caller{id, generation, n.Name, n.Operation}, nil
}

// Bounds of the agent's long poll, and how long the server waits before it hands a task out again that has not ended: the agent answers a
// repeat from memory, so that only a lost answer makes it useful.
const (
	maxPoll = time.Minute
	again   = 5 * time.Second
)

// handed is the task that an agent was last given.
type handed struct {
	generation int64
	operation  fleet.OperationID
	index, try int
	abort      bool
	at         time.Time
}

func (s *Server) agentTask(w http.ResponseWriter, r *http.Request, who caller) error {
	wait, err := time.ParseDuration(r.URL.Query().Get("wait"))
	if err != nil && r.URL.Query().Get("wait") != "" {
		return fleet.Errorf(fleet.Invalid, "MC-API-BODY", "wait is not a duration such as 25s")
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(max(wait, 0), maxPoll))
	defer cancel()
	for {
		bell := s.presence.bell(who.id)
		// The answer may have become another session's while this one waited.
		if _, err := s.identify(r); err != nil {
			return err
		}
		t, err := s.engine.Work.TaskFor(context.WithoutCancel(ctx), who.id, who.generation)
		if err != nil {
			return err
		}
		var rest time.Duration
		if t != nil {
			if rest = s.presence.hand(who, t); rest <= 0 {
				answer(w, http.StatusOK, t)
				return nil
			}
		}
		if !waitFor(ctx, rest, bell) {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		s.presence.see(who.id, who.generation, remoteHost(r))
	}
}

// waitFor waits for bell, or for d where that is not 0, and reports false when ctx ended first.
func waitFor(ctx context.Context, d time.Duration, bell <-chan struct{}) bool {
	var later <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		later = t.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-bell:
		return true
	case <-later:
		return true
	}
}

// hand notes that t is given to the agent and returns 0, or returns how long to wait because the agent was given the same a moment ago.
func (p *presence) hand(who caller, t *api.Task) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	this := handed{who.generation, t.Operation, t.Index, t.Try, t.Abort, now}
	last := p.given[who.id]
	since := now.Sub(last.at)
	last.at = now
	if last == this && since < again {
		return again - since
	}
	p.given[who.id] = this
	return 0
}

// maxResult bounds a result with its attachment: an inventory of a large machine has about 1 MiB.
const maxResult = 16 << 20

func (s *Server) agentResult(w http.ResponseWriter, r *http.Request, who caller) error {
	var res api.Result
	if err := readBody(w, r, maxResult, &res); err != nil {
		return err
	}
	if !looksLikeID.MatchString(string(res.Operation)) || res.Index < 0 || res.Try < 0 || res.Step == "" {
		return fleet.Errorf(fleet.Invalid, "MC-AGENT-RESULT", "the result names no step of an operation")
	}
	if err := s.engine.Work.Report(r.Context(), who.id, who.generation, res); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) agentProgress(w http.ResponseWriter, r *http.Request, who caller) error {
	var p fleet.Progress
	if err := readBody(w, r, 64<<10, &p); err != nil {
		return err
	}
	if p.Operation != who.operation || p.Operation == "" {
		return fleet.Errorf(fleet.Invalid, "MC-AGENT-PROGRESS", "the progress is not of the operation that runs on this node")
	}
	p.Node, p.At = who.id, s.Now().UTC()
	p.Step, p.Stage = shortened(p.Step), shortened(p.Stage)
	p.Percent = min(max(p.Percent, 0), 100)
	s.progress.put(p)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// reportKinds are what an agent reports, and how many lines of each are kept.
var reportKinds = map[string]int{"log": 200, "panic": 200, "stage": 50, "shutdown": 50}

func (s *Server) agentReport(w http.ResponseWriter, r *http.Request, who caller) error {
	var rep api.Report
	if err := readBody(w, r, 1<<20, &rep); err != nil {
		return err
	}
	keep, ok := reportKinds[rep.Kind]
	if !ok {
		return fleet.Errorf(fleet.Invalid, "MC-AGENT-REPORT", "%q is none of log, panic, stage, shutdown", shortened(rep.Kind))
	}
	lines := rep.Lines
	if dropped := len(lines) - keep; dropped > 0 {
		lines = append(lines[:keep:keep], fmt.Sprintf("(%d more lines)", dropped))
	}
	for _, line := range lines {
		s.note(who.id, who.generation, "agent", rep.Kind+": "+printable(line))
	}
	if rep.Kind == "panic" {
		s.Log.Warn("an agent panicked", fleet.LogNode, who.name, fleet.LogOperation, who.operation, "generation", who.generation)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// printable shortens a line and takes control characters out, so that a timeline can be shown on a terminal.
func printable(line string) string {
	if len(line) > 1000 {
		line = line[:1000] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '�'
		}
		return r
	}, strings.ToValidUTF8(line, "�"))
}

func (s *Server) agentUserData(w http.ResponseWriter, r *http.Request, who caller) error {
	data, err := s.engine.Work.UserData(r.Context(), who.id, who.generation)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(data) //nolint:errcheck // the agent asks again
	return nil
}
