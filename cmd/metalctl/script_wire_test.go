//go:build !ramdisk

package main

import (
	"net"
	"os"
	"regexp"
	"strconv"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// wire is a network between two ports that can be unplugged: what was sent waits then, as in a real one, and no connection ends.
type wire struct {
	to string

	mu    sync.Mutex    // guards what follows
	ok    chan struct{} // closed while it is plugged
	conns []net.Conn
	over  bool
}

// wiresKey is where a script's wires are, by port.
type wiresKey struct{}

func scriptWire(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: wire NAME PORT")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	w := &wire{to: net.JoinHostPort("127.0.0.1", args[1]), ok: make(chan struct{})}
	close(w.ok)
	var running sync.WaitGroup
	running.Go(func() { w.serve(l, &running) })
	ts.Defer(func() {
		l.Close() //nolint:errcheck // the script is over
		w.end()
		running.Wait()
	})
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Setenv(args[0], port)
	ts.Value(wiresKey{}).(map[string]*wire)[port] = w
}

func (w *wire) serve(l net.Listener, running *sync.WaitGroup) {
	for {
		from, err := l.Accept()
		if err != nil {
			return
		}
		running.Go(func() {
			if !w.pass() {
				from.Close() //nolint:errcheck // the script is over
				return
			}
			to, err := net.Dial("tcp", w.to)
			if err != nil || !w.keep(from, to) {
				from.Close() //nolint:errcheck // nobody is there
				return
			}
			running.Go(func() { w.copy(to, from) })
			w.copy(from, to)
		})
	}
}

// keep remembers connections to be closed in the end; false where that is over.
func (w *wire) keep(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, conns...)
	return !w.over
}

// pass waits until the wire is plugged; false where the script is over.
func (w *wire) pass() bool {
	w.mu.Lock()
	ok := w.ok
	w.mu.Unlock()
	<-ok
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.over
}

// copy carries one direction until either side ends.
func (w *wire) copy(to, from net.Conn) {
	defer to.Close()   //nolint:errcheck // both sides end together
	defer from.Close() //nolint:errcheck // both sides end together
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if n > 0 && w.pass() {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			w.pass() // an end waits, too
			return
		}
	}
}

func (w *wire) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	for _, c := range w.conns {
		c.Close() //nolint:errcheck // the script is over
	}
	w.plugLocked()
}

func (w *wire) plugLocked() {
	select {
	case <-w.ok:
	default:
		close(w.ok)
	}
}

// wiresOf are the wires at ports.
func wiresOf(ts *testscript.TestScript, ports []string) (out []*wire) {
	for _, port := range ports {
		w := ts.Value(wiresKey{}).(map[string]*wire)[port]
		if w == nil {
			ts.Fatalf("there is no wire at port %s", port)
		}
		out = append(out, w)
	}
	return out
}

func scriptUnplug(ts *testscript.TestScript, neg bool, args []string) {
	for _, w := range wiresOf(ts, args) {
		w.mu.Lock()
		w.ok = make(chan struct{})
		w.mu.Unlock()
	}
}

func scriptPlug(ts *testscript.TestScript, neg bool, args []string) {
	for _, w := range wiresOf(ts, args) {
		w.mu.Lock()
		w.plugLocked()
		w.mu.Unlock()
	}
}

func scriptAscending(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 4 || len(args)%2 != 0 {
		ts.Fatalf("usage: ascending FILE RE FILE RE...")
	}
	last := 0.0
	for i := 0; i < len(args); i += 2 {
		b, err := os.ReadFile(ts.MkAbs(args[i]))
		ts.Check(err)
		m := regexp.MustCompile(args[i+1]).FindSubmatch(b)
		if len(m) != 2 {
			ts.Fatalf("%s has no %s:\n%s", args[i], args[i+1], b)
		}
		n, err := strconv.ParseFloat(string(m[1]), 64)
		ts.Check(err)
		ts.Logf("%s: %s", args[i], m[0])
		if n <= last {
			ts.Fatalf("%s is not after %f", m[0], last)
		}
		last = n
	}
}
