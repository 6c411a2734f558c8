// Package configdrive builds the config drive that a deployed system reads at its first boot.
package configdrive

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// MaxBytes is the size of the partition that a drive goes into.
const MaxBytes = 64 << 20

// Form says which layout cloud-init (or another reader) will find.
type Form string

const (
	// OpenStack is a volume labelled config-2 with openstack/latest; the default.
	OpenStack Form = "openstack"
	// NoCloud is a volume labelled CIDATA with the files of cloud-init's NoCloud source.
	NoCloud Form = "nocloud"
)

// Label is how the drive's volume is labelled, which is how its readers find it.
func (f Form) Label() string {
	if f == NoCloud {
		return "CIDATA"
	}
	return "config-2"
}

// Content is what the drive says.
type Content struct {
	// Form is OpenStack where empty.
	Form Form
	// InstanceID must be new for every deployment: cloud-init runs its once-per-instance parts when it changes.
	InstanceID string
	Hostname   string
	// SSHKeys are public keys in authorized_keys form.
	SSHKeys []string
	// UserData is handed on unread: cloud-config, a script, or a MIME archive.
	UserData []byte
	MetaData map[string]string
	// NetworkData is an OpenStack network_data.json; for NoCloud it is turned into a version 2 network-config. Empty: the system's own default.
	NetworkData json.RawMessage
	// VendorData is a JSON object or string for vendor_data.json; empty: none.
	VendorData json.RawMessage
}

type file struct {
	name string
	data []byte
}

// Build renders the drive as a FAT volume of at most MaxBytes, the same bytes for the same content. It is smaller than the partition that it goes
// into where the content is. Errors are *fleet.Error: MC-CONFIGDRIVE-INVALID names the fields, MC-CONFIGDRIVE-SIZE the sizes.
func Build(c Content) ([]byte, error) {
	if c.Form == "" {
		c.Form = OpenStack
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	var files []file
	var err error
	if c.Form == NoCloud {
		files, err = c.noCloud()
	} else {
		files, err = c.openStack()
	}
	if err != nil {
		return nil, err
	}
	root := tree(files)
	if n := volumeBytes(root); n > MaxBytes {
		var sizes []string
		for _, f := range files {
			sizes = append(sizes, fmt.Sprintf("%s %d", f.name, len(f.data)))
		}
		return nil, fleet.Errorf(fleet.Invalid, "MC-CONFIGDRIVE-SIZE", "the config drive needs %d bytes and may have %d (%s)", n, MaxBytes, strings.Join(sizes, ", ")).
			WithHint("let the user data fetch what is large")
	}
	sum := sha256.New()
	for _, f := range files {
		fmt.Fprintf(sum, "%s %d\n%s", f.name, len(f.data), f.data)
	}
	img, err := formatFAT(root, c.Form.Label(), binary.LittleEndian.Uint32(sum.Sum(nil)))
	if err != nil {
		return nil, fmt.Errorf("build config drive: %w", err)
	}
	return img, nil
}

func (c Content) validate() error {
	var fields []fleet.FieldError
	bad := func(field, format string, args ...any) {
		fields = append(fields, fleet.FieldError{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if c.Form != OpenStack && c.Form != NoCloud {
		bad("form", "%q is neither %s nor %s", c.Form, OpenStack, NoCloud)
	}
	if c.InstanceID == "" {
		bad("instance_id", "missing")
	}
	if message := checkHostname(c.Hostname); message != "" {
		bad("hostname", "%s", message)
	}
	for i, key := range c.SSHKeys {
		if message := checkSSHKey(key); message != "" {
			bad(fmt.Sprintf("ssh_keys[%d]", i), "%s", message)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(c.MetaData)) {
		if k == "" || strings.ContainsAny(k, "\x00\n") {
			bad("meta_data", "the key %q is empty or has a line break", k)
		}
	}
	if len(c.VendorData) > 0 && !json.Valid(c.VendorData) {
		bad("vendor_data", "not JSON")
	}
	if len(c.NetworkData) > 0 {
		if _, errs := ParseNetworkData(c.NetworkData); len(errs) > 0 {
			fields = append(fields, errs...)
		}
	}
	if len(fields) == 0 {
		return nil
	}
	e := fleet.Errorf(fleet.Invalid, "MC-CONFIGDRIVE-INVALID", "the config drive cannot be built from this")
	e.Fields = fields
	return e
}

// checkHostname applies RFC 1123 to each label.
func checkHostname(name string) string {
	if name == "" {
		return "missing"
	}
	if len(name) > 253 {
		return "longer than 253 bytes"
	}
	for label := range strings.SplitSeq(name, ".") {
		if len(label) < 1 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
			return fmt.Sprintf("%q is not a name of letters, digits and hyphens", name)
		}
	}
	return ""
}

// checkSSHKey looks at the form only: a private key pasted by mistake must not reach a disk.
func checkSSHKey(key string) string {
	switch parts := strings.Fields(key); {
	case strings.Contains(key, "PRIVATE KEY"):
		return "this is a private key; give the .pub file"
	case strings.ContainsAny(strings.TrimSpace(key), "\r\n"):
		return "more than one line"
	case len(parts) < 2:
		return "not a public key (type and base64)"
	}
	return ""
}

func (c Content) openStack() ([]file, error) {
	keys := map[string]string{}
	for i, k := range c.SSHKeys {
		keys[fmt.Sprintf("key-%d", i)] = strings.TrimSpace(k)
	}
	meta := map[string]any{"uuid": c.InstanceID, "hostname": c.Hostname, "name": c.Hostname, "launch_index": 0}
	if len(keys) > 0 {
		meta["public_keys"] = keys
	}
	if len(c.MetaData) > 0 {
		meta["meta"] = c.MetaData
	}
	doc, err := json.MarshalIndent(meta, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("build config drive: %w", err)
	}
	files := []file{{"openstack/latest/meta_data.json", doc}}
	for _, f := range []file{{"user_data", c.UserData}, {"network_data.json", c.NetworkData}, {"vendor_data.json", c.VendorData}} {
		if len(f.data) > 0 {
			files = append(files, file{"openstack/latest/" + f.name, f.data})
		}
	}
	return files, nil
}

func (c Content) noCloud() ([]file, error) {
	meta := map[string]any{"instance-id": c.InstanceID, "local-hostname": c.Hostname}
	if len(c.SSHKeys) > 0 {
		meta["public-keys"] = c.SSHKeys
	}
	for k, v := range c.MetaData {
		if _, taken := meta[k]; !taken {
			meta[k] = v
		}
	}
	// JSON is YAML.
	doc, err := json.MarshalIndent(meta, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("build config drive: %w", err)
	}
	// NoCloud is only recognised with both files, even where user-data is empty.
	files := []file{{"meta-data", doc}, {"user-data", c.UserData}}
	if len(c.VendorData) > 0 {
		files = append(files, file{"vendor-data", c.vendorText()})
	}
	if len(c.NetworkData) > 0 {
		nd, errs := ParseNetworkData(c.NetworkData)
		if len(errs) > 0 {
			return nil, &fleet.Error{Kind: fleet.Invalid, Code: "MC-CONFIGDRIVE-INVALID", Msg: "network_data", Fields: errs}
		}
		b, err := nd.networkConfig()
		if err != nil {
			return nil, fmt.Errorf("build config drive: %w", err)
		}
		files = append(files, file{"network-config", b})
	}
	return files, nil
}

// vendorText is what OpenStack wraps in JSON: the text of {"cloud-init": "…"} or of a plain string.
func (c Content) vendorText() []byte {
	var wrapped struct {
		CloudInit string `json:"cloud-init"`
	}
	var text string
	if json.Unmarshal(c.VendorData, &wrapped) == nil && wrapped.CloudInit != "" {
		return []byte(wrapped.CloudInit)
	}
	if json.Unmarshal(c.VendorData, &text) == nil {
		return []byte(text)
	}
	return c.VendorData
}
