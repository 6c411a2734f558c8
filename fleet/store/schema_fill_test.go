package store_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/reconcile"
)

// schemaTime is when everything in a store of testdata was made.
var schemaTime = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

// kinds are the records of each kind that rooms share, by a value of their type. What a room keeps for itself (meta/, secrets) it tests itself.
var kinds = map[string]func() any{
	fleet.KindNode: func() any { return &fleet.Node{} }, fleet.KindOperation: func() any { return &fleet.Operation{} },
	fleet.KindLease: func() any { return &fleet.Lease{} }, fleet.KindClass: func() any { return &fleet.Class{} },
	fleet.KindImage: func() any { return &fleet.Image{} }, fleet.KindPack: func() any { return &fleet.Pack{} },
	fleet.KindSite: func() any { return &fleet.Site{} }, fleet.KindFreeze: func() any { return &fleet.Freeze{} },
	fleet.KindHarm: func() any { return &fleet.HarmRecord{} }, fleet.KindApproval: func() any { return &fleet.Approval{} },
	fleet.KindToken: func() any { return &fleet.Token{} }, fleet.KindClaim: func() any { return &reconcile.Claim{} },
	fleet.KindUnique: func() any { return new(string) }, fleet.KindCA: func() any { return new(string) },
}

// filled returns a T none of whose fields is zero, so that the file of a schema shows every field that there was.
func filled[T any]() T {
	var v T
	fillAll(reflect.ValueOf(&v).Elem(), "")
	return v
}

func fillAll(v reflect.Value, name string) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(schemaTime))
		return
	case v.Type() == reflect.TypeFor[json.RawMessage]():
		v.Set(reflect.ValueOf(json.RawMessage(`{"a":1}`)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(name)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint16, reflect.Uint64:
		v.SetUint(7)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillAll(v.Elem(), name)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fillAll(v.Index(0), name)
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		e := reflect.New(v.Type().Elem()).Elem()
		fillAll(e, name)
		m.SetMapIndex(reflect.ValueOf("k").Convert(v.Type().Key()), e)
		v.Set(m)
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				fillAll(v.Field(i), tag)
			}
		}
	default:
		panic("fill: " + v.Type().String())
	}
}
