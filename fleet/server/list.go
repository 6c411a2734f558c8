package server

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// Paging is the part of a request that every list has.
type Paging struct {
	Limit    int    `query:"limit" minimum:"0" maximum:"1000" doc:"size of a page; 0 means 500"`
	Continue string `query:"continue" maxLength:"1000" doc:"where the page before said to go on"`
}

const defaultPage = 500

// mark is what a page ends with: where the next begins.
type mark struct {
	Key string `json:"k"`
	ID  string `json:"i"`
}

// page sorts items by key, then id, and cuts the page that p asks for. With desc the order is turned round.
func page[T any](items []T, p Paging, desc bool, at func(T) mark) (api.List[T], error) {
	var out api.List[T]
	order := func(a, b mark) int {
		c := cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.ID, b.ID))
		if desc {
			return -c
		}
		return c
	}
	slices.SortFunc(items, func(a, b T) int { return order(at(a), at(b)) })
	if p.Continue != "" {
		var m mark
		text, err := base64.RawURLEncoding.DecodeString(p.Continue)
		if err != nil || json.Unmarshal(text, &m) != nil {
			return out, fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "the parameter continue is not what a page ended with").WithHint("begin the list anew")
		}
		i, found := slices.BinarySearchFunc(items, m, func(t T, m mark) int { return order(at(t), m) })
		if found {
			i++
		}
		items = items[i:]
	}
	limit := p.Limit
	if limit == 0 {
		limit = defaultPage
	}
	if len(items) > limit {
		items = items[:limit]
		text, err := json.Marshal(at(items[limit-1]))
		if err != nil {
			return out, err
		}
		out.Continue = base64.RawURLEncoding.EncodeToString(text)
	}
	out.Items = slices.Clip(items)
	if out.Items == nil {
		out.Items = []T{}
	}
	return out, nil
}

// sortOrder splits "-created" into key and direction; allowed are the keys that the list knows.
func sortOrder(sort string, allowed ...string) (key string, desc bool, err error) {
	key, desc = strings.CutPrefix(sort, "-")
	if sort == "" {
		return allowed[0], false, nil
	}
	if !slices.Contains(allowed, key) {
		return "", false, fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "cannot sort by %q", shortened(sort)).WithHint("sort by one of: %s", strings.Join(allowed, ", "))
	}
	return key, desc, nil
}
