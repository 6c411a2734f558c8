//go:build !ramdisk

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// stopInput watches the file by which a building stops all load: while it is there load is stopped, and what stopped stays so until a person resumes.
type stopInput struct {
	path  string
	store fleet.Store
	stop  func(ctx context.Context, r api.LoadStopCreate, by string) (fleet.LoadStop, error)
	log   *slog.Logger
}

// stopInputEvery leaves an agent four of the five seconds in which load is to end.
const stopInputEvery = time.Second

// run looks at the file until ctx ends. A stop that cannot be stored is tried again.
func (x *stopInput) run(ctx context.Context) error {
	if x.path == "" {
		return nil
	}
	tick := time.NewTicker(stopInputEvery)
	defer tick.Stop()
	for {
		if err := x.look(ctx); err != nil && ctx.Err() == nil {
			x.log.Error("the input that stops load is raised, and the stop cannot be stored", "file", x.path, "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// look stops load where the file is there and has not done so yet.
func (x *stopInput) look(ctx context.Context) error {
	r, raised := x.raised()
	if !raised {
		return nil
	}
	stands := false
	err := x.store.View(ctx, func(s fleet.Snapshot) error {
		stops, err := fleet.LoadStops(s)
		stands = slices.ContainsFunc(stops, func(s fleet.LoadStop) bool { return s.Input == x.path })
		return err
	})
	if err != nil || stands {
		return err
	}
	const by = "the building"
	_, err = x.stop(ctx, r, by)
	if !r.All && fleet.KindOf(err) == fleet.Invalid { // what it names is not understood: then it is everything
		r.All, r.Selector = true, ""
		_, err = x.stop(ctx, r, by)
	}
	return err
}

// raised reads the file. Its text says whose load ends, as rack=r7; none is everything. What cannot be read counts as raised.
func (x *stopInput) raised() (api.LoadStopCreate, bool) {
	r := api.LoadStopCreate{All: true, Reason: "the input " + x.path + " is raised", Input: x.path}
	f, err := os.Open(x.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, false
	}
	if err != nil {
		r.Reason = fmt.Sprintf("the input cannot be read: %v", err)
		return r, true
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil {
		r.Reason = fmt.Sprintf("the input cannot be read: %v", err)
		return r, true
	}
	if selector := strings.TrimSpace(string(text)); selector != "" {
		r.All, r.Selector = false, selector
	}
	return r, true
}
