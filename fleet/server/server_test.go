package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 90 * time.Second

// secrets that must appear nowhere but where they belong.
const (
	bmcPassword = "hunter2-bmc-password"
	userData    = "#cloud-config\npassword: tenant-secret-userdata\n"
)

// world is a server that runs over a real store, with neighbours that are fakes.
type world struct {
	*Server
	t      *testing.T
	dir    string
	db     *store.DB
	engine *fakeEngine
	bmcs   *fakeBMCs
	log    *syncBuffer
	token  string
	client *api.Client
	stop   func()
}

type syncBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newWorld starts a server; change may alter its configuration.
func newWorld(t *testing.T, change func(*Config, *Deps)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), log: &syncBuffer{}}
	w.start(change)
	return w
}

func (w *world) start(change func(*Config, *Deps)) {
	t := w.t
	t.Helper()
	w.db = contract.OpenStoreIn(t, filepath.Join(w.dir, "store"), store.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	must(t, EnsureAdminToken(ctx, w.db, filepath.Join(w.dir, "admin.token")))
	text, err := os.ReadFile(filepath.Join(w.dir, "admin.token"))
	must(t, err)
	w.token = strings.TrimSpace(string(text))
	w.bmcs = &fakeBMCs{machines: map[string]Learned{}}
	cfg := Config{Listen: "127.0.0.1:0", ListenBoot: "127.0.0.1:0", DataDir: w.dir, Version: "1.2.3", Commit: "abcdef"}
	deps := Deps{Store: w.db, Blobs: w.db, Timeline: w.db, Enroller: w.bmcs, Credentials: w.bmcs, Power: w.bmcs, Media: oneISO{}, Images: fakeImages{}, Packs: fakePacks{},
		Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if change != nil {
		change(&cfg, &deps)
	}
	w.Server, err = Open(ctx, cfg, deps)
	must(t, err)
	w.engine = &fakeEngine{s: w.Server}
	done := make(chan error, 1)
	go func() {
		done <- w.Run(ctx, Engine{w.engine, w.engine, w.engine, w.engine, w.engine, w.engine, w.engine, w.engine})
	}()
	w.client = w.newClient(w.token)
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		w.client.Close()
		cancel()
		select {
		case err := <-done:
			must(t, err)
		case <-time.After(patience):
			t.Error("the server does not stop")
		}
	}
	t.Cleanup(w.stop) // the store is checked and closed after that
}

// restart stops the server and starts it on the same data.
func (w *world) restart() {
	w.t.Helper()
	w.stop()
	must(w.t, w.db.Close())
	w.start(nil)
}

func (w *world) newClient(token string) *api.Client {
	c, err := api.NewClient(api.Config{Server: w.URL(), Token: fleet.NewSecret(token), CACert: w.CACert(), Timeout: patience})
	must(w.t, err)
	w.t.Cleanup(c.Close)
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantCode checks an error's code and kind.
func wantCode(t *testing.T, err error, kind fleet.Kind, code string) {
	t.Helper()
	if err == nil || fleet.CodeOf(err) != code || fleet.KindOf(err) != kind {
		t.Fatalf("got %v (%s, %s), want %s, %s", err, fleet.KindOf(err), fleet.CodeOf(err), kind, code)
	}
}

// enrol creates a node behind a BMC on loopback.
func (w *world) enrol(name string) fleet.Node {
	w.t.Helper()
	n, err := w.client.CreateNode(context.Background(), createRequest(name), "")
	must(w.t, err)
	return n.Node.Node
}

func createRequest(name string) api.NodeCreate {
	h := 0
	for _, c := range name {
		h = h*31 + int(c)
	}
	return api.NodeCreate{Name: name, Address: fmt.Sprintf("https://127.0.0.1:%d", 10000+h%50000), User: "root", Password: bmcPassword, TLS: fleet.BMCTLS{FirstUse: true}}
}

// fakeISO is a shared medium of zeros with a credential window at 1 MiB.
type fakeISO struct {
	size   int64
	window int64
}

// oneISO is a server's media: sharedISO alone.
type oneISO struct{}

var oneDigest = strings.Repeat("a1b2c3d4", 8)

func (oneISO) Ramdisks() ([]fleet.Ramdisk, error) {
	return []fleet.Ramdisk{{SHA256: oneDigest, Program: "1.2.3", Protocol: api.AgentVersion, Kernel: "6.12", SizeBytes: sharedISO.size}}, nil
}

func (oneISO) Medium(sha256 string) (Medium, error) {
	if sha256 != oneDigest && sha256 != "" {
		return nil, fleet.Errorf(fleet.NotFound, "MC-RAMDISK-UNKNOWN", "there is no ramdisk %q", sha256)
	}
	return sharedISO, nil
}

func (oneISO) Drop(string) error { return errors.New("the only medium is dropped") }

var sharedISO = fakeISO{size: 8 << 20, window: 1 << 20}

func (i fakeISO) Size() int64 { return i.size }

func (i fakeISO) Overlay(cred []byte) (io.ReaderAt, error) {
	if len(cred) > fleet.CredentialWindow {
		return nil, io.ErrShortBuffer
	}
	padded := bytes.Repeat([]byte(" "), fleet.CredentialWindow)
	copy(padded, cred)
	return overlaid{i, padded}, nil
}

type overlaid struct {
	fakeISO
	cred []byte
}

func (o overlaid) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off+int64(n) < o.size {
		at := off + int64(n)
		if at >= o.window && at < o.window+int64(len(o.cred)) {
			p[n] = o.cred[at-o.window]
		} else {
			p[n] = byte(at >> 12)
		}
		n++
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// fakeBMCs answers for every BMC.
type fakeBMCs struct {
	mu       sync.Mutex // guards the rest
	machines map[string]Learned
	fail     error
	enrolled int
	looked   []fleet.BMC // what was opened, in order
	looking  func()      // runs while a BMC is being looked at
	changed  []fleet.NodeID
	power    string
	acts     []string
	during   func() // runs while power is being set
	gone     []fleet.NodeID
}

func (f *fakeBMCs) Enroll(_ context.Context, bmc fleet.BMC, password fleet.Secret) (Learned, error) {
	if f.looking != nil {
		f.looking()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.enrolled++
	f.looked = append(f.looked, bmc)
	if f.fail != nil {
		return Learned{}, f.fail
	}
	if password.Reveal() != bmcPassword {
		return Learned{}, fleet.Errorf(fleet.Denied, "MC-BMC-AUTH", "the BMC refuses the account")
	}
	l, ok := f.machines[bmc.Address]
	if !ok {
		sum := sha256.Sum256([]byte(bmc.Address))
		h := hex.EncodeToString(sum[:])
		l = Learned{System: fleet.Expect{Serial: "SN-" + h[:8], UUID: h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:32]}, Notes: []string{"virtual media needs no licence"}}
	}
	l.BMC.TLS = fleet.BMCTLS{Pin: "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", FirstUse: bmc.TLS.FirstUse}
	l.BMC.Vendor = "Example"
	return l, nil
}

func (f *fakeBMCs) Breaker(fleet.NodeID) string { return "" }
func (f *fakeBMCs) CredentialChanged(id fleet.NodeID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changed = append(f.changed, id)
}

func (f *fakeBMCs) Forgotten(id fleet.NodeID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = append(f.gone, id)
}

func (f *fakeBMCs) PowerState(context.Context, fleet.NodeID) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.power, nil
}

func (f *fakeBMCs) SetPower(_ context.Context, _ fleet.NodeID, action string) (string, error) {
	if f.during != nil {
		f.during()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acts = append(f.acts, action)
	f.power = map[string]string{"on": "on", "cycle": "on", "off": "off", "shutdown": "off"}[action]
	return f.power, nil
}

type fakeImages struct{}

func (fakeImages) CheckAddress(u *url.URL, site fleet.Site) error {
	if slices.Contains(site.Origins, u.Scheme+"://"+u.Host) {
		return nil
	}
	return fleet.Errorf(fleet.Refused, "MC-IMAGE-ORIGIN", "%s is not on the allow-list", u.Host)
}

func (fakeImages) CheckFile(_ context.Context, path string, img fleet.Image) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	if img.Format == "qcow2" && !bytes.HasPrefix(b, []byte("QFI\xfb")) {
		return 0, fleet.Errorf(fleet.Invalid, "MC-IMAGE-FORMAT", "the image is no qcow2")
	}
	return int64(len(b)), nil
}

func (fakeImages) CheckOrigin(_ context.Context, img fleet.Image, _ fleet.Site) (int64, int64, error) {
	return img.SizeBytes, 0, nil
}

// fakeEngine does what it is told in the store, like the real one, but at once.
type fakeEngine struct {
	planned api.PlanQuery // the newest plan that was asked for
	s       *Server
	mu      sync.Mutex // guards the rest
	tasks   map[fleet.NodeID]*api.Task
	results []api.Result
	asked   []string
	leases  int
}

// operation puts a running operation onto the node.
func (e *fakeEngine) operation(ctx context.Context, id fleet.NodeID, use string, steps []fleet.StepRun) (fleet.OperationID, error) {
	e.mu.Lock()
	e.leases++
	op := fleet.Operation{ID: fleet.OperationID(fmt.Sprintf("01900000-0000-7000-8000-%012d", e.leases)), Node: id, Use: use, State: fleet.OperationRunning,
		CreatedAt: time.Now().UTC(), Steps: steps}
	e.mu.Unlock()
	err := e.s.updateNode(ctx, id, func(n *fleet.Node, c *fleet.Change) error {
		n.Operation, op.NodeName, op.Generation = op.ID, n.Name, n.Boot.Generation
		c.Writes = append(c.Writes, fleet.Write{Key: fleet.KeyOf(fleet.KindOperation, op.ID), Value: op})
		c.Events = append(c.Events, nodeEvent(n, "operation.started", time.Now(), use))
		return nil
	})
	return op.ID, err
}

// finish ends an operation.
func (e *fakeEngine) finish(ctx context.Context, id fleet.NodeID, state fleet.OperationState) error {
	return e.s.updateNode(ctx, id, func(n *fleet.Node, c *fleet.Change) error {
		op, _, err := e.s.operation(ctx, string(n.Operation))
		if err != nil {
			return err
		}
		op.State, n.Operation, n.LastOperation = state, "", op.ID
		c.Writes = append(c.Writes, fleet.Write{Key: fleet.KeyOf(fleet.KindOperation, op.ID), Value: op})
		c.Events = append(c.Events, nodeEvent(n, "operation."+string(state), time.Now(), string(state)))
		return nil
	})
}

func (e *fakeEngine) Ask(ctx context.Context, id fleet.NodeID, verb string, v api.NodeVerb, by string) (fleet.OperationID, error) {
	e.mu.Lock()
	e.asked = append(e.asked, verb)
	e.mu.Unlock()
	switch verb {
	case api.VerbHold:
		return "", e.s.updateNode(ctx, id, func(n *fleet.Node, _ *fleet.Change) error {
			n.Hold = &fleet.Hold{By: by, Reason: v.Reason, Since: time.Now().UTC()}
			return nil
		})
	case "abort":
		return "", e.finish(ctx, id, fleet.OperationAborted)
	case "forget":
		n, rev, err := e.s.node(ctx, string(id))
		if err != nil {
			return "", err
		}
		if _, err := fleet.Move(n.State, fleet.VerbForget, fleet.Facts{Dirty: n.Dirty}); err != nil {
			return "", err
		}
		key := fleet.KeyOf(fleet.KindNode, id)
		c := fleet.Change{If: []fleet.Precondition{{Key: key, Revision: rev}}, Writes: []fleet.Write{{Key: key}}}
		for _, k := range e.s.ForgetKeys(n) {
			c.Writes = append(c.Writes, fleet.Write{Key: k})
		}
		_, err = e.s.Store.Commit(ctx, c)
		return "", err
	case "inspect":
		return e.operation(ctx, id, verb, []fleet.StepRun{{Name: "power-on", State: fleet.StepFinished}, {Name: "inventory", State: fleet.StepStarted, StartedAt: time.Now().UTC()}})
	}
	return "", fleet.Errorf(fleet.Conflict, "MC-NODE-VERB", "a node that is enrolled does not take %q", verb).WithHint("from enrolled a node takes: inspect")
}

func (e *fakeEngine) CreateLease(ctx context.Context, l api.LeaseCreate, by string) (fleet.Lease, error) {
	e.mu.Lock()
	e.leases++
	out := fleet.Lease{ID: fleet.LeaseID(fmt.Sprintf("01911111-0000-7000-8000-%012d", e.leases)), Name: l.Name, State: fleet.LeasePending, Request: l.LeaseRequest, CreatedBy: by, CreatedAt: time.Now().UTC()}
	e.mu.Unlock()
	_, err := e.s.Store.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindLease, out.ID), Value: out}}})
	return out, err
}

func (e *fakeEngine) changeLease(ctx context.Context, id fleet.LeaseID, fn func(*fleet.Lease)) (fleet.Lease, error) {
	l, err := e.s.lease(ctx, string(id))
	if err != nil {
		return fleet.Lease{}, err
	}
	fn(&l.Lease)
	_, err = e.s.Store.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindLease, id), Value: l.Lease}}})
	return l.Lease, err
}

func (e *fakeEngine) ExtendLease(ctx context.Context, id fleet.LeaseID, x api.LeaseExtend, _ string) (fleet.Lease, error) {
	return e.changeLease(ctx, id, func(l *fleet.Lease) { l.Request.Until = x.Until })
}

func (e *fakeEngine) ReleaseLease(ctx context.Context, id fleet.LeaseID, _ string) (fleet.Lease, error) {
	return e.changeLease(ctx, id, func(l *fleet.Lease) { l.State = fleet.LeaseReleased })
}

func (e *fakeEngine) ReleasePlan(_ context.Context, id fleet.LeaseID, asked string) (api.LeasePlan, error) {
	if asked != "" && asked != "sha256:shown" {
		return api.LeasePlan{}, fleet.Errorf(fleet.Conflict, "MC-PLAN-DIGEST", "the release has become another")
	}
	return api.LeasePlan{Lease: id, Digest: "sha256:shown"}, nil
}

// give hands the agent a task.
func (e *fakeEngine) give(id fleet.NodeID, t *api.Task) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tasks == nil {
		e.tasks = map[fleet.NodeID]*api.Task{}
	}
	e.tasks[id] = t
	e.s.Wake(id)
}

func (e *fakeEngine) TaskFor(_ context.Context, id fleet.NodeID, _ int64) (*api.Task, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tasks[id], nil
}

func (e *fakeEngine) Report(_ context.Context, _ fleet.NodeID, _ int64, r api.Result) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.results = append(e.results, r)
	return nil
}

func (e *fakeEngine) UserData(ctx context.Context, id fleet.NodeID, _ int64) ([]byte, error) {
	n, _, err := e.s.node(ctx, string(id))
	if err != nil {
		return nil, err
	}
	if n.Operation == "" {
		return nil, fleet.Errorf(fleet.NotFound, "MC-LEASE-USERDATA", "no lease is being deployed on %s", n.Name)
	}
	return []byte(userData), nil
}

func (e *fakeEngine) Plan(_ context.Context, _ fleet.NodeID, q api.PlanQuery) (api.Plan, error) {
	e.planned = q
	return api.Plan{Use: q.Use, Digest: "sha256:00", Steps: []api.PlannedStep{{Name: "power-on", Side: "out-of-band", Why: "because"}}, Reboots: 1}, nil
}

func (e *fakeEngine) Waits(fleet.NodeID) string { return "a person" }

func (e *fakeEngine) Explain(ctx context.Context, id fleet.NodeID) (api.Explain, error) {
	n, _, err := e.s.node(ctx, string(id))
	return api.Explain{Node: n.Name, State: n.State, Since: n.StateSince, Hold: n.Hold, Next: []api.Advice{},
		Reasons: []api.Reason{{Kind: "hold", On: api.OnPerson, Text: "held", Command: "metalctl node unhold " + n.Name}}}, err
}

func (e *fakeEngine) ExplainLease(ctx context.Context, id fleet.LeaseID) (api.LeaseExplain, error) {
	l, err := e.s.lease(ctx, string(id))
	return api.LeaseExplain{Lease: l.ID, State: l.State, Reasons: []api.Reason{{Kind: "rest", On: api.OnNobody, Text: "ready"}}, Members: []api.MemberExplain{}}, err
}

// asJSON shows v for comparisons by text.
func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return string(b)
}
