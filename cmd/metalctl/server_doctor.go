//go:build !ramdisk

package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/standby"
	"github.com/metalctl/metalctl/fleet/store"
	"github.com/metalctl/metalctl/fleet/witness"
)

// physician looks at the server itself and at the world.
type physician struct {
	cfg     serverConfig
	db      *store.DB
	bmcs    *bmcs
	kept    *backups
	ring    *logRing
	standby *actingSide
	agents  agentsUp
	now     func() time.Time
	// witnesses writes the logs outside of the store.
	witnesses *witness.Follower
	// began is when the process began by the clock, ran how long ago that was by one that nobody sets.
	began time.Time
	ran   func() time.Duration
}

// ranSince measures by the clock that nobody sets.
func ranSince(began time.Time) func() time.Duration {
	return func() time.Duration { return time.Since(began) }
}

// Examine implements server.Physician.
func (p *physician) Examine(ctx context.Context) []api.Finding {
	var out []api.Finding
	seen := map[string]bool{}
	for _, at := range []struct{ what, dir string }{{"data folder", p.cfg.DataDir}, {"backup folder", p.cfg.BackupDir}} {
		if f, fs := diskFinding(at.what, at.dir); !seen[fs] {
			seen[fs] = true
			out = append(out, f)
		}
	}
	out = append(out, p.log()...)
	out = append(out, p.clock(), p.certificate(), p.backups(ctx), p.witness(ctx), p.nodes(ctx), p.held(ctx), p.frozen(ctx), p.second(ctx), p.arbiter(ctx))
	return append(out, p.canaries(ctx)...)
}

// diskFinding looks at the space of a folder's file system, and says which file system that is.
func diskFinding(what, dir string) (api.Finding, string) {
	f := api.Finding{Check: "disk", Level: api.LevelOK}
	for !exists(dir) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir) // a folder that is not made yet will be where its parent is
	}
	var fs syscall.Statfs_t
	var st syscall.Stat_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return api.Finding{Check: "disk", Level: api.LevelUnknown, Text: fmt.Sprintf("the %s %s: %v", what, dir, err)}, dir
	}
	if err := syscall.Stat(dir, &st); err != nil {
		return api.Finding{Check: "disk", Level: api.LevelUnknown, Text: fmt.Sprintf("the %s %s: %v", what, dir, err)}, dir
	}
	free, total := int64(fs.Bavail)*int64(fs.Bsize), int64(fs.Blocks)*int64(fs.Bsize)
	f.Text = fmt.Sprintf("%s of %s free for the %s %s", bytesText(free), bytesText(total), what, dir)
	switch {
	case free < 256<<20 || fs.Files > 0 && fs.Ffree < 100:
		f.Level = api.LevelCritical
	case free < 2<<30 || free < 8<<30 && free*20 < total:
		f.Level = api.LevelWarning
	}
	if f.Level != api.LevelOK {
		f.Hint = "free space, or move backup_dir to another disk; a full disk refuses every write"
	}
	return f, fmt.Sprint(st.Dev)
}

func (p *physician) clock() api.Finding {
	now := p.now()
	stepped := now.Round(0).Sub(p.began.Round(0)) - p.ran()
	f := api.Finding{Check: "clock", Level: api.LevelOK, Text: fmt.Sprintf("%s; it has not been set since the server started", now.UTC().Format(time.RFC3339))}
	if stepped > 5*time.Second || stepped < -5*time.Second {
		f.Level, f.Text = api.LevelWarning, fmt.Sprintf("%s; it was set by %s since the server started", now.UTC().Format(time.RFC3339), stepped.Round(time.Second))
		f.Hint = "look at NTP: timedatectl; no lease and no grace ends by a clock that stepped"
	}
	return f
}

func (p *physician) certificate() api.Finding {
	b, err := os.ReadFile(filepath.Join(p.cfg.DataDir, "ca.pem"))
	if err != nil {
		return api.Finding{Check: "certificate", Level: api.LevelUnknown, Text: err.Error()}
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return api.Finding{Check: "certificate", Level: api.LevelUnknown, Text: "ca.pem holds no certificate", Hint: "start the server again: it writes the file"}
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return api.Finding{Check: "certificate", Level: api.LevelUnknown, Text: "ca.pem: " + err.Error(), Hint: "start the server again: it writes the file"}
	}
	f := api.Finding{Check: "certificate", Level: api.LevelOK, Text: "the server's authority is good until " + ca.NotAfter.UTC().Format(time.DateOnly)}
	if left := ca.NotAfter.Sub(p.now()); left < 90*24*time.Hour {
		f.Level, f.Hint = api.LevelWarning, "clients and BMCs trust it by ca.pem: plan the change"
		if left < 0 {
			f.Level = api.LevelCritical
		}
	}
	return f
}

func (p *physician) backups(ctx context.Context) api.Finding {
	all, err := p.kept.List(ctx)
	if err != nil {
		return api.Finding{Check: "backups", Level: api.LevelUnknown, Text: err.Error()}
	}
	hint := "metalctl server backup --list; make one now: metalctl server backup"
	for i, b := range all {
		if !b.Sound() {
			continue
		}
		age := p.now().Sub(b.MadeAt)
		f := api.Finding{Check: "backups", Level: api.LevelOK, Text: fmt.Sprintf("the newest sound one is %s old, of revision %d; %d are kept", age.Round(time.Minute), b.Revision, len(all))}
		switch {
		case i > 0:
			f.Level, f.Hint = api.LevelCritical, hint
			f.Text += fmt.Sprintf("; a newer one is not: %s", orText(all[0].Problem, "it was not checked"))
		case p.kept.every > 0 && age > 2*p.kept.every+10*time.Minute, p.kept.every == 0 && age > 48*time.Hour:
			f.Level, f.Hint = api.LevelWarning, hint
		}
		return f
	}
	if len(all) == 0 && p.now().Sub(p.began) < 10*time.Minute {
		return api.Finding{Check: "backups", Level: api.LevelOK, Text: "none yet: the server has just started", Hint: hint}
	}
	return api.Finding{Check: "backups", Level: api.LevelCritical, Text: fmt.Sprintf("none of %d is sound", len(all)), Hint: hint}
}

func orText(s, or string) string {
	if s == "" {
		return or
	}
	return s
}

func (p *physician) witness(ctx context.Context) api.Finding {
	if len(p.witnesses.Logs) == 0 {
		return api.Finding{Check: "witness", Level: api.LevelWarning, Text: "no log is kept outside of the store; only BMCs that take an asset tag testify",
			Hint: "set witness: [/mnt/elsewhere/metalctl.witness] in the server's configuration"}
	}
	id, err := p.db.Identity(ctx)
	if err != nil {
		return api.Finding{Check: "witness", Level: api.LevelUnknown, Text: err.Error()}
	}
	var nodes []fleet.Node
	err = p.db.View(ctx, func(s fleet.Snapshot) (err error) {
		nodes, err = fleet.List[fleet.Node](s, fleet.KindNode)
		return err
	})
	if err != nil {
		return api.Finding{Check: "witness", Level: api.LevelUnknown, Text: err.Error()}
	}
	v, _ := unresolved(witness.Compare(ctx, id, p.witnesses.Logs), nodes)
	f := api.Finding{Check: "witness", Text: v.Text, Level: map[fleet.Testimony]string{fleet.Agrees: api.LevelOK, fleet.Stale: api.LevelCritical, fleet.Silent: api.LevelUnknown}[v.Testimony]}
	if f.Level != api.LevelOK {
		f.Hint = "metalctl doctor --world"
	}
	for _, b := range p.witnesses.Behind() {
		if f.Level == api.LevelOK {
			f.Level = api.LevelWarning
		}
		f.Text += fmt.Sprintf("; %s has taken no line since %s, and %d wait: %v", b.Log, b.Since.Format(time.RFC3339), b.Lines, b.Err)
		f.Hint = "look at that log's disk or server; it is tried again each minute"
		if fleet.NoSpace(b.Err) {
			f.Hint = "free space there: df -h " + filepath.Dir(b.Log) + "; the lines are written within a minute then"
		}
	}
	return f
}

// log tells where the process's own log does not get through; nothing where it does.
func (p *physician) log() []api.Finding {
	lost, since, err := p.ring.lost()
	if err == nil {
		return nil
	}
	return []api.Finding{{Check: "log", Level: api.LevelWarning, Text: fmt.Sprintf("%d lines of the server's log could not be written since %s: %v; the newest %s of it are in memory", lost, since.UTC().Format(time.RFC3339), err, bytesText(ringBytes)),
		Hint: "free space where the server's stderr is written to; what is in memory: metalctl support-bundle"}}
}

// canaries tells of ramdisks that were stopped because the nodes that tried them failed; nothing where there is none.
func (p *physician) canaries(ctx context.Context) []api.Finding {
	var rollouts []fleet.Rollout
	err := p.db.View(ctx, func(s fleet.Snapshot) (err error) {
		rollouts, err = fleet.List[fleet.Rollout](s, fleet.KindRollout)
		return err
	})
	if err != nil {
		return []api.Finding{{Check: "ramdisk", Level: api.LevelUnknown, Text: err.Error()}}
	}
	var out []api.Finding
	for _, r := range rollouts {
		c := r.Canary
		if c == nil || c.Stopped == "" {
			continue
		}
		of, class := "all classes without a rollout of their own", ""
		if r.Class != "" {
			of, class = "class "+r.Class, " --class "+r.Class
		}
		out = append(out, api.Finding{Check: "ramdisk", Level: api.LevelWarning,
			Text: fmt.Sprintf("the canary of ramdisk %s for %s was stopped, and its nodes boot %s again: %s", fleet.Ramdisk{SHA256: c.Ramdisk}.Name(), of, fleet.Ramdisk{SHA256: r.Current}.Name(), c.Stopped),
			Hint: "metalctl ramdisk list; then end it: metalctl ramdisk rollback" + class})
	}
	return out
}

// nodes sums up what is known of BMCs without asking any.
func (p *physician) nodes(ctx context.Context) api.Finding {
	var nodes []fleet.Node
	err := p.db.View(ctx, func(s fleet.Snapshot) (err error) {
		nodes, err = fleet.List[fleet.Node](s, fleet.KindNode)
		return err
	})
	if err != nil {
		return api.Finding{Check: "bmcs", Level: api.LevelUnknown, Text: err.Error()}
	}
	var closed, faulty []string
	simulated := 0
	for _, n := range nodes {
		if n.Simulated {
			simulated++
		}
		if p.bmcs.Breaker(n.ID) != "" {
			closed = append(closed, n.Name)
		}
		for _, f := range n.Faults {
			if strings.HasPrefix(f.Component, "bmc") {
				faulty = append(faulty, n.Name)
				break
			}
		}
	}
	all := fmt.Sprintf("%d nodes", len(nodes))
	if simulated > 0 {
		all += fmt.Sprintf(", %d of them simulated", simulated)
	}
	f := api.Finding{Check: "bmcs", Level: api.LevelOK, Text: all + "; no credential is refused, no BMC has a fault"}
	if len(closed)+len(faulty) > 0 {
		f.Level, f.Hint = api.LevelWarning, "metalctl node show NODE; a new password: metalctl bmc credential set NODE"
		f.Text = fmt.Sprintf("%s; credential refused: %s; BMC with a fault: %s", all, someOf(closed), someOf(faulty))
	}
	return f
}

// someOf names a few.
func someOf(names []string) string {
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > 5:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:5], ", "), len(names)-5)
	}
	return strings.Join(names, ", ")
}

// held tells which nodes are held because the store may know less of them than was done.
func (p *physician) held(ctx context.Context) api.Finding {
	var stale, doubted []string
	err := p.db.View(ctx, func(s fleet.Snapshot) error {
		stale, doubted = nil, nil
		nodes, err := fleet.List[fleet.Node](s, fleet.KindNode)
		for _, n := range nodes {
			switch {
			case n.Fault(fleet.FaultStaleStore, fleet.StaleComponent) != nil:
				stale = append(stale, n.Name)
			case n.Doubted():
				doubted = append(doubted, n.Name)
			}
		}
		return err
	})
	switch {
	case err != nil:
		return api.Finding{Check: "held", Level: api.LevelUnknown, Text: err.Error()}
	case len(stale)+len(doubted) == 0:
		return api.Finding{Check: "held", Level: api.LevelOK, Text: "no node is held because the store may be old"}
	}
	return api.Finding{Check: "held", Level: api.LevelCritical, Hint: "metalctl doctor --world; then node by node: metalctl node explain NODE",
		Text: fmt.Sprintf("held, because a witness knows more than the store: %s; because no witness tells: %s", someOf(stale), someOf(doubted))}
}

// second says how the standby does.
func (p *physician) second(ctx context.Context) api.Finding {
	f := api.Finding{Check: "standby", Level: api.LevelOK, Text: "no second server follows this one"}
	s, err := p.standby.status(ctx)
	switch {
	case err != nil:
		f.Level, f.Text = api.LevelUnknown, err.Error()
	case s.Peer == "":
	case !s.Connected:
		f.Level, f.Hint = api.LevelWarning, "look on that machine; where it is gone for good: metalctl standby forget"
		f.Text = fmt.Sprintf("%s was not heard of for %s: whatever is committed now is lost if this server is", s.Peer, secondsText(s.SilentSeconds))
	case s.LagSeconds > standby.Late.Seconds():
		f.Level, f.Hint = api.LevelWarning, "metalctl standby status"
		f.Text = fmt.Sprintf("%s is %d revisions and %s behind", s.Peer, s.LagRevisions, secondsText(s.LagSeconds))
	default:
		f.Text = s.Peer + " follows"
	}
	return f
}

// arbiter says whether the third party answers, and whether it lets the standby take over.
func (p *physician) arbiter(ctx context.Context) api.Finding {
	f := api.Finding{Check: "arbiter", Level: api.LevelOK, Text: "no arbiter is configured: nobody takes over by itself"}
	s, err := p.standby.status(ctx)
	a := s.Arbiter
	switch {
	case err != nil:
		f.Level, f.Text = api.LevelUnknown, err.Error()
	case a == nil:
	case a.Code == "MC-ARBITER-STRANGER" || a.Code == "MC-ARBITER-TOKEN":
		f.Level, f.Text, f.Hint = api.LevelCritical, a.Problem, "metalctl help "+a.Code
	case !a.Reached:
		f.Level, f.Hint = api.LevelWarning, "start it again; meanwhile nobody takes over by itself"
		f.Text = fmt.Sprintf("%s has not answered for %s: where the standby is gone, too, this server stops acting", a.URL, secondsText(a.SilentSeconds))
	case !a.Needed:
		f.Text = a.URL + " answers; there is no standby to take over"
	case !a.Even:
		f.Level, f.Hint = api.LevelWarning, "metalctl standby status"
		f.Text = a.URL + " answers, and gives the standby no term, as that one lacks more than a second"
	default:
		f.Text = fmt.Sprintf("%s has lent the term %d to %s", a.URL, a.Term, a.Holder)
	}
	return f
}

func (p *physician) frozen(ctx context.Context) api.Finding {
	var freezes []fleet.Freeze
	err := p.db.View(ctx, func(s fleet.Snapshot) (err error) {
		freezes, err = fleet.Freezes(s)
		return err
	})
	switch {
	case err != nil:
		return api.Finding{Check: "freeze", Level: api.LevelUnknown, Text: err.Error()}
	case len(freezes) == 0:
		return api.Finding{Check: "freeze", Level: api.LevelOK, Text: "nothing is frozen"}
	}
	var all []string
	for _, f := range freezes {
		all = append(all, fmt.Sprintf("%s since %s by %s (%s): %s", f.What(), f.Since.UTC().Format(time.RFC3339), f.By, f.Source, f.Reason))
	}
	f := api.Finding{Check: "freeze", Level: api.LevelWarning, Text: strings.Join(all, "; "), Hint: "metalctl doctor --world; then node by node: metalctl thaw NODE --reason TEXT"}
	return f
}
