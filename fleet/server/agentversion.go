package server

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/metalctl/metalctl/fleet"
)

// speaks reports whether the server works with agents of that version of their protocol: its own and the one before.
func (s *Server) speaks(version int) bool {
	return version == s.agents || version == s.agents-1 && version > 0
}

// hello is what an agent of any version says of itself at first contact.
type hello struct {
	Version    int          `json:"version"`
	Node       fleet.NodeID `json:"node"`
	Generation int64        `json:"generation"`
	Token      string       `json:"token"`
	Boot       struct {
		Program string `json:"program"`
	} `json:"boot"`
}

// greet refuses an agent of a version that the server does not speak, in words that the agent shows on its console. Of one that has the boot's token the
// node's record and its timeline are told, so that whoever waits for it stops.
func (s *Server) greet(ctx context.Context, body []byte, remote string) error {
	var h hello
	if err := json.Unmarshal(body, &h); err != nil {
		return fleet.Errorf(fleet.Invalid, "MC-API-BODY", "the registration cannot be read: %w", err)
	}
	if s.speaks(h.Version) {
		return nil
	}
	name := "NODE"
	why := s.unspoken(h.Version, h.Boot.Program)
	err := s.updateNode(ctx, h.Node, func(n *fleet.Node, c *fleet.Change) error {
		if h.Generation != n.Boot.Generation || n.Boot.TokenHash == "" || !sameText(hashToken(h.Token), n.Boot.TokenHash) {
			return errUnchanged
		}
		if name = n.Name; n.Boot.Refused != "" {
			return errUnchanged
		}
		s.turnAway(n, c, h.Version, h.Boot.Program, why, remote)
		return nil
	})
	if err != nil && fleet.KindOf(err) != fleet.NotFound {
		return err
	}
	return errVersion(why, name)
}

// stillSpoken refuses the session of an agent that registered with an older server, of a version that this one does not speak any more.
func (s *Server) stillSpoken(ctx context.Context, n *fleet.Node, remote string) error {
	if s.speaks(n.Boot.Speaks()) {
		return nil
	}
	why := s.unspoken(n.Boot.Speaks(), n.Boot.Program)
	generation := n.Boot.Generation
	err := s.updateNode(ctx, n.ID, func(n *fleet.Node, c *fleet.Change) error {
		if n.Boot.Refused != "" || n.Boot.Generation != generation {
			return errUnchanged
		}
		s.turnAway(n, c, n.Boot.Speaks(), n.Boot.Program, why, remote)
		return nil
	})
	if err != nil {
		return err
	}
	return errVersion(why, n.Name)
}

// turnAway records that the agent of this boot is refused.
func (s *Server) turnAway(n *fleet.Node, c *fleet.Change, version int, program, why, remote string) {
	n.Boot.Protocol, n.Boot.Program, n.Boot.Refused = version, printable(cutTo(program, 40)), why
	c.Events = append(c.Events, nodeEvent(n, "node.agent", s.Now(), fmt.Sprintf("MC-AGENT-VERSION: the agent of boot generation %d is refused: %s", n.Boot.Generation, why)))
	s.note(n.ID, n.Boot.Generation, "agent", fmt.Sprintf("refused, from %s: MC-AGENT-VERSION: %s", remote, why))
	s.Log.Warn("an agent of another version is refused", fleet.LogNode, n.Name, "generation", n.Boot.Generation, "version", version, "remote", remote)
}

// unspoken says in words which side is behind.
func (s *Server) unspoken(version int, program string) string {
	ours := fmt.Sprint(s.agents)
	if s.agents > 1 {
		ours = fmt.Sprintf("%d and %d", s.agents, s.agents-1)
	}
	side := "the ramdisk is too old for this server"
	if version > s.agents {
		side = "this server is too old for the ramdisk"
	}
	if program = printable(cutTo(program, 40)); program != "" {
		program = " (metalctl " + program + ")"
	}
	return fmt.Sprintf("the agent%s speaks version %d of the protocol and the server %s: %s", program, version, ours, side)
}

func errVersion(why, name string) error {
	return fleet.Errorf(fleet.Denied, "MC-AGENT-VERSION", "%s", why).
		WithHint("boot it with a ramdisk of this server: metalctl node retry %s; metalctl help MC-AGENT-VERSION says more", name)
}

func cutTo(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
