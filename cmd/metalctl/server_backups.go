//go:build !ramdisk

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/store"
)

// backups keeps backups of the store in a folder: hourly ones by itself, others when asked. Each is restored and checked before it counts.
type backups struct {
	db    *store.DB
	key   []byte
	dir   string
	every time.Duration // 0: none by itself
	// keep is how many of each sort are kept.
	keep int
	now  func() time.Time
	log  *slog.Logger

	mu sync.Mutex // one at a time is made or removed
}

// checkedName is the file beside a backup's manifest that says what its check found.
const checkedName = "checked.json"

type checkedBackup struct {
	At      time.Time `json:"at"`
	Problem string    `json:"problem,omitempty"`
}

var backupName = regexp.MustCompile(`^([0-9]{8}T[0-9]{6}Z-(hourly|asked)(-[0-9]+)?|(schema)[0-9]+-r[0-9]+[a-z0-9]*)$`)

// Make implements server.Backups. A backup that is not sound is an error, an event, and stays for whoever wants to know why.
func (b *backups) Make(ctx context.Context, why string) (api.Backup, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out, err := b.make(ctx, why)
	if err == nil && out.Problem != "" {
		err = fleet.Errorf(fleet.Broken, "MC-STORE-UNSOUND", "the backup %s cannot be relied on: %s", out.Name, out.Problem).
			WithHint("look at the disk (dmesg), stop the server, then: metalctl server check")
	}
	if err == nil {
		b.log.Info("backup made and checked", "name", out.Name, "revision", out.Revision, "bytes", out.SizeBytes)
		return out, b.trim(why)
	}
	if ctx.Err() == nil {
		b.log.Error("the store has no fresh backup", "err", err)
		b.tell(ctx, err)
	}
	return out, err
}

// tell leaves an event. A store that takes no more writes has said so already.
func (b *backups) tell(ctx context.Context, why error) {
	text := why.Error()
	if len(text) > 500 {
		text = text[:500] + "…"
	}
	_, err := b.db.Commit(ctx, fleet.Change{Events: []fleet.Event{{Type: "store.backup-failed", At: b.now().UTC(), Subject: "meta/backup", Text: "backup failed: " + text}}})
	if err != nil {
		b.log.Error("record that a backup failed", "err", err)
	}
}

func (b *backups) make(ctx context.Context, why string) (api.Backup, error) {
	name := b.now().UTC().Format("20060102T150405Z") + "-" + why
	for i := 2; exists(filepath.Join(b.dir, name)); i++ {
		name = fmt.Sprintf("%s-%s-%d", b.now().UTC().Format("20060102T150405Z"), why, i)
	}
	dir := filepath.Join(b.dir, name)
	if _, err := b.db.Backup(ctx, dir, version); err != nil {
		return api.Backup{}, err
	}
	_, problems, err := store.VerifyBackup(ctx, dir, b.key)
	debug.FreeOSMemory() // the check read the whole store once more
	if ctx.Err() != nil {
		return api.Backup{}, ctx.Err()
	}
	found := checkedBackup{At: b.now().UTC().Truncate(time.Second)}
	switch {
	case err != nil:
		found.Problem = err.Error()
	case len(problems) > 0:
		found.Problem = fmt.Sprintf("%d things do not hold, the first: %s", len(problems), problems[0])
	}
	text, err := json.Marshal(found)
	if err != nil {
		return api.Backup{}, fmt.Errorf("record the check of a backup: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, checkedName), text, 0o600); err != nil {
		return api.Backup{}, fmt.Errorf("record the check of a backup: %w", err)
	}
	return readBackup(b.dir, name)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// readBackup reads what a backup says of itself.
func readBackup(dir, name string) (api.Backup, error) {
	m, err := store.UnmarshalManifest(filepath.Join(dir, name))
	if err != nil {
		return api.Backup{}, err
	}
	out := api.Backup{Name: name, MadeAt: m.MadeAt, Revision: m.Identity.Revision, Generation: m.Identity.Generation(), Epoch: m.Identity.Epoch(),
		Schema: m.Schema, Blobs: len(m.Files) - 1}
	if match := backupName.FindStringSubmatch(name); match != nil {
		out.Why = match[2] + match[4]
	}
	for _, f := range m.Files {
		out.SizeBytes += f.SizeBytes
	}
	text, err := os.ReadFile(filepath.Join(dir, name, checkedName))
	var found checkedBackup
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return out, fmt.Errorf("read the check of a backup: %w", err)
	case json.Unmarshal(text, &found) == nil:
		out.CheckedAt, out.Problem = found.At, found.Problem
	}
	return out, nil
}

// List implements server.Backups.
func (b *backups) List(context.Context) ([]api.Backup, error) {
	entries, err := os.ReadDir(b.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fleet.Errorf(fleet.Broken, "MC-SERVER-DATADIR", "list backups: %w", err).WithHint("look at backup_dir and its disk")
	}
	out := []api.Backup{}
	for _, e := range entries {
		if !e.IsDir() || !backupName.MatchString(e.Name()) {
			continue
		}
		one, err := readBackup(b.dir, e.Name())
		if err != nil {
			one = api.Backup{Name: e.Name(), CheckedAt: b.now().UTC(), Problem: err.Error()}
		}
		out = append(out, one)
	}
	slices.SortStableFunc(out, func(x, y api.Backup) int { return y.MadeAt.Compare(x.MadeAt) })
	return out, nil
}

// Write implements server.Backups.
func (b *backups) Write(ctx context.Context, name string, w io.Writer) error {
	if !backupName.MatchString(name) {
		return fleet.Errorf(fleet.NotFound, "MC-BACKUP-UNKNOWN", "there is no backup %q", name)
	}
	return store.WriteArchive(ctx, filepath.Join(b.dir, name), w)
}

// trim removes the oldest of a sort over what is kept, and never the newest sound one of all.
func (b *backups) trim(why string) error {
	all, err := b.List(context.Background())
	if err != nil {
		return err
	}
	newestSound, kept := true, 0
	for _, x := range all {
		spare := x.Sound() && newestSound
		if x.Sound() {
			newestSound = false
		}
		if x.Why != why {
			continue
		}
		if kept++; kept <= b.keep || spare {
			continue
		}
		if err := os.RemoveAll(filepath.Join(b.dir, x.Name)); err != nil {
			return fleet.Errorf(fleet.Broken, "MC-SERVER-DATADIR", "remove an old backup: %w", err).WithHint("look at backup_dir and its disk")
		}
	}
	return nil
}

// sweep removes what a crash left half-made.
func (b *backups) sweep() error {
	var errs []error
	for _, pattern := range []string{".tmp-*", ".check-*"} {
		left, err := filepath.Glob(filepath.Join(b.dir, pattern))
		errs = append(errs, err)
		for _, dir := range left {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// due is when the next backup is to be made: every so often after the newest, whoever asked for it.
func (b *backups) due() time.Time {
	all, err := b.List(context.Background())
	if err != nil || len(all) == 0 {
		return time.Time{}
	}
	at := all[0].MadeAt
	if at.After(b.now()) {
		return time.Time{} // the clock was set back: a backup from the future says nothing
	}
	return at.Add(b.every)
}

// Run makes backups until ctx ends. One that fails is told and tried again after a while; nothing else stops for it.
func (b *backups) Run(ctx context.Context) error {
	if err := b.sweep(); err != nil {
		b.log.Warn("half-made backups are left", "err", err)
	}
	if b.every == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	wait := max(b.due().Sub(b.now()), 0)
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		wait = b.every
		if _, err := b.Make(ctx, "hourly"); err != nil {
			wait = min(b.every, 10*time.Minute)
		}
	}
}

// whyText is why a backup was made, for people.
func whyText(b api.Backup) string { return strings.TrimSpace(b.Why) }
