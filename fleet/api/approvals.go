package api

import (
	"context"
	"net/http"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// ApprovalDecision is the body of POST approvals/{id}/grant and deny.
type ApprovalDecision struct {
	Reason string `json:"reason,omitempty"`
}

// Leave is the body of POST approvals:ask: something that somebody is about to do to several nodes at once.
type Leave struct {
	// Verb is release, rebuild, clean, or one of power-off, power-cycle, power-shutdown. What does no harm needs no leave.
	Verb string `json:"verb"`
	// Image and WaiveGrace are what the verb will be asked with.
	Image      string   `json:"image,omitempty"`
	WaiveGrace bool     `json:"waive_grace,omitempty"`
	Nodes      []string `json:"nodes"`
}

// Token is a named token as the API shows it. Token is set only in the answer that creates it.
type Token struct {
	fleet.Token
	Secret string `json:"token,omitempty"`
}

// TokenCreate is the body of POST tokens.
type TokenCreate struct {
	Name string `json:"name"`
	// Role is "standby" for a second server's token, "" for a person's.
	Role string `json:"role,omitempty"`
}

// Approver is who decides about a request.
type Approver struct {
	Name string
	// Since is when the token was made; zero for the admin token.
	Since time.Time
	// MadeBy is the token that it was made with; "" for the admin token.
	MadeBy string
}

// Approvals lists the requests for approval, newest first.
func (c *Client) Approvals(ctx context.Context) ([]fleet.Approval, error) {
	var l List[fleet.Approval]
	return l.Items, c.get(ctx, Base+"/approvals", nil, &l)
}

// Decide grants or denies a request: verb is "grant" or "deny".
func (c *Client) Decide(ctx context.Context, id fleet.ApprovalID, verb, reason string) (fleet.Approval, error) {
	var a fleet.Approval
	_, err := c.do(ctx, request{method: http.MethodPost, path: itemPath("approvals", string(id), verb), body: ApprovalDecision{Reason: reason}}, &a)
	return a, err
}

// AskLeave returns nil where l may be done now, and MC-FENCE with the request that was made for all of it where it may not.
func (c *Client) AskLeave(ctx context.Context, l Leave) error {
	_, err := c.do(ctx, request{method: http.MethodPost, path: Base + "/approvals:ask", body: l}, nil)
	return err
}

// Tokens lists named tokens.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	var l List[Token]
	return l.Items, c.get(ctx, Base+"/tokens", nil, &l)
}

// CreateToken makes a named token; its text is in the answer and nowhere else.
func (c *Client) CreateToken(ctx context.Context, in TokenCreate) (Token, error) {
	var t Token
	_, err := c.do(ctx, request{method: http.MethodPost, path: Base + "/tokens", body: in}, &t)
	return t, err
}

// RevokeToken ends a named token at once.
func (c *Client) RevokeToken(ctx context.Context, name string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: itemPath("tokens", name)}, nil)
	return err
}
