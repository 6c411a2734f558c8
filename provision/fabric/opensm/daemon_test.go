package opensm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

func TestSettings(t *testing.T) {
	confs := map[string]string{defaultConf: "# guid 0x9\nguid 0x0000000000000005\npartition_config_file /etc/p.conf\n", "other.conf": "sm_priority 3\n"}
	for _, c := range []struct {
		name             string
		args             []string
		partitions, port string
	}{
		{"as the package starts it", []string{"opensm"}, "/etc/p.conf", "0x0000000000000005"},
		{"a configuration without either", []string{"opensm", "-F", "other.conf"}, defaultPartitions, ""},
		{"a configuration that is not there", []string{"opensm", "--config=gone.conf"}, defaultPartitions, ""},
		{"options", []string{"opensm", "-P", "a.conf", "-g", "0x7"}, "a.conf", "0x7"},
		{"long options", []string{"opensm", "--Pconfig", "a.conf", "--guid=0x7"}, "a.conf", "0x7"},
		{"an option that is stuck to its value", []string{"opensm", "-Pa.conf", "-g0x7"}, "a.conf", "0x7"},
		{"an option before the configuration", []string{"opensm", "-P", "a.conf", "-F", defaultConf}, "a.conf", "0x0000000000000005"},
		{"the last one of two", []string{"opensm", "-P", "a.conf", "-P", "b.conf"}, "b.conf", "0x0000000000000005"},
	} {
		partitions, port := settings(c.args, func(name string) (string, error) {
			text, ok := confs[name]
			if !ok {
				return "", errors.New("not there")
			}
			return text, nil
		})
		if partitions != c.partitions || port != c.port {
			t.Errorf("%s: %s, %s; want %s, %s", c.name, partitions, port, c.partitions, c.port)
		}
	}
}

func TestStartTime(t *testing.T) {
	stat := "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21"
	if s, err := startTime(stat); err != nil || s != "4711" {
		t.Errorf("%s, %v", s, err)
	}
	if _, err := startTime("7 (opensm) S 1"); err == nil {
		t.Error("a short line has a start time")
	}
}

// process makes a process that is not there.
func process(t *testing.T, proc, pid, comm, cmdline string) {
	t.Helper()
	dir := filepath.Join(proc, pid)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"comm": comm + "\n", "cmdline": cmdline, "stat": pid + " (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 " + pid + "00 20"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"cwd": "/", "root": "/"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFind(t *testing.T) {
	proc := t.TempDir()
	d := Local{Port: fleet.GUIDOf(0x11), Proc: proc}
	process(t, proc, "7", "bash", "opensm\x00-P\x00/a\x00")
	process(t, proc, "8", "opensm", "opensm\x00-F\x00/none\x00-P\x00/b\x00-g\x000x22\x00")
	process(t, proc, "9", "opensm", "") // has ended
	if _, err := d.Find(); fleet.KindOf(err) != fleet.NotFound {
		t.Errorf("none serves the port: %v", err)
	}
	process(t, proc, "10", "opensm", "opensm\x00-F\x00/none\x00-P\x00b/c\x00-g\x000x11\x00")
	p, err := d.Find()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]any{10, "1000", "/b/c"}, []any{p.PID, p.Started, p.Partitions}); d != "" {
		t.Errorf("process (-want +got):\n%s", d)
	}
	process(t, proc, "11", "opensm", "opensm\x00-F\x00/none\x00")
	if _, err := d.Find(); fleet.KindOf(err) != fleet.Conflict {
		t.Errorf("two serve the port: %v", err)
	}
	if err := d.Reload(Process{PID: 10, Started: "999"}); fleet.KindOf(err) != fleet.Conflict {
		t.Errorf("a process that is another by now: %v", err)
	}
}

func TestReads(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	link := filepath.Join(b, "link")
	if err := os.Symlink(a, link); err != nil {
		t.Fatal(err)
	}
	ours := filepath.Join(a, "partitions.conf")
	for path, want := range map[string]bool{ours: true, filepath.Join(link, "partitions.conf"): true, filepath.Join(b, "partitions.conf"): false, filepath.Join(a, "other.conf"): false,
		"/nowhere/partitions.conf": false} {
		if got := (Process{Partitions: path}).Reads(ours); got != want {
			t.Errorf("%s: %t", path, got)
		}
	}
}

// TestGenerate renders what the contract's fabrics do not have: fixed partitions, groups for IP, first places, and several subnet managers.
func TestGenerate(t *testing.T) {
	f := fleet.Fabric{Name: "ib0", SMs: []fleet.GUID{fleet.GUIDOf(2), fleet.GUIDOf(1)}, First: 0x100, Last: 0x1ff, Managed: []fleet.GUID{fleet.GUIDOf(3)}, IPoIB: true, MTU: 4096,
		Fixed: []fleet.Partition{{Name: "s,all:#A", PKey: 0x20, Members: []fleet.PartitionMember{{GUID: fleet.GUIDOf(9), Full: true}}}}}
	c := fleet.InPartitions(fleet.Membership{PKey: 0x100, Full: true})
	c.Index0 = 0x100
	got, err := generate(f, map[fleet.GUID]fleet.Carries{fleet.GUIDOf(3): c})
	if err != nil {
		t.Fatal(err)
	}
	want := `# The fabric ib0. This file is written by a program: changes made by hand are found and undone.
Default=0x7fff: ALL=limited, SELF=full;
Default=0x7fff: 0x0000000000000001=full;
Default=0x7fff: 0x0000000000000002=full;
p0020=0x0020: 0x0000000000000009=full;
p0100=0x0100, ipoib, mtu=5, indx0: 0x0000000000000003=full;
`
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("file (-want +got):\n%s", d)
	}
	f.Fixed[0].Members[0].GUID = "A"
	if _, err := generate(f, map[fleet.GUID]fleet.Carries{fleet.GUIDOf(3): c}); fleet.KindOf(err) != fleet.Broken {
		t.Errorf("a word for a GUID was written: %v", err)
	}
}
