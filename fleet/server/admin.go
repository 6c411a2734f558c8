package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// adminKey holds the SHA-256 of the admin token. A token has 256 random bits, so that its hash need not be slow.
const adminKey fleet.Key = "meta/admin-token"

// newToken makes 256 random bits, in letters that need no quoting in URLs and shells.
func newToken() string {
	b := make([]byte, 32)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// EnsureAdminToken makes the admin token at first start: the token in the file at path (mode 0600), its hash in the store. A file
// that is there already is taken over by a store without a token, and a store with one is not changed.
func EnsureAdminToken(ctx context.Context, st fleet.Store, path string) error {
	if _, err := adminHash(ctx, st); err == nil || fleet.KindOf(err) != fleet.NotFound {
		return err
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		return fleet.Errorf(fleet.Refused, "MC-SERVER-TOKEN", "the admin token's file %s may be read by others (mode %#o)", path, info.Mode().Perm()).
			WithHint("chmod 600 %s, or remove it: the server makes a new one", path)
	}
	text, err := os.ReadFile(path)
	token := strings.TrimSpace(string(text))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		token = "mc-" + newToken()
		if err := writeSecret(path, token+"\n"); err != nil {
			return diskError("write the admin token", err)
		}
	case err != nil:
		return fleet.Errorf(fleet.Denied, "MC-SERVER-DATADIR", "read the admin token: %w", err).WithHint("run the server as the owner of its data folder")
	case len(token) < 32:
		return fleet.Errorf(fleet.Invalid, "MC-SERVER-TOKEN", "the admin token in %s is shorter than 32 characters", path).
			WithHint("remove the file; the server makes a new one")
	}
	_, err = st.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: adminKey}}, Writes: []fleet.Write{{Key: adminKey, Value: hashToken(token)}}})
	if err != nil {
		return fmt.Errorf("store the admin token's hash: %w", err)
	}
	return nil
}

// writeSecret makes a file with mode 0600 that is there whole or not at all.
func writeSecret(path, text string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".secret-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(text)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Link(tmp.Name(), path)
}

func adminHash(ctx context.Context, st fleet.Store) (string, error) {
	var hash string
	err := st.View(ctx, func(s fleet.Snapshot) (err error) {
		hash, _, err = fleet.Get[string](s, adminKey)
		return err
	})
	return hash, err
}

// adminName is who an event names where the admin token was used; roles come with tenancy.
const adminName = "admin"

// authorized lets requests with the admin token or a named one pass.
func (s *Server) authorized(next http.Handler) http.Handler {
	want, _ := hex.DecodeString(s.admin)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got := sha256.Sum256([]byte(token))
		who, ok := fleet.Token{Name: adminName}, bearer
		if ok && subtle.ConstantTimeCompare(got[:], want) != 1 {
			var err error
			if who, ok, err = s.named(r.Context(), hex.EncodeToString(got[:])); err != nil {
				s.refuse(w, r, err)
				return
			}
		}
		if !ok {
			w.Header().Set("WWW-Authenticate", `Bearer realm="metalctl"`)
			msg := "the request carries no bearer token"
			if bearer {
				msg = "the bearer token is not known here"
			}
			s.refuse(w, r, fleet.Errorf(fleet.Denied, "MC-API-TOKEN", "%s", msg).
				WithHint("set METALCTL_TOKEN to what is in DATA_DIR/admin.token of the server"))
			return
		}
		if err := allowed(who, r.URL.Path); err != nil {
			s.refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, who)))
	})
}
