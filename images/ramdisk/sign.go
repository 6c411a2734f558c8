package ramdisk

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/foxboron/go-uefi/authenticode"

	"github.com/metalctl/metalctl/fleet"
)

// LoadSigner reads a PEM key (RSA in PKCS#1 or PKCS#8, not encrypted) and its certificate for Secure Boot.
// Error MC-RAMDISK-SIGN.
func LoadSigner(keyFile, certFile string) (crypto.Signer, *x509.Certificate, error) {
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return nil, nil, noSigner("read the signing certificate: %w", err)
	}
	block, _ := pem.Decode(certPEM)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, nil, noSigner("%s holds no PEM certificate", certFile)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, noSigner("parse the signing certificate: %w", err)
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, nil, noSigner("read the signing key: %w", err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, nil, noSigner("read the signing key %s: %w", keyFile, err)
	}
	if pub, ok := cert.PublicKey.(*rsa.PublicKey); !ok || !pub.Equal(key.Public()) {
		return nil, nil, noSigner("the certificate %s is not the key's", certFile)
	}
	return key, cert, nil
}

func noSigner(format string, args ...any) error {
	return fleet.Errorf(fleet.Invalid, "MC-RAMDISK-SIGN", format, args...).
		WithHint("make a pair: openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=metalctl -keyout db.key -out db.pem")
}

func parseKey(b []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("it is not PEM")
	}
	if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
		return nil, errors.New("it is encrypted; decrypt it first: openssl pkey -in KEY -out PLAIN")
	}
	der := block.Bytes
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("firmware verifies RSA keys only")
	}
	return key, nil
}

// signPE signs an EFI program by Authenticode.
func signPE(image []byte, key crypto.Signer, cert *x509.Certificate) ([]byte, error) {
	pe, err := authenticode.Parse(bytes.NewReader(image))
	if err != nil {
		return nil, fmt.Errorf("read the image to sign: %w", err)
	}
	if _, err := pe.Sign(key, cert); err != nil {
		return nil, fmt.Errorf("sign the image: %w", err)
	}
	return pe.Bytes(), nil
}
