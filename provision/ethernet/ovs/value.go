package ovs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Values of OVSDB (RFC 7047 section 5.1): a set of one is written as its element, others as ["set", [...]]; maps are ["map", [[k, v], ...]].

// uuid names a row.
type uuid string

func (u uuid) MarshalJSON() ([]byte, error) { return json.Marshal([]string{"uuid", string(u)}) }

func (u *uuid) UnmarshalJSON(b []byte) error {
	var pair []string
	if err := json.Unmarshal(b, &pair); err != nil || len(pair) != 2 || pair[0] != "uuid" {
		return fmt.Errorf("%s is no uuid", clip(b))
	}
	*u = uuid(pair[1])
	return nil
}

// set is a set in order of its elements, so that two that are equal look equal.
type set[T interface{ ~int | ~string }] []T

func (s set[T]) MarshalJSON() ([]byte, error) {
	if len(s) == 1 {
		return json.Marshal(s[0])
	}
	elements := []T(s)
	if elements == nil {
		elements = []T{}
	}
	return json.Marshal([]any{"set", elements})
}

func (s *set[T]) UnmarshalJSON(b []byte) error {
	var tag string
	var list []T
	*s = nil
	if inner, ok := tagged(b, &tag); ok && tag == "set" {
		if err := json.Unmarshal(inner, &list); err != nil {
			return fmt.Errorf("%s is no set: %w", clip(b), err)
		}
	} else {
		list = make([]T, 1)
		if err := json.Unmarshal(b, &list[0]); err != nil {
			return fmt.Errorf("%s is no set: %w", clip(b), err)
		}
	}
	slices.Sort(list)
	if len(list) > 0 {
		*s = list
	}
	return nil
}

// dict is a map of strings.
type dict map[string]string

func (d dict) MarshalJSON() ([]byte, error) {
	pairs := [][2]string{}
	for _, k := range slices.Sorted(maps.Keys(d)) {
		pairs = append(pairs, [2]string{k, d[k]})
	}
	return json.Marshal([]any{"map", pairs})
}

func (d *dict) UnmarshalJSON(b []byte) error {
	var tag string
	var pairs [][]string
	inner, ok := tagged(b, &tag)
	if !ok || tag != "map" || json.Unmarshal(inner, &pairs) != nil {
		return fmt.Errorf("%s is no map", clip(b))
	}
	*d = dict{}
	for _, p := range pairs {
		if len(p) != 2 {
			return fmt.Errorf("%s is no map", clip(b))
		}
		(*d)[p[0]] = p[1]
	}
	return nil
}

// tagged splits ["tag", value].
func tagged(b []byte, tag *string) (json.RawMessage, bool) {
	if t := bytes.TrimSpace(b); len(t) == 0 || t[0] != '[' {
		return nil, false
	}
	var pair []json.RawMessage
	if json.Unmarshal(b, &pair) != nil || len(pair) != 2 || json.Unmarshal(pair[0], tag) != nil {
		return nil, false
	}
	return pair[1], true
}

// clip is the beginning of what somebody sent, for a message.
func clip(b []byte) string {
	if len(b) > 80 {
		return fmt.Sprintf("%q and so on", b[:80])
	}
	return fmt.Sprintf("%q", b)
}
