//go:build !ramdisk

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/store"
)

// savedBackup is what `server backup` prints.
type savedBackup struct {
	File   string `json:"file"`
	SHA256 string `json:"sha256"`
	api.Backup
}

func serverBackup(p *program) *cobra.Command {
	var list bool
	c := &cobra.Command{
		Use: "backup [FILE]", Short: "Back up the store of a running server into a file",
		Long: `Backup has the running server make a consistent copy of its store and its blobs at one revision, restore it into a temporary place and check it
whole. Then it fetches the copy into FILE (default: metalctl-TIME-rREVISION.tar in this folder), compares every part with its digest, and only
then gives the file its name. It needs no stop and no shell on the server.

Secrets in the file are sealed with the server's key file. The key file is not in it, and neither are uploaded images, timelines and the admin
token: save the key file apart from the backups, once.`,
		Example: "  metalctl server backup /mnt/backup/metalctl.tar\n  metalctl server backup --list",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 || list && len(args) > 0 {
				return exactly()(c, args[min(len(args), 1):])
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			if list {
				all, err := cl.Backups(c.Context())
				if err != nil {
					return err
				}
				return backupView.print(p, all, false)
			}
			file := ""
			if len(args) > 0 {
				file = args[0]
			}
			saved, err := saveBackup(c.Context(), cl, file)
			if err != nil {
				return err
			}
			fmt.Fprintf(p.stderr, "backed up revision %d into %s; the key file is not in it\n", saved.Revision, saved.File)
			return savedView.print(p, []savedBackup{saved}, true)
		},
	}
	c.Flags().BoolVar(&list, "list", false, "list the backups that lie on the server")
	return c
}

var savedView = view[savedBackup]{name: func(s savedBackup) string { return "backup/" + s.Name }, columns: []column[savedBackup]{
	{"FILE", false, func(s savedBackup) string { return s.File }},
	{"REVISION", false, func(s savedBackup) string { return strconv.FormatInt(int64(s.Revision), 10) }},
	{"SIZE", false, func(s savedBackup) string { return bytesText(s.SizeBytes) }},
	{"SHA256", false, func(s savedBackup) string { return s.SHA256 }},
}}

var backupView = view[api.Backup]{name: func(b api.Backup) string { return "backup/" + b.Name }, columns: []column[api.Backup]{
	{"NAME", false, func(b api.Backup) string { return b.Name }},
	{"WHY", false, whyText},
	{"MADE", false, func(b api.Backup) string { return b.MadeAt.UTC().Format(time.RFC3339) }},
	{"REVISION", false, func(b api.Backup) string { return strconv.FormatInt(int64(b.Revision), 10) }},
	{"SIZE", false, func(b api.Backup) string { return bytesText(b.SizeBytes) }},
	{"SOUND", false, func(b api.Backup) string {
		switch {
		case b.Problem != "":
			return "no: " + b.Problem
		case b.CheckedAt.IsZero():
			return "not checked"
		}
		return "yes"
	}},
	{"GENERATION", true, func(b api.Backup) string { return strconv.Itoa(b.Generation) }},
	{"SCHEMA", true, func(b api.Backup) string { return strconv.FormatUint(b.Schema, 10) }},
	{"BLOBS", true, func(b api.Backup) string { return strconv.Itoa(b.Blobs) }},
}}

// backupFetcher is the server that a backup comes from.
type backupFetcher interface {
	MakeBackup(context.Context) (api.Backup, error)
	DownloadBackup(ctx context.Context, name string, w io.Writer) error
}

// saveBackup makes a backup and fetches it. The file has its name only when every part of it was compared with its digest.
func saveBackup(ctx context.Context, from backupFetcher, file string) (saved savedBackup, err error) {
	if file != "" && exists(file) {
		return saved, fleet.Errorf(fleet.Conflict, "MC-CLI-EXISTS", "%s exists already", file).WithHint("give another name: a backup overwrites nothing")
	}
	if saved.Backup, err = from.MakeBackup(ctx); err != nil {
		return saved, err
	}
	if file == "" {
		file = fmt.Sprintf("metalctl-%s-r%d.tar", saved.MadeAt.UTC().Format("20060102T150405Z"), saved.Revision)
	}
	saved.File = file
	tmp, err := os.CreateTemp(filepath.Dir(file), ".metalctl-backup-*")
	if err != nil {
		return saved, fmt.Errorf("write the backup: %w", err)
	}
	defer os.Remove(tmp.Name())
	h := sha256.New()
	err = from.DownloadBackup(ctx, saved.Name, io.MultiWriter(tmp, h))
	if err = errors.Join(err, tmp.Sync()); err != nil {
		return saved, errors.Join(fmt.Errorf("write the backup: %w", err), tmp.Close())
	}
	// What is compared is what the file system gives back, not what was received.
	if _, err = tmp.Seek(0, io.SeekStart); err == nil {
		_, err = store.ReadArchive(ctx, tmp, "")
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return saved, err
	}
	saved.SHA256 = hex.EncodeToString(h.Sum(nil))
	if err := os.Link(tmp.Name(), file); err != nil { // a rename would overwrite
		return saved, fmt.Errorf("name the backup: %w", err)
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return saved, fmt.Errorf("sync the backup's folder: %w", err)
	}
	return saved, errors.Join(dir.Sync(), dir.Close())
}

type restoreOptions struct {
	file, dataDir, keyFile string
	moveAside              bool
}

func serverRestore(p *program) *cobra.Command {
	var o restoreOptions
	c := &cobra.Command{
		Use: "restore FILE", Short: "Put a backup in the place of a stopped server's store",
		Long: `Restore unpacks FILE beside the data folder's store, compares every part with its digest, opens it with the key file and checks it whole. Only then is
it put in its place. FILE is what "server backup" wrote, or a folder in DATA_DIR/backups. A store that is there is refused; with --move-aside it
is kept in DATA_DIR/aside-TIME.

A backup does not know what happened after it: who was given a node since, and which one runs a tenant's system now. So the server that is
started on it is frozen: it observes, and writes nothing to BMCs, switches and fabrics until somebody has compared the store with the world
(metalctl doctor --world) and thawed it, node by node (metalctl thaw NODE).`,
		Example: "  metalctl server restore /mnt/backup/metalctl.tar --data-dir /var/lib/metalctl --key-file /etc/metalctl/master.key --move-aside",
		Args:    exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			return o.run(c.Context(), p, args[0])
		},
	}
	f := c.Flags()
	f.StringVar(&o.file, "config", "", "configuration file of the server")
	f.StringVar(&o.dataDir, "data-dir", "", "folder of the store")
	f.StringVar(&o.keyFile, "key-file", "", "file with the key that seals secrets")
	f.BoolVar(&o.moveAside, "move-aside", false, "keep a store that is there in DATA_DIR/aside-TIME instead of refusing")
	return c
}

func (o *restoreOptions) run(ctx context.Context, p *program, backup string) error {
	cfg, err := loadServerConfig(o.file)
	if err != nil {
		return err
	}
	if o.dataDir != "" {
		cfg.DataDir = o.dataDir
	}
	if o.keyFile != "" {
		cfg.KeyFile = o.keyFile
	}
	if err := cfg.check(); err != nil {
		return err
	}
	key, err := store.LoadKey(cfg.KeyFile)
	if err != nil {
		return err
	}
	r, err := store.Restore(ctx, backup, cfg.DataDir, store.RestoreOptions{Key: key, MoveAside: o.moveAside, By: whoRuns()})
	if err != nil {
		return err
	}
	if r.Aside != "" {
		fmt.Fprintf(p.stderr, "the store that was there is kept in %s\n", r.Aside)
	}
	fmt.Fprintf(p.stderr, "restored: %s. The server will start frozen.\n  next: start it, then: metalctl doctor --world\n", r.Manifest.Text())
	_, err = fmt.Fprintf(p.stdout, "%s\trevision %d\tgeneration %d\n", cfg.DataDir, r.Identity.Revision, r.Identity.Generation())
	return err
}

// whoRuns is the local user, for records of what was done without a server.
func whoRuns() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "uid " + strconv.Itoa(os.Getuid())
}
