package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Pack is a signed bundle of drivers or tools that agents fetch from this server. What it says of itself comes from its signed manifest.
type Pack struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// KernelRelease and Arch are what its modules and programs are for; empty: any.
	KernelRelease string `json:"kernel_release,omitempty"`
	Arch          string `json:"arch,omitempty"`
	// SHA256 is the digest of the file as served, 64 hex digits; SizeBytes is its size.
	SHA256    string `json:"sha256"`
	SizeBytes int64  `json:"size_bytes"`
	// UnpackedBytes is the size of the files in it: the room that it takes in a node's memory.
	UnpackedBytes int64 `json:"unpacked_bytes"`
	// KeyID names the key that signed it.
	KeyID string `json:"key_id"`
	// Carries are the versions of NVIDIA's software that its files are of, by part; what the files do not tell is not there.
	Carries map[string]string `json:"carries,omitempty"`
	AddedAt time.Time         `json:"added_at"`
}

// ID names a pack: NAME@VERSION.
func (p Pack) ID() string { return p.Name + "@" + p.Version }

// MaxPacks is the most packs that a class may want.
const MaxPacks = 16

var (
	packRef    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}@[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$`)
	packDigest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// validPackRef reports whether ref can name a pack: NAME@VERSION, or "sha256:" and the digest of its file.
func validPackRef(ref string) bool { return packRef.MatchString(ref) || packDigest.MatchString(ref) }

// FindPack returns the pack that ref names.
func FindPack(all []Pack, ref string) (Pack, bool) {
	i := slices.IndexFunc(all, func(p Pack) bool { return p.ID() == ref || "sha256:"+p.SHA256 == ref })
	if i < 0 {
		return Pack{}, false
	}
	return all[i], true
}

// PackMark names a set of packs shortly; "" is the mark of none. A boot generation whose mark is another has other packs.
func PackMark(sha256s []string) string {
	if len(sha256s) == 0 {
		return ""
	}
	s := slices.Sorted(slices.Values(sha256s))
	sum := sha256.Sum256([]byte(strings.Join(s, "\n")))
	return hex.EncodeToString(sum[:8])
}
