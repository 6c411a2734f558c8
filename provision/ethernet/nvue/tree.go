package nvue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// object is a JSON object of an answer; values are object, string, json.Number, bool, nil or []any.
type object = map[string]any

// deepest is how deep an answer may be nested; NVUE's deepest paths have about fifteen levels.
const deepest = 64

// decode reads one JSON object, and nothing behind it. A key that comes twice is refused, as each reader would believe another one. Errors name the place.
func decode(b []byte) (object, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	v, err := value(d, nil)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("something follows behind the end, at byte %d", d.InputOffset())
	}
	o, ok := v.(object)
	if !ok {
		return nil, errors.New("it is no JSON object")
	}
	return o, nil
}

func value(d *json.Decoder, at []string) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, fmt.Errorf("%sno JSON at byte %d: %w", place(at), d.InputOffset(), err)
	}
	open, nested := t.(json.Delim)
	if !nested {
		return t, nil
	}
	if len(at) == deepest {
		return nil, fmt.Errorf("%snested deeper than %d", place(at), deepest)
	}
	if open == '[' {
		out := []any{}
		for d.More() {
			v, err := value(d, append(at, fmt.Sprint(len(out))))
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		_, err = d.Token()
		return out, err
	}
	out := object{}
	for d.More() {
		k, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("%sno key at byte %d: %w", place(at), d.InputOffset(), err)
		}
		key := k.(string) // the decoder lets nothing else be a key
		if _, twice := out[key]; twice {
			return nil, fmt.Errorf("%sthe key %q comes twice", place(at), key)
		}
		if out[key], err = value(d, append(at, key)); err != nil {
			return nil, err
		}
	}
	if _, err = d.Token(); err != nil {
		return nil, fmt.Errorf("%sno end at byte %d: %w", place(at), d.InputOffset(), err)
	}
	return out, nil
}

func place(at []string) string {
	if len(at) == 0 {
		return ""
	}
	return strings.Join(at, ".") + ": "
}

// sub is the object at a path, nil where it or something on the way is absent or null. Something else than an object there is an error.
func sub(o object, path ...string) (object, error) {
	for i, k := range path {
		v := o[k]
		if v == nil {
			return nil, nil
		}
		next, ok := v.(object)
		if !ok {
			return nil, fmt.Errorf("%sis no object", place(path[:i+1]))
		}
		o = next
	}
	return o, nil
}

// text is the string at a path of o, "" where there is none.
func text(o object, path ...string) (string, error) {
	last := len(path) - 1
	o, err := sub(o, path[:last]...)
	if err != nil || o[path[last]] == nil {
		return "", err
	}
	s, ok := o[path[last]].(string)
	if !ok {
		return "", fmt.Errorf("%sis no text", place(path))
	}
	return s, nil
}

// choice is a value that the API writes as a string or, in older releases, as an object with one key.
func choice(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case object:
		if len(v) == 1 {
			return slices.Collect(maps.Keys(v))[0], true
		}
	}
	return "", false
}

// keys are those of o, in order.
func keys(o object) []string { return slices.Sorted(maps.Keys(o)) }
