//go:build !ramdisk

package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

func TestExpandHosts(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []string
		want []string
	}{
		{"a plain name", []string{"hgx-001"}, []string{"hgx-001"}},
		{"two names", []string{"a,b"}, []string{"a", "b"}},
		{"a range keeps its zeros", []string{"hgx[008-011]"}, []string{"hgx008", "hgx009", "hgx010", "hgx011"}},
		{"ranges and single numbers", []string{"n[1-2,7],x"}, []string{"n1", "n2", "n7", "x"}},
		{"two brackets", []string{"r[1-2]n[3-4]"}, []string{"r1n3", "r1n4", "r2n3", "r2n4"}},
		{"a tail", []string{"n[1-2].example"}, []string{"n1.example", "n2.example"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := expandHosts(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(got, tt.want); d != "" {
				t.Error(d)
			}
		})
	}
	for _, bad := range []string{"", "a,", "a[", "a]", "a[1", "a[x]", "a[3-1]", "a[1-9999999]", "a[1-9][1-99999]", "a[]"} {
		if got, err := expandHosts([]string{bad}); err == nil {
			t.Errorf("%q expanded to %d names", bad, len(got))
		} else if fleet.KindOf(err) != fleet.Invalid || fleet.HintOf(err) == "" {
			t.Errorf("%q: %v is no helpful error", bad, err)
		}
	}
}

func FuzzExpandHosts(f *testing.F) {
	for _, s := range []string{"a[1-3]", "a[01-10,12]b[1-2],c", "[", "a[1-99999][1-99999]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		names, err := expandHosts([]string{s})
		if err != nil {
			return
		}
		for _, n := range names {
			if n == "" || strings.ContainsAny(n, "[]") && !strings.ContainsAny(s, "[]") {
				t.Fatalf("%q gave the name %q", s, n)
			}
		}
	})
}
