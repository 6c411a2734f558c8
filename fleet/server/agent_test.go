package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// fakeAgent speaks the agent's protocol as a booted machine would.
type fakeAgent struct {
	w    *world
	cred *fleet.Credential
	key  *ecdsa.PrivateKey
	csr  string
	// serial is what the machine's firmware says.
	serial string
	http   *http.Client
	last   api.Registered
}

// boot issues a medium for the node, reads its credential from the ISO as the ramdisk would, and makes an agent of it.
func (w *world) boot(id fleet.NodeID) *fakeAgent {
	w.t.Helper()
	address, ca, generation, err := w.Issue(context.Background(), id)
	must(w.t, err)
	cred := w.readCredential(address, ca)
	if cred.Generation != generation || cred.Node != string(id) {
		w.t.Fatalf("the credential is for %s boot %d, want %s boot %d", cred.Node, cred.Generation, id, generation)
	}
	return w.agent(cred)
}

func (w *world) agent(cred *fleet.Credential) *fakeAgent {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(w.t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	must(w.t, err)
	a := &fakeAgent{w: w, cred: cred, key: key, csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))}
	if n, _, err := w.node(context.Background(), cred.Node); err == nil {
		a.serial = n.BMC.Serial
	}
	a.connect(nil)
	w.t.Cleanup(func() { a.http.CloseIdleConnections() })
	return a
}

// connect trusts the server by the pin in the credential, as the real agent does.
func (a *fakeAgent) connect(cert *tls.Certificate) {
	if a.http != nil {
		a.http.CloseIdleConnections()
	}
	c := &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
		if fleet.PinOf(s.PeerCertificates[0]) != a.cred.Servers[0].KeyPin {
			a.w.t.Error("the server's key is not the pinned one")
		}
		return nil
	}}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	a.http = &http.Client{Transport: &http.Transport{TLSClientConfig: c}, Timeout: patience}
}

func (w *world) readCredential(address string, ca []byte) *fleet.Credential {
	w.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}, Timeout: patience}
	defer c.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodGet, address, nil)
	must(w.t, err)
	req.Header.Set("Range", "bytes=1048576-1064959")
	res, err := c.Do(req)
	must(w.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(w.t, err)
	if res.StatusCode != http.StatusPartialContent {
		w.t.Fatalf("reading the credential: %s: %s", res.Status, b)
	}
	cred, err := fleet.ParseCredential(b)
	must(w.t, err)
	return cred
}

// call does one call and returns the status and what was answered.
func (a *fakeAgent) call(method, path string, in, out any) (int, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		must(a.w.t, err)
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, a.w.URL()+path, body)
	must(a.w.t, err)
	res, err := a.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(a.w.t, err)
	if res.StatusCode >= 300 {
		var p api.Problem
		if err := json.Unmarshal(b, &p); err != nil {
			a.w.t.Fatalf("%s %s: %s is no problem: %s", method, path, res.Status, b)
		}
		return res.StatusCode, p.Err()
	}
	if raw, ok := out.(*[]byte); ok {
		*raw = b
	} else if out != nil && len(b) > 0 {
		must(a.w.t, json.Unmarshal(b, out))
	}
	return res.StatusCode, nil
}

func (a *fakeAgent) request() api.Register {
	return api.Register{Version: api.AgentVersion, Node: fleet.NodeID(a.cred.Node), Generation: a.cred.Generation, Token: a.cred.Token.Reveal(), CSR: a.csr, Serial: a.serial,
		Boot: api.AgentBootInfo{Program: "test", SecureBoot: "off", Uptime: 3, Stages: map[string]float64{"network": 2.5, "init": 0.75}}}
}

// register registers and goes on with the certificate.
func (a *fakeAgent) register() (int, error) {
	status, err := a.call(http.MethodPost, api.AgentRegisterPath, a.request(), &a.last)
	if err == nil {
		block, _ := pem.Decode([]byte(a.last.Certificate))
		a.connect(&tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: a.key})
	}
	return status, err
}

func (w *world) nodeNow(id fleet.NodeID) fleet.Node {
	w.t.Helper()
	n, _, err := w.node(context.Background(), string(id))
	must(w.t, err)
	return n
}

func TestAgentLife(t *testing.T) {
	at := time.Now() // stands still: a task is held back for some seconds, whatever they are to this machine
	w := newWorld(t, func(_ *Config, d *Deps) { d.Now = func() time.Time { return at } })
	n := w.enrol("n1")
	a := w.boot(n.ID)
	if _, err := a.call(http.MethodGet, api.AgentTaskPath, nil, nil); fleet.CodeOf(err) != "MC-AGENT-CERT" {
		t.Fatalf("a call without a certificate: %v", err)
	}
	_, err := a.register()
	must(t, err)
	first := a.last.Certificate
	_, err = a.register() // the answer was lost: the same key gets the same
	must(t, err)
	if a.last.Certificate != first || a.last.Name != "n1" {
		t.Error("a repeated registration got another answer")
	}
	if up, since := w.Up(n.ID, 1); !up || since.IsZero() {
		t.Error("the agent is not up")
	}
	if up, _ := w.Up(n.ID, 2); up {
		t.Error("the agent of a boot that was never is up")
	}

	// Nothing to do: 204 when the time is over.
	status, err := a.call(http.MethodGet, api.AgentTaskPath+"?wait=10ms", nil, nil)
	must(t, err)
	if status != http.StatusNoContent {
		t.Errorf("an empty poll: %d", status)
	}
	// A task that comes while the agent waits ends the wait; the same one again is held back for a time.
	op, err := w.client.NodeVerb(context.Background(), "n1", "inspect", api.NodeVerb{})
	must(t, err)
	got := make(chan api.Task, 1)
	go func() {
		var task api.Task
		if _, err := a.call(http.MethodGet, api.AgentTaskPath+"?wait=60s", nil, &task); err != nil {
			t.Error(err)
		}
		got <- task
	}()
	w.engine.give(n.ID, &api.Task{Operation: op, Index: 1, Try: 1, Step: "inventory"})
	if task := <-got; task.Step != "inventory" || task.Operation != op {
		t.Errorf("got task %+v", task)
	}
	if status, err = a.call(http.MethodGet, api.AgentTaskPath+"?wait=1ms", nil, nil); err != nil || status != http.StatusNoContent {
		t.Errorf("the same task again at once: %d, %v", status, err)
	}
	w.engine.give(n.ID, &api.Task{Operation: op, Index: 1, Try: 1, Step: "inventory", Abort: true})
	var abort api.Task
	if _, err = a.call(http.MethodGet, api.AgentTaskPath+"?wait=60s", nil, &abort); err != nil || !abort.Abort {
		t.Errorf("the abort: %+v, %v", abort, err)
	}

	_, err = a.call(http.MethodPost, api.AgentProgressPath, fleet.Progress{Operation: op, Step: "inventory", Percent: 50}, nil)
	must(t, err)
	shown, err := w.client.Operation(context.Background(), op, 0)
	must(t, err)
	if shown.Progress == nil || shown.Percent != 70.7 {
		t.Errorf("got percent %v, progress %v", shown.Percent, shown.Progress)
	}
	_, err = a.call(http.MethodPost, api.AgentProgressPath, fleet.Progress{Operation: "another"}, nil)
	wantCode(t, err, fleet.Invalid, "MC-AGENT-PROGRESS")
	_, err = a.call(http.MethodPost, api.AgentResultPath, api.Result{Operation: op, Index: 1, Try: 1, Step: "inventory", Evidence: json.RawMessage(`{"ok":true}`)}, nil)
	must(t, err)
	if len(w.engine.results) != 1 {
		t.Errorf("got results %v", w.engine.results)
	}
	_, err = a.call(http.MethodPost, api.AgentReportPath, api.Report{Kind: "panic", Lines: []string{"boom\x1b[31m"}}, nil)
	must(t, err)
	_, err = a.call(http.MethodPost, api.AgentReportPath, api.Report{Kind: "joke"}, nil)
	wantCode(t, err, fleet.Invalid, "MC-AGENT-REPORT")
	var data []byte
	_, err = a.call(http.MethodGet, api.AgentUserDataPath, nil, &data)
	must(t, err)
	if string(data) != userData {
		t.Errorf("got user-data %q", data)
	}
	must(t, w.engine.finish(context.Background(), n.ID, fleet.OperationDone))
	_, err = a.call(http.MethodGet, api.AgentUserDataPath, nil, &data)
	wantCode(t, err, fleet.NotFound, "MC-LEASE-USERDATA")

	lines, err := w.client.Timeline(context.Background(), "n1", api.TimelineQuery{})
	must(t, err)
	text := asJSON(t, lines)
	for _, want := range []string{"registered from 127.0.0.1", "ended after that: init 0.75 s, network 2.50 s, registered 3.00 s", "panic: boom", `"source":"media"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the timeline lacks %q: %s", want, text)
		}
	}
	if strings.Contains(text, `\u001b`) {
		t.Error("the timeline has control characters")
	}
}

func TestAgentSurvivesRestartOfServer(t *testing.T) {
	w := newWorld(t, nil)
	n := w.enrol("n1")
	a := w.boot(n.ID)
	_, err := a.register()
	must(t, err)
	first, pin := a.last.Certificate, w.KeyPin()
	w.restart()
	if w.KeyPin() != pin {
		t.Fatal("the server's key changed")
	}
	if up, _ := w.Up(n.ID, 1); up {
		t.Error("the agent is up before it was heard of")
	}
	if _, err := a.call(http.MethodGet, api.AgentTaskPath, nil, nil); err != nil {
		t.Fatalf("the session does not go on: %v", err)
	}
	if up, _ := w.Up(n.ID, 1); !up {
		t.Error("the agent was heard of and is not up")
	}
	if _, err = a.register(); err != nil || a.last.Certificate != first {
		t.Errorf("a repeated registration got another answer: %v", err)
	}
}

func TestTokenReuseRevokesBoth(t *testing.T) {
	w := newWorld(t, nil)
	n := w.enrol("n1")
	honest := w.boot(n.ID)
	_, err := honest.register()
	must(t, err)
	thief := w.agent(honest.cred)
	status, err := thief.register()
	wantCode(t, err, fleet.Denied, "MC-AGENT-REVOKED")
	if status != http.StatusForbidden {
		t.Errorf("got %d", status)
	}
	_, err = honest.call(http.MethodGet, api.AgentTaskPath, nil, nil)
	wantCode(t, err, fleet.Denied, "MC-AGENT-REVOKED")
	_, err = honest.register()
	wantCode(t, err, fleet.Denied, "MC-AGENT-REVOKED")
	now := w.nodeNow(n.ID)
	if f := now.Fault(fleet.FaultTokenReused, "agent"); f == nil || f.Blocks != fleet.BlocksEverything || now.Boot.MediaID != "" {
		t.Errorf("got faults %v, medium %q", now.Faults, now.Boot.MediaID)
	}
	// A new boot is a new start.
	next := w.boot(n.ID)
	_, err = next.register()
	must(t, err)
	_, err = honest.call(http.MethodGet, api.AgentTaskPath, nil, nil)
	wantCode(t, err, fleet.Conflict, "MC-AGENT-GENERATION")
}

func TestOlderBootIsGone(t *testing.T) {
	w := newWorld(t, nil)
	n := w.enrol("n1")
	old := w.boot(n.ID)
	_, err := old.register()
	must(t, err)
	w.boot(n.ID)
	for _, path := range []string{api.AgentTaskPath, api.AgentUserDataPath} {
		status, err := old.call(http.MethodGet, path, nil, nil)
		wantCode(t, err, fleet.Conflict, "MC-AGENT-GENERATION")
		if status != http.StatusGone {
			t.Errorf("%s: got %d, want 410", path, status)
		}
	}
	status, err := old.register()
	if status != http.StatusGone || fleet.CodeOf(err) != "MC-AGENT-GENERATION" {
		t.Errorf("registering again: %d, %v", status, err)
	}
}

func TestAnotherMachineIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	n := w.enrol("n1")
	a := w.boot(n.ID)
	reg := a.request()
	reg.UUID, reg.Serial = "deadbeef-0000-0000-0000-000000000001", "OTHER"
	_, err := a.call(http.MethodPost, api.AgentRegisterPath, reg, nil)
	wantCode(t, err, fleet.Denied, "MC-AGENT-IDENTITY")
	now := w.nodeNow(n.ID)
	if now.Fault(FaultIdentity, "system") == nil || now.Boot.AgentKey != "" {
		t.Errorf("got %s", asJSON(t, now))
	}
	// The right machine still may: the token was not spent. Some firmware shows the UUID's first groups turned round.
	reg.UUID, reg.Serial = swappedUUID(now.BMC.UUID), now.BMC.Serial
	_, err = a.call(http.MethodPost, api.AgentRegisterPath, reg, nil)
	must(t, err)
	if now := w.nodeNow(n.ID); now.Fault(FaultIdentity, "system") != nil {
		t.Error("the fault stays")
	}
}

func TestRegisterRefusals(t *testing.T) {
	w := newWorld(t, nil)
	n := w.enrol("n1")
	a := w.boot(n.ID)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rsaKey)
	must(t, err)
	rsaCSR := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	tests := []struct {
		name   string
		change func(*api.Register)
		code   string
	}{
		{"a wrong token", func(r *api.Register) { r.Token = newToken() }, "MC-AGENT-TOKEN"},
		{"a generation to come", func(r *api.Register) { r.Generation = 7 }, "MC-AGENT-TOKEN"},
		{"a node that is not there", func(r *api.Register) { r.Node = "01900000-0000-7000-8000-000000000000" }, "MC-AGENT-TOKEN"},
		{"no certificate request", func(r *api.Register) { r.CSR = "hello" }, "MC-AGENT-REGISTER"},
		{"a key that is not P-256", func(r *api.Register) { r.CSR = rsaCSR }, "MC-AGENT-REGISTER"},
		{"a protocol from the future", func(r *api.Register) { r.Version = 99 }, "MC-AGENT-VERSION"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reg := a.request()
			tt.change(&reg)
			_, err := a.call(http.MethodPost, api.AgentRegisterPath, reg, nil)
			if fleet.CodeOf(err) != tt.code {
				t.Errorf("got %v, want %s", err, tt.code)
			}
		})
	}
	if now := w.nodeNow(n.ID); now.Boot.AgentKey != "" || len(now.Faults) != 0 {
		t.Errorf("a refusal left a trace: %s", asJSON(t, now))
	}
	_, err = a.register()
	must(t, err)
}

// A certificate of this authority that was made for something else, and one of another authority, open nothing.
func TestForeignCertificates(t *testing.T) {
	w := newWorld(t, nil)
	n := w.enrol("n1")
	a := w.boot(n.ID)
	_, err := a.register()
	must(t, err)
	other, err := newAuthority(time.Now())
	must(t, err)
	foreign, err := parseAuthority(other, nil, time.Now)
	must(t, err)
	for name, ca := range map[string]*authority{"another authority": foreign, "another key of the same authority": w.ca} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		text, err := ca.bootCert(n.ID, 1, &key.PublicKey, time.Now())
		must(t, err)
		block, _ := pem.Decode(text)
		a.connect(&tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key})
		if _, err := a.call(http.MethodGet, api.AgentTaskPath, nil, nil); fleet.CodeOf(err) != "MC-AGENT-CERT" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	cert, err := w.ca.serverCert(nil)
	must(t, err)
	a.connect(cert)
	if _, err := a.call(http.MethodGet, api.AgentTaskPath, nil, nil); fleet.CodeOf(err) != "MC-AGENT-CERT" {
		t.Errorf("the server's own certificate: got %v", err)
	}
}
