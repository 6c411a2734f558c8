//go:build !ramdisk

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// fleetServer is a server of operations alone: it can be away, and forget its events.
type fleetServer struct {
	*httptest.Server
	mu     sync.Mutex // guards the rest
	ops    map[fleet.OperationID]api.Operation
	last   int64
	bell   chan struct{}
	gone   bool // events that were seen are no longer kept
	away   bool
	resume []string      // the positions that streams were resumed at
	asked  chan struct{} // closed when resume grows
	report *fleet.Progress
}

// awayListener hangs up on everybody while the server is away.
type awayListener struct {
	net.Listener
	f *fleetServer
}

func (l awayListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.f.mu.Lock()
		away := l.f.away
		l.f.mu.Unlock()
		if !away {
			return c, nil
		}
		c.Close()
	}
}

func newFleetServer(t *testing.T, nodes int) (*fleetServer, *api.Client, []fleet.OperationID) {
	t.Helper()
	f := &fleetServer{ops: map[fleet.OperationID]api.Operation{}, bell: make(chan struct{}), asked: make(chan struct{}), last: 1}
	var ids []fleet.OperationID
	for i := range nodes {
		id := fleet.OperationID(fmt.Sprintf("op-%03d", i))
		ids = append(ids, id)
		f.ops[id] = api.Operation{Operation: fleet.Operation{ID: id, Node: fleet.NodeID(fmt.Sprint("id-", i)), NodeName: fmt.Sprintf("n%03d", i), Use: "clean", State: fleet.OperationRunning,
			StartedAt: time.Now(), Steps: []fleet.StepRun{{Name: "erase-disks", State: fleet.StepStarted, StartedAt: time.Now(), Try: 1}}}}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/operations/{id}", f.operation)
	mux.HandleFunc("GET /api/v1/events", f.events)
	f.Server = httptest.NewUnstartedServer(mux)
	f.Listener = awayListener{f.Listener, f}
	f.StartTLS()
	t.Cleanup(f.Close)
	cl, err := api.NewClient(api.Config{Server: f.URL, Token: fleet.NewSecret("t"), CACert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return f, cl, ids
}

func (f *fleetServer) operation(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	op := f.ops[fleet.OperationID(r.PathValue("id"))]
	if f.report != nil && f.report.Operation == op.ID && !op.State.Over() {
		op.Progress, op.Percent = f.report, f.report.Percent
	}
	json.NewEncoder(w).Encode(op) //nolint:errcheck // whoever asked is gone
}

func (f *fleetServer) events(w http.ResponseWriter, r *http.Request) {
	after := r.URL.Query().Get("after")
	f.mu.Lock()
	f.resume = append(f.resume, after)
	close(f.asked)
	f.asked = make(chan struct{})
	gone := f.gone && after != "-1"
	f.mu.Unlock()
	if gone {
		p := api.NewProblem(fleet.Errorf(fleet.NotFound, "MC-EVENTS-GONE", "not kept"), r.URL.Path)
		w.Header().Set("Content-Type", api.ProblemType)
		w.WriteHeader(http.StatusGone)
		json.NewEncoder(w).Encode(p) //nolint:errcheck // whoever asked is gone
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	id, err := strconv.ParseInt(after, 10, 64)
	f.mu.Lock()
	if err != nil || id < 0 {
		id = f.last
	}
	f.mu.Unlock()
	fmt.Fprintf(w, "event: position\nid: %d\ndata: {}\n\n", id)
	for {
		f.mu.Lock()
		for ; id < f.last; id++ {
			b, _ := json.Marshal(fleet.Event{ID: id + 1, Type: "operation.done", Node: fleet.NodeID(fmt.Sprint("id-", id%int64(len(f.ops))))}) //nolint:errcheck // a struct of texts
			fmt.Fprintf(w, "event: operation.done\nid: %d\ndata: %s\n\n", id+1, b)
		}
		if f.report != nil {
			b, _ := json.Marshal(f.report) //nolint:errcheck // a struct of texts
			fmt.Fprintf(w, "event: progress\ndata: %s\n\n", b)
		}
		bell := f.bell
		f.mu.Unlock()
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-bell:
		}
	}
}

// change does something to the operations and tells everybody.
func (f *fleetServer) change(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
	close(f.bell)
	f.bell = make(chan struct{})
}

// until waits until cond holds, which is looked at under mu when streams are asked for.
func (f *fleetServer) until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	limit := time.After(90 * time.Second)
	for {
		f.mu.Lock()
		ok, asked := cond(), f.asked
		f.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-asked:
		case <-limit:
			t.Fatalf("never: %s", what)
		}
	}
}

func (f *fleetServer) end(id fleet.OperationID, s fleet.OperationState) {
	op := f.ops[id]
	op.State, op.Percent, op.Revision, op.EndedAt = s, 100, op.Revision+1, time.Now()
	f.ops[id] = op
	f.last++
}

// screen is what a terminal shows, with what has scrolled out of it above.
type screen struct {
	mu    sync.Mutex // guards the rest
	lines []string
	row   int // of lines
	high  int
	bell  chan struct{}
}

func (s *screen) write(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(text) > 0 {
		switch {
		case strings.HasPrefix(text, "\x1b[J"):
			s.lines, text = append(s.lines[:s.row:s.row], ""), text[3:]
		case strings.HasPrefix(text, "\x1b["):
			end := strings.IndexByte(text, 'A')
			n, _ := strconv.Atoi(text[2:end])
			s.row, text = max(len(s.lines)-s.high, s.row-n, 0), text[end+1:]
		case text[0] == '\n':
			s.row++
			if s.row == len(s.lines) {
				s.lines = append(s.lines, "")
			}
			text = text[1:]
		case text[0] == '\r':
			text = text[1:]
		default:
			s.lines[s.row] += text[:1]
			text = text[1:]
		}
	}
	close(s.bell)
	s.bell = make(chan struct{})
}

func (s *screen) text() (string, chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n"), s.bell
}

// until waits until the screen shows all of these.
func (s *screen) until(t *testing.T, wants ...string) string {
	t.Helper()
	limit := time.After(90 * time.Second)
	for {
		text, bell := s.text()
		ok := true
		for _, w := range wants {
			ok = ok && strings.Contains(text, w)
		}
		if ok {
			return text
		}
		select {
		case <-bell:
		case <-limit:
			t.Fatalf("the screen never shows %q:\n%s", wants, text)
		}
	}
}

// openTerminal makes a pseudo terminal of that size; what is written to it is shown by the screen.
func openTerminal(t *testing.T, width, height uint16) (*os.File, *screen) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("hardware: no pseudo terminals: %v", err)
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = errors.Join(unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0), unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width}))
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{lines: []string{""}, high: int(height), bell: make(chan struct{})}
	read := make(chan struct{})
	go func() {
		defer close(read)
		var rest []byte
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			rest = append(rest, buf[:n]...)
			// An escape sequence may be cut.
			whole := len(rest)
			if i := bytes.LastIndexByte(rest, 0x1b); i >= 0 && !bytes.ContainsAny(rest[i:], "AJ") {
				whole = i
			}
			s.write(string(rest[:whole]))
			rest = rest[whole:]
			if err != nil {
				return // the other end was closed
			}
		}
	}()
	t.Cleanup(func() {
		slave.Close()
		<-read
		master.Close()
	})
	return slave, s
}

// TestFollowAHundredNodes: more operations than lines are summed up; a server that goes away, comes back and has dropped its events ends nothing and
// leaves no bar wrong.
func TestFollowAHundredNodes(t *testing.T) {
	f, cl, ids := newFleetServer(t, 100)
	tty, shown := openTerminal(t, 100, 24)
	done := make(chan error, 1)
	go func() { done <- followOperations(t.Context(), &program{stderr: tty}, cl, ids) }()
	text := shown.until(t, "0 of 100 done, 100 running", "and 79 more")
	if n := strings.Count(text, "\n"); n > 23 {
		t.Errorf("%d lines on a terminal of 24", n)
	}
	f.change(func() {
		for _, id := range ids[1:] {
			f.report = &fleet.Progress{Operation: id, Step: "erase-disks", Stage: "zeroes", Percent: 50, Done: 1 << 30, Total: 2 << 30}
		}
		f.end(ids[1], fleet.OperationDone)
	})
	shown.until(t, "1 of 100 done, 99 running", "slowest: n000 0% erase-disks")

	// Away: what is known stays on the screen, and half of the work ends meanwhile.
	f.mu.Lock()
	f.away = true
	f.mu.Unlock()
	f.CloseClientConnections()
	shown.until(t, "the server does not answer", "1 of 100 done")
	f.mu.Lock()
	for _, id := range ids[2:51] {
		f.end(id, fleet.OperationDone)
	}
	f.away, f.gone, f.report = false, true, nil
	f.mu.Unlock()
	shown.until(t, "50 of 100 done, 50 running")
	// What is read shows as much before the stream is back; its end is not to overtake that.
	f.until(t, "a stream from now on, after one from where it broke", func() bool { return len(f.resume) > 2 && f.resume[len(f.resume)-1] == "-1" })

	f.change(func() {
		f.end(ids[0], fleet.OperationFailed)
		for _, id := range ids[51:] {
			f.end(id, fleet.OperationDone)
		}
	})
	var x *exitError
	if err := <-done; !errors.As(err, &x) || x.code != exitSomeFailed {
		t.Errorf("got %v", err)
	}
	f.mu.Lock()
	if len(f.resume) < 3 || f.resume[0] != "-1" || f.resume[1] == "-1" || f.resume[len(f.resume)-1] != "-1" {
		t.Errorf("streams were asked for after %v: want now, then where it broke, then now again", f.resume)
	}
	f.mu.Unlock()
	text = shown.until(t, "99 of 100 done, 1 failed", "n000")
	if n := strings.Count(text, "of 100 done"); n != 1 {
		t.Errorf("%d sums are left on the screen:\n%s", n, text)
	}
}

// TestFollowAFew: a line each while there is room, none longer than the terminal; an interrupt ends the watching alone.
func TestFollowAFew(t *testing.T) {
	f, cl, ids := newFleetServer(t, 3)
	f.mu.Lock()
	f.report = &fleet.Progress{Operation: ids[1], Step: "erase-disks", Stage: strings.Repeat("long ", 40), Percent: 50}
	f.mu.Unlock()
	tty, shown := openTerminal(t, 60, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- followOperations(ctx, &program{stderr: tty}, cl, ids) }()
	text := shown.until(t, "n000       clean    [....................]", "n001       clean    [##########..........]  50%", "n002")
	for _, l := range strings.Split(text, "\n") {
		if len(l) >= 60 {
			t.Errorf("%d characters on a line of 60: %q", len(l), l)
		}
	}
	// Where a server has forgotten how far a step is, its bar does not go back.
	f.change(func() { f.report = nil; f.last++ })
	f.CloseClientConnections()
	f.change(func() { f.end(ids[0], fleet.OperationDone) })
	shown.until(t, "n000       clean    [####################] 100%", "n001       clean    [##########..........]  50%")
	cancel()
	var x *exitError
	if err := <-done; !errors.As(err, &x) || x.code != exitTimeout {
		t.Errorf("got %v", err)
	}
	shown.until(t, "no longer following; the work goes on. To follow it again: metalctl operation show op-000 op-001 op-002 --follow")
}
