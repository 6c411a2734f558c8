package fleet

import (
	"path"
	"slices"
	"strings"
)

// EFIVariable is a variable of the firmware by what it is; its value is known by its digest alone, as it may be a secret.
type EFIVariable struct {
	Name string `json:"name"`
	// GUID is the vendor's namespace, in small letters.
	GUID string `json:"guid"`
	// Attributes are the bits of UEFI 2.10 section 8.2: 1 non-volatile, 2 boot services, 4 run time, 0x10 and 0x20 authenticated.
	Attributes uint32 `json:"attributes"`
	SizeBytes  int    `json:"size_bytes"`
	SHA256     string `json:"sha256"`
}

// NonVolatile is the attribute of a variable that outlives a restart.
const NonVolatile = 1

// String is the variable as efivarfs names its file.
func (v EFIVariable) String() string { return v.Name + "-" + v.GUID }

// SplitVariable cuts a file name of efivarfs into name and GUID.
func SplitVariable(file string) (name, guid string, ok bool) {
	const guidLen = 36
	at := len(file) - guidLen - 1
	if at < 1 || file[at] != '-' {
		return "", "", false
	}
	guid = file[at+1:]
	for i, c := range []byte(guid) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') || !dash && !strings.ContainsRune("0123456789abcdefABCDEF", rune(c)) {
			return "", "", false
		}
	}
	return file[:at], strings.ToLower(guid), true
}

// VariableKind says what becomes of a variable that is not as it was accepted.
type VariableKind string

const (
	// VariablePlain: a new one is removed; one that changed or went is a fault, because nobody has its value to put it back.
	VariablePlain VariableKind = "plain"
	// VariableSecurity decides what the machine boots: any change is a fault, and it is never removed.
	VariableSecurity VariableKind = "security"
	// VariableChurns: the firmware changes, makes and drops it by itself. It is not compared and never removed.
	VariableChurns VariableKind = "churns"
	// VariableKept: it is never removed, because a machine may need it to start; a new one, or a change, is a fault.
	VariableKept VariableKind = "kept"
)

// VariableRule is what is known of variables whose names match.
type VariableRule struct {
	// Names are patterns of path.Match; GUID is the namespace.
	Names []string
	GUID  string
	Kind  VariableKind
	Why   string
}

// Namespaces of variables.
const (
	EFIGlobal   = "8be4df61-93ca-11d2-aa0d-00e098032b8c" // UEFI 2.10 section 3.3
	efiImages   = "d719b2cb-3d3a-4596-a3bc-dad00e67656f" // EFI_IMAGE_SECURITY_DATABASE_GUID, UEFI 2.10 section 32.4
	efiShim     = "605dab50-e046-4300-abb6-3dd810dd8b23" // shim's MokVars.txt
	efiLoader   = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f" // systemd's Boot Loader Interface
	efiCrash    = "cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0" // LINUX_EFI_CRASH_GUID, linux/efi.h
	efiHardware = "414e6bdd-e47b-47cc-b244-bb61020cf516" // EFI_HARDWARE_ERROR_VARIABLE, UEFI 2.10 section 8.2
	efiCapsule  = "39b68c46-f7fb-441b-b6ec-16b0f69821f3" // EFI_CAPSULE_REPORT_GUID, UEFI 2.10 section 8.5.6
	efiFwupd    = "0abba7dc-e516-4167-bbf5-4d9d1c739416" // fwupd's FWUPDATE_GUID
)

// systemNamespaces are those that operating systems and their loaders write: what is new in them is no firmware's.
var systemNamespaces = []string{EFIGlobal, efiShim, efiLoader, efiCrash, efiFwupd}

// hex4 is the number of a load option.
const hex4 = "[0-9A-F][0-9A-F][0-9A-F][0-9A-F]"

// VariableRules are in order: the first that matches counts.
var VariableRules = []VariableRule{
	{[]string{"PK", "KEK", "db", "dbx", "dbt", "dbr", "SecureBoot", "SetupMode", "AuditMode", "DeployedMode"}, EFIGlobal, VariableSecurity, "it says whose code the firmware starts"},
	{[]string{"db", "dbx", "dbt", "dbr"}, efiImages, VariableSecurity, "it says whose code the firmware starts"},
	{[]string{"MokList*", "MokSBState*", "SbatLevel*"}, efiShim, VariableSecurity, "it says whose code shim starts"},
	{[]string{"Boot" + hex4, "BootOrder", "BootNext", "BootCurrent"}, EFIGlobal, VariableChurns, "the firmware makes entries of what it finds, and each deployment makes one; clean-boot-entries deals with them"},
	{[]string{"ConIn*", "ConOut*", "ErrOut*"}, EFIGlobal, VariableChurns, "the firmware writes down the consoles that it finds"},
	{[]string{"OsIndications"}, EFIGlobal, VariableChurns, "the firmware clears what it was asked for the next start"},
	{[]string{"Key" + hex4, "PlatformRecovery" + hex4}, EFIGlobal, VariableChurns, "the firmware makes hot keys and its own recovery anew"},
	{[]string{"HwErrRec" + hex4}, efiHardware, VariableChurns, "the firmware records hardware errors"},
	{[]string{"Capsule*"}, efiCapsule, VariableChurns, "the firmware reports of its updates"},
	{[]string{"certdb", "certdbv"}, "d9bee56e-75dc-49d9-b4d7-b534210f637a", VariableChurns, "the firmware's own index of authenticated variables"},
	{[]string{"MTC"}, "eb704011-1402-11d3-8e77-00a0c969723b", VariableChurns, "the monotonic counter counts each start"},
	{[]string{"MemoryTypeInformation"}, "4c19049f-4137-4dd3-9c10-8b97a83ffdfa", VariableChurns, "the firmware notes how much memory the last start took"},
	{[]string{"RTC"}, "378d7b65-8da9-4773-b6e4-a47826a833e1", VariableChurns, "time zone of the clock, written with the time"},
	{[]string{"VarErrorFlag"}, "04b37fe8-f6ae-480b-bdd5-37d98c5e89aa", VariableChurns, "the firmware notes that its store was full"},
	{[]string{"MemoryOverwriteRequestControl"}, "e20939be-32d4-41be-a150-897f85d49829", VariableChurns, "set while a system runs, cleared by the firmware (TCG Platform Reset Attack Mitigation)"},
	{[]string{"MemoryOverwriteRequestControlLock"}, "bb983ccf-151d-40e1-a07b-4a17be168292", VariableChurns, "locked while a system runs"},
	{[]string{"Timeout", "Lang", "PlatformLang"}, EFIGlobal, VariableKept, "the firmware's own menu needs it"},
}

// RuleOf is what is known of a variable.
func RuleOf(name, guid string) VariableRule {
	for _, r := range VariableRules {
		if r.GUID != guid {
			continue
		}
		for _, p := range r.Names {
			if ok, err := path.Match(p, name); ok && err == nil {
				return r
			}
		}
	}
	return VariableRule{GUID: guid, Kind: VariablePlain}
}

// Removable reports whether a variable that is new may be removed: nothing is known against it, and its namespace is the systems' own or was not there when
// the machine was accepted. What firmware keeps in a namespace of its own is left alone, as some cannot start without.
func Removable(name, guid string, accepted []EFIVariable) bool {
	if RuleOf(name, guid).Kind != VariablePlain {
		return false
	}
	return slices.Contains(systemNamespaces, guid) || !slices.ContainsFunc(accepted, func(v EFIVariable) bool { return v.GUID == guid })
}
