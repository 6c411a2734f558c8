package redfish

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Limits on what a BMC may send; beyond them its answer is an error (DSP0266 sets none).
const (
	maxBody    = 8 << 20
	maxDepth   = 64
	maxMembers = 1000
	maxPages   = 50
)

var (
	errNoJSON  = errors.New("not JSON")
	errTooDeep = fmt.Errorf("JSON is nested deeper than %d", maxDepth)
)

// checkJSON tells well-formed JSON of bearable depth, without recursion.
func checkJSON(b []byte) error {
	depth, inString, escaped := 0, false, false
	for _, c := range b {
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped = c == '\\'
			inString = c != '"'
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return errTooDeep
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	if !json.Valid(b) {
		return errNoJSON
	}
	return nil
}

// resource is one JSON object of a BMC with what its answer's headers said of it. Getters return the zero value for what is
// absent, null or of another type.
type resource struct {
	uri   string
	raw   []byte
	obj   map[string]any
	tags  []string
	allow string
}

func parseResource(uri string, r *response) (*resource, error) {
	if err := checkJSON(r.body); err != nil {
		return nil, fmt.Errorf("%s: %w", uri, err)
	}
	dec := json.NewDecoder(bytes.NewReader(r.body))
	dec.UseNumber()
	res := &resource{uri: uri, raw: r.body, allow: r.header.Get("Allow")}
	if err := dec.Decode(&res.obj); err != nil || res.obj == nil {
		return nil, fmt.Errorf("%s: not a JSON object", uri)
	}
	res.tags = tagForms(r.header.Get("ETag"), res.str("@odata.etag"))
	return res, nil
}

func dig(v any, path ...string) any {
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

func (r *resource) at(path ...string) any { return dig(r.obj, path...) }

func (r *resource) has(path ...string) bool {
	m, ok := dig(r.obj, path[:len(path)-1]...).(map[string]any)
	if !ok {
		return false
	}
	_, ok = m[path[len(path)-1]]
	return ok
}

func (r *resource) str(path ...string) string { return text(r.at(path...)) }

func (r *resource) strs(path ...string) []string { return texts(r.at(path...)) }

func (r *resource) boolean(path ...string) (value, ok bool) {
	value, ok = r.at(path...).(bool)
	return value, ok
}

func (r *resource) number(path ...string) int {
	n, ok := r.at(path...).(json.Number)
	if !ok {
		return 0
	}
	i, err := n.Int64()
	if err != nil || i < 0 || i > 1<<31 {
		return 0
	}
	return int(i)
}

// link returns the address behind {"@odata.id": …} at path, on this BMC, or "".
func (r *resource) link(path ...string) string { return linkOf(r.at(path...)) }

// links returns the addresses of a list of links (or of one link), at most maxMembers.
func (r *resource) links(path ...string) []string {
	v := r.at(path...)
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var all []string
	for _, one := range list {
		if len(all) == maxMembers {
			break
		}
		if l := linkOf(one); l != "" {
			all = append(all, l)
		}
	}
	return all
}

func linkOf(v any) string {
	s, ok := v.(string)
	if !ok {
		s = text(dig(v, "@odata.id"))
	}
	l, err := localPath(s)
	if err != nil {
		return ""
	}
	return l
}

// action returns the target of the action called name ("ComputerSystem.Reset") and its object, also below Actions.Oem.
// A vendor's action may carry any prefix ("EID_674_Manager.ImportSystemConfiguration"), so OEM names match by their end.
func (r *resource) action(name string) (string, map[string]any) {
	if m, ok := r.at("Actions", "#"+name).(map[string]any); ok {
		if l := linkOf(m["target"]); l != "" {
			return l, m
		}
	}
	return findAction(r.at("Actions", "Oem"), name, 0)
}

func findAction(v any, name string, depth int) (string, map[string]any) {
	m, ok := v.(map[string]any)
	if !ok || depth > 3 {
		return "", nil
	}
	for key, one := range m {
		if a, ok := one.(map[string]any); ok {
			if l := linkOf(a["target"]); l != "" && strings.HasSuffix(key, name) {
				return l, a
			}
			if l, a := findAction(one, name, depth+1); l != "" {
				return l, a
			}
		}
	}
	return "", nil
}

// localPath reduces a link to a path on the BMC that is being talked to. A link to elsewhere, or one that is no link, is an
// error: bodies of a BMC must not send us (and our token) anywhere else.
func localPath(s string) (string, error) {
	if s == "" || len(s) > 2048 {
		return "", errors.New("no link")
	}
	u, err := url.Parse(s)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || !strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "//") {
		return "", fmt.Errorf("link %q does not lead to a path on this BMC", printable(s, 80))
	}
	p := u.EscapedPath()
	if strings.Contains(p, "/../") || strings.HasSuffix(p, "/..") {
		return "", fmt.Errorf("link %q climbs", printable(s, 80))
	}
	if u.RawQuery != "" {
		p += "?" + u.RawQuery
	}
	return p, nil
}

// pathOfLocation takes the path of a Location header. Behind address translation a BMC names itself by an address that
// is not ours; the path is used on our own connection, so nothing is ever sent there.
func pathOfLocation(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	u.Scheme, u.Host, u.User, u.Opaque = "", "", nil, ""
	p, err := localPath(u.String())
	if err != nil {
		return ""
	}
	return p
}

// typed decodes a resource into one of gofish's schema types. Where a property has a type that the schema forbids, that
// property is left out instead of losing the whole resource.
func typed[T any](r *resource) *T {
	v := new(T)
	if json.Unmarshal(r.raw, v) == nil {
		return v
	}
	kept := map[string]any{}
	for key, value := range r.obj {
		one, err := json.Marshal(map[string]any{key: value})
		if err == nil && json.Unmarshal(one, new(T)) == nil {
			kept[key] = value
		}
	}
	v = new(T)
	if b, err := json.Marshal(kept); err == nil {
		if json.Unmarshal(b, v) != nil {
			return new(T)
		}
	}
	return v
}
