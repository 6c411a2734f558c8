package opensm_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
)

// twoTenants puts the first two ports into two tenants' partitions.
func (r *rig) twoTenants(t *testing.T, ctx context.Context) {
	t.Helper()
	v, err := r.drivers[0].Observe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.drivers[0].Plan(v, map[string]fleet.Carries{string(r.net.GUID(1, 0)): tenant(1), string(r.net.GUID(2, 0)): tenant(2)})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.drivers[0].Apply(ctx, p); err != nil {
		t.Fatal(err)
	}
	if _, err := r.drivers[0].Verify(ctx, p); err != nil {
		t.Fatal(err)
	}
}

// spoilt are what can be done to the partition file, with what is found before OpenSM has read it.
var spoilt = []struct {
	name  string
	spoil func(path string) error
	opens bool // whether OpenSM then lets all ports speak to each other
}{
	{"the file is missing", os.Remove, true},
	{"the file is empty", func(p string) error { return os.WriteFile(p, nil, 0o600) }, true},
	{"a line is bad", func(p string) error { return appendTo(p, "a=0x101: node-7=full;\n") }, true},
	{"somebody added all ports to a tenant's partition", func(p string) error { return appendTo(p, "a=0x101: ALL=full;\n") }, false},
	{"somebody emptied the tenants' partitions", func(p string) error { return os.WriteFile(p, []byte(base), 0o600) }, false},
}

func appendTo(path, text string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, text...), 0o600)
}

// guard finds a spoilt file, before and after the daemon has read it, refuses to plan on it, and brings back what was there.
func guard(t *testing.T, ctx context.Context, r *rig, reload func() error) {
	r.twoTenants(t, ctx)
	before := tables(t, r.drivers[0])
	for _, s := range spoilt {
		for _, read := range []bool{false, true} {
			if err := s.spoil(r.path); err != nil {
				t.Fatal(err)
			}
			want := []string{"MC-FABRIC-FILE"}
			if read {
				if err := reload(); err != nil {
					t.Fatal(err)
				}
				if s.opens {
					want = append(want, "MC-FABRIC-OPEN")
				}
				if cmp.Equal(before, tables(t, r.drivers[0])) {
					t.Errorf("%s: no table changed, so that nothing is tested", s.name)
				}
			}
			v, err := r.drivers[0].Observe(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, findings(v)); d != "" {
				t.Errorf("%s, read %t: findings (-want +got):\n%s", s.name, read, d)
			}
			if _, err := r.drivers[0].Plan(v, map[string]fleet.Carries{string(r.net.GUID(3, 0)): tenant(3)}); fleet.KindOf(err) != fleet.Conflict {
				t.Errorf("%s, read %t: a plan was made: %v", s.name, read, err)
			}
			v, mended, err := r.drivers[1].Guard(ctx)
			if err != nil || !mended || v.Stops() != nil {
				t.Fatalf("%s, read %t: mended %t, %v, %+v", s.name, read, mended, err, v.Findings)
			}
			if d := cmp.Diff(before, tables(t, r.drivers[0])); d != "" {
				t.Errorf("%s, read %t: tables (-want +got):\n%s", s.name, read, d)
			}
		}
	}
	if _, mended, err := r.drivers[0].Guard(ctx); mended || err != nil {
		t.Errorf("nothing was wrong: mended %t, %v", mended, err)
	}
}

func TestGuardEmulated(t *testing.T) {
	r, e := emulated(t)
	guard(t, t.Context(), r, func() error { return e.Reload(must(e.Find())) })
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestGuardReal(t *testing.T) {
	if testing.Short() {
		t.Skip("long: a real OpenSM with files that were spoilt")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	r := startReal(t, small(), "")
	r.adopt(t, ctx)
	guard(t, ctx, r.rig, func() error { return r.sm.Reload(ctx) })

	limits := fleet.Membership{PKey: fleet.DefaultPKey, Full: true}
	if err := r.sim.SetTable(ctx, r.net.GUID(3, 0), fleet.Carries{Partitions: []fleet.Membership{{PKey: 0x101, Full: true}, limits}}); err != nil {
		t.Fatal(err)
	}
	wantFindings(t, ctx, r.rig, "MC-FABRIC-DRIFT", "MC-FABRIC-OPEN")
	// OpenSM 3.3.23 does not read a table again that it has once written, so that what the owner of a device changes behind its back stays when it is told to
	// read its file. The guard then writes the table itself.
	if _, _, err := r.drivers[0].Guard(ctx); err != nil {
		t.Fatal(err)
	}
	wantFindings(t, ctx, r.rig, "MC-FABRIC-DRIFT", "MC-FABRIC-OPEN")
	if _, mended, err := r.drivers[0].Guard(ctx); err != nil || !mended {
		t.Errorf("a table that a device's owner wrote: mended %t, %v", mended, err)
	}
	wantFindings(t, ctx, r.rig)
}

func wantFindings(t *testing.T, ctx context.Context, r *rig, want ...string) {
	t.Helper()
	v, err := r.drivers[0].Observe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, findings(v), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("findings (-want +got):\n%s\n%+v", d, v.Findings)
	}
}

// TestOtherDaemonReal restarts OpenSM without the file, with another one, and on another port: each is found and named, and nothing is written.
func TestOtherDaemonReal(t *testing.T) {
	if testing.Short() {
		t.Skip("long: a real OpenSM that is restarted")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	r := startReal(t, small(), "")
	r.adopt(t, ctx)
	r.twoTenants(t, ctx)
	before := tables(t, r.drivers[0])
	if err := r.sm.Close(); err != nil {
		t.Fatal(err)
	}
	wantFindings(t, ctx, r.rig, "MC-FABRIC-DAEMON", "MC-FABRIC-SM")
	if d := cmp.Diff(before, tables(t, r.drivers[0])); d != "" {
		t.Errorf("a dead subnet manager changed tables:\n%s", d)
	}
	other := filepath.Join(t.TempDir(), "partitions.conf")
	if err := os.WriteFile(other, []byte(base), 0o600); err != nil {
		t.Fatal(err)
	}
	restart := func(host int, file string) *wires.OpenSM {
		t.Helper()
		sm, err := r.sim.StartSM(ctx, host, 0, file)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := sm.Close(); err != nil {
				t.Errorf("end OpenSM: %v", err)
			}
		})
		return sm
	}
	for _, c := range []struct {
		name string
		host int
		file string
		want []string
	}{
		{"another file", 0, other, []string{"MC-FABRIC-DAEMON", "MC-FABRIC-DRIFT"}},
		{"no file", 0, filepath.Join(t.TempDir(), "none.conf"), []string{"MC-FABRIC-DAEMON", "MC-FABRIC-DRIFT", "MC-FABRIC-OPEN"}},
		{"another port", 1, r.path, []string{"MC-FABRIC-DAEMON", "MC-FABRIC-OPEN", "MC-FABRIC-SM"}},
	} {
		sm := restart(c.host, c.file)
		wantFindings(t, ctx, r.rig, c.want...)
		file := must(os.ReadFile(r.path))
		if _, mended, err := r.drivers[0].Guard(ctx); mended || err != nil {
			t.Errorf("%s: mended %t, %v", c.name, mended, err)
		}
		if string(must(os.ReadFile(r.path))) != string(file) {
			t.Errorf("%s: the guard wrote a file that nobody reads", c.name)
		}
		if err := sm.Close(); err != nil {
			t.Fatal(err)
		}
	}
	restart(0, r.path)
	if v, _, err := r.drivers[0].Guard(ctx); err != nil || v.Stops() != nil {
		t.Fatalf("with our file again: %v, %+v", err, v.Findings)
	}
	after := tables(t, r.drivers[0])
	if d := cmp.Diff(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after))); d != "" {
		t.Errorf("ports:\n%s", d)
	}
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("tables (-want +got):\n%s", d)
	}
}
