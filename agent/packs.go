package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/images/pack"
)

// DefaultPacks is where packs lie on a booted machine: NAME leads to the content of the pack of that name.
const DefaultPacks = "/run/packs"

// storeOfPacks holds each pack under its digest. A folder there is whole: it gets its name last.
const storeOfPacks = ".sha256"

// packEvidence is what fetch-packs shows of one pack.
type packEvidence struct {
	Name    string  `json:"name"`
	Version string  `json:"version"`
	SHA256  string  `json:"sha256"`
	Path    string  `json:"path"`
	KeyID   string  `json:"key_id,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
	// Present: an earlier step of this boot had fetched it.
	Present bool `json:"present,omitempty"`
}

// fetchPacks brings the packs that the class wants from the own server, proves each and puts it into place. What is there already is not fetched again; what
// the class does not want any more loses its name.
func (m *machine) fetchPacks(ctx context.Context, c step.Call) (step.Outcome, error) {
	var p step.PacksParams
	if err := decodeParams(c, &p); err != nil {
		return step.Outcome{}, err
	}
	trust, err := m.packTrust(p.Keys)
	if err != nil {
		return step.Outcome{}, err
	}
	var total, done int64
	for _, k := range p.Packs {
		total += k.SizeBytes
	}
	var list []packEvidence
	names := map[string]bool{}
	for _, k := range p.Packs {
		names[k.Name] = true
		c.Progress("fetching "+k.Name+" "+k.Version, done, total)
		trust.SHA256 = k.SHA256
		var ev packEvidence
		err := m.Home.persist(ctx, func() error {
			client, base, err := m.Home.Client()
			if err != nil {
				return err
			}
			ev, err = m.putPack(ctx, k, trust, pack.Source{Client: client, URL: base + api.AgentPackPath + k.SHA256,
				Progress: func(n int64) { c.Progress("fetching "+k.Name+" "+k.Version, done+n, total) }})
			return err
		})
		if err != nil {
			err = packError(k, err)
			return step.Outcome{Faults: []fleet.Fault{m.packFault(k, err)}}, err
		}
		done += k.SizeBytes
		list = append(list, ev)
	}
	if err := m.dropNames(names); err != nil {
		return step.Outcome{}, err
	}
	return step.Outcome{Evidence: map[string]any{"packs": list}}, nil
}

// packError gives an error of a fetch the pack's name and what to type next.
func packError(k step.PackParams, err error) error {
	e := fleet.Errorf(fleet.KindOf(err), fleet.CodeOf(err), "%w", err)
	if e.Code == "" {
		e.Code = "MC-PACK-FETCH"
	}
	if e.Code == "MC-PACK-FETCH" {
		e = e.WithHint("metalctl pack show %s@%s; then: metalctl node retry NODE", k.Name, k.Version)
	}
	return e
}

func (m *machine) packFault(k step.PackParams, err error) fleet.Fault {
	return fleet.Fault{Code: "MC-FAULT-PACK", Component: "pack/" + k.Name + "@" + k.Version, Severity: fleet.Critical, Since: m.Now().UTC(), Blocks: fleet.BlocksNothing,
		Evidence: shorten(fleet.CodeOf(err)+": "+err.Error(), 300), Hint: fmt.Sprintf("metalctl help %s", fleet.CodeOf(err))}
}

// packTrust is what a pack for this machine must be.
func (m *machine) packTrust(keys []string) (pack.Trust, error) {
	t := pack.Trust{Arch: runtime.GOARCH}
	if len(keys) > 0 {
		var err error
		if t.Keys, err = pack.ParsePublicKeys([]byte(strings.Join(keys, "\n"))); err != nil {
			return t, err
		}
	}
	if s := m.Inspect.System; s != nil {
		t.KernelRelease = s.Kernel
		return t, nil
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return t, fmt.Errorf("read the kernel's release: %w", err)
	}
	t.KernelRelease = unix.ByteSliceToString(u.Release[:])
	return t, nil
}

func (m *machine) packs() string {
	if m.Packs != "" {
		return m.Packs
	}
	return DefaultPacks
}

// putPack fetches a pack unless it is there, and lets its name lead to it.
func (m *machine) putPack(ctx context.Context, k step.PackParams, t pack.Trust, from pack.Source) (packEvidence, error) {
	link := filepath.Join(m.packs(), k.Name)
	ev := packEvidence{Name: k.Name, Version: k.Version, SHA256: k.SHA256, Path: link}
	if k.Name == "" || strings.HasPrefix(k.Name, ".") || strings.ContainsAny(k.Name+k.SHA256, "/\x00") || len(k.SHA256) != 64 {
		return ev, fleet.Errorf(fleet.Invalid, "MC-AGENT-TASK", "%q with digest %q is no pack", k.Name, k.SHA256)
	}
	dir := filepath.Join(m.packs(), storeOfPacks, k.SHA256)
	if _, err := os.Stat(dir); err == nil {
		ev.Present = true
	} else if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return ev, fleet.Errorf(fleet.Broken, "MC-PACK-ROOM", "make the folder for packs: %w", err)
	} else {
		began := m.Now()
		got, err := pack.Install(ctx, from, t, dir)
		if err != nil {
			return ev, err
		}
		if got.Name != k.Name || got.Version != k.Version {
			err := fleet.Errorf(fleet.Broken, "MC-PACK-DAMAGED", "the server sent the pack %s %s for %s %s", got.Name, got.Version, k.Name, k.Version).WithHint("metalctl pack show %s@%s", k.Name, k.Version)
			return ev, errors.Join(err, os.RemoveAll(dir))
		}
		ev.KeyID, ev.Seconds = got.KeyID, m.Now().Sub(began).Seconds()
	}
	return ev, relink(filepath.Join(storeOfPacks, k.SHA256), link)
}

// relink makes link lead to target, without a moment in which it leads nowhere.
func relink(target, link string) error {
	if now, err := os.Readlink(link); err == nil && now == target {
		return nil
	}
	tmp := link + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("name the pack: %w", err)
	}
	if err := os.Symlink(target, tmp); err != nil {
		return fmt.Errorf("name the pack: %w", err)
	}
	if err := os.Rename(tmp, link); err != nil {
		return fmt.Errorf("name the pack: %w", err)
	}
	return nil
}

// dropNames removes the names of packs that are not wanted any more, with what they led to where no other name does.
func (m *machine) dropNames(keep map[string]bool) error {
	entries, err := os.ReadDir(m.packs())
	if err != nil {
		return fmt.Errorf("list the packs: %w", err)
	}
	used := map[string]bool{}
	for _, e := range entries {
		link := filepath.Join(m.packs(), e.Name())
		if e.Type() != os.ModeSymlink {
			continue
		}
		if !keep[e.Name()] {
			if err := os.Remove(link); err != nil {
				return fmt.Errorf("drop a pack: %w", err)
			}
		} else if to, err := os.Readlink(link); err == nil {
			used[filepath.Base(to)] = true
		}
	}
	stored, err := os.ReadDir(filepath.Join(m.packs(), storeOfPacks))
	if err != nil {
		return fmt.Errorf("list the packs: %w", err)
	}
	for _, e := range stored {
		if !used[e.Name()] {
			if err := os.RemoveAll(filepath.Join(m.packs(), storeOfPacks, e.Name())); err != nil {
				return fmt.Errorf("drop a pack: %w", err)
			}
		}
	}
	return nil
}
