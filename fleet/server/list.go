package server

import (
	"cmp"
	"context"
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

// listed is a page of what read finds, by name.
func listed[T any](ctx context.Context, s *Server, in Paging, name func(T) string, read func(fleet.Snapshot) ([]T, error)) (*plain[api.List[T]], error) {
	var all []T
	var rev fleet.Revision
	err := s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		rev = sn.Revision()
		all, err = read(sn)
		return err
	})
	if err != nil {
		return nil, err
	}
	out, err := page(all, in, false, func(v T) mark { return mark{name(v), ""} })
	out.Revision = rev
	return &plain[api.List[T]]{out}, err
}

// listOf is a page of the records of a kind, by name.
func listOf[T any](ctx context.Context, s *Server, kind string, in Paging, name func(T) string) (*plain[api.List[T]], error) {
	return listed(ctx, s, in, name, func(sn fleet.Snapshot) ([]T, error) { return fleet.List[T](sn, kind) })
}

// viewsOf is what view makes of each record of a kind.
func viewsOf[R, V any](sn fleet.Snapshot, kind string, view func(fleet.Snapshot, R, fleet.Revision) (V, error)) ([]V, error) {
	var out []V
	var bad error
	err := eachRecord(sn, kind, func(r R, rev fleet.Revision) {
		v, err := view(sn, r, rev)
		out, bad = append(out, v), cmp.Or(bad, err)
	})
	return out, cmp.Or(bad, err)
}

// viewOf is what view makes of the record of a kind that has that name, or unknown where there is none.
func viewOf[R, V any](ctx context.Context, s *Server, kind, name string, view func(fleet.Snapshot, R, fleet.Revision) (V, error), unknown *fleet.Error) (v V, rev fleet.Revision, err error) {
	err = s.Store.View(ctx, func(sn fleet.Snapshot) error {
		r, at, err := fleet.Get[R](sn, fleet.KeyOf(kind, name))
		if fleet.KindOf(err) == fleet.NotFound {
			return unknown
		}
		if err == nil {
			v, err = view(sn, r, at)
		}
		rev = at
		return err
	})
	return v, rev, err
}

// oneOf is the one among what read finds that is meant, or unknown where there is none.
func oneOf[V any](ctx context.Context, s *Server, read func(fleet.Snapshot) ([]V, error), is func(V) bool, unknown *fleet.Error) (v V, err error) {
	err = s.Store.View(ctx, func(sn fleet.Snapshot) error {
		all, err := read(sn)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, is)
		if i < 0 {
			return unknown
		}
		v = all[i]
		return nil
	})
	return v, err
}
