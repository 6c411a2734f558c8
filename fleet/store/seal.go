package store

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/metalctl/metalctl/fleet"
)

// KeySize is the length of a master key in bytes.
const KeySize = chacha20poly1305.KeySize

const (
	sealFormat   = 1
	keyCheckText = "metalctl store"
	wrapPrefix   = "metalctl data key of "
)

// sealer encrypts with a fresh data key per record, itself wrapped by the master key, so that a new master key rewrites 100 bytes per record.
type sealer struct{ master cipher.AEAD }

func newSealer(key []byte) (*sealer, error) {
	if len(key) != KeySize {
		return nil, fleet.Errorf(fleet.Invalid, "MC-STORE-KEY", "the master key has %d bytes and needs %d", len(key), KeySize).
			WithHint("give the store's key file; a first start makes it")
	}
	master, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("use the master key: %w", err)
	}
	return &sealer{master}, nil
}

// seal encrypts text for the record name: format, nonce and wrapped data key, nonce and text; both bound to name as associated data.
func (s *sealer) seal(name, text []byte) ([]byte, error) {
	dataKey := make([]byte, KeySize)
	rand.Read(dataKey)
	data, err := chacha20poly1305.NewX(dataKey)
	if err != nil {
		return nil, fmt.Errorf("make a data key: %w", err)
	}
	nonces := make([]byte, 2*chacha20poly1305.NonceSizeX)
	rand.Read(nonces)
	wrapNonce, dataNonce := nonces[:chacha20poly1305.NonceSizeX], nonces[chacha20poly1305.NonceSizeX:]
	out := append([]byte{sealFormat}, wrapNonce...)
	out = s.master.Seal(out, wrapNonce, dataKey, append([]byte(wrapPrefix), name...))
	out = append(out, dataNonce...)
	return data.Seal(out, dataNonce, text, name), nil
}

var errSealed = errors.New("cannot be decrypted: another key, another name, or damaged")

// open decrypts what seal made for the same name.
func (s *sealer) open(name, sealed []byte) ([]byte, error) {
	const nonce, wrapped = chacha20poly1305.NonceSizeX, KeySize + chacha20poly1305.Overhead
	if len(sealed) < 1+2*nonce+wrapped+chacha20poly1305.Overhead || sealed[0] != sealFormat {
		return nil, errSealed
	}
	sealed = sealed[1:]
	dataKey, err := s.master.Open(nil, sealed[:nonce], sealed[nonce:nonce+wrapped], append([]byte(wrapPrefix), name...))
	if err != nil {
		return nil, errSealed
	}
	data, err := chacha20poly1305.NewX(dataKey)
	if err != nil {
		return nil, errSealed
	}
	sealed = sealed[nonce+wrapped:]
	text, err := data.Open(nil, sealed[:nonce], sealed[nonce:], name)
	if err != nil {
		return nil, errSealed
	}
	return text, nil
}

// verify tells whether the master key is the one that the store was made with.
func (s *sealer) verify(check []byte) error {
	text, err := s.open(metaKeyCheck, check)
	if err == nil && string(text) != keyCheckText {
		err = errSealed
	}
	return err
}

// LoadOrCreateKey reads the master key in the file at path, or makes a new one there with mode 0600. Keep a copy elsewhere: without it
// the store's secrets are lost. A file that others may read is refused (MC-STORE-KEY).
func LoadOrCreateKey(path string) ([]byte, error) {
	key, err := loadKey(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key = make([]byte, KeySize)
	rand.Read(key)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, storeError("make the master key", err)
	}
	// The key appears whole or not at all: a half-written one would lock the store out of its own secrets.
	tmp, err := os.CreateTemp(filepath.Dir(path), ".key-*")
	if err != nil {
		return nil, storeError("make the master key", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(hex.EncodeToString(key) + "\n")
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return nil, storeError("write the master key", err)
	}
	if err := os.Link(tmp.Name(), path); errors.Is(err, fs.ErrExist) {
		return loadKey(path) // another process was first
	} else if err != nil {
		return nil, storeError("write the master key", err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, storeError("write the master key", err)
	}
	return key, nil
}

// LoadKey reads the master key that LoadOrCreateKey made; NotFound where there is none.
func LoadKey(path string) ([]byte, error) { return loadKey(path) }

func loadKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fleet.Errorf(fleet.NotFound, "MC-STORE-KEY", "read the master key: %w", err).WithHint("give the store's key file")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fleet.Errorf(fleet.Refused, "MC-STORE-KEY", "the master key %s may be read by others (mode %#o)", path, info.Mode().Perm()).
			WithHint("chmod 600 %s", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, storeError("read the master key", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != KeySize {
		return nil, fleet.Errorf(fleet.Invalid, "MC-STORE-KEY", "%s is no master key: it must hold %d hex digits", path, 2*KeySize).
			WithHint("put the right key file there")
	}
	return key, nil
}
