package server

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden OpenAPI document anew")

// The document that the code generates is the one in the repository: a change of the API is seen in review.
func TestOpenAPIGolden(t *testing.T) {
	doc := (&Server{}).restAPI(http.NewServeMux()).OpenAPI()
	raw, err := json.Marshal(doc)
	must(t, err)
	var got bytes.Buffer
	must(t, json.Indent(&got, raw, "", "  "))
	got.WriteByte('\n')
	const path = "../../docs/openapi.json"
	if *update {
		must(t, os.WriteFile(path, got.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("docs/openapi.json is not what the code says; look, then: go test ./fleet/server -run OpenAPI -update\n%s", diff)
	}
}
