package redfish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Bounds of a recording. An HGX tree has some 3,000 resources.
const (
	maxRecorded      = 5000
	maxRecordedBytes = 64 << 20
	maxLogEntries    = 20
)

// Recording is one redacted crawl: what a BMC answers to a read of each of its resources.
type Recording struct {
	Version   int                       `json:"version"`
	Root      string                    `json:"root"`
	Truncated bool                      `json:"truncated,omitempty"`
	Resources map[string]RecordedAnswer `json:"resources"`
}

// RecordedAnswer is one answer. Body is JSON as it came, or a string where it was not JSON.
type RecordedAnswer struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    json.RawMessage   `json:"body,omitempty"`
}

var recordedHeaders = []string{"Allow", "Content-Type", "ETag", "Link", "Location", "OData-Version", "Retry-After"}

// Record crawls a BMC by reads, one at a time, and writes a Recording as one JSON document: passwords, user names, tokens and
// image addresses are hidden, sessions and accounts left out. Serial numbers, MAC addresses and logs' first entries stay, as
// they are what a replay needs; look through it before giving it away.
func Record(ctx context.Context, b *BMC, w io.Writer) error {
	rec := Recording{Version: 1, Root: rootURI, Resources: map[string]RecordedAnswer{}}
	queue := []string{rootURI}
	queued := map[string]bool{strings.TrimSuffix(rootURI, "/"): true}
	size := 0
	for len(queue) > 0 {
		uri := queue[0]
		queue = queue[1:]
		if len(rec.Resources) == maxRecorded || size > maxRecordedBytes {
			rec.Truncated = true
			break
		}
		answer, links, err := b.recordOne(ctx, uri)
		if err != nil {
			return explain(err, "record "+uri)
		}
		rec.Resources[uri] = answer
		size += len(answer.Body)
		for _, l := range links {
			key := strings.TrimSuffix(l, "/")
			if strings.Contains(key, "/LogServices/HostLogger/") {
				continue // a console tells what a tenant's system said
			}
			if !queued[key] && len(queued) < 2*maxRecorded {
				queued[key] = true
				queue = append(queue, l)
			}
		}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(rec); err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	return nil
}

// recordOne reads one resource. A refusal is part of the recording; a BMC that does not answer at all ends it.
func (b *BMC) recordOne(ctx context.Context, uri string) (RecordedAnswer, []string, error) {
	r, err := b.call(ctx, request{method: http.MethodGet, uri: uri})
	if e := AsError(err); e != nil {
		var known *fleet.Error
		if errors.As(err, &known) { // a credential that was refused
			return RecordedAnswer{}, nil, err
		}
		return RecordedAnswer{Status: e.Status}, nil, nil
	}
	if err != nil {
		return RecordedAnswer{}, nil, err
	}
	a := RecordedAnswer{Status: r.status, Headers: map[string]string{}}
	for _, h := range recordedHeaders {
		if v := r.header.Get(h); v != "" {
			a.Headers[h] = b.wire.scrub.text(v)
		}
	}
	safe := b.wire.scrub.body(r.body)
	if checkJSON([]byte(safe)) != nil {
		a.Body, err = json.Marshal(safe)
		return a, nil, err
	}
	a.Body = json.RawMessage(safe)
	var v any
	if err := json.Unmarshal(r.body, &v); err != nil {
		return a, nil, nil
	}
	links := crawlLinks(v, nil)
	if strings.HasSuffix(strings.TrimSuffix(uri, "/"), "/Entries") {
		links = links[:min(len(links), maxLogEntries)]
	}
	return a, links, nil
}

// crawlLinks collects the addresses in a body, without action targets, fragments, sessions, accounts and schema files.
func crawlLinks(v any, found []string) []string {
	if len(found) >= 4*maxMembers {
		return found
	}
	switch v := v.(type) {
	case map[string]any:
		if l := linkOf(v); l != "" && crawlable(l) && !slices.Contains(found, l) {
			found = append(found, l)
		}
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			if strings.HasSuffix(k, "nextLink") || k == "@Redfish.ActionInfo" {
				if l := linkOf(v[k]); l != "" && crawlable(l) {
					found = append(found, l)
				}
				continue
			}
			found = crawlLinks(v[k], found)
		}
	case []any:
		for _, one := range v {
			found = crawlLinks(one, found)
		}
	}
	return found
}

func crawlable(uri string) bool {
	if !strings.HasPrefix(uri, "/redfish/") {
		return false
	}
	for _, part := range []string{"/JsonSchemas", "/SessionService/Sessions", "/AccountService/Accounts", "/Sessions/", "/$metadata", "/schemas/"} {
		if strings.Contains(uri, part) {
			return false
		}
	}
	return true
}
