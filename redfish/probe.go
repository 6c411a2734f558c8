package redfish

import (
	"context"
	"crypto/tls"
	"net"

	"github.com/metalctl/metalctl/fleet"
)

// Report is what `bmc probe` shows.
type Report struct {
	URL          string       `json:"url"`
	Pin          string       `json:"pin"`
	Identity     Identity     `json:"identity"`
	Capabilities Capabilities `json:"capabilities"`
	Boot         BootState    `json:"boot"`
}

// Probe opens a BMC, reads what it is and can, and closes it; nothing is written besides the session. Where its certificate is
// not trusted, the report holds the pin that it showed, beside the error.
func Probe(ctx context.Context, address string, opts Options) (rep Report, err error) {
	b, err := Dial(ctx, address, opts)
	if err != nil {
		rep.URL = address
		if fleet.CodeOf(err) == "MC-BMC-TLS" {
			if pin, perr := PinAt(ctx, address); perr == nil {
				rep.Pin = pin
			}
		}
		return rep, err
	}
	defer func() {
		if cerr := b.Close(context.WithoutCancel(ctx)); err == nil {
			err = cerr
		}
	}()
	rep.URL, rep.Pin = b.wire.origin.String(), b.wire.single.trust.observed()
	if rep.Identity, err = b.Identity(ctx); err != nil {
		return rep, err
	}
	if rep.Capabilities, err = b.Capabilities(ctx); err != nil {
		return rep, err
	}
	rep.Boot, err = b.Boot(ctx)
	return rep, err
}

// PinAt makes a TLS handshake with a BMC and returns the pin of the key that it shows; it sends no request and no credential.
func PinAt(ctx context.Context, address string) (string, error) {
	b, err := open(address, Options{Trust: Trust{Mode: TrustFirstUse}})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	s := &b.wire.single
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: s.trust.config(s.name)}
	conn, err := d.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return "", b.wire.classify(ctx, request{method: "TLS", uri: "handshake"}, err)
	}
	return s.trust.observed(), conn.Close()
}
