package quirk

import (
	"path"
	"testing"
)

func TestRecognise(t *testing.T) {
	for _, tc := range []struct {
		name string
		f    ServiceRootFacts
		want string
	}{
		{"nothing known", ServiceRootFacts{}, "generic"},
		{"DGX H100", ServiceRootFacts{Vendor: "AMI", Product: "AMI Redfish Server", SystemManufacturer: "NVIDIA", SystemModel: "DGXH100"}, "ami-dgx"},
		{"another maker's MegaRAC", ServiceRootFacts{Vendor: "AMI", Product: "AMI Redfish Server", SystemManufacturer: "GIGABYTE"}, "ami-megarac"},
		{"MegaRAC told only by its OEM key", ServiceRootFacts{Oem: []string{"Ami"}}, "ami-megarac"},
		{"GB200", ServiceRootFacts{Vendor: "NVIDIA", Product: "GB200 NVL", SystemManufacturer: "NVIDIA"}, "openbmc"},
		{"BlueField", ServiceRootFacts{Vendor: "Nvidia", SystemModel: "BlueField-3 DPU"}, "nvidia-bluefield"},
		{"OpenBMC told by its manager", ServiceRootFacts{ManagerModel: "OpenBmc"}, "openbmc-manager"},
		{"iDRAC9", ServiceRootFacts{Vendor: "Dell", Product: "Integrated Dell Remote Access Controller", ManagerModel: "16G Monolithic", Firmware: "7.10.30.00"}, "idrac9"},
		{"iDRAC10, whose versions start over", ServiceRootFacts{Vendor: "Dell", ManagerModel: "17G Monolithic", Firmware: "1.20.50"}, "idrac10"},
		{"iLO 4", ServiceRootFacts{Oem: []string{"Hp"}, ManagerModel: "iLO 4"}, "ilo4"},
		{"iLO 5", ServiceRootFacts{Vendor: "HPE", ManagerModel: "iLO 5"}, "ilo5"},
		{"iLO 6", ServiceRootFacts{Vendor: "HPE", ManagerModel: "iLO 6"}, "ilo5"},
		{"XCC", ServiceRootFacts{Vendor: "Lenovo", SystemModel: "ThinkSystem SR680a V3"}, "xcc"},
		{"Supermicro", ServiceRootFacts{Vendor: "Supermicro", SystemModel: "SYS-821GE-TNHR"}, "smc"},
		{"Supermicro with the other target", ServiceRootFacts{Vendor: "Supermicro", SystemModel: "ARS-111GL-NHR"}, "smc-ars-111gl"},
		{"Supermicro that says so only at the system", ServiceRootFacts{SystemManufacturer: "Supermicro"}, "smc-silent"},
		{"a dynamic name is not AMI", ServiceRootFacts{Vendor: "Dynamics"}, "generic"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Recognise(tc.f).Name; got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestTable(t *testing.T) {
	seen := map[string]bool{"generic": true}
	for _, p := range Profiles {
		if seen[p.Name] || p.Name == "" {
			t.Errorf("the name %q is there twice", p.Name)
		}
		seen[p.Name] = true
		if len(p.Match.Root)+len(p.Match.Manager)+len(p.Match.System) == 0 {
			t.Errorf("%s matches nothing", p.Name)
		}
		for _, pattern := range append(p.PreferSlots, p.AvoidSlots...) {
			if _, err := path.Match(pattern, "x"); err != nil {
				t.Errorf("%s: pattern %q: %v", p.Name, pattern, err)
			}
		}
		if got, ok := Named(p.Name); !ok || got.Name != p.Name {
			t.Errorf("%s is not found by its name", p.Name)
		}
	}
	if _, ok := Named("no such profile"); ok {
		t.Error("an unknown name is found")
	}
}

func TestSlotBias(t *testing.T) {
	p := Profile{PreferSlots: []string{"EXT*"}, AvoidSlots: []string{"RDOC*"}}
	for uri, want := range map[string]int{"/redfish/v1/Managers/1/VirtualMedia/EXT1": 1, "/x/RDOC2/": -1, "/x/Remote1": 0} {
		if got := p.SlotBias(uri); got != want {
			t.Errorf("%s: %d, want %d", uri, got, want)
		}
	}
}
