package pack

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/metalctl/metalctl/fleet"
)

// GenerateKey makes a key pair, both PEM (PKCS#8 and PKIX). The private one signs packs and stays with whoever makes them.
func GenerateKey() (private, public []byte, err error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the private key: %w", err)
	}
	pubDER, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pubDER}), nil
}

// KeyID names a public key: "ed25519/" and the first half of its SHA-256 in hex.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return "ed25519/" + hex.EncodeToString(sum[:16])
}

// ParsePrivateKey reads what GenerateKey made.
func ParsePrivateKey(b []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, badKey(errors.New("it is not PEM"))
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, badKey(err)
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, badKey(errors.New("it is not an Ed25519 key"))
	}
	return ed, nil
}

// ParsePublicKeys reads one or more public keys, one PEM block after the other.
func ParsePublicKeys(b []byte) (keys []ed25519.PublicKey, err error) {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, badKey(err)
		}
		ed, ok := key.(ed25519.PublicKey)
		if !ok {
			return nil, badKey(errors.New("it is not an Ed25519 key"))
		}
		keys = append(keys, ed)
	}
	if len(keys) == 0 {
		return nil, badKey(errors.New("it holds no PEM public key"))
	}
	return keys, nil
}

// LoadPrivateKey reads a key file.
func LoadPrivateKey(path string) (ed25519.PrivateKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, badKey(err)
	}
	return ParsePrivateKey(b)
}

func badKey(err error) error {
	return fleet.Errorf(fleet.Invalid, "MC-PACK-SIGNATURE", "read the key for packs: %w", err).WithHint("metalctl pack key NAME")
}
