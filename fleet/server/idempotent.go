package server

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

const (
	// maxBody bounds bodies of the REST API, but not uploads: user-data in base64 is the largest thing in them.
	maxBody = 4 << 20
	// answersKept is how long an Idempotency-Key gets the same answer.
	answersKept = 24 * time.Hour
	// maxAnswer is the largest answer that is kept.
	maxAnswer     = 128 << 10
	answersPrefix = "meta/answer/"
)

// keptAnswer is what a POST with an Idempotency-Key was answered with. Until it is, Status is 0 and Process says who works on it.
type keptAnswer struct {
	At      time.Time         `json:"at"`
	Request string            `json:"request"` // keyed hash of method, path and body
	Process string            `json:"process"`
	Status  int               `json:"status"`
	Header  map[string]string `json:"header,omitempty"`
	Body    []byte            `json:"body,omitempty"`
	// TooLarge: the answer was given, and was too large to be kept.
	TooLarge bool `json:"too_large,omitempty"`
}

type instanceKey struct{}

// instanceFrom is the path of the request that ctx belongs to.
func instanceFrom(ctx context.Context) string {
	p, _ := ctx.Value(instanceKey{}).(string)
	return p
}

// idempotent reads bodies, bounded in size and time, and gives a repeated POST with the same Idempotency-Key the same answer.
func (s *Server) idempotent(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(context.WithValue(r.Context(), instanceKey{}, r.URL.Path))
		if r.Method == http.MethodGet || r.Method == http.MethodHead || strings.HasSuffix(r.URL.Path, "/content") {
			next.ServeHTTP(w, r)
			return
		}
		body, err := wholeBody(w, r)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		key := r.Header.Get("Idempotency-Key")
		if key == "" || r.Method != http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		if len(key) > 255 {
			s.refuse(w, r, fleet.Errorf(fleet.Invalid, "MC-API-IDEMPOTENCY", "the Idempotency-Key has more than 255 bytes"))
			return
		}
		s.once(w, r, key, body, next)
	})
}

func wholeBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	control.SetReadDeadline(time.Now().Add(time.Minute)) //nolint:errcheck // a reader without deadlines (tests) cannot stall
	// Left in place, the deadline would end long requests: the server reads on to see whether the caller has gone.
	defer control.SetReadDeadline(time.Time{}) //nolint:errcheck // as above
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooBig *http.MaxBytesError
	if errors.As(err, &tooBig) {
		return nil, fleet.Errorf(fleet.Invalid, "MC-API-BODY-SIZE", "the body has more than %d bytes", tooBig.Limit)
	}
	if err != nil {
		return nil, fleet.Errorf(fleet.Invalid, "MC-API-BODY", "the body was cut short: %w", err)
	}
	return body, nil
}

// once answers from memory, or lets next answer and remembers.
func (s *Server) once(w http.ResponseWriter, r *http.Request, key string, body []byte, next http.Handler) {
	record := fleet.Key(answersPrefix + hex.EncodeToString(s.ca.mac("idempotency", key)))
	request := hex.EncodeToString(s.ca.mac("request", callerOf(r.Context()), r.Method, r.URL.Path, string(body)))
	mine := keptAnswer{At: s.Now().UTC(), Request: request, Process: s.process}
	kept, rev, err := s.keptAnswer(r.Context(), record)
	switch {
	case err != nil:
		s.refuse(w, r, err)
		return
	case rev == 0 || s.Now().Sub(kept.At) > answersKept:
	case kept.Request != request:
		s.refuse(w, r, fleet.Errorf(fleet.Conflict, "MC-API-IDEMPOTENCY", "the Idempotency-Key was used for another request").WithHint("use a new key for a new request"))
		return
	case kept.TooLarge:
		where := kept.Header["Location"]
		if where != "" {
			w.Header().Set("Location", where)
		}
		s.refuse(w, r, fleet.Errorf(fleet.Conflict, "MC-API-IDEMPOTENCY", "the request with this Idempotency-Key is done already; its answer (status %d) was too large to be kept", kept.Status).
			WithHint("read what became of it at %s", firstWord(where, r.URL.Path)))
		return
	case kept.Status != 0:
		for k, v := range kept.Header {
			w.Header().Set(k, v)
		}
		w.Header().Set("Idempotency-Replayed", "true")
		w.WriteHeader(kept.Status)
		w.Write(kept.Body) //nolint:errcheck // the caller asks again
		return
	case kept.Process == s.process:
		s.refuse(w, r, fleet.Errorf(fleet.Conflict, "MC-API-IDEMPOTENCY", "a request with this Idempotency-Key is being worked on").WithHint("ask again in a moment"))
		return
	default:
		s.refuse(w, r, fleet.Errorf(fleet.Conflict, "MC-API-IDEMPOTENCY", "the server stopped while it worked on a request with this Idempotency-Key").
			WithHint("look whether it was done (metalctl node list, metalctl lease list); if not, use a new key"))
		return
	}
	if _, err := s.Store.Commit(r.Context(), fleet.Change{If: []fleet.Precondition{{Key: record, Revision: rev}}, Writes: []fleet.Write{{Key: record, Value: mine}}}); err != nil {
		if fleet.CodeOf(err) == "MC-STORE-STALE" {
			err = fleet.Errorf(fleet.Conflict, "MC-API-IDEMPOTENCY", "a request with this Idempotency-Key is being worked on").WithHint("ask again in a moment")
		}
		s.refuse(w, r, err)
		return
	}
	rec := &recorder{ResponseWriter: w, status: http.StatusOK}
	done := false
	defer func() {
		// What the server could not do may be tried again with the same key; so may what made it panic.
		write := fleet.Write{Key: record}
		if done && rec.status < 500 {
			mine.Status, mine.Body, mine.Header = rec.status, rec.body.Bytes(), map[string]string{}
			for _, h := range []string{"Content-Type", "ETag", "Location"} {
				if v := w.Header().Get(h); v != "" {
					mine.Header[h] = v
				}
			}
			if rec.body.Len() > maxAnswer {
				mine.Body, mine.TooLarge = nil, true
			}
			write.Value = mine
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 30*time.Second)
		defer cancel()
		if _, err := s.Store.Commit(ctx, fleet.Change{Writes: []fleet.Write{write}}); err != nil {
			s.Log.Error("an answer is not kept for its Idempotency-Key", "path", r.URL.Path, "err", err)
		}
		if done {
			rec.flush()
		}
	}()
	next.ServeHTTP(rec, r)
	done = true
}

// firstWord is the first of the texts that is not empty.
func firstWord(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

func (s *Server) keptAnswer(ctx context.Context, key fleet.Key) (kept keptAnswer, rev fleet.Revision, err error) {
	err = s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		kept, rev, err = fleet.Get[keptAnswer](sn, key)
		return err
	})
	if err != nil && fleet.KindOf(err) == fleet.NotFound {
		return keptAnswer{}, 0, nil
	}
	return kept, rev, err
}

// dropOldAnswers removes answers that are no longer kept, 32 a commit.
func (s *Server) dropOldAnswers(ctx context.Context) error {
	var old []fleet.Write
	err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
		return sn.List(fleet.KindMeta, func(r fleet.Record) bool {
			if strings.HasPrefix(string(r.Key), answersPrefix) {
				if kept, _, err := fleet.Get[keptAnswer](sn, r.Key); err == nil && s.Now().Sub(kept.At) > answersKept {
					old = append(old, fleet.Write{Key: r.Key})
				}
			}
			return true
		})
	})
	for len(old) > 0 && err == nil {
		n := min(len(old), 32)
		_, err = s.Store.Commit(ctx, fleet.Change{Writes: old[:n]})
		old = old[n:]
	}
	return err
}

// recorder holds an answer back until it is durable: a caller that heard it and asks again must get the same.
type recorder struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
func (r *recorder) flush() {
	r.ResponseWriter.WriteHeader(r.status)
	r.ResponseWriter.Write(r.body.Bytes()) //nolint:errcheck // the caller asks again
}
