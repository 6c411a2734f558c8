package arbiter

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/metalctl/metalctl/fleet/term"
)

// What the folder has.
const (
	stateFile = "arbiter.json"
	tokenFile = "arbiter.token"
	certFile  = "arbiter.pem"
	keyFile   = "arbiter.key"
)

// CertFile and TokenFile are what each server gets a copy of.
func CertFile(dir string) string  { return filepath.Join(dir, certFile) }
func TokenFile(dir string) string { return filepath.Join(dir, tokenFile) }

type folder struct {
	state  term.State
	token  string
	cert   tls.Certificate
	unlock func() error
}

// openFolder reads the folder, whose lock this process then has.
func openFolder(dir string) (s folder, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return s, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return s, err
	}
	defer func() {
		if err != nil {
			lock.Close() //nolint:errcheck // nothing was written
		}
	}()
	s.unlock = lock.Close
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return s, fmt.Errorf("another process uses it: %w", err)
	}
	if err := s.secrets(dir); err != nil {
		return s, err
	}
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		s.state = term.State{ID: randomHex()}
		return s, writeState(dir, s.state)
	}
	if err != nil {
		return s, err
	}
	s.state, err = parseState(text)
	return s, err
}

// secrets reads the token, the key and the certificate, or makes them. The state comes after them, so that a folder with a state has all.
func (s *folder) secrets(dir string) error {
	for _, f := range []struct {
		name string
		make func(dir string) error
	}{{tokenFile, makeToken}, {keyFile, makeKey}} {
		_, err := os.Stat(filepath.Join(dir, f.name))
		if errors.Is(err, fs.ErrNotExist) {
			err = f.make(dir)
		}
		if err != nil {
			return err
		}
	}
	token, err := os.ReadFile(filepath.Join(dir, tokenFile))
	if err != nil {
		return err
	}
	if s.token = strings.TrimSpace(string(token)); len(s.token) < 32 {
		return fmt.Errorf("%s holds no token", tokenFile)
	}
	s.cert, err = tls.LoadX509KeyPair(filepath.Join(dir, certFile), filepath.Join(dir, keyFile))
	return err
}

func makeToken(dir string) error {
	return writeFile(dir, tokenFile, []byte(randomHex()+randomHex()+"\n"), 0o600)
}

// makeKey makes a key and a certificate of it. Servers know the key, so that neither names nor dates matter.
func makeKey(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "metalctl arbiter"},
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	// The key last: it says that both are there.
	if err := writeFile(dir, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o644); err != nil {
		return err
	}
	return writeFile(dir, keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// kept is the state's file: the state as text, and its digest.
type kept struct {
	State  json.RawMessage `json:"state"`
	SHA256 string          `json:"sha256"`
}

func writeState(dir string, s term.State) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	text, err := json.Marshal(kept{b, sumHex(b)})
	if err != nil {
		return err
	}
	return writeFile(dir, stateFile, text, 0o600)
}

func parseState(text []byte) (s term.State, err error) {
	var k kept
	if err := json.Unmarshal(text, &k); err != nil {
		return s, fmt.Errorf("%s: %w", stateFile, err)
	}
	if got := sumHex(k.State); got != k.SHA256 {
		return s, fmt.Errorf("%s is damaged: its digest is %s and %s is written in it", stateFile, got, k.SHA256)
	}
	if err := json.Unmarshal(k.State, &s); err != nil {
		return s, fmt.Errorf("%s: %w", stateFile, err)
	}
	if s.ID == "" {
		return s, fmt.Errorf("%s names no arbiter", stateFile)
	}
	return s, nil
}

// writeFile writes a file whole or not at all, and durably.
func writeFile(dir, name string, text []byte, mode os.FileMode) error {
	tmp := filepath.Join(dir, name+".new")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func randomHex() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}
