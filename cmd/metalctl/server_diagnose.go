//go:build !ramdisk

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/store"
)

// stackBytes bounds the stacks that are shown one by one.
const stackBytes = 1 << 20

// Diagnose implements server.Physician. What leaves is without the secrets that this server knows, by their texts, and without what looks like one.
func (p *physician) Diagnose(ctx context.Context) (api.Diagnostics, error) {
	d := api.Diagnostics{At: p.now().UTC(), Versions: versions(), Process: p.process()}
	known, err := p.secrets(ctx)
	if err != nil {
		return d, err
	}
	hide := hider(known)
	// What is known first: what looks like a secret may end before it does.
	clean := func(b []byte) string { return string(redact([]byte(hide.Replace(string(b))))) }
	s, err := p.db.Stats(ctx)
	if err != nil {
		return d, err
	}
	d.Store = api.StoreStats{Identity: s.Identity, Schema: s.Schema, SizeBytes: s.Size, FreeBytes: s.Free, Kinds: amounts(s.Kinds), Blobs: amounts(s.Blobs),
		Events: api.Amount(s.Events), Timelines: api.Amount(s.Timelines)}
	config, err := p.cfg.shown()
	if err != nil {
		return d, err
	}
	d.Config = clean(config)
	tail, dropped := p.ring.tail()
	d.Log, d.LogDropped = clean(tail), dropped
	d.Goroutines = clean(stacks())
	return d, nil
}

// secrets are the texts of everything that the store seals and of the files that hold a secret.
func (p *physician) secrets(ctx context.Context) ([]string, error) {
	var out []string
	err := p.db.View(ctx, func(s fleet.Snapshot) error {
		out = nil
		sealed, err := fleet.List[string](s, fleet.KindSecret)
		for _, text := range sealed {
			out = append(out, secretsIn(text)...)
		}
		return err
	})
	for _, file := range []string{filepath.Join(p.cfg.DataDir, "admin.token"), p.cfg.WitnessTokenFile, p.cfg.KeyFile} {
		if file == "" {
			continue
		}
		// A file that is gone is no reason to show nothing: what was in it looks like a token.
		if b, err := os.ReadFile(file); err == nil {
			out = append(out, string(b))
		}
	}
	return out, err
}

func amounts(from map[string]store.Amount) map[string]api.Amount {
	to := make(map[string]api.Amount, len(from))
	for k, a := range from {
		to[k] = api.Amount(a)
	}
	return to
}

// shown is the configuration as YAML, without what addresses carry of users, passwords and signatures.
func (c serverConfig) shown() ([]byte, error) {
	c.Witness = append([]string(nil), c.Witness...)
	for i, w := range c.Witness {
		u, err := url.Parse(w)
		switch {
		case err != nil:
			c.Witness[i] = hidden
		case u.User != nil || u.RawQuery != "" || u.Fragment != "":
			c.Witness[i] = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String() + " (" + hidden + ")"
		}
	}
	b, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("print the configuration: %w", err)
	}
	return b, nil
}

func versions() api.Versions {
	v := api.Versions{Program: version, Commit: commit(), Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Agent: api.AgentVersion, Modules: map[string]string{}}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		v.System += " " + strings.TrimSpace(string(b))
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			v.Modules[m.Path] = m.Version
		}
	}
	return v
}

func (p *physician) process() api.ProcessStats {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s := api.ProcessStats{StartedAt: p.began.UTC(), CPUs: runtime.GOMAXPROCS(0), Goroutines: runtime.NumGoroutine(), HeapBytes: int64(m.HeapAlloc), OSBytes: int64(m.Sys), OpenFiles: -1}
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		s.OpenFiles = len(open)
	}
	return s
}

// stacks are those of all goroutines: equal ones together, so that thousands are a page; then one by one, which says how long each has waited.
func stacks() []byte {
	var b bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		fmt.Fprintf(&b, "not written whole: %v\n", err)
	}
	each := make([]byte, stackBytes)
	n := runtime.Stack(each, true)
	b.WriteString("\n")
	b.Write(each[:n])
	if n == len(each) {
		b.WriteString("\n… cut here\n")
	}
	return b.Bytes()
}
