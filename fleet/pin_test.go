package fleet

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestTrustBy(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	pin := PinOf(s.Certificate())
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	shake := func(c *tls.Config) error {
		conn, err := tls.Dial("tcp", s.Listener.Addr().String(), c)
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	for name, by := range map[string]struct {
		pin       string
		authority []byte
	}{"pin": {pin: pin}, "authority": {authority: authority}} {
		c, err := TrustBy(by.pin, by.authority)
		if err != nil {
			t.Fatal(err)
		}
		if err := shake(c); err != nil {
			t.Errorf("by its %s: %v", name, err)
		}
	}
	other, err := TrustBy("sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := shake(other); !errors.Is(err, ErrPin) {
		t.Errorf("another key: %v", err)
	}
	for name, by := range map[string]struct {
		pin       string
		authority []byte
	}{"neither": {}, "both": {pin, authority}, "no pin": {pin: "sha1/AAAA"}, "no PEM": {authority: []byte("x")}} {
		if c, err := TrustBy(by.pin, by.authority); err == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
}
