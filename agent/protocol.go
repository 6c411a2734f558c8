package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// register tries every server in order until one answers. Only a server that says no ends it.
func (c *client) register(ctx context.Context) (api.Registered, error) {
	pause := newBackoff(c.cfg.Pace)
	for {
		for i := range c.cfg.Credential.Servers {
			c.mu.Lock()
			c.at, c.misses = i, 0
			p := c.peers[i]
			c.mu.Unlock()
			reg, err := c.registerWith(ctx, p)
			switch {
			case err == nil:
				return reg, nil
			case ctx.Err() != nil:
				return reg, ctx.Err()
			case isOver(err):
				return reg, err
			}
			c.cfg.Log.Warn("the server does not register us", "server", p.ref.URL, "err", err)
		}
		if err := pause.wait(ctx); err != nil {
			return api.Registered{}, err
		}
	}
}

// registerWith spends the token at p, or spends it again with the same key, which gets the same answer.
func (c *client) registerWith(ctx context.Context, p *peer) (api.Registered, error) {
	cred, id := c.cfg.Credential, c.cfg.Identity
	if c.cfg.Uptime != nil {
		id.Boot.Uptime = c.cfg.Uptime()
	}
	var reg api.Registered
	_, err := c.call(ctx, p, c.cfg.Pace.Call, http.MethodPost, api.AgentRegisterPath, api.Register{
		Version: api.AgentVersion, Node: fleet.NodeID(cred.Node), Generation: cred.Generation, Token: cred.Token.Reveal(), CSR: c.csr,
		UUID: id.UUID, Serial: id.Serial, MACs: id.MACs, Boot: id.Boot,
	}, &reg, maxAnswer)
	if err != nil {
		if statusOf(err) == http.StatusUnauthorized || final(err) {
			return reg, over(err)
		}
		return reg, err
	}
	if reg.Version != api.AgentVersion {
		return reg, fleet.Errorf(fleet.Denied, "MC-AGENT-REFUSED", "the server answers in version %d of the agent's protocol and this agent speaks %d", reg.Version, api.AgentVersion).
			WithHint("boot the node with a ramdisk of its server: metalctl node retry NODE")
	}
	cert, err := c.certificate(reg.Certificate)
	if err != nil {
		return reg, fmt.Errorf("the certificate that the server issued: %w", err)
	}
	return reg, c.connect(cert)
}

// certificate pairs what the server issued with the key of this boot.
func (c *client) certificate(text string) (*tls.Certificate, error) {
	out := &tls.Certificate{PrivateKey: c.key}
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			out.Certificate = append(out.Certificate, block.Bytes)
		}
	}
	if len(out.Certificate) == 0 {
		return nil, errors.New("it is not PEM")
	}
	leaf, err := x509.ParseCertificate(out.Certificate[0])
	if err != nil {
		return nil, err
	}
	if !c.key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("it is for another key than this agent's")
	}
	out.Leaf = leaf
	return out, nil
}

// poll waits for a task; nil means none came in time.
func (c *client) poll(ctx context.Context) (*api.Task, error) {
	var raw json.RawMessage
	path := fmt.Sprintf("%s?wait=%s", api.AgentTaskPath, c.cfg.Pace.Poll)
	code, err := c.member(ctx, c.cfg.Pace.Poll+c.cfg.Pace.Call, http.MethodGet, path, nil, &raw, maxTask)
	if err != nil || code == http.StatusNoContent {
		return nil, err
	}
	t, err := DecodeTask(raw)
	if err != nil {
		return nil, fmt.Errorf("the server's task: %w", err)
	}
	return &t, nil
}

// member makes a call with the certificate of this boot. A server that does not know the certificate is registered with again; one that says that the
// session is over is believed.
func (c *client) member(ctx context.Context, deadline time.Duration, method, path string, body, out any, limit int64) (int, error) {
	p := c.server()
	code, err := c.call(ctx, p, deadline, method, path, body, out, limit)
	switch {
	case unknownCertificate(err):
		c.cfg.Log.Warn("the server does not know this session; registering again", "server", p.ref.URL)
		if _, rerr := c.registerWith(ctx, p); rerr != nil {
			return 0, rerr
		}
	case final(err):
		return 0, over(err)
	}
	return code, err
}

// unknownCertificate: the server has another authority than the one that issued our certificate, or none of ours was shown. The token and the key are
// still the same, and so will its answer to registering be.
func unknownCertificate(err error) bool {
	var s *status
	return errors.As(err, &s) && (s.code == http.StatusUnauthorized || s.problem.Code == "MC-AGENT-CERT")
}

// final reports whether an answer ends the session: 410, or 403 where it is about who we are. What a rule forbids now (a frozen server) may work later.
func final(err error) bool {
	var s *status
	return errors.As(err, &s) && (s.code == http.StatusGone || s.code == http.StatusForbidden && s.problem.Kind != fleet.Refused.String())
}

// over is the end of a session: no call will ever work again.
func over(err error) error {
	var s *status
	if !errors.As(err, &s) {
		return err
	}
	if s.code == http.StatusGone {
		return fleet.Errorf(fleet.Conflict, "MC-AGENT-OVER", "this boot's session is over: %w", err).
			WithHint("a newer boot of this machine replaced it; look with: metalctl node show NODE")
	}
	if s.problem.Code == "MC-AGENT-VERSION" {
		return fleet.Errorf(fleet.Denied, "MC-AGENT-REFUSED", "the server does not work with this agent: %s: %w", s.problem.Code, err).
			WithHint("boot the node with a ramdisk of its server: metalctl node retry NODE")
	}
	return fleet.Errorf(fleet.Denied, "MC-AGENT-REFUSED", "the server refuses this machine: %w", err).
		WithHint("see why with: metalctl node show NODE; boot it again with: metalctl node retry NODE")
}

// isOver reports whether err is the end of the session.
func isOver(err error) bool {
	code := fleet.CodeOf(err)
	return code == "MC-AGENT-OVER" || code == "MC-AGENT-REFUSED"
}

// DecodeTask reads one task and refuses everything that is not exactly one.
func DecodeTask(b []byte) (api.Task, error) {
	var t api.Task
	if len(b) > maxTask {
		return t, fmt.Errorf("%d bytes are more than %d", len(b), maxTask)
	}
	if err := decodeStrict(b, &t); err != nil {
		return api.Task{}, err
	}
	var bad []string
	check := func(ok bool, what string) {
		if !ok {
			bad = append(bad, what)
		}
	}
	check(t.Operation != "" && len(t.Operation) <= 64, "operation")
	check(t.Index >= 0 && t.Index < 1000, "index")
	check(t.Try >= 0 && t.Try < 1_000_000, "try")
	check(t.Step != "" && len(t.Step) <= 64, "step")
	check(t.LimitSeconds >= 0 && t.LimitSeconds <= 7*24*3600, "limit_seconds")
	check(len(t.Params) == 0 || bytes.Equal(t.Params, []byte("null")) || t.Params[0] == '{', "params")
	if len(bad) > 0 {
		return api.Task{}, fmt.Errorf("not valid: %v", bad)
	}
	return t, nil
}
