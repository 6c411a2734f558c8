package store_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// TestKeep: what Keep returns is what decoding would give, and shares nothing with its original that somebody could change.
func TestKeep(t *testing.T) {
	for kind, empty := range kinds {
		if _, ok := empty().(fleet.Keeper); !ok {
			continue
		}
		t.Run(kind, func(t *testing.T) {
			zero := empty()
			same(t, zero, zero.(fleet.Keeper).Keep())

			full := empty()
			fillAll(reflect.ValueOf(full).Elem(), "x")
			kept := full.(fleet.Keeper).Keep()
			same(t, full, kept)

			// A clock of this process reads more than the time.
			running := empty()
			fillAll(reflect.ValueOf(running).Elem(), "x")
			setTimes(reflect.ValueOf(running).Elem(), time.Now().UTC())
			same(t, running, running.(fleet.Keeper).Keep())

			// What is emptied counts as left out.
			bare := empty()
			fillAll(reflect.ValueOf(bare).Elem(), "x")
			emptyAll(reflect.ValueOf(bare).Elem())
			same(t, bare, bare.(fleet.Keeper).Keep())

			want := decoded(t, full)
			spoil(reflect.ValueOf(full).Elem())
			if diff := cmp.Diff(want, kept); diff != "" {
				t.Errorf("a change of the original went through to the copy:\n%s", diff)
			}
		})
	}
}

func same(t *testing.T, original, kept any) {
	t.Helper()
	if want := decoded(t, original); !reflect.DeepEqual(kept, want) {
		t.Errorf("Keep differs from decoding:\n%s", cmp.Diff(want, kept))
	}
}

func decoded(t *testing.T, v any) any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out := reflect.New(reflect.TypeOf(v).Elem())
	if err := json.Unmarshal(b, out.Interface()); err != nil {
		t.Fatal(err)
	}
	return out.Interface()
}

// spoil changes everything that v's copies could share, in place.
func spoil(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("spoilt")
	case reflect.Int, reflect.Int64:
		v.SetInt(-1)
	case reflect.Pointer:
		if !v.IsNil() {
			spoil(v.Elem())
		}
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			return // is replaced as a whole, by rule
		}
		for i := range v.Len() {
			spoil(v.Index(i))
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			v.SetMapIndex(k, reflect.Zero(v.Type().Elem()))
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(schemaTime.Add(time.Hour)))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				spoil(v.Field(i))
			}
		}
	}
}

func setTimes(v reflect.Value, at time.Time) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			setTimes(v.Elem(), at)
		}
	case reflect.Slice:
		for i := range v.Len() {
			setTimes(v.Index(i), at)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(at))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				setTimes(v.Field(i), at)
			}
		}
	}
}

// emptyAll makes lists and maps empty without making them nil, where JSON leaves them out then; inside of others, too.
func emptyAll(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			emptyAll(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			emptyAll(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f, x := v.Type().Field(i), v.Field(i)
			switch {
			case !f.IsExported():
			case strings.HasSuffix(f.Tag.Get("json"), ",omitempty") && x.Kind() == reflect.Map:
				x.Set(reflect.MakeMap(x.Type()))
			case strings.HasSuffix(f.Tag.Get("json"), ",omitempty") && x.Kind() == reflect.Slice && x.Type() != reflect.TypeFor[json.RawMessage]():
				x.Set(reflect.MakeSlice(x.Type(), 0, 0))
			default:
				emptyAll(x)
			}
		}
	}
}
