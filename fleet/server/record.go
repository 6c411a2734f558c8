package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Keys of what a node claims for itself alone.
func claimName(name string) fleet.Key       { return fleet.Key("unique/node-name/" + name) }
func claimAddress(address string) fleet.Key { return fleet.Key("unique/bmc-address/" + address) }
func claimUUID(uuid string) fleet.Key {
	return fleet.Key("unique/system-uuid/" + strings.ToLower(uuid))
}

// claimWire is that of a switch's port, or of a GUID, which is one port's in whatever fabric.
func claimWire(w fleet.Wire) fleet.Key {
	if w.Fabric {
		return fleet.Key("unique/guid/" + w.Port)
	}
	return fleet.Key("unique/switch-port/" + w.Device + "/" + w.Port)
}

// bmcSecretKey is where the password of a node's BMC is kept, encrypted.
func bmcSecretKey(id fleet.NodeID) fleet.Key { return fleet.Key("secret/node/" + string(id) + "/bmc") }

// sessionSecretKey is where whoever opens BMCs keeps the session at a node's BMC.
func sessionSecretKey(id fleet.NodeID) fleet.Key {
	return fleet.Key("secret/node/" + string(id) + "/session")
}

var looksLikeID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func nodeEvent(n *fleet.Node, kind string, at time.Time, text string) fleet.Event {
	return fleet.Event{Type: kind, At: at.UTC(), Subject: fleet.KeyOf(fleet.KindNode, n.ID), Node: n.ID, Lease: n.Lease, Text: n.Name + ": " + text}
}

// findNode reads a node by id or name.
func findNode(sn fleet.Snapshot, idOrName string) (fleet.Node, fleet.Revision, error) {
	id := fleet.NodeID(idOrName)
	if !looksLikeID.MatchString(idOrName) {
		var err error
		if !fleet.ValidName(idOrName) {
			return fleet.Node{}, 0, noNode(idOrName)
		}
		if id, _, err = fleet.Get[fleet.NodeID](sn, claimName(idOrName)); fleet.KindOf(err) == fleet.NotFound {
			return fleet.Node{}, 0, noNode(idOrName)
		} else if err != nil {
			return fleet.Node{}, 0, err
		}
	}
	n, rev, err := fleet.Get[fleet.Node](sn, fleet.KeyOf(fleet.KindNode, id))
	if err != nil && fleet.KindOf(err) == fleet.NotFound {
		return n, 0, noNode(idOrName)
	}
	return n, rev, err
}

func noNode(name string) error {
	return fleet.Errorf(fleet.NotFound, "MC-NODE-UNKNOWN", "there is no node %q", shortened(name)).WithHint("metalctl node list")
}

func readSite(sn fleet.Snapshot) (fleet.Site, fleet.Revision, error) {
	site, rev, err := fleet.Get[fleet.Site](sn, fleet.SiteKey)
	if err != nil && fleet.KindOf(err) == fleet.NotFound {
		return fleet.Site{Isolation: "required"}, 0, nil
	}
	return site, rev, err
}

// node reads one node by id or name, outside a larger look.
func (s *Server) node(ctx context.Context, idOrName string) (n fleet.Node, rev fleet.Revision, err error) {
	err = s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		n, rev, err = findNode(sn, idOrName)
		return err
	})
	return n, rev, err
}

// errUnchanged ends updateNode without a commit.
var errUnchanged = errors.New("unchanged")

// updateNode reads the node, lets fn change it and add to the commit, and commits; again from the start where somebody else was first.
// With errUnchanged from fn nothing is written.
func (s *Server) updateNode(ctx context.Context, id fleet.NodeID, fn func(*fleet.Node, *fleet.Change) error) error {
	key := fleet.KeyOf(fleet.KindNode, id)
	for try := 1; ; try++ {
		n, rev, err := s.node(ctx, string(id))
		if err != nil {
			return err
		}
		c := fleet.Change{If: []fleet.Precondition{{Key: key, Revision: rev}}}
		if err := fn(&n, &c); errors.Is(err, errUnchanged) {
			return nil
		} else if err != nil {
			return err
		}
		c.Writes = append(c.Writes, fleet.Write{Key: key, Value: n})
		_, err = s.Store.Commit(ctx, c)
		if err == nil || fleet.CodeOf(err) != "MC-STORE-STALE" || try == 20 {
			return err
		}
	}
}

// maxNode is the most that a node's record may have, in bytes (architecture section 8).
const maxNode = 4 << 10

// fits refuses a node record that has outgrown its limit.
func fits(n *fleet.Node) error {
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode node %s: %w", n.Name, err)
	}
	if len(b) > maxNode {
		return fleet.Errorf(fleet.Invalid, "MC-NODE-SIZE", "the record of %s has %d bytes and its limit is %d", n.Name, len(b), maxNode).
			WithHint("use fewer labels, ports or routes")
	}
	return nil
}
