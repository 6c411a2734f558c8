package hgx

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
)

// object is one JSON object of a BMC. Getters return the zero value for what is absent, null or of another type; numbers may be written as strings, as
// the baseboard's controller does in its reports.
type object map[string]any

func decode(b []byte) (object, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var o object
	if err := d.Decode(&o); err != nil || o == nil {
		return nil, errors.New("not a JSON object")
	}
	return o, nil
}

func (o object) at(keys ...string) any {
	var v any = map[string]any(o)
	for _, k := range keys {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[k]
	}
	return v
}

// str is a text of at most 200 printable bytes.
func (o object) str(keys ...string) string {
	s, _ := o.at(keys...).(string)
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return -1
		}
		return r
	}, s))
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "")
	}
	return s
}

func (o object) flag(keys ...string) bool {
	b, _ := o.at(keys...).(bool)
	return b
}

func (o object) maybe(keys ...string) *bool {
	if b, ok := o.at(keys...).(bool); ok {
		return &b
	}
	return nil
}

// number is a finite number, also one in a string.
func (o object) number(keys ...string) (float64, bool) {
	s := ""
	switch v := o.at(keys...).(type) {
	case json.Number:
		s = v.String()
	case string:
		s = strings.TrimSpace(v)
	default:
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && !math.IsNaN(f) && !math.IsInf(f, 0)
}

// count is a number that is not negative and fits.
func (o object) count(keys ...string) *int64 {
	f, ok := o.number(keys...)
	if !ok || f < 0 || f > 1<<53 {
		return nil
	}
	n := int64(f)
	return &n
}

// link is the address behind {"@odata.id": …}; without keys the object's own.
func (o object) link(keys ...string) string {
	m, _ := o.at(keys...).(map[string]any)
	s, _ := m["@odata.id"].(string)
	if len(s) > 500 || !strings.HasPrefix(s, "/") {
		return ""
	}
	return s
}

// list is the objects of an array; one object stands for an array of itself.
func (o object) list(keys ...string) (out []object) {
	switch v := o.at(keys...).(type) {
	case map[string]any:
		return []object{v}
	case []any:
		for _, x := range v {
			if m, ok := x.(map[string]any); ok {
				out = append(out, m)
			}
		}
	}
	return out
}
