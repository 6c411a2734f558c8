package server

import (
	"context"
	"net/http"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func (r *routes) tokens() {
	s := r.s
	route(r, http.MethodGet, "/tokens", "list-tokens", "List named tokens", http.StatusOK, s.listTokens)
	route(r, http.MethodPost, "/tokens", "create-token", "Make a named token; its text is in this answer and nowhere else", http.StatusCreated, s.createToken)
	route(r, http.MethodDelete, "/tokens/{id}", "revoke-token", "End a named token at once", http.StatusNoContent, s.revokeToken)
}

type callerKey struct{}

// callerOf is the name of the token that the request carried which ctx belongs to.
func callerOf(ctx context.Context) string { return approverOf(ctx).Name }

// approverOf is that token, with when it was made.
func approverOf(ctx context.Context) api.Approver {
	if t, ok := ctx.Value(callerKey{}).(fleet.Token); ok {
		return api.Approver{Name: t.Name, Since: t.CreatedAt, MadeBy: t.CreatedBy}
	}
	return api.Approver{Name: adminName}
}

func tokenNameKey(name string) fleet.Key { return fleet.Key(fleet.KindUnique + "/token-name/" + name) }

// named finds the token with that hash.
func (s *Server) named(ctx context.Context, hash string) (t fleet.Token, ok bool, err error) {
	err = s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		t, _, err = fleet.Get[fleet.Token](sn, fleet.KeyOf(fleet.KindToken, hash))
		return err
	})
	if fleet.KindOf(err) == fleet.NotFound && err != nil {
		return t, false, nil
	}
	return t, err == nil, err
}

func (s *Server) listTokens(ctx context.Context, _ *nothing) (*plain[api.List[api.Token]], error) {
	out := api.List[api.Token]{Items: []api.Token{}}
	err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
		out = api.List[api.Token]{Items: []api.Token{}, Revision: sn.Revision()}
		return eachRecord(sn, fleet.KindToken, func(t fleet.Token, _ fleet.Revision) { out.Items = append(out.Items, api.Token{Token: t}) })
	})
	return &plain[api.List[api.Token]]{out}, err
}

// byAdmin refuses named tokens: who could make tokens could be two people.
func byAdmin(ctx context.Context) error {
	if callerOf(ctx) == adminName {
		return nil
	}
	return fleet.Errorf(fleet.Denied, "MC-TOKEN-RIGHTS", "the token %s may not make or revoke tokens", callerOf(ctx)).WithHint("use the token in DATA_DIR/admin.token of the server")
}

type createTokenIn struct {
	Body api.TokenCreate
}

func (s *Server) createToken(ctx context.Context, in *createTokenIn) (*plain[api.Token], error) {
	if err := byAdmin(ctx); err != nil {
		return nil, err
	}
	name := in.Body.Name
	if !fleet.ValidName(name) || name == adminName {
		return nil, fleet.Errorf(fleet.Invalid, "MC-TOKEN-NAME", "%q is no name for a token", shortened(name)).WithHint("1 to 63 of a-z, 0-9, . _ -, and not admin")
	}
	if role := in.Body.Role; role != "" && role != fleet.RoleStandby {
		return nil, fleet.Errorf(fleet.Invalid, "MC-TOKEN-ROLE", "%q is no role of a token", shortened(role)).WithHint("give --role standby for a second server, or none for a person")
	}
	t := api.Token{Token: fleet.Token{Name: name, Role: in.Body.Role, CreatedBy: callerOf(ctx), CreatedAt: s.Now().UTC()}, Secret: "mc-" + newToken()}
	hash := hashToken(t.Secret)
	key, unique := fleet.KeyOf(fleet.KindToken, hash), tokenNameKey(name)
	_, err := s.Store.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: key}, {Key: unique}},
		Writes: []fleet.Write{{Key: key, Value: t.Token}, {Key: unique, Value: hash}},
		Events: []fleet.Event{{Type: "token.created", At: t.CreatedAt, Subject: unique, Text: "token " + name + " made by " + t.CreatedBy}}})
	if fleet.CodeOf(err) == "MC-STORE-STALE" {
		return nil, fleet.Errorf(fleet.Conflict, "MC-TOKEN-NAME", "there is a token %q already", name).WithHint("metalctl token list; metalctl token revoke %s", name)
	}
	return &plain[api.Token]{t}, err
}

func (s *Server) revokeToken(ctx context.Context, in *Item) (*struct{}, error) {
	if err := byAdmin(ctx); err != nil {
		return nil, err
	}
	var hash string
	var rev fleet.Revision
	unique := tokenNameKey(in.ID)
	err := s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		hash, rev, err = fleet.Get[string](sn, unique)
		return err
	})
	if err != nil {
		if fleet.KindOf(err) == fleet.NotFound {
			err = fleet.Errorf(fleet.NotFound, "MC-TOKEN-UNKNOWN", "there is no token %q", shortened(in.ID)).WithHint("metalctl token list")
		}
		return nil, err
	}
	_, err = s.Store.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: unique, Revision: rev}},
		Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindToken, hash)}, {Key: unique}},
		Events: []fleet.Event{{Type: "token.revoked", At: s.Now().UTC(), Subject: unique, Text: "token " + in.ID + " revoked by " + callerOf(ctx)}}})
	return nil, err
}
