package agent

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Dial opens a connection, as net.Dialer.DialContext does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// pinned returns a transport that talks only to the holder of ref's key. No authority, name or validity time is asked: the medium that carries the
// pin is what is trusted, and a machine with a dead clock must get through.
func pinned(ref fleet.ServerRef, cert *tls.Certificate, network *fleet.BootNetwork, dial Dial) (*http.Transport, error) {
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	}
	t := &http.Transport{
		DialContext:         dial,
		TLSHandshakeTimeout: 20 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		MaxIdleConnsPerHost: 4,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			InsecureSkipVerify: true, // replaced by VerifyConnection
			VerifyConnection: func(s tls.ConnectionState) error {
				if len(s.PeerCertificates) == 0 {
					return fmt.Errorf("the server shows no certificate")
				}
				if got := fleet.PinOf(s.PeerCertificates[0]); subtle.ConstantTimeCompare([]byte(got), []byte(ref.KeyPin)) != 1 {
					return fleet.Errorf(fleet.Unavailable, "MC-AGENT-PIN", "the server at %s has the key %s; this boot medium trusts only %s", ref.URL, got, ref.KeyPin).
						WithHint("boot the node again from a fresh medium of that server: metalctl node retry NODE")
				}
				return nil
			},
		},
	}
	if cert != nil {
		t.TLSClientConfig.Certificates = []tls.Certificate{*cert}
	}
	if network != nil && network.Proxy != "" {
		u, err := url.Parse(network.Proxy)
		if err != nil {
			return nil, fmt.Errorf("the credential's proxy: %w", err)
		}
		t.Proxy = http.ProxyURL(u)
	}
	return t, nil
}
