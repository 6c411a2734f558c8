package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// handler is everything that Listen serves.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	rest := s.restHandler()
	mux.Handle("/api/openapi.json", rest)
	mux.Handle(api.Base+"/", s.acting(s.authorized(s.idempotent(rest))))
	mux.Handle("/agent/v1/", s.acting(s.agentHandler()))
	s.standbyRoutes(mux)
	mux.Handle("/metrics", s.authorized(s.metricsHandler()))
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	s.mediaRoutes(mux)
	mux.HandleFunc("/", s.noSuchPath)
	return s.safely(mux)
}

// bootHandler is what ListenBoot serves: boot media and images alone.
func (s *Server) bootHandler() http.Handler {
	mux := http.NewServeMux()
	s.mediaRoutes(mux)
	mux.HandleFunc("/", s.noSuchPath)
	return s.safely(mux)
}

func (s *Server) mediaRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /boot/{medium}/metalctl.iso", s.serveBoot) // a GET pattern takes HEAD, too
	mux.HandleFunc("GET /images/{token}/{name}", s.serveImage)
}

// safely answers a panic with 500 and a line in the log; the server goes on.
func (s *Server) safely(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				s.Log.Error("a request made the server panic", append(s.whose(r.URL.Path), "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))...)
				s.refuse(w, r, fleet.Errorf(fleet.Broken, "MC-API-BROKEN", "the server could not do that").WithHint("look into the server's log"))
			}
		}()
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

func (s *Server) noSuchPath(w http.ResponseWriter, r *http.Request) {
	s.refuse(w, r, fleet.Errorf(fleet.NotFound, "MC-API-PATH", "there is no %s %s here", r.Method, shortened(instanceOf(r))).
		WithHint("see what there is: GET /api/openapi.json"))
}

// instanceOf is the path of a request as errors and logs may name it: addresses of media and images are secrets.
func instanceOf(r *http.Request) string {
	for _, secret := range []string{"/boot/", "/images/"} {
		if strings.HasPrefix(r.URL.Path, secret) {
			return secret + "…"
		}
	}
	return r.URL.Path
}

func shortened(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

// refuse sends err as problem+json.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := api.NewProblem(err, instanceOf(r))
	s.logProblem(r.Method, p, err)
	w.Header().Set("Content-Type", api.ProblemType)
	w.Header().Del("Content-Length")
	w.Header().Del("ETag")
	if p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p) //nolint:errcheck // the caller is gone
}

// logProblem tells of the server's own failures; what callers did wrong is theirs to read.
func (s *Server) logProblem(method string, p api.Problem, err error) {
	// Neither a caller who went away nor one who asked the wrong of two servers is this one's failure.
	if p.Status >= 500 && !errors.Is(err, context.Canceled) && !strings.HasPrefix(p.Code, "MC-STANDBY-") {
		s.Log.Error("request failed", append(s.whose(p.Instance), "method", method, "path", p.Instance, "code", p.Code, "err", err)...)
		return
	}
	s.Log.Debug("request refused", "method", method, "path", p.Instance, "code", p.Code, "err", err)
}

// whose says for the log which node, operation or lease a path is about.
func (s *Server) whose(path string) []any {
	rest, ok := strings.CutPrefix(path, api.Base+"/")
	kind, rest, deeper := strings.Cut(rest, "/")
	id, _, _ := strings.Cut(rest, "/")
	switch {
	case !ok || !deeper || id == "":
	case kind == "nodes":
		if n, _, err := s.node(s.ctx, id); err == nil {
			id = n.Name
		}
		return []any{fleet.LogNode, id}
	case kind == "operations":
		return []any{fleet.LogOperation, id}
	case kind == "leases":
		return []any{fleet.LogLease, id}
	}
	return nil
}

// answer sends v as JSON.
func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the caller is gone
}
