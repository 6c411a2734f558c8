package step

import (
	"encoding/json"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Parameters of steps, as they stand in the journal and travel to the agent.

// EraseParams are what erase-disks and verify-erase get: only these devices, by serial, are touched.
type EraseParams struct {
	Accepted []fleet.AcceptedDevice `json:"accepted"`
	// Level is the least to reach: "clear" or "purge".
	Level string `json:"level"`
	// AcceptFormat lets an NVMe Format with secure erase count as a purge; it stands beside that level alone.
	AcceptFormat bool `json:"accept_format,omitempty"`
}

// NamespacesParams are what restore-namespaces gets: those that were accepted, each with the size of its blocks.
type NamespacesParams struct {
	Accepted []fleet.AcceptedDevice `json:"accepted"`
}

// ImageParams are what write-image and verify-image get.
type ImageParams struct {
	Image fleet.Image         `json:"image"`
	Root  fleet.RootDiskHints `json:"root"`
	// Accepted limits the choice of the root disk to devices that may be written.
	Accepted []fleet.AcceptedDevice `json:"accepted"`
	// Sources are filled in when the task is handed out. They are addresses to fetch from, in order: the server's own (pinned as the agent's servers are) or an origin of the allow-list.
	Sources []ImageSource `json:"sources"`
	// Origins and Denied repeat the site's rules for redirects.
	Origins []string `json:"origins,omitempty"`
	Denied  []string `json:"denied,omitempty"`
}

// ImageSource is one address of an image.
type ImageSource struct {
	URL string `json:"url"`
	// Ours: the URL is a path on the agent's own server.
	Ours bool `json:"ours,omitempty"`
}

// ConfigDriveParams are what config-drive gets. UserData is a path on the agent's own server, filled in when the step is handed out:
// user-data is a secret and stays out of the journal, which has its digest.
type ConfigDriveParams struct {
	Root       fleet.RootDiskHints    `json:"root"`
	Accepted   []fleet.AcceptedDevice `json:"accepted"`
	InstanceID string                 `json:"instance_id"`
	Hostname   string                 `json:"hostname"`
	SSHKeys    []string               `json:"ssh_keys,omitempty"`
	Meta       map[string]string      `json:"meta,omitempty"`
	Network    json.RawMessage        `json:"network_data,omitempty"`
	UserData   string                 `json:"user_data_path,omitempty"`
	UserDigest string                 `json:"user_data_digest,omitempty"`
	// Form is the drive's layout; "" means fleet.ConfigDriveOpenStack.
	Form fleet.ConfigDriveForm `json:"form,omitempty"`
}

// RootParams are what boot-entry and verify-image need to find the disk again.
type RootParams struct {
	Root     fleet.RootDiskHints    `json:"root"`
	Accepted []fleet.AcceptedDevice `json:"accepted"`
	// Serial is the disk that write-image chose, once it is known.
	Serial string `json:"serial,omitempty"`
}

// PacksParams are what fetch-packs gets. Keys are filled in when the step is handed out, so that a key that the site does not trust any more counts for
// nothing at once.
type PacksParams struct {
	Packs []PackParams `json:"packs"`
	Keys  []string     `json:"keys,omitempty"`
}

// PackParams is one pack of fetch-packs.
type PackParams struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
	// SizeBytes is the size of the file, UnpackedBytes what it takes in memory.
	SizeBytes     int64 `json:"size_bytes"`
	UnpackedBytes int64 `json:"unpacked_bytes"`
}

// BurnParams are what burn-stage gets.
type BurnParams struct {
	Profile string `json:"profile"`
	// Digest names exactly the profile that the plan was composed with.
	Digest string          `json:"digest"`
	Stage  fleet.BurnStage `json:"stage"`
	// Round counts from 1.
	Round int `json:"round"`
	// Accepted limits what may be overwritten; it is there where the stage does that.
	Accepted []fleet.AcceptedDevice `json:"accepted,omitempty"`
}

// JudgeParams are what judge-burn-in gets: the profile as the plan was composed with it.
type JudgeParams struct {
	Profile fleet.BurnProfile `json:"profile"`
}

// Shown are a step's parameters as people may see them: the address of an image without its query. What cannot be read is not shown.
func Shown(name string, params json.RawMessage) json.RawMessage {
	if name != WriteImage && name != VerifyImage || len(params) == 0 {
		return params
	}
	var p struct {
		Image fleet.Image `json:"image"`
	}
	if err := json.Unmarshal(params, &p); err != nil {
		return nil
	}
	if p.Image.URL == p.Image.Shown().URL {
		return params
	}
	out, err := Merge(params, map[string]any{"image": p.Image.Shown()})
	if err != nil {
		return nil
	}
	return out
}

// ReadyParams are what await-ready gets.
type ReadyParams struct {
	Ready fleet.Ready `json:"ready"`
}

// PowerParams are what power-off gets.
type PowerParams struct {
	// Graceful asks the operating system first.
	Graceful bool `json:"graceful,omitempty"`
	// WaitSeconds is how long the machine may take to go off by itself before it is forced.
	WaitSeconds int `json:"wait_seconds,omitempty"`
}

// VariablesParams are what clean-variables gets.
type VariablesParams struct {
	// Remove has the names of what is to go, by GUID; null where nobody could tell.
	Remove map[string][]string `json:"remove_variables"`
}

// StayOffParams are what stay-off gets.
type StayOffParams struct {
	Seconds int `json:"seconds"`
}

// StayedOff is the evidence of stay-off: the first and the last time at which the BMC said that the machine is off, and how often it was asked.
type StayedOff struct {
	Since    time.Time `json:"off_since"`
	Until    time.Time `json:"off_until"`
	Readings int       `json:"readings"`
}

// InsertParams are what media-insert gets.
type InsertParams struct {
	// SwitchOff: the machine is on by this plan, for a medium that is there no more, and is switched off first.
	SwitchOff bool `json:"switch_off,omitempty"`
}

// IdentifyParams are what bmc-identify gets; an empty field is not compared.
type IdentifyParams struct {
	Serial string `json:"serial,omitempty"`
	UUID   string `json:"uuid,omitempty"`
}

// BootParams are what boot-from-media gets. Target is what media-insert reported to boot from; empty means a CD.
type BootParams struct {
	Target string `json:"target,omitempty"`
}
