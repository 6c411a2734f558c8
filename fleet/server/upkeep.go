package server

import (
	"context"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// Backups makes and keeps backups of the store.
type Backups interface {
	// Make makes a backup, restores it into a temporary place and checks it.
	Make(ctx context.Context, why string) (api.Backup, error)
	// List returns what there is, newest first.
	List(ctx context.Context) ([]api.Backup, error)
	// Write writes the archive of one; NotFound where there is none of that name.
	Write(ctx context.Context, name string, w io.Writer) error
}

// Physician looks at the server itself and at the world.
type Physician interface {
	// Examine says how the server does. It reads what is near and calls no BMC.
	Examine(ctx context.Context) []api.Finding
	// World compares the store with what is outside. It only reads.
	World(ctx context.Context) (api.World, error)
	// Diagnose tells what somebody who helps needs to know of this process, without secrets.
	Diagnose(ctx context.Context) (api.Diagnostics, error)
}

func (r *routes) upkeep() {
	s := r.s
	route(r, http.MethodGet, "/backups", "list-backups", "List the backups that lie on the server", http.StatusOK, s.listBackups)
	route(r, http.MethodPost, "/backups", "make-backup", "Make a backup, restore it into a temporary place and check it", http.StatusCreated, s.makeBackup)
	route(r, http.MethodGet, "/backups/{id}/content", "get-backup-content", "Read a backup as a tar archive", http.StatusOK, s.backupContent)
	route(r, http.MethodGet, "/doctor", "get-doctor", "How the server does: disk, clock, certificate, backups, witness, BMCs", http.StatusOK, s.getDoctor)
	route(r, http.MethodGet, "/diagnostics", "get-diagnostics", "The end of the log, the configuration, versions, goroutines and store statistics, without secrets", http.StatusOK, s.getDiagnostics)
	route(r, http.MethodGet, "/world", "get-world", "What the store believes against what BMCs, agents and the witness show; only reads", http.StatusOK, s.getWorld)
}

func errUnbound(what string) error {
	return fleet.Errorf(fleet.Unavailable, "MC-SERVER-UNBOUND", "this server keeps no %s", what)
}

func (s *Server) listBackups(ctx context.Context, _ *struct{}) (*plain[api.List[api.Backup]], error) {
	if s.Backups == nil {
		return nil, errUnbound("backups")
	}
	all, err := s.Backups.List(ctx)
	return &plain[api.List[api.Backup]]{api.List[api.Backup]{Items: all}}, err
}

func (s *Server) makeBackup(ctx context.Context, _ *struct{}) (*plain[api.Backup], error) {
	if s.Backups == nil {
		return nil, errUnbound("backups")
	}
	b, err := s.Backups.Make(ctx, "asked")
	return &plain[api.Backup]{b}, err
}

func (s *Server) backupContent(ctx context.Context, in *Item) (*huma.StreamResponse, error) {
	if s.Backups == nil {
		return nil, errUnbound("backups")
	}
	all, err := s.Backups.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, b := range all {
		if b.Name != in.ID {
			continue
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			hc.SetHeader("Content-Type", "application/x-tar")
			hc.SetHeader("Cache-Control", "no-store")
			if err := s.Backups.Write(hc.Context(), b.Name, hc.BodyWriter()); err != nil {
				// The status has been sent: the reader must see that the rest is missing.
				s.Log.Warn("a backup was not sent whole", "name", b.Name, "err", err)
				panic(http.ErrAbortHandler)
			}
		}}, nil
	}
	return nil, fleet.Errorf(fleet.NotFound, "MC-BACKUP-UNKNOWN", "there is no backup %q on the server", shortened(in.ID)).WithHint("metalctl server backup --list")
}

func (s *Server) getDoctor(ctx context.Context, _ *struct{}) (*plain[api.Doctor], error) {
	if s.Physician == nil {
		return nil, errUnbound("doctor")
	}
	return &plain[api.Doctor]{api.Doctor{At: s.Now().UTC(), Findings: s.Physician.Examine(ctx)}}, nil
}

func (s *Server) getWorld(ctx context.Context, _ *struct{}) (*plain[api.World], error) {
	if s.Physician == nil {
		return nil, errUnbound("doctor")
	}
	w, err := s.Physician.World(ctx)
	return &plain[api.World]{w}, err
}

func (s *Server) getDiagnostics(ctx context.Context, _ *struct{}) (*plain[api.Diagnostics], error) {
	if s.Physician == nil {
		return nil, errUnbound("diagnostics")
	}
	d, err := s.Physician.Diagnose(ctx)
	return &plain[api.Diagnostics]{d}, err
}

// backupCollector shows the state of the backups, when asked.
type backupCollector struct {
	s                          *Server
	newest, revision, kept, ok *prometheus.Desc
}

func newBackupCollector(s *Server) *backupCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("metalctl_backup_"+name, help, nil, nil)
	}
	return &backupCollector{
		s:        s,
		newest:   desc("sound_timestamp_seconds", "When the newest backup that was restored and found sound was made; 0 where there is none."),
		revision: desc("sound_revision", "The store's revision that it holds."),
		kept:     desc("kept", "How many backups lie on the server."),
		ok:       desc("newest_sound", "1 where the newest backup was restored and found sound."),
	}
}

func (c *backupCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.newest, c.revision, c.kept, c.ok} {
		ch <- d
	}
}

func (c *backupCollector) Collect(ch chan<- prometheus.Metric) {
	all, err := c.s.Backups.List(c.s.ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.kept, err)
		return
	}
	var newest, revision, sound float64
	for i, b := range all {
		if b.Sound() && newest == 0 {
			newest, revision = float64(b.MadeAt.Unix()), float64(b.Revision)
			if i == 0 {
				sound = 1
			}
		}
	}
	for d, v := range map[*prometheus.Desc]float64{c.newest: newest, c.revision: revision, c.kept: float64(len(all)), c.ok: sound} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
}
