// Package quirk says what each vendor's BMC does differently, as one table of small overrides.
package quirk

import (
	"path"
	"strings"
	"time"
)

// Profile is how one family of BMCs deviates from the Redfish specification; the zero value is a service that keeps to it.
type Profile struct {
	// Name is recorded with the node; it is never renamed.
	Name  string
	Match Match

	// AnyTag sends If-Match: * with each PATCH, because exact tags are refused or missing.
	AnyTag bool
	// TagsMove says that tags change between GET and PATCH without any change of the resource.
	TagsMove bool

	// FullBoot sends Enabled, Target and Mode of a boot override in one PATCH, because what is left out is forgotten.
	FullBoot bool
	// BootSettings is the path below the system of the resource that takes boot changes where the system does not link one.
	BootSettings string
	// CdTargets are the override targets that mean the virtual CD, best first; nil means Cd.
	CdTargets []string
	// VirtualCD names the vendor's way to boot the virtual CD once, where the standard target means a physical drive.
	VirtualCD VirtualCD

	// ManagerMediaFirst ranks slots below the manager over those below the system.
	ManagerMediaFirst bool
	// PreferSlots and AvoidSlots are path.Match patterns over the last segment of a slot's URI.
	PreferSlots, AvoidSlots []string
	// Insert is the first set of parameters to try for InsertMedia; nil means Image alone.
	Insert []string
	// Schemes are the URL schemes that a slot can fetch; nil means whatever the slot says.
	Schemes []string
	// EmptyByConnection says that ConnectedVia, not Image, tells whether a slot is empty.
	EmptyByConnection bool
	// EnableMedia names the vendor's way to make slots appear.
	EnableMedia EnableMedia
	// Settle is how long an insert or eject takes to show; zero means the usual ten seconds.
	Settle time.Duration

	// PowerConflict is for how long power-on may answer 409 after a power-off.
	PowerConflict time.Duration
	// PostBusy is for how long a boot change may be refused while the host is in POST.
	PostBusy time.Duration
	// Slow is the read timeout; zero means 30 seconds.
	Slow time.Duration
	// Licence says which licence virtual media needs, or nothing.
	Licence Licence
}

// VirtualCD is a vendor's own way to select the virtual CD.
type VirtualCD uint8

const (
	// StandardCD: BootSourceOverrideTarget.
	StandardCD VirtualCD = iota
	// DellServerBoot: iDRAC attributes ServerBoot.1 FirstBootDevice VCD-DVD and BootOnce.
	DellServerBoot
)

// EnableMedia is a vendor's own way to make virtual media slots appear.
type EnableMedia uint8

const (
	// AlwaysEnabled: an empty collection stays empty.
	AlwaysEnabled EnableMedia = iota
	// AMIRemoteMedia: OEM actions EnableRMedia and ConfigureCDInstance of the manager.
	AMIRemoteMedia
)

// Licence names what virtual media needs.
type Licence struct {
	// Need is the licence's name as the vendor sells it.
	Need string
	// Lacking are substrings of a licence's name (lower case) that show that it is not enough.
	Lacking []string
	// Enough are substrings of a licence's name (lower case) that show that it is.
	Enough []string
}

// Match selects a profile; a profile without patterns matches nothing. Patterns are lower-case substrings; every list that is
// not empty must have one that matches.
type Match struct {
	// Root are patterns of the service root's Vendor, Product and Oem keys, joined and
	// framed by blanks, so that " ami " is a word.
	Root []string
	// Manager are patterns of the manager's Manufacturer and Model.
	Manager []string
	// Firmware are prefixes of the manager's firmware version.
	Firmware []string
	// System are patterns of the host system's Manufacturer and Model.
	System []string
}

// ServiceRootFacts is what a profile is recognised by; unknown fields stay empty.
type ServiceRootFacts struct {
	Vendor, Product     string
	Oem                 []string // keys of the service root's Oem object
	ManagerManufacturer string
	ManagerModel        string
	Firmware            string
	SystemManufacturer  string
	SystemModel         string
}

// Recognise returns the first profile of the table that matches, or Generic.
func Recognise(f ServiceRootFacts) Profile {
	root := strings.ToLower(" " + f.Vendor + " " + f.Product + " " + strings.Join(f.Oem, " ") + " ")
	manager := strings.ToLower(f.ManagerManufacturer + " " + f.ManagerModel)
	system := strings.ToLower(f.SystemManufacturer + " " + f.SystemModel)
	for _, p := range Profiles {
		m := p.Match
		if len(m.Root)+len(m.Manager)+len(m.Firmware)+len(m.System) == 0 {
			continue
		}
		if contains(root, m.Root) && contains(manager, m.Manager) && contains(system, m.System) &&
			begins(strings.ToLower(f.Firmware), m.Firmware) {
			return p
		}
	}
	return Generic
}

// Named returns the profile that was recorded under name; false where no such profile exists (any more).
func Named(name string) (Profile, bool) {
	if name == Generic.Name {
		return Generic, true
	}
	for _, p := range Profiles {
		if p.Name == name {
			return p, true
		}
	}
	return Generic, false
}

// SlotBias is 1 for a preferred slot, -1 for one to avoid, else 0.
func (p Profile) SlotBias(uri string) int {
	id := path.Base(strings.TrimSuffix(uri, "/"))
	if anyMatch(p.AvoidSlots, id) {
		return -1
	}
	if anyMatch(p.PreferSlots, id) {
		return 1
	}
	return 0
}

func anyMatch(patterns []string, id string) bool {
	for _, pattern := range patterns {
		if ok, err := path.Match(pattern, id); err == nil && ok {
			return true
		}
	}
	return false
}

func contains(s string, patterns []string) bool {
	for _, p := range patterns {
		if strings.Contains(s, p) {
			return true
		}
	}
	return len(patterns) == 0
}

func begins(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return len(prefixes) == 0
}
