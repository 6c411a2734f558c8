package agent

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/agent/disk"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// tools runs programs and skips where one is not here.
func tools(t *testing.T, names ...string) func(name string, args ...string) string {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			t.Skipf("%s is not installed (Debian packages util-linux, gdisk and mtools)", n)
		}
	}
	return func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
}

// cloud-init takes a file system of type vfat or iso9660 that is labelled cidata or CIDATA and holds user-data and meta-data at its root
// (https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html); it asks blkid for it. A config drive of the other form takes the same place.
func TestCloudInitFindsTheConfigDriveOfEitherForm(t *testing.T) {
	run := tools(t, "sgdisk", "blkid", "mcopy")
	l := newLab(t, 160*mib, "A")
	path := l.disks[0].Path
	run("sgdisk", "-o", "-n", "1:2048:+8M", "-c", "1:root", path)
	l.run()
	params := step.ConfigDriveParams{Root: fleet.RootDiskHints{Serial: "A"}, Accepted: l.accepted("A"), InstanceID: "i-1", Hostname: "n01",
		SSHKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMPbAFLOJgtvLK0Tn3Vy0Ea2fPUPkZFVTNhGmOgYgZxM a"}}
	var places []int64
	for _, c := range []struct {
		form           fleet.ConfigDriveForm
		label, doc, id string
	}{
		{fleet.ConfigDriveNoCloud, "CIDATA", "meta-data", "instance-id"},
		{fleet.ConfigDriveOpenStack, "config-2", "openstack/latest/meta_data.json", "uuid"},
		{fleet.ConfigDriveNoCloud, "CIDATA", "meta-data", "instance-id"},
	} {
		params.Form = c.form
		if ev := l.ok(step.ConfigDrive, params); ev["label"] != c.label {
			t.Errorf("%s: evidence %v", c.form, ev)
		}
		dev, err := disk.Stat("/", path)
		if err != nil {
			t.Fatal(err)
		}
		parts, err := disk.Partitions(dev)
		if err != nil || len(parts) != 2 || parts[1].Name != c.label {
			t.Fatalf("%s: partitions %+v, %v", c.form, parts, err)
		}
		places = append(places, parts[1].StartBytes)
		if table := run("sgdisk", "-v", "-p", path); !strings.Contains(table, c.label) || !strings.Contains(table, "No problems found") {
			t.Errorf("%s: sgdisk says\n%s", c.form, table)
		}
		at := fmt.Sprint(parts[1].StartBytes)
		found := map[string]string{}
		for line := range strings.Lines(run("blkid", "-p", "-O", at, "-S", fmt.Sprint(parts[1].SizeBytes), "-o", "export", path)) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			if k == "LABEL" || k == "TYPE" {
				found[k] = v
			}
		}
		if diff := cmp.Diff(found, map[string]string{"LABEL": c.label, "TYPE": "vfat"}); diff != "" {
			t.Errorf("%s: blkid (-got +want):\n%s", c.form, diff)
		}
		var meta map[string]any
		if err := json.Unmarshal([]byte(run("mcopy", "-n", "-i", path+"@@"+at, "::/"+c.doc, "-")), &meta); err != nil || meta[c.id] != "i-1" {
			t.Errorf("%s: %s is %v, %v", c.form, c.doc, meta, err)
		}
		if c.form == fleet.ConfigDriveNoCloud {
			run("mcopy", "-n", "-i", path+"@@"+at, "::/user-data", "-") // both files must be there, though this one is empty
			if meta["local-hostname"] != "n01" || fmt.Sprint(meta["public-keys"]) != fmt.Sprint(params.SSHKeys) {
				t.Errorf("meta-data: %v", meta)
			}
		}
	}
	if places[0] != places[1] || places[1] != places[2] {
		t.Errorf("the drive moved: %v", places)
	}
}
