package redfish

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"

	"github.com/metalctl/metalctl/fleet"
)

// verifier judges each handshake and remembers the key that was seen. It keeps the newest TLS session, as tls.ClientSessionCache of one BMC.
type verifier struct {
	mode  TrustMode
	roots *x509.CertPool
	mu    sync.Mutex // guards the rest
	pin   string
	seen  string
	last  *tls.ClientSessionState
}

// tlsError marks a refusal of ours, so that it is told from a network error.
type tlsError struct{ text string }

func (e tlsError) Error() string { return e.text }

// newVerifier verifies as trust says. Pins replace the verification of chain and name; the handshake fails, before any request is sent, when the key is
// another one.
func newVerifier(trust Trust) (*verifier, error) {
	v := &verifier{mode: trust.Mode, pin: trust.Pin}
	if trust.Pin != "" && !fleet.ValidKeyPin(trust.Pin) {
		return nil, fleet.Errorf(fleet.Invalid, "MC-BMC-TLS", "the BMC's pin is not \"sha256/\" and 44 characters of base64").
			WithHint("metalctl bmc probe URL prints the pin of the key that the BMC shows")
	}
	switch {
	case trust.Mode == TrustCA && len(trust.CAPEM) > 0:
		v.roots = x509.NewCertPool()
		if !v.roots.AppendCertsFromPEM(trust.CAPEM) {
			return nil, fleet.Errorf(fleet.Invalid, "MC-BMC-TLS", "the BMC's CA file holds no certificate in PEM form")
		}
	case trust.Mode == TrustPin && trust.Pin == "":
		return nil, fleet.Errorf(fleet.Invalid, "MC-BMC-TLS", "trust by pin needs a pin").
			WithHint("metalctl bmc probe URL prints the pin of the key that the BMC shows")
	}
	return v, nil
}

// curves: every TLS server has P-256 (RFC 8446 section 9.1), and it costs half of X25519 here. The hybrid with ML-KEM, which no BMC speaks, would cost as
// much again, and a first message that is three times as long.
var curves = []tls.CurveID{tls.CurveP256, tls.CurveP384, tls.CurveP521}

// config is for one connection to the BMC of that name: of ten thousand BMCs none keeps one while nothing is asked of it.
func (v *verifier) config(name string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, ServerName: name, ClientSessionCache: v, VerifyConnection: v.verify, CurvePreferences: curves, RootCAs: v.roots,
		InsecureSkipVerify: v.mode != TrustCA} // the chain then says nothing; verify compares the key
}

// Get implements tls.ClientSessionCache.
func (v *verifier) Get(string) (*tls.ClientSessionState, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.last, v.last != nil
}

// Put implements tls.ClientSessionCache.
func (v *verifier) Put(_ string, s *tls.ClientSessionState) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last = s
}

func (v *verifier) verify(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return tlsError{"the BMC shows no certificate"}
	}
	got := fleet.PinOf(cs.PeerCertificates[0])
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mode != TrustCA {
		if v.pin != "" && v.pin != got {
			return tlsError{fmt.Sprintf("the BMC shows key %s instead of %s", got, v.pin)}
		}
		v.pin = got
	}
	v.seen = got
	return nil
}

func (v *verifier) observed() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seen
}

// isTLS reports whether err is a refusal of the other side's certificate.
func isTLS(err error) bool {
	var ours tlsError
	var cert *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	return errors.As(err, &ours) || errors.As(err, &cert) || errors.As(err, &unknown) || errors.As(err, &host) ||
		errors.As(err, &invalid) || errors.As(err, &record)
}
