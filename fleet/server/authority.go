package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// authorityKey is where the CA's key, the server's key and the secret for addresses are kept, encrypted.
const authorityKey fleet.Key = "secret/server/authority"

// certEpoch is when every certificate begins to be valid: clocks of BMCs and of machines with a dead battery are often years behind.
var certEpoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

const (
	pemKey    = "EC PRIVATE KEY"
	pemCert   = "CERTIFICATE"
	pemSecret = "METALCTL SECRET"
	// serverCertLife is how long a server's certificate is good; it is replaced when half of it is over. The key stays, so pins stay.
	serverCertLife = 397 * 24 * time.Hour
	bootCertLife   = 10 * 365 * 24 * time.Hour
)

// authority is the server's own small CA. Its keys do not change while the store lives.
type authority struct {
	caKey, serverKey *ecdsa.PrivateKey
	ca               *x509.Certificate
	caPEM            []byte
	secret           []byte
	pin              string
	names            []string
	now              func() time.Time

	mu   sync.Mutex // guards cert
	cert *tls.Certificate
}

// openAuthority reads the CA from the store, or makes it there.
func openAuthority(ctx context.Context, st fleet.Store, names []string, now func() time.Time) (*authority, error) {
	for range 3 {
		a, err := readAuthority(ctx, st, names, now)
		if err == nil || fleet.KindOf(err) != fleet.NotFound {
			return a, err
		}
		fresh, err := newAuthority(now())
		if err != nil {
			return nil, err
		}
		_, err = st.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: authorityKey}}, Writes: []fleet.Write{{Key: authorityKey, Value: fleet.NewSecret(string(fresh))}}})
		if err != nil && fleet.KindOf(err) != fleet.Conflict {
			return nil, fmt.Errorf("store the server's authority: %w", err)
		}
	}
	return nil, fleet.Errorf(fleet.Broken, "MC-SERVER-AUTHORITY", "the server's authority was stored and cannot be read back").WithHint("metalctl server check")
}

// readAuthority reads the CA from the store; NotFound where it has none yet.
func readAuthority(ctx context.Context, st fleet.Store, names []string, now func() time.Time) (*authority, error) {
	var text string
	err := st.View(ctx, func(s fleet.Snapshot) (err error) {
		text, _, err = fleet.Get[string](s, authorityKey)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the server's authority: %w", err)
	}
	return parseAuthority([]byte(text), names, now)
}

// newAuthority makes keys and the CA's certificate as PEM.
func newAuthority(now time.Time) ([]byte, error) {
	var out []byte
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("encode a key: %w", err)
		}
		keys[i] = key
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der})...)
	}
	serial := make([]byte, 16)
	rand.Read(serial)
	template := &x509.Certificate{
		SerialNumber: serialOf(serial), Subject: pkix.Name{CommonName: fmt.Sprintf("metalctl %x", serial[:4])},
		NotBefore: certEpoch, NotAfter: now.AddDate(30, 0, 0), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &keys[0].PublicKey, keys[0])
	if err != nil {
		return nil, fmt.Errorf("make the authority's certificate: %w", err)
	}
	out = append(out, pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der})...)
	secret := make([]byte, 32)
	rand.Read(secret)
	return append(out, pem.EncodeToMemory(&pem.Block{Type: pemSecret, Bytes: secret})...), nil
}

func parseAuthority(text []byte, names []string, now func() time.Time) (*authority, error) {
	a := &authority{names: names, now: now}
	var keys []*ecdsa.PrivateKey
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case pemKey:
			key, err := x509.ParseECPrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("read the server's authority: %w", err)
			}
			keys = append(keys, key)
		case pemCert:
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("read the server's authority: %w", err)
			}
			a.ca, a.caPEM = cert, pem.EncodeToMemory(block)
		case pemSecret:
			a.secret = block.Bytes
		}
	}
	if len(keys) != 2 || a.ca == nil || len(a.secret) < 32 {
		return nil, fleet.Errorf(fleet.Broken, "MC-SERVER-AUTHORITY", "the server's authority in the store is incomplete").WithHint("metalctl server check")
	}
	a.caKey, a.serverKey = keys[0], keys[1]
	pin, err := keyPin(&a.serverKey.PublicKey)
	a.pin = pin
	return a, err
}

// serialOf makes a positive serial number of at most 20 octets (RFC 5280 section 4.1.2.2).
func serialOf(b []byte) *big.Int {
	n := new(big.Int).SetBytes(b)
	return n.SetBit(n, 127, 1)
}

func keyPin(key *ecdsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("encode a key: %w", err)
	}
	return fleet.PinOf(&x509.Certificate{RawSubjectPublicKeyInfo: der}), nil
}

// mac derives an unguessable value from parts that belong together.
func (a *authority) mac(parts ...string) []byte {
	h := hmac.New(sha256.New, a.secret)
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return h.Sum(nil)
}

// serverCert is the certificate of the https listener; it renews itself.
func (a *authority) serverCert(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if a.cert != nil && a.cert.Leaf.NotAfter.Sub(now) > serverCertLife/2 {
		return a.cert, nil
	}
	serial := make([]byte, 16)
	rand.Read(serial)
	template := &x509.Certificate{
		SerialNumber: serialOf(serial), Subject: pkix.Name{CommonName: "metalctl server"}, NotBefore: certEpoch, NotAfter: now.Add(serverCertLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	for _, n := range a.names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.ca, &a.serverKey.PublicKey, a.caKey)
	if err != nil {
		return nil, fmt.Errorf("make the server's certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make the server's certificate: %w", err)
	}
	a.cert = &tls.Certificate{Certificate: [][]byte{der, a.ca.Raw}, PrivateKey: a.serverKey, Leaf: leaf}
	return a.cert, nil
}

// bootURI is the name that a client certificate carries: a node in one boot generation.
func bootURI(id fleet.NodeID, generation int64) *url.URL {
	return &url.URL{Scheme: "metalctl", Host: "node", Path: fmt.Sprintf("/%s/boot/%d", id, generation)}
}

// parseBootURI reads what bootURI made.
func parseBootURI(u *url.URL) (fleet.NodeID, int64, error) {
	parts := strings.Split(u.Path, "/")
	if u.Scheme != "metalctl" || u.Host != "node" || len(parts) != 4 || parts[0] != "" || parts[1] == "" || parts[2] != "boot" {
		return "", 0, errors.New("names no node")
	}
	generation, err := strconv.ParseInt(parts[3], 10, 64)
	if err != nil || generation < 1 || strconv.FormatInt(generation, 10) != parts[3] {
		return "", 0, errors.New("names no boot generation")
	}
	return fleet.NodeID(parts[1]), generation, nil
}

// bootCert signs the key of one boot. The same node, generation, key and time give the same bytes: a repeated registration gets the same answer.
func (a *authority) bootCert(id fleet.NodeID, generation int64, key *ecdsa.PublicKey, since time.Time) ([]byte, error) {
	pin, err := keyPin(key)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serialOf(a.mac("boot certificate", string(id), strconv.FormatInt(generation, 10), pin)[:16]),
		Subject:      pkix.Name{CommonName: string(id)}, URIs: []*url.URL{bootURI(id, generation)},
		NotBefore: certEpoch, NotAfter: since.Add(bootCertLife).Truncate(time.Second), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	// Without a source of randomness ECDSA signs by RFC 6979, which is what makes the answer the same.
	der, err := x509.CreateCertificate(nil, template, a.ca, key, a.caKey)
	if err != nil {
		return nil, fmt.Errorf("sign the agent's key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der}), nil
}
