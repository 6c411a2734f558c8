//go:build !ramdisk

package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/store"
)

// TestStopInput: a file stops load once for as long as its stop stands, and what is not understood or cannot be read stops everything.
func TestStopInput(t *testing.T) {
	for name, c := range map[string]struct {
		make func(path string) error
		want []string
	}{
		"no file":            {func(string) error { return nil }, nil},
		"an empty file":      {func(p string) error { return os.WriteFile(p, nil, 0o600) }, []string{"everything"}},
		"of one rack":        {func(p string) error { return os.WriteFile(p, []byte("rack=r7\n"), 0o600) }, []string{"nodes with rack=r7"}},
		"of nothing known":   {func(p string) error { return os.WriteFile(p, []byte("stop!!"), 0o600) }, []string{"everything"}},
		"it cannot be read":  {func(p string) error { return os.Mkdir(p, 0o700) }, []string{"everything"}},
		"it leads to itself": {func(p string) error { return os.Symlink(p, p) }, []string{"everything"}},
	} {
		t.Run(name, func(t *testing.T) {
			db := contract.OpenStoreIn(t, t.TempDir(), store.Options{})
			path := filepath.Join(t.TempDir(), "epo")
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			loop := reconcile.New(&reconcile.Loop{Store: db, Blobs: db})
			x := &stopInput{path: path, store: db, stop: loop.StopLoad, log: slog.New(slog.DiscardHandler)}
			for range 3 {
				if err := x.look(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			err := db.View(context.Background(), func(s fleet.Snapshot) error {
				stops, err := fleet.LoadStops(s)
				for _, stop := range stops {
					got = append(got, stop.What())
				}
				return err
			})
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Errorf("stops (-want +got): %s %v", diff, err)
			}
		})
	}
}
