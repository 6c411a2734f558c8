package api

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// ProblemType is the media type of errors (RFC 9457).
const ProblemType = "application/problem+json"

// kinds are the kinds of errors by their names on the wire.
var kinds = func() map[string]fleet.Kind {
	m := map[string]fleet.Kind{}
	for k := fleet.Broken; k <= fleet.Timeout; k++ {
		m[k.String()] = k
	}
	return m
}()

// statusOf are the HTTP statuses of kinds; codes with a status of their own stand in codeStatus.
var statusOf = map[fleet.Kind]int{
	fleet.Broken: http.StatusInternalServerError, fleet.Invalid: http.StatusUnprocessableEntity, fleet.NotFound: http.StatusNotFound,
	fleet.Denied: http.StatusForbidden, fleet.Conflict: http.StatusConflict, fleet.Refused: http.StatusForbidden,
	fleet.Unavailable: http.StatusServiceUnavailable, fleet.Timeout: http.StatusGatewayTimeout,
}

var codeStatus = map[string]int{
	"MC-API-TOKEN":        http.StatusUnauthorized,
	"MC-API-STALE":        http.StatusPreconditionFailed,
	"MC-API-BODY-SIZE":    http.StatusRequestEntityTooLarge,
	"MC-AGENT-CERT":       http.StatusUnauthorized,
	"MC-AGENT-GENERATION": http.StatusGone,
	"MC-EVENTS-GONE":      http.StatusGone,
	"MC-FENCE":            http.StatusConflict,
	"MC-APPROVAL-SELF":    http.StatusForbidden,
	"MC-FROZEN":           http.StatusConflict,
	"MC-BOOT-RANGE":       http.StatusRequestedRangeNotSatisfiable,
}

// StatusOf returns the HTTP status that an error is sent with.
func StatusOf(err error) int {
	if s, ok := codeStatus[fleet.CodeOf(err)]; ok {
		return s
	}
	return statusOf[fleet.KindOf(err)]
}

// NewProblem turns an error into what is sent. The text of errors that carry no code stays in the server.
func NewProblem(err error, instance string) Problem {
	status := StatusOf(err)
	code := fleet.CodeOf(err)
	p := Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Instance: instance, Code: code,
		Hint: fleet.HintFor(fleet.HintOf(err), nodeIn(instance)), Kind: fleet.KindOf(err).String()}
	if code == "" {
		p.Code, p.Detail, p.Hint = "MC-API-BROKEN", "the server could not do that", "look into the server's log"
		return p
	}
	p.Type = "urn:metalctl:problem:" + code
	p.Detail, p.Errors = describe(err)
	return p
}

// describe returns the message of err without the fields that its text repeats, and the fields.
func describe(err error) (string, []fleet.FieldError) {
	if e, ok := err.(*fleet.Error); ok {
		return e.Msg, e.Fields
	}
	return err.Error(), nil
}

// Err turns a problem back into the error that the server had.
func (p Problem) Err() *fleet.Error {
	kind, ok := kinds[p.Kind]
	if !ok {
		kind = kindOfStatus(p.Status)
	}
	return &fleet.Error{Kind: kind, Code: p.Code, Msg: p.Detail, Hint: p.Hint, Fields: p.Errors}
}

func kindOfStatus(status int) fleet.Kind {
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return fleet.Denied
	case status == http.StatusNotFound || status == http.StatusGone:
		return fleet.NotFound
	case status == http.StatusConflict || status == http.StatusPreconditionFailed:
		return fleet.Conflict
	case status == http.StatusRequestTimeout || status == http.StatusGatewayTimeout:
		return fleet.Timeout
	case status == http.StatusTooManyRequests || status == http.StatusBadGateway || status == http.StatusServiceUnavailable:
		return fleet.Unavailable
	case status >= 400 && status < 500:
		return fleet.Invalid
	}
	return fleet.Broken
}

// readProblem reads the body of an answer that is no success.
func readProblem(res *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	var p Problem
	if err != nil || json.Unmarshal(body, &p) != nil || p.Status == 0 || p.Detail == "" {
		return fleet.Errorf(kindOfStatus(res.StatusCode), "MC-CLIENT-ANSWER", "the server answered %s %s with %s and no explanation", res.Request.Method, res.Request.URL.Path, res.Status).
			WithHint("look whether --server names a metalctl server")
	}
	return p.Err()
}

// nodeIn is the node that a path of the API names, or "".
func nodeIn(path string) string {
	rest, ok := strings.CutPrefix(path, Base+"/nodes/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}
