package redfish

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"

	"github.com/metalctl/metalctl/fleet"
)

// verifier judges each handshake and remembers the key that was seen.
type verifier struct {
	mode TrustMode
	mu   sync.Mutex // guards pin, seen
	pin  string
	seen string
}

// tlsError marks a refusal of ours, so that it is told from a network error.
type tlsError struct{ text string }

func (e tlsError) Error() string { return e.text }

// newTLS returns a configuration that verifies as trust says. Pins replace the verification of chain and name; the
// handshake fails, before any request is sent, when the key is another one.
func newTLS(trust Trust) (*tls.Config, *verifier, error) {
	v := &verifier{mode: trust.Mode, pin: trust.Pin}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(1), VerifyConnection: v.verify,
		// Every TLS server has P-256 (RFC 8446 section 9.1), and it costs half of X25519 here. The hybrid with ML-KEM, which no BMC speaks, would cost
		// as much again, and a first message that is three times as long.
		CurvePreferences: []tls.CurveID{tls.CurveP256, tls.CurveP384, tls.CurveP521}}
	if trust.Pin != "" && !fleet.ValidKeyPin(trust.Pin) {
		return nil, nil, fleet.Errorf(fleet.Invalid, "MC-BMC-TLS", "the BMC's pin is not \"sha256/\" and 44 characters of base64").
			WithHint("metalctl bmc probe URL prints the pin of the key that the BMC shows")
	}
	switch {
	case trust.Mode == TrustCA:
		if len(trust.CAPEM) > 0 {
			cfg.RootCAs = x509.NewCertPool()
			if !cfg.RootCAs.AppendCertsFromPEM(trust.CAPEM) {
				return nil, nil, fleet.Errorf(fleet.Invalid, "MC-BMC-TLS", "the BMC's CA file holds no certificate in PEM form")
			}
		}
	case trust.Mode == TrustPin && trust.Pin == "":
		return nil, nil, fleet.Errorf(fleet.Invalid, "MC-BMC-TLS", "trust by pin needs a pin").
			WithHint("metalctl bmc probe URL prints the pin of the key that the BMC shows")
	default:
		cfg.InsecureSkipVerify = true // the chain says nothing; verify compares the key
	}
	return cfg, v, nil
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
