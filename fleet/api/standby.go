package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/term"
)

const (
	// StandbyPath is where a server and the one that follows it meet; RolePath says without a token which of them a server is.
	StandbyPath = Base + "/standby"
	RolePath    = "/role"
	// TermPath is where an arbiter answers.
	TermPath = "/arbiter/v1/term"
)

// Role is what a server says of itself without a token.
type Role struct {
	// Role is acts, follows, retired or unsure.
	Role string `json:"role"`
	// Peer is the URL of the server that is followed or that took over.
	Peer  string              `json:"peer,omitempty"`
	Store fleet.StoreIdentity `json:"store"`
}

// Standby is the answer of GET standby.
type Standby struct {
	Role string `json:"role"`
	// URL is this server's, Peer the other's: that it follows, that follows it, or that took over.
	URL   string    `json:"url"`
	Peer  string    `json:"peer,omitempty"`
	Why   string    `json:"why,omitempty"`
	Since time.Time `json:"since,omitzero"`

	Revision   fleet.Revision `json:"revision"`
	Generation int            `json:"generation"`
	Epoch      string         `json:"epoch"`

	// Connected says whether the two are in touch; SilentSeconds is how long nothing was heard, where they are not.
	Connected     bool    `json:"connected"`
	SilentSeconds float64 `json:"silent_seconds,omitempty"`
	// PeerRevision is the other's as last heard. LagSeconds is for how long the follower has not been where the other is; LagRevisions how many it misses.
	PeerRevision fleet.Revision `json:"peer_revision,omitempty"`
	LagRevisions int64          `json:"lag_revisions"`
	LagSeconds   float64        `json:"lag_seconds"`
	// Problem is why the two are not in touch, with its code.
	Problem string `json:"problem,omitempty"`
	Code    string `json:"code,omitempty"`
	// HandsOffSeconds is for how long nothing is written to BMCs yet, because the server before may still be speaking to them.
	HandsOffSeconds float64 `json:"hands_off_seconds,omitempty"`
	// Arbiter is how the server stands with the third party; nil: none is configured.
	Arbiter *Tenure `json:"arbiter,omitempty"`
}

// Tenure is by what right a server acts, or would take over.
type Tenure struct {
	// URL is the arbiter's. Reached says whether it answered lately; SilentSeconds for how long it has not, Problem why, with its code.
	URL           string  `json:"url"`
	Reached       bool    `json:"reached"`
	SilentSeconds float64 `json:"silent_seconds,omitempty"`
	Problem       string  `json:"problem,omitempty"`
	Code          string  `json:"code,omitempty"`
	// Automatic: this server takes over by itself when it follows and the other one is gone.
	Automatic bool `json:"automatic"`
	// Holder and Term are who has the term, as the arbiter last said, and its number.
	Holder string `json:"holder,omitempty"`
	Term   uint64 `json:"term,omitempty"`
	// Needed: another server can be given the term, so that this one acts only while it has the term or the other's promise. TermSeconds and PromiseSeconds
	// are how long they last.
	Needed         bool    `json:"needed"`
	TermSeconds    float64 `json:"term_seconds,omitempty"`
	PromiseSeconds float64 `json:"promise_seconds,omitempty"`
	// Even: the arbiter knows the standby to have all but the last second, and would let it take over.
	Even bool `json:"even"`
}

// Promote is the body of POST standby/promote.
type Promote struct {
	// Force takes over without the other server's consent. Who gives it vouches that the other one does not run.
	Force bool `json:"force,omitempty"`
}

// StepDown is the body of POST standby/step-down.
type StepDown struct {
	// URL is the follower's, which takes over.
	URL string `json:"url"`
}

// StandbyAck is what a follower says of itself, once a second and after each batch.
type StandbyAck struct {
	URL      string         `json:"url"`
	Position fleet.Position `json:"position"`
	// Run and Beat are of the newest tick that was heard; with them the follower promises not to take over by itself for the length of a term.
	Run  string        `json:"run,omitempty"`
	Beat time.Duration `json:"beat,omitempty"`
}

// StandbyFiles is the answer of GET standby/files.
type StandbyFiles struct {
	Files []string `json:"files"`
}

// Standby reads how the server and its second one do.
func (c *Client) Standby(ctx context.Context) (Standby, error) {
	var s Standby
	return s, c.get(ctx, StandbyPath, nil, &s)
}

// Role reads which of two servers this is, once.
func (c *Client) Role(ctx context.Context) (Role, error) {
	var r Role
	_, err := c.once(ctx, request{method: http.MethodGet, path: RolePath}, nil, &r)
	return r, err
}

// Promote lets a server that follows take over. It answers when that server has stopped following; it serves a moment later.
func (c *Client) Promote(ctx context.Context, p Promote) (Standby, error) {
	var s Standby
	_, err := c.do(ctx, request{method: http.MethodPost, path: StandbyPath + "/promote", body: p, extra: 5 * time.Minute}, &s)
	return s, err
}

// ForgetStandby lets the server forget the one that follows it.
func (c *Client) ForgetStandby(ctx context.Context) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: StandbyPath}, nil)
	return err
}

// StepDown asks the server to let the one at that URL take over, and returns the last position that there will be.
func (c *Client) StepDown(ctx context.Context, by string) (fleet.Position, error) {
	var p fleet.Position
	_, err := c.do(ctx, request{method: http.MethodPost, path: StandbyPath + "/step-down", body: StepDown{by}, extra: 3 * time.Minute}, &p)
	return p, err
}

// AskTerm asks an arbiter.
func (c *Client) AskTerm(ctx context.Context, q term.Request) (term.Reply, error) {
	var a term.Reply
	_, err := c.do(ctx, request{method: http.MethodPost, path: TermPath, body: q}, &a)
	return a, err
}

// AckStandby tells the server how far this one has followed.
func (c *Client) AckStandby(ctx context.Context, a StandbyAck) error {
	_, err := c.do(ctx, request{method: http.MethodPost, path: StandbyPath + "/ack", body: a}, nil)
	return err
}

// FollowStore opens the stream of what the server commits after a position. The caller closes it.
func (c *Client) FollowStore(ctx context.Context, pos fleet.Position, self fleet.Follower) (io.ReadCloser, error) {
	q := url.Values{"epoch": {pos.Epoch}, "revision": {strconv.FormatInt(int64(pos.Revision), 10)}, "chain": {pos.Chain}, "url": {self.URL}, "nodes": {self.Nodes}}
	return c.stream(ctx, request{method: http.MethodGet, path: StandbyPath + "/stream", query: q})
}

// StandbyFiles names the files that the server's store has.
func (c *Client) StandbyFiles(ctx context.Context) ([]string, error) {
	var f StandbyFiles
	return f.Files, c.get(ctx, StandbyPath+"/files", nil, &f)
}

// StandbyFile opens one of them. The caller closes it, and compares it with the digest that it is named by.
func (c *Client) StandbyFile(ctx context.Context, path string) (io.ReadCloser, error) {
	return c.stream(ctx, request{method: http.MethodGet, path: StandbyPath + "/file", query: url.Values{"path": {path}}})
}

func (c *Client) stream(ctx context.Context, r request) (io.ReadCloser, error) {
	res, err := c.send(ctx, r, nil, "")
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: the server answers %d", r.method, r.path, res.StatusCode)
	}
	return res.Body, nil
}
