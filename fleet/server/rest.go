package server

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// restHandler is the REST API. huma checks bodies and parameters against the Go types, and writes the OpenAPI document from them; handlers are
// plain functions that know nothing of it.
func (s *Server) restHandler() http.Handler {
	mux := http.NewServeMux()
	s.restAPI(mux)
	mux.HandleFunc("/", s.noSuchPath)
	return mux
}

// restAPI registers every route and returns what describes them.
func (s *Server) restAPI(mux *http.ServeMux) huma.API {
	schemas := huma.NewMapRegistry("#/components/schemas/", schemaName)
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{Title: "metalctl", Version: "1", Description: "A fleet of GPU servers: nodes, leases, images, and what becomes of them. " +
				"Errors are RFC 9457 problems with a stable code and a hint. Times are RFC 3339 in UTC."},
			Components: &huma.Components{Schemas: schemas, SecuritySchemes: map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}},
			Security:   []map[string][]string{{"token": {}}},
		},
		OpenAPIPath:                  "/api/openapi",
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{problems},
	}
	// What a request must have is checked by handlers, with a reason; the same types are answers, which always carry everything.
	config.FieldsOptionalByDefault = true
	rest := humago.New(mux, config)
	r := &routes{s: s, api: rest}
	r.nodes()
	r.nodeParts()
	r.freeze()
	r.power()
	r.approvals()
	r.tokens()
	r.operations()
	r.leases()
	r.images()
	r.packs()
	r.ramdisks()
	r.classes()
	r.profiles()
	r.reports()
	r.site()
	r.networks()
	r.events(mux)
	r.capabilities()
	r.upkeep()
	// What the transformer makes of huma's own errors.
	schemas.Map()["Problem"] = huma.SchemaFromType(schemas, reflect.TypeFor[api.Problem]())
	delete(schemas.Map(), "ErrorDetail")
	for _, name := range []string{"ExpectGPUs", "ExpectInfiniBand", "ExpectNVMe"} {
		numberOr(schemas.Map()[name])
	}
	return rest
}

// numberOr lets a schema's place be taken by a number, which stands for its count.
func numberOr(s *huma.Schema) {
	whole := *s
	number := huma.Schema{Type: huma.TypeInteger, Description: "the count alone"}
	number.PrecomputeMessages()
	*s = huma.Schema{OneOf: []*huma.Schema{&number, &whole}}
	s.PrecomputeMessages()
}

// schemaName keeps apart what is stored of an error and what is sent, which has the name of huma's own model.
func schemaName(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case reflect.TypeFor[fleet.Problem]():
		return "StoredProblem"
	case reflect.TypeFor[fleet.Fabric]():
		return "FabricSettings" // the API's own Fabric has what was read of it, too
	case reflect.TypeFor[fleet.Switch]():
		return "SwitchSettings"
	case reflect.TypeFor[fleet.Network]():
		return "NetworkSettings"
	case reflect.TypeFor[fleet.Partition]():
		return "FixedPartition" // the API's own Partition is a tenants'
	case reflect.TypeFor[fleet.Difference]():
		return "InventoryDifference" // the API's own Difference is one between store and world
	case reflect.TypeFor[huma.ErrorModel]():
		return "Problem"
	}
	name := huma.DefaultSchemaNamer(t, hint)
	if t.Kind() == reflect.Struct && strings.HasSuffix(t.PkgPath(), "/topology") {
		name = "Topology" + name // it has nodes and notes of its own
	}
	return name
}

// routes registers operations.
type routes struct {
	s   *Server
	api huma.API
}

// route registers one plain handler.
func route[I, O any](r *routes, method, path, id, summary string, status int, fn func(context.Context, *I) (*O, error)) {
	op := huma.Operation{
		OperationID: id, Method: method, Path: api.Base + path, Summary: summary, DefaultStatus: status, Tags: []string{tagOf(path)},
		// Bodies were read, and bounded, before (see idempotent).
		BodyReadTimeout: -1, MaxBodyBytes: maxBody,
	}
	huma.Register(r.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := fn(ctx, in)
		if err != nil {
			return nil, r.s.refusal(ctx, method, err)
		}
		return out, nil
	})
}

// tagOf is the collection that a path belongs to.
func tagOf(path string) string {
	tag, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	tag, _, _ = strings.Cut(tag, ":")
	return tag
}

// refusal is a problem as huma sends it.
type refusal struct{ api.Problem }

func (r *refusal) Error() string             { return r.Detail }
func (r *refusal) GetStatus() int            { return r.Status }
func (r *refusal) ContentType(string) string { return api.ProblemType }
func (r *refusal) GetHeaders() http.Header {
	if r.Status == http.StatusServiceUnavailable {
		return http.Header{"Retry-After": {"5"}}
	}
	return nil
}

func (s *Server) refusal(ctx context.Context, method string, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = fleet.Errorf(fleet.Unavailable, "MC-API-STOPPING", "the server stops, or the caller has gone").WithHint("ask again")
	}
	p := api.NewProblem(err, instanceFrom(ctx))
	s.logProblem(method, p, err)
	return &refusal{p}
}

// problems turns huma's errors into ours. What was sent is not repeated: it may be a password.
func problems(ctx huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	url := ctx.URL()
	p := api.Problem{Type: "urn:metalctl:problem:MC-API-INVALID", Title: http.StatusText(e.Status), Status: e.Status, Detail: "the request is not valid",
		Instance: url.Path, Code: "MC-API-INVALID", Kind: fleet.Invalid.String(), Hint: "see what is expected: GET /api/openapi.json"}
	if e.Status >= http.StatusInternalServerError {
		p.Code, p.Kind, p.Detail, p.Hint = "MC-API-BROKEN", fleet.Broken.String(), "the server could not do that", "look into the server's log"
		p.Type = "urn:metalctl:problem:MC-API-BROKEN"
		return &refusal{p}, nil
	}
	for _, d := range e.Errors {
		field := strings.TrimPrefix(strings.TrimPrefix(d.Location, "body"), ".")
		if field == "" {
			field = "body"
		}
		p.Errors = append(p.Errors, fleet.FieldError{Field: field, Message: d.Message})
	}
	if len(p.Errors) == 0 {
		p.Detail = e.Detail
	}
	return &refusal{p}, nil
}

// tagged is an object with its entity tag.
type tagged[T any] struct {
	ETag string `header:"ETag"`
	Body T
}

func tag[T any](v T, rev fleet.Revision) *tagged[T] { return &tagged[T]{api.ETag(rev), v} }

// accepted is the answer to what begins something longer.
type accepted[T any] struct {
	Status   int
	Location string `header:"Location"`
	Body     T
}

// plain is an answer that is only a body.
type plain[T any] struct{ Body T }

// Item is the part of a request that names one object. It is exported because huma looks into embedded structs that are.
type Item struct {
	ID string `path:"id" maxLength:"200" doc:"id or name"`
}

// matches refuses a stale If-Match. "*" and "" match everything.
func matches(ifMatch string, rev fleet.Revision) error {
	if ifMatch == "" || ifMatch == "*" || ifMatch == api.ETag(rev) {
		return nil
	}
	return fleet.Errorf(fleet.Conflict, "MC-API-STALE", "the object is at %s and not at %s any more", api.ETag(rev), shortened(ifMatch)).
		WithHint("read it again, then decide again")
}

// faultList collects what is wrong with a request.
type faultList struct{ fields []fleet.FieldError }

func (f *faultList) check(ok bool, field, message string) {
	if !ok {
		f.fields = append(f.fields, fleet.FieldError{Field: field, Message: message})
	}
}

// err is nil where nothing was wrong.
func (f *faultList) err(what string) error {
	if len(f.fields) == 0 {
		return nil
	}
	e := fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "%s is not valid", what)
	e.Fields = f.fields
	return e
}
