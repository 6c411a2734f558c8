package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// Class is what nodes of a kind must be.
type Class struct {
	Name   string      `json:"name"`
	Expect ClassExpect `json:"expect,omitzero"`
	// BurnIn is the profile that a new node has to pass, or "none" in so many words.
	BurnIn string `json:"burnin"`
	// AfterTenant is the profile that runs after every tenancy; "" is ProfileHandover. It stands beside a profile alone.
	AfterTenant string `json:"after_tenant,omitempty"`
	// EraseLevel is the least that cleaning must reach: "clear" or "purge".
	EraseLevel string `json:"erase_level"`
	// AcceptFormat lets an NVMe Format with secure erase count as a purge, where EraseLevel is that.
	AcceptFormat bool `json:"accept_format,omitempty"`
	// Clean is what cleaning does beside erasing.
	Clean CleanPolicy `json:"clean,omitzero"`
	// PowerOffAvailable powers nodes off while nobody uses them; otherwise the agent stays up.
	PowerOffAvailable bool `json:"power_off_available,omitempty"`
	// Ramdisk pins what its nodes boot: "sha256:" and the digest of a medium that the server has. Empty: they follow the rollout (Boots).
	Ramdisk string `json:"ramdisk,omitempty"`
	// Packs are what the agent fetches before it works, each NAME@VERSION or "sha256:" and a digest.
	Packs []string `json:"packs,omitempty"`
	// Power is what one of its nodes draws.
	Power ClassPower `json:"power,omitzero"`
}

// Compared is the mark that a comparison of an inventory (by its digest) with the class as it is now leaves on a node. Where class or inventory have
// become others, so has the mark, and the node was not compared.
func (c Class) Compared(inventory string) string {
	b, err := json.Marshal([]any{c.Name, c.Expect, inventory})
	if err != nil {
		return "" // strings and numbers always encode
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// HasGPUs reports whether the class says anything of GPUs.
func (c Class) HasGPUs() bool { return c.Expect.GPUs != ExpectGPUs{} || c.Clean.GPUs != CleanGPUs{} }

// ErasedByFormat is the level of a cleaning that would have taken an NVMe Format for a purge: enough where the class still says so.
const ErasedByFormat = "purge or format"

// Erases reports whether an erase that reached level is enough for the class.
func (c Class) Erases(level string) bool {
	switch level {
	case "purge":
		return true
	case ErasedByFormat:
		return c.EraseLevel != "purge" || c.AcceptFormat
	}
	return level == "clear" && c.EraseLevel != "purge"
}

// Site is the one record of settings that hold for all nodes of a place.
type Site struct {
	// Isolation says which wires must be proven before a node is handed out: one of Isolations. What is waived is repeated by `node show`.
	Isolation string `json:"isolation"`
	// PhoneHome is the endpoint that tenants' systems can reach, or "".
	PhoneHome string `json:"phone_home,omitempty"`
	// Origins is the allow-list of hosts that images may come from, besides this server.
	Origins []string `json:"origins,omitempty"`
	// Denied are address ranges that images never come from (BMCs, management), as CIDRs.
	Denied []string `json:"denied,omitempty"`
	// FenceNodes is how many nodes in use may be released, switched off or rebuilt within an hour before a second person must approve, where that is
	// more than the fence's own limit; 0 leaves that limit.
	FenceNodes int `json:"fence_nodes,omitempty"`
	// PackKeys are the public keys, PEM, whose packs are taken and handed out; with none there are no packs.
	PackKeys []string `json:"pack_keys,omitempty"`
	// Power is what burn-ins and power-on draw from.
	Power SitePower `json:"power,omitzero"`
}

// Isolations of a site.
const (
	// IsolationRequired: every wire is moved and read back by a driver. It is the default.
	IsolationRequired = "required"
	// IsolationInfiniBand: fabric ports are; somebody else keeps Ethernet ports apart.
	IsolationInfiniBand = "infiniband"
	// IsolationNone: nodes are handed out without a network driver.
	IsolationNone = "none"
)

// Isolations are all that there are.
var Isolations = []string{IsolationRequired, IsolationInfiniBand, IsolationNone}

// IsolationWaived reports whether the site hands nodes out without a network driver.
func (s Site) IsolationWaived() bool { return s.Isolation == IsolationNone }

// EthernetWaived reports whether the site hands nodes out although no driver moves their Ethernet ports.
func (s Site) EthernetWaived() bool { return s.Isolation == IsolationInfiniBand || s.IsolationWaived() }

// Image is an operating system image for tenants. The digest is mandatory: nothing is written that was not named by it.
type Image struct {
	Name string `json:"name"`
	// URL is where agents fetch it: an origin of the allow-list, or "" where the server itself holds the file.
	URL    string `json:"url,omitempty"`
	Format string `json:"format"` // raw, raw.zst, raw.gz, raw.xz, qcow2
	// SHA256 is the digest of the file as served, 64 hex digits.
	SHA256    string `json:"sha256"`
	SizeBytes int64  `json:"size_bytes"`
	// VirtualSizeBytes is the size of the disk inside, 0 where unknown until written.
	VirtualSizeBytes int64     `json:"virtual_size_bytes,omitempty"`
	CreatedAt        time.Time `json:"created_at"`
}

// Shown is the image as people and logs may see it: the query of its address may be a signature, which is for the agents alone.
func (i Image) Shown() Image {
	i.URL = WithoutQuery(WithoutUser(i.URL))
	return i
}
