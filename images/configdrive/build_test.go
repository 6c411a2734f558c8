package configdrive

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

const netData = `{
  "links": [
    {"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:AA:00:01", "mtu": 9000, "name": "eth0"},
    {"id": "b", "type": "phy", "ethernet_mac_address": "52:54:00:aa:00:02"},
    {"id": "bond", "type": "bond", "bond_links": ["b"], "bond_mode": "802.3ad", "bond_miimon": 100, "name": "bond0"},
    {"id": "v", "type": "vlan", "vlan_link": "bond", "vlan_id": 42, "name": "bond0.42"}],
  "networks": [
    {"id": "n0", "link": "a", "type": "ipv4", "ip_address": "10.0.0.5", "netmask": "255.255.255.0", "gateway": "10.0.0.1",
     "routes": [{"network": "10.9.0.0", "netmask": "255.255.0.0", "gateway": "10.0.0.2"}],
     "services": [{"type": "dns", "address": "10.0.0.53"}]},
    {"id": "n1", "link": "v", "type": "ipv6", "ip_address": "fd00::5/64", "gateway": "fd00::1"},
    {"id": "n2", "link": "bond", "type": "ipv4_dhcp"}],
  "services": [{"type": "dns", "address": "9.9.9.9"}]
}`

func content() Content {
	return Content{InstanceID: "6f3c", Hostname: "gpu-1.example", SSHKeys: []string{"ssh-ed25519 AAAAC3Nza me@example"},
		UserData: []byte("#cloud-config\npackages: []\n"), MetaData: map[string]string{"rack": "r1", "role": "train"},
		NetworkData: json.RawMessage(netData), VendorData: json.RawMessage(`{"cloud-init": "#cloud-config\n{}"}`)}
}

// mtools reads the volume as its peer: name of every file with its contents.
func mtools(t *testing.T, img []byte) (label string, files map[string]string) {
	t.Helper()
	tool, err := exec.LookPath("mcopy")
	if err != nil {
		t.Skip("mcopy (package mtools) is not here to read the volume")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "drive")
	if err := os.WriteFile(path, img, 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o700); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command(tool, "-s", "-n", "-i", path, "::*", out).CombinedOutput(); err != nil {
		t.Fatalf("mcopy: %v\n%s", err, b)
	}
	files = map[string]string{}
	if err := filepath.WalkDir(out, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			files[strings.TrimPrefix(p, out+"/")] = string(b)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	b, err := exec.Command("mlabel", "-s", "-i", path, "::").CombinedOutput()
	if err != nil {
		t.Fatalf("mlabel: %v\n%s", err, b)
	}
	if fsck, err := exec.LookPath("fsck.vfat"); err == nil {
		if b, err := exec.Command(fsck, "-n", "-v", path).CombinedOutput(); err != nil {
			t.Errorf("fsck.vfat: %v\n%s", err, b)
		}
	}
	if blkid, err := exec.LookPath("blkid"); err == nil {
		b, err := exec.Command(blkid, "-p", "-o", "value", "-s", "LABEL", path).CombinedOutput()
		if err != nil {
			t.Errorf("blkid: %v\n%s", err, b)
		}
		label = strings.TrimSpace(string(b))
	}
	return label, files
}

func TestTheOpenStackFormHoldsEveryFile(t *testing.T) {
	c := content()
	img, err := Build(c)
	if err != nil {
		t.Fatal(err)
	}
	label, files := mtools(t, img)
	if label != "config-2" {
		t.Errorf("the label is %q, want config-2", label)
	}
	var meta map[string]any
	if err := json.Unmarshal([]byte(files["openstack/latest/meta_data.json"]), &meta); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"uuid": "6f3c", "hostname": "gpu-1.example", "name": "gpu-1.example", "launch_index": 0.0,
		"meta": map[string]any{"rack": "r1", "role": "train"}, "public_keys": map[string]any{"key-0": c.SSHKeys[0]}}
	if diff := cmp.Diff(meta, want); diff != "" {
		t.Error(diff)
	}
	delete(files, "openstack/latest/meta_data.json")
	if diff := cmp.Diff(files, map[string]string{"openstack/latest/user_data": string(c.UserData),
		"openstack/latest/network_data.json": netData, "openstack/latest/vendor_data.json": string(c.VendorData)}); diff != "" {
		t.Error(diff)
	}
	again, err := Build(c)
	if err != nil || !bytes.Equal(again, img) {
		t.Errorf("a second build differs (%v)", err)
	}
}

func TestTheNoCloudFormTranslatesTheNetwork(t *testing.T) {
	c := content()
	c.Form = NoCloud
	img, err := Build(c)
	if err != nil {
		t.Fatal(err)
	}
	label, files := mtools(t, img)
	if label != "CIDATA" {
		t.Errorf("the label is %q, want CIDATA", label)
	}
	if got, want := files["vendor-data"], "#cloud-config\n{}"; got != want {
		t.Errorf("vendor-data is %q, want %q", got, want)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(files["network-config"]), &got); err != nil {
		t.Fatal(err)
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(`{"version": 2,
	  "ethernets": {
	    "eth0": {"mtu": 9000, "match": {"macaddress": "52:54:00:aa:00:01"}, "set-name": "eth0", "addresses": ["10.0.0.5/24"],
	      "routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}, {"to": "10.9.0.0/16", "via": "10.0.0.2"}], "nameservers": {"addresses": ["10.0.0.53", "9.9.9.9"]}},
	    "link1": {"match": {"macaddress": "52:54:00:aa:00:02"}}},
	  "bonds": {"bond0": {"interfaces": ["link1"], "parameters": {"mode": "802.3ad", "mii-monitor-interval": 100}, "dhcp4": true, "nameservers": {"addresses": ["9.9.9.9"]}}},
	  "vlans": {"bond0.42": {"id": 42, "link": "bond0", "addresses": ["fd00::5/64"], "routes": [{"to": "::/0", "via": "fd00::1"}], "nameservers": {"addresses": ["9.9.9.9"]}}}}`), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"meta-data", "user-data"} {
		if files[name] == "" {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestLargeDrivesUpToTheLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 60 MiB")
	}
	c := content()
	c.UserData = bytes.Repeat([]byte("0123456789abcdef"), 60<<16)
	img, err := Build(c)
	if err != nil {
		t.Fatal(err)
	}
	if len(img) > MaxBytes {
		t.Errorf("%d bytes", len(img))
	}
	if _, files := mtools(t, img); files["openstack/latest/user_data"] != string(c.UserData) {
		t.Error("user_data differs")
	}
}

func TestBadContentIsRefusedWithItsPlace(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Content)
		code   string
		says   string
	}{
		{"too large", func(c *Content) { c.UserData = make([]byte, 65<<20) }, "MC-CONFIGDRIVE-SIZE", "user_data 68157440"},
		{"no hostname", func(c *Content) { c.Hostname = "" }, "MC-CONFIGDRIVE-INVALID", "hostname: missing"},
		{"hostname with a blank", func(c *Content) { c.Hostname = "a b" }, "MC-CONFIGDRIVE-INVALID", `"a b"`},
		{"no instance id", func(c *Content) { c.InstanceID = "" }, "MC-CONFIGDRIVE-INVALID", "instance_id: missing"},
		{"a private key", func(c *Content) { c.SSHKeys = []string{"-----BEGIN OPENSSH PRIVATE KEY-----\nx"} }, "MC-CONFIGDRIVE-INVALID", "ssh_keys[0]: this is a private key"},
		{"unknown form", func(c *Content) { c.Form = "ec2" }, "MC-CONFIGDRIVE-INVALID", "form"},
		{"vendor data not JSON", func(c *Content) { c.VendorData = json.RawMessage("{") }, "MC-CONFIGDRIVE-INVALID", "vendor_data: not JSON"},
		{"network data not JSON", func(c *Content) { c.NetworkData = json.RawMessage("[") }, "MC-CONFIGDRIVE-INVALID", "network_data"},
		{"network on no link", func(c *Content) {
			c.NetworkData = json.RawMessage(`{"links":[],"networks":[{"id":"x","link":"nope","type":"ipv4_dhcp"}]}`)
		}, "MC-CONFIGDRIVE-INVALID", `network_data.networks[0].link: no link "nope"`},
		{"bad address", func(c *Content) {
			c.NetworkData = json.RawMessage(strings.Replace(netData, "10.0.0.5", "10.0.0.555", 1))
		}, "MC-CONFIGDRIVE-INVALID", "networks[0].ip_address"},
		{"bad vlan", func(c *Content) { c.NetworkData = json.RawMessage(strings.Replace(netData, "42", "4095", 1)) }, "MC-CONFIGDRIVE-INVALID", "links[3].vlan_id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := content()
			c.change(&in)
			_, err := Build(in)
			if fleet.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v (%s), want %s with %q", err, fleet.CodeOf(err), c.code, c.says)
			}
		})
	}
}

func FuzzNetworkData(f *testing.F) {
	f.Add([]byte(netData))
	f.Add([]byte(`{"links":[{"id":"v","type":"vlan"}]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, errs := ParseNetworkData(b)
		if len(errs) > 0 {
			return
		}
		out, err := d.networkConfig()
		if err != nil || !json.Valid(out) {
			t.Errorf("accepted, but rendered as %q (%v)", out, err)
		}
	})
}
