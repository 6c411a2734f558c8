package server

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// access is how a node's BMC was opened with reads only, before a change of its address or trust is recorded.
type access struct {
	was, now fleet.BMC
	ca       string // the certificates that now.TLS.CA names, where they are new
	waited   bool   // an operation waits for exactly this
}

// reopen opens the node's BMC at the address and trust of p, and refuses another machine. It returns nil where p changes neither.
func (s *Server) reopen(ctx context.Context, n *fleet.Node, p *api.NodePatch) (*access, error) {
	if p.TLS == nil && p.Address == nil {
		return nil, nil
	}
	if _, err := s.accessFree(ctx, n); err != nil {
		return nil, err
	}
	a := &access{was: n.BMC}
	ask := n.BMC
	setIf(&ask.User, p.User)
	if p.Address != nil {
		address, err := bmcAddress(*p.Address)
		if err != nil {
			return nil, badAddress(*p.Address, err)
		}
		if err := s.reachableFrom(address); err != nil {
			return nil, err
		}
		ask.Address = address
	}
	if p.TLS != nil {
		ask.TLS = fleet.BMCTLS{CAPEM: p.TLS.CAPEM, Pin: p.TLS.Pin, FirstUse: p.TLS.FirstUse}
		a.ca = p.TLS.CAPEM
	}
	wanted := *n
	wanted.BMC = ask
	if err := s.unclaimed(ctx, &wanted); err != nil {
		return nil, err
	}
	password, err := s.accessSecrets(ctx, n.ID, &ask.TLS)
	if err != nil {
		return nil, err
	}
	if p.Password != nil {
		password = fleet.NewSecret(*p.Password)
	}
	look, cancel := context.WithTimeout(ctx, enrolLimit)
	defer cancel()
	learned, err := s.Enroller.Enroll(look, ask, password)
	if err != nil {
		return nil, fmt.Errorf("open the BMC of %s at %s: %w", n.Name, ask.Address, err)
	}
	if err := sameMachine(n, ask.Address, learned); err != nil {
		return nil, err
	}
	l := learned.BMC
	a.now = ask
	if ask.TLS.FirstUse && ask.TLS.Pin == "" {
		a.now.TLS.Pin = l.TLS.Pin
	}
	if a.ca != "" {
		a.now.TLS.CA = hashToken(a.ca)
	}
	a.now.TLS.CAPEM = ""
	a.now.Auth, a.now.Quirk, a.now.Vendor, a.now.Model, a.now.Firmware, a.now.BootMethod = l.Auth, l.Quirk, l.Vendor, l.Model, l.Firmware, l.BootMethod
	return a, nil
}

// accessSecrets reads the stored password, and the certificates that the trust names.
func (s *Server) accessSecrets(ctx context.Context, id fleet.NodeID, tls *fleet.BMCTLS) (fleet.Secret, error) {
	var password string
	err := s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		if password, _, err = fleet.Get[string](sn, bmcSecretKey(id)); err != nil || tls.CA == "" {
			return err
		}
		tls.CAPEM, _, err = fleet.Get[string](sn, fleet.KeyOf(fleet.KindCA, tls.CA))
		return err
	})
	return fleet.NewSecret(password), err
}

// record puts the new access into the node and the commit: the claim of the address moves with it. What was looked at must still be so.
func (a *access) record(ctx context.Context, s *Server, n *fleet.Node, c *fleet.Change) error {
	waits, err := s.accessFree(ctx, n)
	if err != nil {
		return err
	}
	if a.waited = waits != nil; a.waited {
		c.If = append(c.If, *waits)
	}
	if n.BMC.Address != a.was.Address || n.BMC.User != a.was.User || n.BMC.TLS != a.was.TLS {
		return fleet.Errorf(fleet.Conflict, "MC-API-STALE", "somebody else changed how the BMC of %s is reached meanwhile", n.Name).WithHint("metalctl node show %s", n.Name)
	}
	slot, parameters := n.BMC.MediaSlot, n.BMC.MediaParameters
	n.BMC = a.now
	n.BMC.MediaSlot, n.BMC.MediaParameters = slot, parameters
	if from, to := claimAddress(a.was.Address), claimAddress(a.now.Address); from != to {
		if err := s.unclaimed(ctx, n); err != nil {
			return err
		}
		c.If = append(c.If, fleet.Precondition{Key: to})
		c.Writes = append(c.Writes, fleet.Write{Key: from}, fleet.Write{Key: to, Value: n.ID})
	}
	if a.ca != "" {
		c.Writes = append(c.Writes, fleet.Write{Key: fleet.KeyOf(fleet.KindCA, n.BMC.TLS.CA), Value: a.ca})
	}
	return nil
}

// accessCodes are the problems of a step that another address or trust of the BMC can end.
var accessCodes = []string{"MC-BMC-TLS", "MC-BMC-UNREACHABLE", "MC-BMC-TIMEOUT", "MC-BMC-IDENTITY", "MC-BMC-PROTOCOL"}

// accessFree refuses while a plan runs on the node or waits to: it would lose its BMC between two steps. One that waits for its BMC is what the change is
// for: it lets it, as long as the operation is still as it was seen, and the machine is identified before anything is recorded.
func (s *Server) accessFree(ctx context.Context, n *fleet.Node) (*fleet.Precondition, error) {
	id := planOf(n)
	if id == "" {
		return nil, nil
	}
	busy := fleet.Errorf(fleet.Conflict, "MC-NODE-BUSY", "the operation %s works on %s and needs its BMC as it is", id, n.Name).WithHint("metalctl node abort %s", n.Name)
	op, rev, err := s.operation(ctx, string(id))
	if err != nil && fleet.KindOf(err) != fleet.NotFound {
		return nil, err
	}
	if i := op.Current(); err != nil || i < 0 || !awaitsAccess(op.Steps[i]) {
		return nil, busy // a wish whose plan is not composed yet has no operation
	}
	return &fleet.Precondition{Key: fleet.KeyOf(fleet.KindOperation, id), Revision: rev}, nil
}

// awaitsAccess: the step's last try failed at the BMC's door, and the next has not begun.
func awaitsAccess(r fleet.StepRun) bool {
	return r.Side == step.OutOfBand && r.State == fleet.StepPending && r.Error != nil && slices.Contains(accessCodes, r.Error.Code)
}

// goOn lets an operation that waited for its BMC try at once; where it does not wait any more, nothing is to be done.
func (s *Server) goOn(ctx context.Context, n *fleet.Node) {
	if _, err := s.engine.Verbs.Ask(ctx, n.ID, api.VerbRetry, api.NodeVerb{}, callerOf(ctx)); err != nil {
		s.Log.Debug("an operation that waited for its BMC goes on by itself", "node", n.Name, "err", err)
	}
}

// sameMachine refuses a BMC that is not known to be the one that was enrolled: all that was recorded must be answered, and something must have been.
func sameMachine(n *fleet.Node, address string, l Learned) error {
	serial, id := l.BMC.Serial, l.BMC.UUID
	if serial == "" {
		serial = l.System.Serial
	}
	if id == "" {
		id = l.System.UUID
	}
	e := fleet.Errorf(fleet.Refused, "MC-NODE-IDENTITY", "the machine behind %s is not known to be %s; nothing is changed", address, n.Name).
		WithHint("check the address; metalctl node show %s -o json has the recorded serial and UUID", n.Name)
	for _, c := range []struct{ field, got, want string }{{"bmc.serial", serial, n.BMC.Serial}, {"bmc.uuid", id, uniqueUUID(*n)}} {
		if c.want != "" && !strings.EqualFold(c.got, c.want) {
			e.Fields = append(e.Fields, fleet.FieldError{Field: c.field, Message: fmt.Sprintf("is %q at the BMC, recorded is %q", c.got, c.want)})
		}
	}
	if n.BMC.Serial == "" && uniqueUUID(*n) == "" {
		e.Fields = append(e.Fields, fleet.FieldError{Field: "bmc", Message: "neither a serial nor a UUID was recorded at enrolment"})
	}
	if len(e.Fields) > 0 {
		return e
	}
	return nil
}
