package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/subtle"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// keyRevoked stands in BootRecord.AgentKey once a token was used twice: no key is ever its pin.
const keyRevoked = "revoked"

func sameText(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// agentHandler is the agent's protocol (architecture section 7).
func (s *Server) agentHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+api.AgentRegisterPath, s.agentRegister)
	mux.HandleFunc("GET "+api.AgentTaskPath, s.session(s.agentTask))
	mux.HandleFunc("POST "+api.AgentResultPath, s.session(s.agentResult))
	mux.HandleFunc("POST "+api.AgentProgressPath, s.session(s.agentProgress))
	mux.HandleFunc("POST "+api.AgentReportPath, s.session(s.agentReport))
	mux.HandleFunc("GET "+api.AgentUserDataPath, s.session(s.agentUserData))
	mux.HandleFunc("GET "+api.AgentPackPath+"{sha256}", s.session(s.agentPack))
	mux.HandleFunc("/", s.noSuchPath)
	return mux
}

// readBody decodes one JSON value and refuses unknown fields, more than limit bytes and anything behind it.
func readBody(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	control := http.NewResponseController(w)
	control.SetReadDeadline(time.Now().Add(time.Minute)) //nolint:errcheck // a reader without deadlines (tests) cannot stall
	defer control.SetReadDeadline(time.Time{})           //nolint:errcheck // as above
	return decodeStrict(http.MaxBytesReader(w, r.Body, limit), v)
}

// decodeStrict decodes one JSON value and refuses unknown fields and anything behind it.
func decodeStrict(r io.Reader, v any) error {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, err = dec.Token(); err == io.EOF {
			return nil
		} else if err == nil {
			err = errors.New("something follows the JSON value")
		}
	}
	var tooBig *http.MaxBytesError
	if errors.As(err, &tooBig) {
		return fleet.Errorf(fleet.Invalid, "MC-API-BODY-SIZE", "the body has more than %d bytes", tooBig.Limit)
	}
	return fleet.Errorf(fleet.Invalid, "MC-API-BODY", "byte %d of the body: %s", dec.InputOffset(), strings.TrimPrefix(err.Error(), "json: "))
}

// decodeRegister checks the form of a registration and returns the key that it is for.
func decodeRegister(reg *api.Register) (*ecdsa.PublicKey, error) {
	bad := fleet.Errorf(fleet.Invalid, "MC-AGENT-REGISTER", "the registration is not valid")
	check := func(ok bool, field, message string) {
		if !ok {
			bad.Fields = append(bad.Fields, fleet.FieldError{Field: field, Message: message})
		}
	}
	check(looksLikeID.MatchString(string(reg.Node)), "node", "is no node's id")
	check(reg.Generation > 0, "generation", "is not positive")
	check(reg.Token != "" && len(reg.Token) <= 256, "token", "is missing")
	check(len(reg.UUID) <= 64, "uuid", "is too long")
	check(len(reg.Serial) <= 128, "serial", "is too long")
	check(len(reg.MACs) <= 256, "macs", "are too many")
	check(len(reg.CSR) <= 8<<10, "csr", "is too long")
	check(plausible(reg.Boot.Uptime), "boot.uptime_seconds", "is no time since the kernel started")
	check(len(reg.Boot.Stages) <= 16, "boot.stages", "are too many")
	for name, at := range reg.Boot.Stages {
		check(stageName.MatchString(name) && plausible(at), "boot.stages", "are not names with seconds")
	}
	var key *ecdsa.PublicKey
	block, rest := pem.Decode([]byte(reg.CSR))
	if block == nil || block.Type != "CERTIFICATE REQUEST" || strings.TrimSpace(string(rest)) != "" {
		check(false, "csr", "is not one PEM certificate request")
	} else if csr, err := x509.ParseCertificateRequest(block.Bytes); err != nil {
		check(false, "csr", "cannot be parsed")
	} else if err := csr.CheckSignature(); err != nil {
		check(false, "csr", "is not signed by its own key")
	} else {
		var ok bool
		key, ok = csr.PublicKey.(*ecdsa.PublicKey)
		check(ok && key.Curve == elliptic.P256(), "csr", "is not for an ECDSA P-256 key")
	}
	if len(bad.Fields) > 0 {
		return nil, bad
	}
	return key, nil
}

func (s *Server) agentRegister(w http.ResponseWriter, r *http.Request) {
	var body json.RawMessage
	err := readBody(w, r, 64<<10, &body)
	if err == nil {
		err = s.greet(r.Context(), body, remoteHost(r))
	}
	var reg api.Register
	if err == nil {
		err = decodeStrict(bytes.NewReader(body), &reg)
	}
	var out api.Registered
	if err == nil {
		out, err = s.register(r.Context(), &reg, remoteHost(r))
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	answer(w, http.StatusOK, out)
}

// register binds the token to the key. What it decides is durable before the agent hears it.
func (s *Server) register(ctx context.Context, reg *api.Register, remote string) (api.Registered, error) {
	var out api.Registered
	key, err := decodeRegister(reg)
	if err != nil {
		return out, err
	}
	pin, err := keyPin(key)
	if err != nil {
		return out, err
	}
	var verdict error // a refusal that is itself recorded
	var node fleet.Node
	first := false
	err = s.updateNode(ctx, reg.Node, func(n *fleet.Node, c *fleet.Change) error {
		verdict, first = nil, false
		switch {
		case reg.Generation < n.Boot.Generation:
			return errOlderBoot(n)
		case reg.Generation > n.Boot.Generation || n.Boot.TokenHash == "" || !sameText(hashToken(reg.Token), n.Boot.TokenHash):
			return fleet.Errorf(fleet.Denied, "MC-AGENT-TOKEN", "the boot token is not this boot's").WithHint("boot the node again: metalctl node retry %s", n.Name)
		case n.Boot.AgentKey == keyRevoked:
			return errRevoked(n)
		case n.Boot.AgentKey != "" && !sameText(n.Boot.AgentKey, pin):
			s.tokenReused(n, c, remote)
			verdict = errRevoked(n)
			return nil
		case n.Boot.AgentKey == "" && s.Now().Sub(n.Boot.IssuedAt) > s.cfg.MediaLife:
			return fleet.Errorf(fleet.Denied, "MC-AGENT-EXPIRED", "the boot token of %s was issued at %s and good for %s", n.Name, n.Boot.IssuedAt.Format(time.RFC3339), s.cfg.MediaLife).
				WithHint("boot the node again: metalctl node retry %s", n.Name)
		}
		if err := s.sameMachine(n, reg); err != nil {
			s.otherMachine(n, c, err)
			verdict = err
			return nil
		}
		node = *n
		if n.Boot.AgentKey != "" {
			return errUnchanged // a lost answer
		}
		first = true
		n.Boot.AgentKey, n.Boot.RegisteredAt, n.Boot.Stages = pin, s.Now().UTC().Truncate(time.Second), bootStages(reg.Boot)
		n.Boot.Protocol, n.Boot.Program, n.Boot.Refused = reg.Version, printable(cutTo(reg.Boot.Program, 40)), ""
		if reg.Boot.SecureBoot == "on" {
			n.Boot.Unauthenticated = false // the firmware checked what came over http
		}
		n.ClearFault(FaultIdentity, "system")
		node = *n
		c.Events = append(c.Events, nodeEvent(n, "node.agent", s.Now(), fmt.Sprintf("agent of boot generation %d is here", reg.Generation)))
		noteOutcome(c, fleet.RamdiskOutcome{SHA256: n.Boot.Ramdisk, Generation: reg.Generation, Kind: "arrived", Program: n.Boot.Program, Protocol: reg.Version})
		return nil
	})
	if err == nil {
		err = verdict
	}
	if fleet.CodeOf(err) == "MC-NODE-UNKNOWN" {
		// Nothing is told to those who have no token, not even which nodes there are.
		err = fleet.Errorf(fleet.Denied, "MC-AGENT-TOKEN", "the boot token is not this boot's")
	}
	if err != nil {
		return out, err
	}
	cert, err := s.ca.bootCert(node.ID, reg.Generation, key, node.Boot.RegisteredAt)
	if err != nil {
		return out, err
	}
	s.presence.see(node.ID, reg.Generation, remote)
	if first {
		s.Log.Info("agent registered", fleet.LogNode, node.Name, "generation", reg.Generation, "remote", remote)
		s.note(node.ID, reg.Generation, "agent", fmt.Sprintf("registered from %s, %.1f s after its kernel started; secure boot %s", remote, reg.Boot.Uptime, word(reg.Boot.SecureBoot)))
	}
	if first && len(node.Boot.Stages) > 0 {
		s.note(node.ID, reg.Generation, "agent", bootLine(s.Now(), node.Boot.Stages))
	}
	return api.Registered{Version: reg.Version, Certificate: string(cert), Now: s.Now().UTC(), Name: node.Name}, nil
}

// FaultIdentity: another machine than was enrolled has booted.
const FaultIdentity = "MC-FAULT-IDENTITY"

func errOlderBoot(n *fleet.Node) error {
	return fleet.Errorf(fleet.Conflict, "MC-AGENT-GENERATION", "a newer boot of %s has begun; this one is over", n.Name).WithHint("metalctl node show %s", n.Name)
}

func errRevoked(n *fleet.Node) error {
	return fleet.Errorf(fleet.Denied, "MC-AGENT-REVOKED", "the boot token of %s was used by two keys; both are refused", n.Name).
		WithHint("find out who read the boot medium: metalctl node timeline %s; then: metalctl node retry %s", n.Name, n.Name)
}

// tokenReused revokes both sessions: nobody can tell which of the two keys is the machine's.
func (s *Server) tokenReused(n *fleet.Node, c *fleet.Change, remote string) {
	if n.Boot.MediaID != "" {
		c.Writes = append(c.Writes, fleet.Write{Key: mediumClaim(n.Boot.MediaID)}, fleet.Write{Key: bootSecretKey(n.ID)})
	}
	n.Boot.AgentKey, n.Boot.MediaID = keyRevoked, ""
	s.media.drop(n.ID)
	s.presence.revoke(n.ID, n.Boot.Generation) // no plan counts on either of them
	n.RaiseFault(fleet.Fault{
		Code: fleet.FaultTokenReused, Component: "agent", Severity: fleet.Critical, Since: s.Now().UTC(), Blocks: fleet.BlocksEverything,
		Evidence: fmt.Sprintf("boot generation %d: a second key from %s used the token that was spent at %s", n.Boot.Generation, remote, n.Boot.RegisteredAt.Format(time.RFC3339)),
		Hint: fmt.Sprintf("metalctl node timeline %s; when nobody else can read the boot medium any more: metalctl node clear-fault %s --code %s --component agent",
			n.Name, n.Name, fleet.FaultTokenReused),
	})
	c.Events = append(c.Events, nodeEvent(n, "node.fault", s.Now(), "boot token used twice; both sessions are revoked"))
	s.Log.Warn("boot token used twice", fleet.LogNode, n.Name, "generation", n.Boot.Generation, "remote", remote)
}

// sameMachine compares what the agent read from its machine with enrolment. Nothing may differ, and where enrolment knows a UUID that tells machines
// apart, a serial number or a MAC address, at least one must agree: a machine that shows nothing is nobody.
func (s *Server) sameMachine(n *fleet.Node, reg *api.Register) error {
	e := fleet.Errorf(fleet.Denied, "MC-AGENT-IDENTITY", "the machine that booted is not %s", n.Name).
		WithHint("look at the cabling and the BMC's address: metalctl node show %s", n.Name)
	differs := func(field, got, want string) {
		got, want = strings.TrimSpace(got), strings.TrimSpace(want)
		if got != "" && want != "" && !strings.EqualFold(got, want) && !(field == "uuid" && strings.EqualFold(swappedUUID(got), want)) {
			e.Fields = append(e.Fields, fleet.FieldError{Field: field, Message: fmt.Sprintf("is %q, enrolled %q", got, want)})
		}
	}
	differs("uuid", reg.UUID, n.Expect.UUID)
	differs("uuid", reg.UUID, n.BMC.UUID)
	differs("serial", reg.Serial, n.Expect.Serial)
	differs("serial", reg.Serial, n.BMC.Serial)
	if len(e.Fields) > 0 {
		return e
	}
	known, agrees := false, false
	weigh := func(field, got, want string) {
		got, want = strings.ToLower(strings.TrimSpace(got)), strings.ToLower(strings.TrimSpace(want))
		if slices.Contains(notUnique, want) {
			return
		}
		known = true
		agrees = agrees || got == want || field == "uuid" && swappedUUID(got) == want
	}
	weigh("uuid", reg.UUID, n.Expect.UUID)
	weigh("uuid", reg.UUID, n.BMC.UUID)
	weigh("serial", reg.Serial, n.Expect.Serial)
	weigh("serial", reg.Serial, n.BMC.Serial)
	for _, p := range n.Ports {
		if p.MAC != "" {
			known = true
			agrees = agrees || slices.ContainsFunc(reg.MACs, func(m fleet.MAC) bool { return strings.EqualFold(string(m), string(p.MAC)) })
		}
	}
	if known && !agrees {
		e.Fields = []fleet.FieldError{{Field: "uuid", Message: "neither UUID nor serial number nor a MAC address is one that was enrolled"}}
		return e
	}
	return nil
}

// swappedUUID turns the first three groups round: some BMCs show SMBIOS's little-endian bytes (SMBIOS 2.6 section 7.2.1) as they lie in memory.
func swappedUUID(u string) string {
	if len(u) != 36 {
		return u
	}
	return u[6:8] + u[4:6] + u[2:4] + u[0:2] + "-" + u[11:13] + u[9:11] + "-" + u[16:18] + u[14:16] + u[18:]
}

func (s *Server) otherMachine(n *fleet.Node, c *fleet.Change, why error) {
	n.RaiseFault(fleet.Fault{
		Code: FaultIdentity, Component: "system", Severity: fleet.Critical, Since: s.Now().UTC(), Blocks: fleet.BlocksEverything,
		Evidence: strings.ReplaceAll(why.Error(), "\n ", ";"), Hint: "metalctl node show " + n.Name,
	})
	c.Events = append(c.Events, nodeEvent(n, "node.fault", s.Now(), "another machine than was enrolled has booted"))
}

// note puts a line on the node's timeline.
func (s *Server) note(id fleet.NodeID, generation int64, source, text string) {
	s.Timeline.AppendTimeline(id, fleet.TimelineEntry{At: s.Now().UTC(), Source: source, Generation: generation, Text: text})
}

func word(s string) string {
	if s == "" {
		return "unknown"
	}
	return shortened(s)
}
