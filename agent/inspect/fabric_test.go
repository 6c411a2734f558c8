package inspect

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/metalctl/metalctl/agent/kmsg"
	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

func TestWhoNeedsAFabricManager(t *testing.T) {
	for name, c := range map[string]struct {
		switches []fleet.NVSwitch
		hcas     []fleet.HCA
		want     string
	}{
		"NVSwitches on PCI":               {[]fleet.NVSwitch{{PCIAddress: "0000:05:00.0"}}, nil, "absent"},
		"functions that lead to them":     {nil, []fleet.HCA{{Role: fleet.HCARail}, {Role: fleet.HCAFabric}}, "absent"},
		"bridges between pairs of cards":  {nil, []fleet.HCA{{Role: fleet.HCARail}}, ""},
		"a fabric that others look after": {nil, nil, ""},
	} {
		r := &reading{inv: &fleet.Inventory{GPUDriver: &fleet.GPUDriver{Name: "nvidia", FabricManager: "absent"}, NVSwitches: c.switches, HCAs: c.hcas}}
		if r.settleFabricManager(); r.inv.GPUDriver.FabricManager != c.want {
			t.Errorf("%s: it is %q, want %q", name, r.inv.GPUDriver.FabricManager, c.want)
		}
	}
	none := &reading{inv: &fleet.Inventory{}}
	none.settleFabricManager() // no driver: nothing to say
	if none.inv.GPUDriver != nil {
		t.Errorf("%+v", none.inv.GPUDriver)
	}
}

func TestThreadsAreOfASocket(t *testing.T) {
	dir := t.TempDir()
	topology := filepath.Join(dir, "sys/devices/system/cpu/cpu12/topology")
	if err := errors.Join(os.MkdirAll(topology, 0o755), os.WriteFile(filepath.Join(topology, "physical_package_id"), []byte("1\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	r := &reading{fs: sysfs.New(dir), inv: &fleet.Inventory{}}
	for from, want := range map[string]string{"thread/12/bank/7": "cpu/1/bank/7", "thread/12": "cpu/1", "thread/13/bank/7": "thread/13/bank/7", "dimm/A1": "dimm/A1"} {
		if got := kmsg.Component(r.inv, from, r.socket); got != want {
			t.Errorf("%s is %s, want %s", from, got, want)
		}
	}
}
