package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// Most bytes of a body that the agent reads.
const (
	maxTask    = 256 << 10
	maxAnswer  = 64 << 10
	maxProblem = 16 << 10
)

// client speaks the agent's protocol to the servers of a credential, one at a time, with one key for this boot.
type client struct {
	cfg Config
	key *ecdsa.PrivateKey
	csr string

	mu     sync.Mutex
	peers  []*peer          // guarded by mu
	at     int              // guarded by mu: the peer that is used
	misses int              // guarded by mu: calls in a row that did not reach it
	heard  time.Time        // guarded by mu: when a server last took a call
	cert   *tls.Certificate // guarded by mu: nil before registration
}

// peer is one server and the connections to it.
type peer struct {
	ref  fleet.ServerRef
	http *http.Client
}

func newClient(cfg Config) (*client, error) {
	if len(cfg.Credential.Servers) == 0 {
		return nil, errors.New("agent: the credential names no server")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of this boot: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cfg.Credential.Node}}, key)
	if err != nil {
		return nil, fmt.Errorf("make the certificate request of this boot: %w", err)
	}
	c := &client{cfg: cfg, key: key, csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))}
	return c, c.connect(nil)
}

// connect replaces all connections by ones that show cert.
func (c *client) connect(cert *tls.Certificate) error {
	var peers []*peer
	for _, ref := range c.cfg.Credential.Servers {
		t, err := pinned(ref, cert, c.cfg.Credential.Network, c.cfg.Dial)
		if err != nil {
			return err
		}
		peers = append(peers, &peer{ref: ref, http: &http.Client{Transport: t, CheckRedirect: noRedirect}})
	}
	c.mu.Lock()
	old := c.peers
	c.peers, c.cert = peers, cert
	c.mu.Unlock()
	for _, p := range old {
		p.http.CloseIdleConnections()
	}
	return nil
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.peers {
		p.http.CloseIdleConnections()
	}
}

func (c *client) server() *peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peers[c.at]
}

// missed counts a call that did not reach p; after three in a row the next server is used.
func (c *client) missed(p *peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peers[c.at] != p {
		return
	}
	if c.misses++; c.misses >= 3 {
		c.at, c.misses = (c.at+1)%len(c.peers), 0
	}
}

// refused goes on to the next server at once where p says that it does not act: it follows another one, or another one took over from it.
func (c *client) refused(p *peer, err error) {
	var s *status
	if !errors.As(err, &s) || s.code != http.StatusServiceUnavailable || !strings.HasPrefix(s.problem.Code, "MC-STANDBY-") {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peers[c.at] == p {
		c.at, c.misses = (c.at+1)%len(c.peers), 0
	}
}

func (c *client) reached() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.misses, c.heard = 0, c.cfg.Now()
}

// silence is for how long no server has taken a call.
func (c *client) silence() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cfg.Now().Sub(c.heard)
}

// status is an answer that is not a success.
type status struct {
	code    int
	problem api.Problem
	text    string
}

func (s *status) Error() string {
	switch {
	case s.problem.Detail != "":
		return fmt.Sprintf("the server answers %d: %s", s.code, s.problem.Detail)
	case s.problem.Title != "":
		return fmt.Sprintf("the server answers %d: %s", s.code, s.problem.Title)
	}
	return strings.TrimSpace(fmt.Sprintf("the server answers %d %s", s.code, s.text))
}

// statusOf returns the HTTP status in err's chain, or 0.
func statusOf(err error) int {
	var s *status
	if errors.As(err, &s) {
		return s.code
	}
	return 0
}

// call makes one exchange with p and decodes a JSON answer of at most limit bytes into out, unless that is nil. It returns the HTTP status of a success.
func (c *client) call(ctx context.Context, p *peer, deadline time.Duration, method, path string, body, out any, limit int64) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, fmt.Errorf("encode the body of %s: %w", path, err)
		}
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(p.ref.URL, "/")+path, send)
	if err != nil {
		return 0, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	resp, err := p.http.Do(req)
	if err != nil {
		c.missed(p)
		return 0, plainURLError(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		err := readStatus(resp)
		c.refused(p, err)
		return 0, err
	}
	c.reached()
	if out == nil || resp.StatusCode == http.StatusNoContent {
		// Read to the end so that the connection can be used again; what it says does not matter.
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxProblem))
		return resp.StatusCode, nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return 0, fmt.Errorf("read the answer to %s: %w", path, err)
	case int64(len(b)) > limit:
		return 0, fmt.Errorf("the answer to %s has more than %d bytes", path, limit)
	}
	if err := decodeStrict(b, out); err != nil {
		return 0, fmt.Errorf("decode the answer to %s: %w", path, err)
	}
	return resp.StatusCode, nil
}

func readStatus(resp *http.Response) error {
	s := &status{code: resp.StatusCode, text: http.StatusText(resp.StatusCode)}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err == nil && strings.HasSuffix(strings.TrimSpace(strings.Split(resp.Header.Get("Content-Type"), ";")[0]), "json") {
		// A problem that cannot be decoded leaves the status, which is what decides.
		_ = json.Unmarshal(b, &s.problem)
	}
	return s
}

// plainURLError drops the method and URL that net/http repeats in every error; the server is in the log line already.
func plainURLError(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return fmt.Errorf("reach %s: %w", hostOf(u.URL), u.Err)
	}
	return err
}

func hostOf(raw string) string {
	if u, err := url.Parse(raw); err == nil {
		return u.Host
	}
	return raw
}

// decodeStrict decodes exactly one JSON value without unknown fields.
func decodeStrict(b []byte, out any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(out); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something follows the JSON value")
	}
	return nil
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
