package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// bootSecret is what a boot medium is made of, kept encrypted until the medium expires, so that a restarted server serves the same bytes.
type bootSecret struct {
	MediaID    string `json:"media_id"`
	Generation int64  `json:"generation"`
	Credential string `json:"credential"`
	// Ramdisk is the digest of what the credential is laid over; "" where an older server issued it, which had one medium only.
	Ramdisk  string    `json:"ramdisk,omitempty"`
	IssuedAt time.Time `json:"issued_at"`
}

func bootSecretKey(id fleet.NodeID) fleet.Key { return fleet.Key("secret/boot/" + string(id)) }

// mediumClaim leads from the hash of a medium's id to its node.
func mediumClaim(hash string) fleet.Key { return fleet.Key("unique/medium/" + hash) }

// Issue begins a new boot generation of the node: a new single-use token, credential and medium. All is durable before the address exists; what was
// issued before is void. It returns the address, the authority that a BMC must trust for it, and the generation.
func (s *Server) Issue(ctx context.Context, id fleet.NodeID) (address string, caPEM []byte, generation int64, err error) {
	token, medium := newToken(), newToken()
	var old, name string
	sum, why, err := s.ramdiskOf(ctx, id)
	if err != nil {
		return "", nil, 0, fmt.Errorf("issue a boot medium: %w", err)
	}
	err = s.updateNode(ctx, id, func(n *fleet.Node, c *fleet.Change) error {
		old, name = n.Boot.MediaID, n.Name
		generation = max(n.Boot.Generation, n.Boot.Witnessed) + 1
		issued := s.Now().UTC().Truncate(time.Second)
		cred := fleet.Credential{
			Version: fleet.CredentialVersion, Node: string(id), Generation: generation, Token: fleet.NewSecret(token),
			Servers: s.serverRefs(), IssuedAt: issued, Network: n.BootNetwork, Console: s.cfg.Console, DebugShell: n.DebugShell,
		}
		text, err := cred.Encode()
		if err != nil {
			return err
		}
		secret, err := json.Marshal(bootSecret{MediaID: medium, Generation: generation, Credential: string(text), Ramdisk: sum, IssuedAt: issued})
		if err != nil {
			return fmt.Errorf("encode the boot secret: %w", err)
		}
		n.Boot = fleet.BootRecord{Generation: generation, TokenHash: hashToken(token), MediaID: hashToken(medium), IssuedAt: issued, Origin: s.URL(), Ramdisk: sum}
		if old != "" {
			c.Writes = append(c.Writes, fleet.Write{Key: mediumClaim(old)})
		}
		c.Writes = append(c.Writes, fleet.Write{Key: bootSecretKey(id), Value: fleet.NewSecret(string(secret))},
			fleet.Write{Key: mediumClaim(n.Boot.MediaID), Value: string(id)})
		c.Events = append(c.Events, nodeEvent(n, "node.boot", s.Now(), fmt.Sprintf("boot generation %d begins with ramdisk %s (%s)", generation, fleet.Ramdisk{SHA256: sum}.Name(), why)))
		noteOutcome(c, fleet.RamdiskOutcome{SHA256: sum, Generation: generation, Kind: "boot"})
		return nil
	})
	if err != nil {
		return "", nil, 0, fmt.Errorf("issue a boot medium: %w", err)
	}
	s.media.drop(id)
	s.presence.forget(id)
	s.Log.InfoContext(ctx, "boot medium issued", fleet.LogNode, name, "generation", generation, "ramdisk", fleet.Ramdisk{SHA256: sum}.Name())
	return s.advertise.JoinPath("boot", medium, "metalctl.iso").String(), s.ca.caPEM, generation, nil
}

// PlainAddress is the same medium's address over http, for a BMC that cannot do https; "" where the server has no such listener.
func (s *Server) PlainAddress(address string) string {
	u, err := url.Parse(address)
	if err != nil || s.advertiseBoot == nil {
		return ""
	}
	u.Scheme, u.Host = s.advertiseBoot.Scheme, s.advertiseBoot.Host
	return u.String()
}

// FirmwareAddress is the same medium's address for a machine's own firmware, which boots over its network card: http where the server has that
// listener, as firmware holds no certificate of ours, else https; at the host that nodes reach this server at.
func (s *Server) FirmwareAddress(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	u.Scheme, u.Host = s.firmwareOrigin()
	return u.String()
}

func (s *Server) firmwareOrigin() (scheme, host string) {
	if s.advertiseBoot == nil {
		return s.advertiseNodes.Scheme, s.advertiseNodes.Host
	}
	if s.advertiseNodes.Hostname() == s.advertise.Hostname() {
		return s.advertiseBoot.Scheme, s.advertiseBoot.Host
	}
	host = s.advertiseNodes.Hostname()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port := s.advertiseBoot.Port(); port != "" {
		host += ":" + port
	}
	return s.advertiseBoot.Scheme, host
}

// MediaOrigins are the beginnings of all addresses that this server's boot media have.
func (s *Server) MediaOrigins() []string {
	scheme, host := s.firmwareOrigin()
	all := []string{s.advertise.String(), scheme + "://" + host}
	if s.advertiseBoot != nil {
		all = append(all, s.advertiseBoot.String())
	}
	return all
}

// Expire ends the address of the node's medium, and its token where no agent has spent it. The session of an agent that it booted goes on. It is
// idempotent.
func (s *Server) Expire(ctx context.Context, id fleet.NodeID) error {
	err := s.updateNode(ctx, id, func(n *fleet.Node, c *fleet.Change) error {
		unspent := n.Boot.TokenHash != "" && n.Boot.AgentKey == ""
		if n.Boot.MediaID == "" && !unspent {
			return errUnchanged
		}
		if n.Boot.MediaID != "" {
			c.Writes = append(c.Writes, fleet.Write{Key: mediumClaim(n.Boot.MediaID)}, fleet.Write{Key: bootSecretKey(id)})
		}
		n.Boot.MediaID = ""
		if unspent {
			n.Boot.TokenHash = ""
		}
		return nil
	})
	s.media.drop(id)
	if err != nil {
		return fmt.Errorf("expire the boot medium: %w", err)
	}
	return nil
}

// serverRefs are the servers that an agent may go to: this one, those of the configuration, and the other one of two.
func (s *Server) serverRefs() []fleet.ServerRef {
	refs := append([]fleet.ServerRef{{URL: s.advertiseNodes.String(), KeyPin: s.KeyPin()}}, s.cfg.Servers...)
	if s.Standby == nil {
		return refs
	}
	// The key is in the store, so that the second server has the same.
	if other := s.Standby.PartnerNodes(); other != "" && other != refs[0].URL {
		refs = append(refs, fleet.ServerRef{URL: other, KeyPin: s.KeyPin()})
	}
	return refs
}

// mediaIndex keeps the media that are being read, so that a range costs no look into the store.
type mediaIndex struct {
	mu   sync.Mutex // guards open
	open map[string]*medium
}

// medium is one node's view of the shared ISO.
type medium struct {
	node       fleet.NodeID
	generation int64
	issued     time.Time
	size       int64
	content    io.ReaderAt
	plain      atomic.Bool // it was read over http, and that is recorded
}

func newMediaIndex() *mediaIndex {
	return &mediaIndex{open: map[string]*medium{}}
}

func (x *mediaIndex) drop(id fleet.NodeID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for hash, m := range x.open {
		if m.node == id {
			delete(x.open, hash)
		}
	}
}

func (x *mediaIndex) get(hash string) *medium {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.open[hash]
}

func (x *mediaIndex) put(hash string, m *medium) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.open[hash] = m
}

var errNoMedium = fleet.Errorf(fleet.NotFound, "MC-BOOT-MEDIUM", "there is no boot medium at this address, or it has expired")

// openMedium finds the medium with that id.
func (s *Server) openMedium(ctx context.Context, mediaID string) (*medium, error) {
	hash := hashToken(mediaID)
	m := s.media.get(hash)
	if m == nil {
		var err error
		if m, err = s.loadMedium(ctx, mediaID, hash); err != nil {
			return nil, err
		}
	}
	if s.Now().After(m.issued.Add(s.cfg.MediaLife)) {
		return nil, errNoMedium
	}
	return m, nil
}

func (s *Server) loadMedium(ctx context.Context, mediaID, hash string) (*medium, error) {
	var id fleet.NodeID
	var node fleet.Node
	var text string
	err := s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		if id, _, err = fleet.Get[fleet.NodeID](sn, mediumClaim(hash)); err != nil {
			return err
		}
		if node, _, err = fleet.Get[fleet.Node](sn, fleet.KeyOf(fleet.KindNode, id)); err != nil {
			return err
		}
		text, _, err = fleet.Get[string](sn, bootSecretKey(id))
		return err
	})
	if fleet.KindOf(err) == fleet.NotFound {
		return nil, errNoMedium
	}
	if err != nil {
		return nil, fmt.Errorf("look for a boot medium: %w", err)
	}
	var b bootSecret
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		return nil, fleet.Errorf(fleet.Broken, "MC-STORE-DECODE", "the boot secret of node %s cannot be read", id).WithHint("metalctl server check")
	}
	if b.MediaID != mediaID || b.Generation != node.Boot.Generation || node.Boot.MediaID != hash {
		return nil, errNoMedium
	}
	shared, err := s.Media.Medium(b.Ramdisk)
	if err != nil {
		return nil, err
	}
	content, err := shared.Overlay([]byte(b.Credential))
	if err != nil {
		return nil, fleet.Errorf(fleet.Broken, "MC-BOOT-OVERLAY", "put the credential of %s onto the boot medium: %w", node.Name, err).
			WithHint("build the ramdisk again: metalctl ramdisk build")
	}
	m := &medium{node: id, generation: b.Generation, issued: b.IssuedAt, size: shared.Size(), content: content}
	s.media.put(hash, m)
	return m, nil
}
