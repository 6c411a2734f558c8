package fleet

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
)

// PinOf returns the key pin of a certificate: "sha256/" and the base64 SHA-256 of its SubjectPublicKeyInfo (RFC 7469 section 2.4).
func PinOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return "sha256/" + base64.StdEncoding.EncodeToString(sum[:])
}

// ShowsPin reports whether the other side of a connection has the pinned key, whoever signed its certificate.
func ShowsPin(cs tls.ConnectionState, pin string) bool {
	return len(cs.PeerCertificates) > 0 && subtle.ConstantTimeCompare([]byte(PinOf(cs.PeerCertificates[0])), []byte(pin)) == 1
}

// TrustBy is a client's side of TLS that believes the other side by the pin of its key, whoever signed its certificate, or by an authority (PEM) that signed it.
// Exactly one of the two is given; the error says what is wrong with it.
func TrustBy(pin string, authority []byte) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	switch {
	case (pin == "") == (len(authority) == 0):
		return nil, errors.New("exactly one of a pin and an authority must say who is believed")
	case pin == "":
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(authority) {
			return nil, errors.New("the authority's file holds no certificate in PEM form")
		}
		return c, nil
	case !ValidKeyPin(pin):
		return nil, errors.New("the pin is not sha256/ and 44 characters of base64")
	}
	c.InsecureSkipVerify = true // the pin is checked instead
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if !ShowsPin(s, pin) {
			return ErrPin
		}
		return nil
	}
	return c, nil
}

// ErrPin ends a handshake with somebody who has another key than the pinned one.
var ErrPin = errors.New("the key is not the pinned one")

// Distrusts reports whether a connection failed because the other side is not who is believed. It was told nothing.
func Distrusts(err error) bool {
	var chain *tls.CertificateVerificationError
	return errors.Is(err, ErrPin) || errors.As(err, &chain)
}
