//go:build !ramdisk

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

func serverCheck(p *program) *cobra.Command {
	var file, dataDir, keyFile, backup string
	c := &cobra.Command{
		Use: "check", Short: "Check the store of a stopped server, or a backup, for consistency", Args: exactly(),
		Long: `Check reads the whole store in one pass: pages, records, unique names, leases against nodes, operations, sizes, blobs against their digests, secrets, event
ids, and the store's lives. It changes nothing and repairs nothing. With --backup it restores a backup into a temporary place beside it and checks that
instead, which a running server does not mind.

Exit code 0: consistent; 9: what is wrong is printed, a line each.`,
		Example: "  metalctl server check --data-dir /var/lib/metalctl\n  metalctl server check --backup /mnt/backup/metalctl.tar --key-file /etc/metalctl/master.key",
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := loadServerConfig(file)
			if err != nil {
				return err
			}
			if dataDir != "" {
				cfg.DataDir = dataDir
			}
			if keyFile != "" {
				cfg.KeyFile = keyFile
			}
			if err := cfg.check(); err != nil {
				return err
			}
			key, err := store.LoadKey(cfg.KeyFile)
			if err != nil {
				return err
			}
			var problems []store.Problem
			what := "store"
			if backup != "" {
				what = "backup"
				if problems, err = checkBackup(c, backup, key); err != nil {
					return err
				}
			} else {
				if _, err := os.Stat(filepath.Join(cfg.DataDir, "store.db")); errors.Is(err, fs.ErrNotExist) {
					return fleet.Errorf(fleet.NotFound, "MC-STORE-ABSENT", "there is no store in %s", cfg.DataDir).WithHint("give the server's --data-dir or --config")
				}
				db, err := store.Open(cfg.DataDir, store.Options{Key: key, AnyRole: true, Backups: cfg.BackupDir, Log: slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
				if err != nil {
					return err
				}
				problems = db.Check(c.Context())
				if err := db.Close(); err != nil {
					return err
				}
			}
			for _, pr := range problems {
				fmt.Fprintln(p.stdout, printable(strings.TrimSpace(fmt.Sprint(pr))))
			}
			if len(problems) > 0 {
				return &exitError{exitDiffers, fmt.Errorf("the %s has %d inconsistencies", what, len(problems))}
			}
			fmt.Fprintf(p.stderr, "the %s is consistent\n", what)
			return nil
		},
	}
	c.Flags().StringVar(&file, "config", "", "configuration file of the server")
	c.Flags().StringVar(&dataDir, "data-dir", "", "folder of the store")
	c.Flags().StringVar(&keyFile, "key-file", "", "file with the key that seals secrets")
	c.Flags().StringVar(&backup, "backup", "", "check this backup, a file or a folder, instead of the data folder")
	return c
}

// checkBackup unpacks an archive beside it and checks it, or checks a folder.
func checkBackup(c *cobra.Command, backup string, key []byte) ([]store.Problem, error) {
	if info, err := os.Stat(backup); err == nil && info.IsDir() {
		_, problems, err := store.VerifyBackup(c.Context(), filepath.Clean(backup), key)
		return problems, err
	}
	f, err := os.Open(backup)
	if err != nil {
		return nil, fleet.Errorf(fleet.NotFound, "MC-STORE-BACKUP", "open the backup: %w", err).WithHint("give a file that metalctl server backup wrote")
	}
	defer f.Close()
	tmp, err := os.MkdirTemp(filepath.Dir(backup), ".check-*")
	if err != nil {
		return nil, fmt.Errorf("unpack the backup: %w", err)
	}
	defer os.RemoveAll(tmp)
	dir := filepath.Join(tmp, "backup")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("unpack the backup: %w", err)
	}
	if _, err := store.ReadArchive(c.Context(), f, dir); err != nil {
		return nil, err
	}
	_, problems, err := store.VerifyBackup(c.Context(), dir, key)
	return problems, err
}
