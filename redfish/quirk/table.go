package quirk

import "time"

// Generic keeps to the specification.
var Generic = Profile{Name: "generic"}

// Profiles is searched from the top; what is narrower stands above what is wider. Sources are upstream projects' files and
// issue threads, named project#number; a line without one is a vendor's REST manual or a capture.
var Profiles = []Profile{
	{
		// BlueField DPUs have no virtual media but HttpBootUri (capture); they share NVIDIA's root with Grace systems.
		Name:  "nvidia-bluefield",
		Match: Match{Root: []string{"nvidia", "bluefield"}, System: []string{"bluefield"}},
	},
	{
		// NVIDIA DGX H100 and H200: an AMI MegaRAC with NVIDIA's HGX tree behind it. The VirtualMedia collection is empty until
		// EnableRMedia (capture); every PATCH needs If-Match and takes * (libredfish nvidia_viking); boot changes belong on
		// Systems/X/SD (libredfish, sushy); Target, Enabled and Mode together (ironic management.py); InsertMedia
		// demands a user and password that are not used (Launchpad 2071945).
		Name:         "ami-dgx",
		Match:        Match{Root: []string{" ami ", "megarac"}, System: []string{"nvidia", "dgx"}},
		AnyTag:       true,
		FullBoot:     true,
		BootSettings: "SD",
		Insert:       []string{"Image", "TransferProtocolType", "UserName", "Password"},
		EnableMedia:  AMIRemoteMedia,
		Settle:       30 * time.Second,
		Slow:         180 * time.Second, // libredfish
	},
	{
		// AMI MegaRAC of other makers: as above, but the insert's shape is found by trying. Exact tags were refused until a
		// firmware fix (ansible community.general#6434).
		Name:         "ami-megarac",
		Match:        Match{Root: []string{" ami ", "megarac", "american megatrends"}},
		AnyTag:       true,
		FullBoot:     true,
		BootSettings: "SD",
		EnableMedia:  AMIRemoteMedia,
		Settle:       30 * time.Second,
		Slow:         180 * time.Second,
	},
	{
		// iDRAC10 counts its versions from 1 again, so it is told by the generation, never by "6 or later" (ironic,
		// iDRAC-Redfish-Scripting#324). Power-on answers 409 for up to a minute after a power-off (ironic power.py).
		Name:          "idrac10",
		Match:         Match{Root: []string{"dell", "idrac"}, Manager: []string{"17g", "18g", "idrac10", "idrac 10"}},
		AvoidSlots:    []string{"RemovableDisk", "Floppy*"},
		VirtualCD:     DellServerBoot,
		Settle:        30 * time.Second,
		PowerConflict: 70 * time.Second,
		Licence:       dellLicence,
	},
	{
		// iDRAC9 and older: since 6.00 media belong to the system, the manager's list stays as a shadow
		// (iDRAC-Redfish-Scripting#265, bmclib#433); Inserted lags after eject (StoryBoard 2008504); Cd boots the physical drive
		// (iDRAC-Redfish-Scripting#90, ironic's idrac boot interface).
		Name:       "idrac9",
		Match:      Match{Root: []string{"dell", "idrac"}},
		AvoidSlots: []string{"RemovableDisk", "Floppy*"},
		VirtualCD:  DellServerBoot,
		Settle:     30 * time.Second,
		Licence:    dellLicence,
	},
	{
		// iLO 4 knows no Inserted in a PATCH (ansible community.general#4595) and no boot mode on Gen9 (ironic management.py).
		Name:     "ilo4",
		Match:    Match{Root: []string{"hp", "ilo"}, Manager: []string{"ilo 4", "ilo4"}},
		Insert:   []string{"Image"},
		PostBusy: 3 * time.Minute,
		Licence:  hpeLicence,
	},
	{
		// iLO 5 and later: a boot PATCH during POST is refused (Launchpad 2136275); slot 1 is floppy and USB, slot 2 CD and DVD;
		// scripted virtual media needs a licence (POSH-HPEOneView#529).
		Name:       "ilo5",
		Match:      Match{Root: []string{"hpe", "hewlett", "ilo"}},
		AvoidSlots: []string{"1"},
		Insert:     []string{"Image"},
		PostBusy:   3 * time.Minute,
		Licence:    hpeLicence,
	},
	{
		// XCC has ten slots of which only EXT take a URL, by PATCH (python-redfish-lenovo#21, gofish#530); RDOC sorts first and
		// fails; tags moved between GET and PATCH in 2025 and were mandatory in 2019 (ansible#56150, community.general#11270).
		Name:        "xcc",
		Match:       Match{Root: []string{"lenovo", "xclarity"}},
		TagsMove:    true,
		PreferSlots: []string{"EXT*"},
		AvoidSlots:  []string{"RDOC*", "Remote*"},
		Insert:      []string{"Image", "Inserted"},
	},
	{
		// Supermicro ARS-111GL-NHR boots its virtual CD as Cd, unlike its siblings (sushy notes).
		Name:              "smc-ars-111gl",
		Match:             Match{Root: []string{"supermicro"}, System: []string{"ars-111gl-nhr"}},
		FullBoot:          true,
		Insert:            []string{"Image"},
		EmptyByConnection: true,
		Licence:           smcLicence,
	},
	{
		// Supermicro X11 to X13: Inserted and WriteProtected are refused (sushy notes); the virtual CD is UsbCd; Image stays after
		// eject and ConnectedVia tells (community.general#6969, #12537); Enabled and Mode are forgotten (StoryBoard 2008547,
		// Redfishtool#106); media are gated by a licence key (community.general#4839).
		Name:              "smc",
		Match:             Match{Root: []string{"supermicro"}},
		FullBoot:          true,
		CdTargets:         []string{"UsbCd", "Cd"},
		Insert:            []string{"Image"},
		EmptyByConnection: true,
		Licence:           smcLicence,
	},
	{
		// Supermicro without a vendor in the root: older services say nothing there.
		Name:              "smc-silent",
		Match:             Match{System: []string{"supermicro"}},
		FullBoot:          true,
		CdTargets:         []string{"UsbCd", "Cd"},
		Insert:            []string{"Image"},
		EmptyByConnection: true,
		Licence:           smcLicence,
	},
	{
		// ASRock Rack forgets what a boot PATCH leaves out (ironic management.py).
		Name:     "asrockrack",
		Match:    Match{System: []string{"asrockrack", "asrock rack"}},
		FullBoot: true,
	},
	{
		// OpenBMC fetches by https and smb only (bmcweb virtual_media.hpp, openbmc#3991). NVIDIA's Grace systems are this too.
		Name:    "openbmc",
		Match:   Match{Root: []string{"nvidia", "openbmc"}},
		Schemes: []string{"https", "smb"},
	},
	{
		Name:    "openbmc-manager",
		Match:   Match{Manager: []string{"openbmc", "open bmc"}},
		Schemes: []string{"https", "smb"},
	},
	{
		// Cisco UCS has DVD slots and internal ones that answer 400 (Launchpad 2031595, 2039042).
		Name:       "cisco-ucs",
		Match:      Match{Root: []string{"cisco"}},
		AvoidSlots: []string{"*SD*", "*Flex*"},
	},
	{
		// Fujitsu iRMC and Nokia AirFrame want the protocol spelled out (sushy notes).
		Name:   "wants-protocol",
		Match:  Match{Root: []string{"fujitsu", "fsas", "nokia"}},
		Insert: []string{"Image", "TransferProtocolType"},
	},
	{
		// Huawei's systems have no ManagedBy link (sushy notes) and want If-Match (gofish#174); both are handled for everybody.
		Name:  "huawei",
		Match: Match{Root: []string{"huawei", "xfusion"}},
	},
}

var (
	dellLicence = Licence{Need: "iDRAC Enterprise or Datacenter", Lacking: []string{"basic", "express"}, Enough: []string{"enterprise", "datacenter"}}
	hpeLicence  = Licence{Need: "iLO Advanced", Lacking: []string{"ilo standard", "ilo essentials"}, Enough: []string{"advanced"}}
	smcLicence  = Licence{Need: "SFT-OOB-LIC or SFT-DCMS-SINGLE", Enough: []string{"sft-oob", "sft-dcms", "oob"}}
)
