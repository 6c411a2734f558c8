package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// patience bounds every wait of these tests: two slow cores.
const patience = 90 * time.Second

// fakeServer is the server's half of the protocol, really over TLS, with one node; it can be stopped and started again at its address.
type fakeServer struct {
	t    *testing.T
	addr string
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	leaf tls.Certificate
	pin  string

	mu        sync.Mutex
	http      *http.Server
	served    chan struct{} // closed when http has ended
	boundTo   string        // pin of the key that spent the token
	answer    api.Registered
	registers []api.Register
	queue     []api.Task // each is handed out once
	pushed    int        // tasks ever pushed
	taken     int        // of those, how many the agent had taken when it asked for more
	onResult  func(http.ResponseWriter, api.Result) (handled bool)
	onRegist  func(http.ResponseWriter, api.Register) (handled bool)
	onRequest func(http.ResponseWriter, *http.Request) (handled bool)
	forgotten bool // sessions are unknown: 401 until registered again
	gone      bool
	now       time.Time
	images    map[string][]byte
	fetched   int // packs that were asked for

	results  chan api.Result
	progress chan fleet.Progress
	reports  chan api.Report
	bell     chan struct{}
}

func newFakeServer(t *testing.T) *fakeServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fake"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeServer{
		t: t, ca: ca, key: key, leaf: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pin: fleet.PinOf(ca), now: time.Now(),
		results: make(chan api.Result, 64), progress: make(chan fleet.Progress, 1024), reports: make(chan api.Report, 1024), bell: make(chan struct{}, 64),
	}
	f.addr = reserve(t)
	f.restart()
	t.Cleanup(f.stop)
	return f
}

// reserve returns an address of the loopback that is this test's until it ends: a socket that is bound and never listens keeps others from the port, even
// from using it at the far end of a connection, while the server is down.
func reserve(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	var name unix.Sockaddr
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil {
		if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err == nil {
			name, err = unix.Getsockname(fd)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
}

func (f *fakeServer) serve(l net.Listener) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+api.AgentRegisterPath, f.register)
	mux.HandleFunc("GET "+api.AgentTaskPath, f.member(f.task))
	mux.HandleFunc("POST "+api.AgentResultPath, f.member(f.result))
	mux.HandleFunc("POST "+api.AgentProgressPath, f.member(func(w http.ResponseWriter, r *http.Request) {
		var p fleet.Progress
		f.decode(r, &p)
		f.progress <- p
		w.WriteHeader(http.StatusNoContent)
	}))
	mux.HandleFunc("POST "+api.AgentReportPath, f.member(func(w http.ResponseWriter, r *http.Request) {
		var rep api.Report
		f.decode(r, &rep)
		f.reports <- rep
		w.WriteHeader(http.StatusNoContent)
	}))
	mux.HandleFunc("GET /secret", f.member(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "user-data") }))
	mux.HandleFunc("GET /images/{name}", f.member(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		b, ok := f.images[r.PathValue("name")]
		f.mu.Unlock()
		if !ok {
			refuse(w, http.StatusNotFound, "no such image")
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	mux.HandleFunc("GET "+api.AgentPackPath+"{sha256}", f.member(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		b, ok := f.images[r.PathValue("sha256")]
		f.fetched++
		f.mu.Unlock()
		if !ok {
			refuse(w, http.StatusNotFound, "no such pack")
			return
		}
		_, _ = w.Write(b)
	}))
	all := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		on := f.onRequest
		f.mu.Unlock()
		if on == nil || !on(w, r) {
			mux.ServeHTTP(w, r)
		}
	})
	srv := &http.Server{Handler: all, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), TLSConfig: &tls.Config{Certificates: []tls.Certificate{f.leaf}, ClientAuth: tls.RequestClientCert}}
	served := make(chan struct{})
	f.mu.Lock()
	f.http, f.served = srv, served
	f.mu.Unlock()
	go func() { defer close(served); _ = srv.ServeTLS(l, "", "") }()
}

// stop closes the listener and every connection, as a server that dies does.
func (f *fakeServer) stop() {
	f.mu.Lock()
	srv, served := f.http, f.served
	f.mu.Unlock()
	_ = srv.Close()
	<-served // a server that had not begun to serve closes its listener only now
}

// second listens at a further address; stop and restart keep to the first. It returns the reference for a credential.
func (f *fakeServer) second() fleet.ServerRef {
	f.t.Helper()
	f.mu.Lock()
	first, served := f.http, f.served
	f.mu.Unlock()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	f.serve(l)
	f.mu.Lock()
	other := f.http
	f.http, f.served = first, served
	f.mu.Unlock()
	f.t.Cleanup(func() { _ = other.Close() })
	return fleet.ServerRef{URL: "https://" + l.Addr().String(), KeyPin: f.pin}
}

// restart comes back at the same address with the same key.
func (f *fakeServer) restart() {
	f.t.Helper()
	l, err := net.Listen("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.serve(l)
}

func (f *fakeServer) decode(r *http.Request, out any) {
	b, err := io.ReadAll(r.Body)
	if err == nil {
		err = decodeStrict(b, out)
	}
	if err != nil && r.Context().Err() == nil {
		f.t.Errorf("the agent sent %q to %s: %v", b, r.URL.Path, err)
	}
}

func refuse(w http.ResponseWriter, code int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(api.Problem{Status: code, Detail: detail})
}

// cut ends the connection without an answer.
func cut(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

func (f *fakeServer) register(w http.ResponseWriter, r *http.Request) {
	var reg api.Register
	f.decode(r, &reg)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.registers = append(f.registers, reg)
	block, _ := pem.Decode([]byte(reg.CSR))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil {
		f.t.Errorf("certificate request: %v", err)
		return
	}
	pin := fleet.PinOf(&x509.Certificate{RawSubjectPublicKeyInfo: csr.RawSubjectPublicKeyInfo})
	switch {
	case f.gone:
		refuse(w, http.StatusGone, "generation 7 was replaced by 8")
		return
	case reg.Token != "spend-me":
		refuse(w, http.StatusForbidden, "no such token")
		return
	case f.boundTo == "":
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: csr.Subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, f.ca, csr.PublicKey, f.key)
		if err != nil {
			f.t.Error(err)
		}
		f.boundTo = pin
		f.answer = api.Registered{Version: api.AgentVersion, Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), Now: f.now, Name: "n01"}
	case f.boundTo != pin:
		refuse(w, http.StatusForbidden, "the token was spent by another key")
		return
	}
	f.forgotten = false
	if f.onRegist != nil && f.onRegist(w, reg) {
		return
	}
	_ = json.NewEncoder(w).Encode(f.answer)
}

// member lets only the holder of the registered key in.
func (f *fakeServer) member(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		bound, forgotten, gone := f.boundTo, f.forgotten, f.gone
		f.mu.Unlock()
		switch {
		case gone:
			refuse(w, http.StatusGone, "generation 7 was replaced by 8")
		case forgotten || len(r.TLS.PeerCertificates) == 0:
			refuse(w, http.StatusUnauthorized, "no session")
		case fleet.PinOf(r.TLS.PeerCertificates[0]) != bound || r.TLS.PeerCertificates[0].CheckSignatureFrom(f.ca) != nil:
			f.t.Error("a request with another key than the registered one")
			refuse(w, http.StatusForbidden, "another key")
		default:
			next(w, r)
		}
	}
}

func (f *fakeServer) task(w http.ResponseWriter, r *http.Request) {
	wait, err := time.ParseDuration(r.URL.Query().Get("wait"))
	if err != nil {
		f.t.Errorf("wait: %v", err)
	}
	over := time.After(wait)
	f.mu.Lock()
	f.taken = f.pushed - len(f.queue)
	f.mu.Unlock()
	for {
		f.mu.Lock()
		if len(f.queue) > 0 {
			t := f.queue[0]
			f.queue = f.queue[1:]
			f.mu.Unlock()
			_ = json.NewEncoder(w).Encode(t)
			return
		}
		f.mu.Unlock()
		select {
		case <-f.bell:
		case <-over:
			w.WriteHeader(http.StatusNoContent)
			return
		case <-r.Context().Done():
			return
		}
	}
}

func (f *fakeServer) result(w http.ResponseWriter, r *http.Request) {
	var res api.Result
	f.decode(r, &res)
	f.mu.Lock()
	on := f.onResult
	f.mu.Unlock()
	if on != nil && on(w, res) {
		return
	}
	f.results <- res
	w.WriteHeader(http.StatusNoContent)
}

func (f *fakeServer) push(tasks ...api.Task) {
	f.mu.Lock()
	f.queue = append(f.queue, tasks...)
	f.pushed += len(tasks)
	f.mu.Unlock()
	select {
	case f.bell <- struct{}{}:
	default: // it rings already
	}
}

// awaitTaken returns when the agent has taken every task that was pushed, and asks for more.
func (f *fakeServer) awaitTaken() {
	f.t.Helper()
	taken := func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.taken == f.pushed
	}
	for over := time.Now().Add(patience); !taken(); time.Sleep(time.Millisecond) {
		if time.Now().After(over) {
			f.t.Fatalf("the agent did not take every task within %s", patience)
		}
	}
}

func (f *fakeServer) credential() fleet.Credential {
	return fleet.Credential{
		Version: fleet.CredentialVersion, Node: "0197-node", Generation: 7, Token: fleet.NewSecret("spend-me"),
		Servers: []fleet.ServerRef{{URL: "https://" + f.addr, KeyPin: f.pin}}, IssuedAt: time.Now().Add(-time.Minute),
	}
}

// quick is a pace for tests: everything that is retried is retried soon.
func quick() Pace {
	return Pace{RetryMin: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond, Call: patience, Poll: 500 * time.Millisecond, Progress: 20 * time.Millisecond, Stop: patience, Farewell: patience}
}

func config(f *fakeServer, funcs step.Funcs) Config {
	return Config{
		Credential: f.credential(), Funcs: funcs, Home: &Home{}, Pace: quick(),
		Identity: Identity{UUID: "u", Serial: "s", MACs: []fleet.MAC{"52:54:00:00:00:01"}},
	}
}

// start runs an agent until the test ends and returns the channel of Run's answer.
func start(t *testing.T, cfg Config) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan error, 1)
	ended := make(chan struct{})
	go func() { out <- Run(ctx, cfg); close(ended) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return out
}

func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s within %s", what, patience)
		panic("unreachable")
	}
}

func task(name string, try int) api.Task {
	return api.Task{Operation: "op", Index: 3, Try: try, Step: name, LimitSeconds: 600}
}

var errBoom = errors.New("boom")

func hasLine(r api.Report, text string) bool {
	for _, l := range r.Lines {
		if strings.Contains(l, text) {
			return true
		}
	}
	return false
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
