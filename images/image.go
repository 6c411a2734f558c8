// Package images says what an image is (its format, its size, its digests) and decodes a verified stream of it.
package images

import (
	"encoding/hex"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Image is what is known of one image. The digest is mandatory: nothing is written to a disk on a URL's word.
type Image struct {
	// Name is the operator's name for the image.
	Name string `json:"name"`
	// URL is where the file is fetched; empty for one that the server keeps itself.
	URL string `json:"url,omitempty"`
	// Format says how the file becomes the disk's contents.
	Format Format `json:"format"`
	// SHA256 is the digest of the file as served, 64 lower-case hexadecimal digits.
	SHA256 string `json:"sha256"`
	// SizeBytes is the length of the file as served; 0: not known, then only digest and format show a truncation.
	SizeBytes int64 `json:"size_bytes,omitempty"`
	// VirtualSizeBytes is the length of the disk's contents; 0: not known before the end.
	VirtualSizeBytes int64 `json:"virtual_size_bytes,omitempty"`
	// DiskSHA256 is the digest of the disk's contents from byte 0 to VirtualSizeBytes; empty: not known. For raw it is SHA256.
	DiskSHA256 string `json:"disk_sha256,omitempty"`
}

// Validate checks what Decode needs, naming every field that is wrong.
func (i Image) Validate() error {
	var fields []fleet.FieldError
	bad := func(field, message string) { fields = append(fields, fleet.FieldError{Field: field, Message: message}) }
	switch {
	case i.SHA256 == "":
		bad("sha256", "missing: the digest of the file is mandatory")
	case !isDigest(i.SHA256):
		bad("sha256", "not 64 lower-case hexadecimal digits")
	}
	if i.DiskSHA256 != "" && !isDigest(i.DiskSHA256) {
		bad("disk_sha256", "not 64 lower-case hexadecimal digits")
	}
	if !i.Format.known() {
		bad("format", "not one of "+strings.Join(formatNames(), ", "))
	}
	if i.SizeBytes < 0 {
		bad("size_bytes", "negative")
	}
	if i.VirtualSizeBytes < 0 {
		bad("virtual_size_bytes", "negative")
	}
	if i.Format == Raw && i.SizeBytes > 0 && i.VirtualSizeBytes > 0 && i.SizeBytes != i.VirtualSizeBytes {
		bad("virtual_size_bytes", "differs from size_bytes, which a raw image cannot")
	}
	if i.Format == Raw && i.DiskSHA256 != "" && i.DiskSHA256 != i.SHA256 {
		bad("disk_sha256", "differs from sha256, which a raw image's cannot")
	}
	if len(fields) == 0 {
		return nil
	}
	e := fleet.Errorf(fleet.Invalid, "MC-IMAGE-INVALID", "image %q is not described well enough to be written", i.Name)
	e.Fields = fields
	return e.WithHint("metalctl image add NAME --file FILE computes all of it")
}

// ContentSHA256 returns the digest that the disk's contents must have, or "" where only the file's digest is known.
func (i Image) ContentSHA256() string {
	if i.Format == Raw {
		return i.SHA256
	}
	return i.DiskSHA256
}

func isDigest(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && strings.ToLower(s) == s
}
