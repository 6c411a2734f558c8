package fleet

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
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
