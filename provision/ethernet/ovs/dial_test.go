package ovs

import (
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

func TestAccessIsChecked(t *testing.T) {
	for what, c := range map[string]struct {
		access Access
		want   string
	}{
		"a socket":                  {Access{Database: "unix:/run/db.sock"}, ""},
		"a relative socket":         {Access{Database: "unix:db.sock"}, "absolute"},
		"TLS":                       {Access{Database: "ssl:10.0.0.2:6640", OpenFlow: "ssl:10.0.0.2:6653"}, ""},
		"TLS without OpenFlow":      {Access{Database: "ssl:10.0.0.2:6640"}, "OpenFlow"},
		"TLS without a port":        {Access{Database: "ssl:10.0.0.2", OpenFlow: "unix:/run/br0.mgmt"}, "port"},
		"plain TCP to another host": {Access{Database: "tcp:10.0.0.2:6640", OpenFlow: "unix:/run/br0.mgmt"}, "loopback"},
		"plain TCP to this one":     {Access{Database: "tcp:127.0.0.1:6640", OpenFlow: "tcp:[::1]:6653"}, ""},
		"no kind":                   {Access{Database: "/run/db.sock"}, "unix:"},
	} {
		err := c.access.Check("br0")
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || fleet.KindOf(err) != fleet.Invalid) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
}

func TestWhomTheDriverTrusts(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	at := "ssl:" + s.Listener.Addr().String()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for what, c := range map[string]struct {
		access Access
		want   fleet.Kind
		words  string
	}{
		"its pin":        {Access{Pin: fleet.PinOf(s.Certificate())}, 0, ""},
		"its authority":  {Access{CAPEM: authority}, 0, ""},
		"another pin":    {Access{Pin: "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}, fleet.Denied, "was told nothing"},
		"no pin":         {Access{Pin: "sha256/x"}, fleet.Invalid, "44 characters"},
		"nothing":        {Access{}, fleet.Invalid, "exactly one"},
		"no certificate": {Access{Pin: fleet.PinOf(s.Certificate()), CertPEM: authority, KeyPEM: []byte("x")}, fleet.Invalid, "this server's certificate"},
	} {
		t.Run(what, func(t *testing.T) {
			c.access.Database, c.access.OpenFlow = at, at
			database, _, err := c.access.Dialers("br0")
			if err == nil {
				var conn net.Conn
				if conn, err = database(t.Context()); err == nil {
					err = conn.Close()
				} else {
					err = unreached(err)
				}
			}
			if (err == nil) != (c.words == "") || err != nil && (fleet.KindOf(err) != c.want || !strings.Contains(err.Error(), c.words)) {
				t.Errorf("got %v, want %q", err, c.words)
			}
		})
	}
}
