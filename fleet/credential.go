package fleet

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// CredentialWindow is the size in bytes of the place that a boot medium keeps for its node's credential.
const CredentialWindow = 16 << 10

// CredentialVersion is the version that this program writes and reads.
const CredentialVersion = 1

// Credential is what the boot medium carries beside the ramdisk: who the node is for this boot, whom to call and how.
// On the medium it is JSON padded with spaces to its window. Marshalling it as JSON hides the token; Encode does not.
type Credential struct {
	Version    int         `json:"version"`
	Node       string      `json:"node"`
	Generation int64       `json:"generation"`
	Token      Secret      `json:"token"`
	Servers    []ServerRef `json:"servers"`
	// IssuedAt is the earliest time that the agent's clock may show.
	IssuedAt time.Time `json:"issued_at"`
	// Network is how the agent reaches the servers; nil means DHCP on whatever has a carrier.
	Network *BootNetwork `json:"network,omitempty"`
	// Console is a further device for the agent's messages, such as "ttyS1,115200"; empty: the kernel's consoles.
	Console string `json:"console,omitempty"`
	// DebugShell allows a shell on the serial console after a panic.
	DebugShell bool `json:"debug_shell,omitempty"`
}

// ServerRef is one server and what its key must be.
type ServerRef struct {
	URL string `json:"url"`
	// KeyPin is "sha256/" and the base64 SHA-256 of the server key's SubjectPublicKeyInfo (RFC 7469 section 2.4).
	KeyPin string `json:"key_pin"`
}

// BootNetwork is a node's `boot_network`: how its agent gets onto the provisioning network. What is left out comes from DHCP.
type BootNetwork struct {
	// Interface is a MAC address or a kernel name; empty: every interface with a carrier is tried.
	Interface string `json:"interface,omitempty" yaml:"interface,omitempty"`
	// Bond joins several interfaces; Interface then must be empty.
	Bond *BondConfig `json:"bond,omitempty" yaml:"bond,omitempty"`
	// VLAN is an 802.1Q tag, 1 to 4094; 0: untagged.
	VLAN int `json:"vlan,omitempty" yaml:"vlan,omitempty"`
	// MTU is in bytes; 0: the interface's own.
	MTU int `json:"mtu,omitempty" yaml:"mtu,omitempty"`
	// Addresses are prefixes such as "10.1.0.11/24"; empty: DHCP and router advertisements.
	Addresses []string `json:"addresses,omitempty" yaml:"addresses,omitempty"`
	Gateway   string   `json:"gateway,omitempty" yaml:"gateway,omitempty"`
	Gateway6  string   `json:"gateway6,omitempty" yaml:"gateway6,omitempty"`
	Routes    []Route  `json:"routes,omitempty" yaml:"routes,omitempty"`
	DNS       []string `json:"dns,omitempty" yaml:"dns,omitempty"`
	// Proxy is an http, https or socks5 URL without user or password, for the agent's calls to servers and images.
	Proxy string `json:"proxy,omitempty" yaml:"proxy,omitempty"`
}

// BondConfig is a bond: its members by MAC address or name, and its mode by the kernel's name ("802.3ad", "active-backup").
type BondConfig struct {
	Members []string `json:"members" yaml:"members"`
	// Mode is "802.3ad" when empty.
	Mode string `json:"mode,omitempty" yaml:"mode,omitempty"`
}

// Route is one static route.
type Route struct {
	To  string `json:"to" yaml:"to"`
	Via string `json:"via" yaml:"via"`
}

// BondModes are the bond modes that may be asked for, by the kernel's names.
var BondModes = []string{"802.3ad", "active-backup", "balance-alb", "balance-rr", "balance-tlb", "balance-xor", "broadcast"}

// credentialWire is Credential with its token in the open.
type credentialWire struct {
	Version    int          `json:"version"`
	Node       string       `json:"node"`
	Generation int64        `json:"generation"`
	Token      string       `json:"token"`
	Servers    []ServerRef  `json:"servers"`
	IssuedAt   time.Time    `json:"issued_at"`
	Network    *BootNetwork `json:"network,omitempty"`
	Console    string       `json:"console,omitempty"`
	DebugShell bool         `json:"debug_shell,omitempty"`
}

// Encode returns the credential as it stands on a boot medium, without padding and with its token.
func (c *Credential) Encode() ([]byte, error) {
	if fields := c.validate(); len(fields) > 0 {
		return nil, credentialError(fields)
	}
	b, err := json.Marshal(credentialWire{c.Version, c.Node, c.Generation, c.Token.Reveal(), c.Servers, c.IssuedAt, c.Network, c.Console, c.DebugShell})
	if err != nil {
		return nil, fmt.Errorf("encode credential: %w", err)
	}
	if len(b) > CredentialWindow {
		return nil, Errorf(Invalid, "MC-RAMDISK-CREDENTIAL", "the boot credential of %s has %d bytes and its window %d", c.Node, len(b), CredentialWindow).
			WithHint("shorten the node's boot_network: fewer routes, addresses or DNS servers")
	}
	return b, nil
}

// ErrNoCredential: the window is still empty; the medium was not served to a particular node.
var ErrNoCredential = errors.New("the boot medium carries no credential")

// ParseCredential reads what Encode wrote, followed by any number of spaces, and refuses everything else.
// The error is ErrNoCredential for an empty window, else an Error of kind Invalid that lists every fault.
func ParseCredential(b []byte) (*Credential, error) {
	b = bytes.TrimRight(b, " \x00\n")
	if len(b) == 0 {
		return nil, ErrNoCredential
	}
	if len(b) > CredentialWindow {
		return nil, credentialError([]FieldError{{"credential", fmt.Sprintf("%d bytes are more than %d", len(b), CredentialWindow)}})
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var w credentialWire
	if err := dec.Decode(&w); err != nil {
		return nil, credentialError([]FieldError{{fmt.Sprintf("byte %d", dec.InputOffset()), strings.TrimPrefix(err.Error(), "json: ")}})
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, credentialError([]FieldError{{fmt.Sprintf("byte %d", dec.InputOffset()), "something follows the credential"}})
	}
	c := &Credential{w.Version, w.Node, w.Generation, NewSecret(w.Token), w.Servers, w.IssuedAt, w.Network, w.Console, w.DebugShell}
	if fields := c.validate(); len(fields) > 0 {
		return nil, credentialError(fields)
	}
	return c, nil
}

func credentialError(fields []FieldError) *Error {
	e := Errorf(Invalid, "MC-BOOT-CREDENTIAL", "the boot credential is not valid")
	e.Fields = fields
	return e.WithHint("boot the node again from a fresh medium: metalctl node retry NODE")
}

var consoleName = regexp.MustCompile(`^tty[A-Za-z]{0,6}[0-9]{1,3}(,[0-9]{3,7}[neo]?[78]?r?)?$`)

func (c *Credential) validate() []FieldError {
	var f faults
	if c.Version != CredentialVersion {
		f.addf("version", "is %d, this agent reads %d", c.Version, CredentialVersion)
	}
	if c.Node == "" || len(c.Node) > 253 {
		f.addf("node", "must have 1 to 253 bytes")
	}
	if c.Generation < 0 {
		f.addf("generation", "is negative")
	}
	if c.Token.IsZero() {
		f.addf("token", "is missing")
	}
	if len(c.Servers) == 0 {
		f.addf("servers", "names no server")
	}
	for i, s := range c.Servers {
		at := fmt.Sprintf("servers[%d]", i)
		if u, err := url.Parse(s.URL); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			f.addf(at+".url", "%q is not an https URL", s.URL)
		}
		if !ValidKeyPin(s.KeyPin) {
			f.addf(at+".key_pin", "is not sha256/ and a hash in base64")
		}
	}
	if c.IssuedAt.IsZero() || c.IssuedAt.Year() > 9999 {
		f.addf("issued_at", "is missing or not a time")
	}
	if c.Console != "" && !consoleName.MatchString(c.Console) {
		f.addf("console", "%q is not a terminal such as ttyS1,115200", c.Console)
	}
	f = append(f, c.Network.Validate("network")...)
	return f
}

// ValidKeyPin reports whether pin is "sha256/" and 32 bytes in base64.
func ValidKeyPin(pin string) bool {
	rest, ok := strings.CutPrefix(pin, "sha256/")
	raw, err := base64.StdEncoding.DecodeString(rest)
	return ok && err == nil && len(raw) == 32
}

// faults collects what is wrong with an input.
type faults []FieldError

func (f *faults) addf(field, format string, args ...any) {
	*f = append(*f, FieldError{field, fmt.Sprintf(format, args...)})
}

// Validate lists what is wrong with n; each field begins with at. A nil network is valid (DHCP).
func (n *BootNetwork) Validate(at string) []FieldError {
	if n == nil {
		return nil
	}
	var f faults
	n.validateLink(at, &f)
	n.validateAddresses(at, &f)
	for i, s := range n.DNS {
		if _, err := netip.ParseAddr(s); err != nil {
			f.addf(fmt.Sprintf("%s.dns[%d]", at, i), "%q is not an address", s)
		}
	}
	if n.Proxy != "" {
		u, err := url.Parse(n.Proxy)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5") {
			f.addf(at+".proxy", "is not an http, https or socks5 URL")
		} else if u.User != nil {
			f.addf(at+".proxy", "holds a user or password, which would stand in the node's record; let the proxy know its clients by their addresses")
		}
	}
	return f
}

func (n *BootNetwork) validateLink(at string, f *faults) {
	if n.Interface != "" && !validLink(n.Interface) {
		f.addf(at+".interface", "%q is neither a MAC address nor an interface name", n.Interface)
	}
	if b := n.Bond; b != nil {
		if n.Interface != "" {
			f.addf(at+".bond", "cannot stand beside interface")
		}
		if len(b.Members) == 0 {
			f.addf(at+".bond.members", "names no member")
		}
		seen := map[string]bool{}
		for i, m := range b.Members {
			if !validLink(m) {
				f.addf(fmt.Sprintf("%s.bond.members[%d]", at, i), "%q is neither a MAC address nor an interface name", m)
			}
			if key := strings.ToLower(m); seen[key] {
				f.addf(fmt.Sprintf("%s.bond.members[%d]", at, i), "%q is named twice", m)
			} else {
				seen[key] = true
			}
		}
		if b.Mode != "" && !contains(BondModes, b.Mode) {
			f.addf(at+".bond.mode", "%q is none of %s", b.Mode, strings.Join(BondModes, ", "))
		}
	}
	if n.VLAN < 0 || n.VLAN > 4094 {
		f.addf(at+".vlan", "%d is not between 1 and 4094", n.VLAN)
	}
	// 1280 is the least that IPv6 allows (RFC 8200 section 5), 576 the least useful for IPv4; 9216 is what switches carry.
	if n.MTU != 0 && (n.MTU < 576 || n.MTU > 9216) {
		f.addf(at+".mtu", "%d is not between 576 and 9216", n.MTU)
	}
}

func (n *BootNetwork) validateAddresses(at string, f *faults) {
	var prefixes []netip.Prefix
	for i, s := range n.Addresses {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			f.addf(fmt.Sprintf("%s.addresses[%d]", at, i), "%q is not an address with a prefix length, such as 10.1.0.11/24", s)
		case p.Addr().IsUnspecified() || p.Addr().IsMulticast() || p.Addr().IsLoopback():
			f.addf(fmt.Sprintf("%s.addresses[%d]", at, i), "%q cannot be a machine's address", s)
		default:
			prefixes = append(prefixes, p)
		}
	}
	n.validateGateway(at+".gateway", n.Gateway, prefixes, f)
	n.validateGateway(at+".gateway6", n.Gateway6, prefixes, f)
	if g, err := netip.ParseAddr(n.Gateway6); err == nil && g.Is4() {
		f.addf(at+".gateway6", "%q is an IPv4 address; it belongs in gateway", n.Gateway6)
	}
	for i, r := range n.Routes {
		to, err := netip.ParsePrefix(r.To)
		if err != nil {
			f.addf(fmt.Sprintf("%s.routes[%d].to", at, i), "%q is not a network such as 10.2.0.0/16", r.To)
		}
		via, verr := netip.ParseAddr(r.Via)
		if verr != nil || via.Zone() != "" {
			f.addf(fmt.Sprintf("%s.routes[%d].via", at, i), "%q is not an address", r.Via)
		}
		if err == nil && verr == nil && to.Addr().Is4() != via.Is4() {
			f.addf(fmt.Sprintf("%s.routes[%d]", at, i), "mixes IPv4 and IPv6")
		}
	}
	if len(n.Addresses) == 0 && (n.Gateway != "" || n.Gateway6 != "") {
		f.addf(at+".gateway", "needs addresses; with DHCP the server names the gateway")
	}
}

// validateGateway asks for an address on one of the node's own networks, or a link-local one.
func (n *BootNetwork) validateGateway(at, s string, own []netip.Prefix, f *faults) {
	if s == "" {
		return
	}
	g, err := netip.ParseAddr(s)
	if err != nil || g.Zone() != "" {
		f.addf(at, "%q is not an address", s)
		return
	}
	if g.IsLinkLocalUnicast() || len(own) == 0 {
		return
	}
	for _, p := range own {
		if p.Contains(g) {
			return
		}
	}
	f.addf(at, "%q is on none of the networks of addresses", s)
}

var linkName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,14}$`)

func validLink(s string) bool {
	if hw, err := net.ParseMAC(s); err == nil {
		return len(hw) == 6
	}
	return linkName.MatchString(s)
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

// Window is where a boot medium keeps the credential, in bytes from its start.
type Window struct{ Offset, Size int64 }

// windowMagic begins the mark by which an ISO describes its window in its volume descriptor's application-use area.
const windowMagic = "METALCTL-CREDENTIAL-WINDOW-1"

// VolumeLabel is the ISO 9660 volume identifier of boot media.
const VolumeLabel = "METALCTL"

// Mark returns the text that an ISO's application-use area begins with; build is the hex SHA-256 of what the medium boots.
func (w Window) Mark(build string) string {
	return fmt.Sprintf("%s offset=%d size=%d build=%s\n", windowMagic, w.Offset, w.Size, build)
}

// ParseMark reads Mark's text from the start of an application-use area.
func ParseMark(area []byte) (w Window, build string, err error) {
	line, _, ok := bytes.Cut(area, []byte("\n"))
	if !ok || !bytes.HasPrefix(line, []byte(windowMagic+" ")) {
		return Window{}, "", errors.New("no credential window is described")
	}
	if _, err := fmt.Sscanf(string(line[len(windowMagic)+1:]), "offset=%d size=%d build=%s", &w.Offset, &w.Size, &build); err != nil {
		return Window{}, "", fmt.Errorf("read the mark of the credential window: %w", err)
	}
	if w.Offset < 0 || w.Size != CredentialWindow || w.Offset%512 != 0 || w.Offset > 1<<32 {
		return Window{}, "", fmt.Errorf("the credential window at %d of %d bytes is not possible", w.Offset, w.Size)
	}
	if _, err := hex.DecodeString(build); err != nil || len(build) != 64 {
		return Window{}, "", errors.New("the credential window's build is not a SHA-256")
	}
	return w, build, nil
}
