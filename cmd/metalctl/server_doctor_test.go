//go:build !ramdisk

package main

import (
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// TestDoctorOfCanaries: doctor tells of each ramdisk whose canary was stopped, with why and what ends it, and of no other.
func TestDoctorOfCanaries(t *testing.T) {
	db := contract.OpenStore(t)
	p := &physician{db: db}
	canary := func(class, stopped string) fleet.Rollout {
		return fleet.Rollout{Class: class, Current: strings.Repeat("a", 64), Canary: &fleet.Canary{Ramdisk: strings.Repeat("b", 64), StopAfter: 1, Stopped: stopped}}
	}
	var writes []fleet.Write
	for _, r := range []fleet.Rollout{canary("", "2 boots failed, the last: n1"), canary("hgx", "1 boots failed, the last: n2"), canary("fine", ""), {Class: "plain", Current: strings.Repeat("a", 64)}} {
		writes = append(writes, fleet.Write{Key: fleet.KeyOf(fleet.KindRollout, fleet.RolloutID(r.Class)), Value: r})
	}
	if got := p.canaries(t.Context()); got != nil {
		t.Errorf("of none it tells %+v", got)
	}
	if _, err := db.Commit(t.Context(), fleet.Change{Writes: writes}); err != nil {
		t.Fatal(err)
	}
	got := p.canaries(t.Context())
	if len(got) != 2 {
		t.Fatalf("it tells %+v", got)
	}
	for i, want := range []struct{ text, hint string }{
		{"ramdisk bbbbbbbbbbbb for all classes without a rollout of their own was stopped, and its nodes boot aaaaaaaaaaaa again: 2 boots failed, the last: n1", "metalctl ramdisk rollback"},
		{"ramdisk bbbbbbbbbbbb for class hgx was stopped, and its nodes boot aaaaaaaaaaaa again: 1 boots failed, the last: n2", "metalctl ramdisk rollback --class hgx"},
	} {
		if f := got[i]; f.Check != "ramdisk" || f.Level != api.LevelWarning || !strings.HasSuffix(f.Text, want.text) || !strings.HasSuffix(f.Hint, want.hint) {
			t.Errorf("got %+v", f)
		}
	}
}
