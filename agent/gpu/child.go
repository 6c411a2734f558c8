package gpu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// child is a helper process. It is never waited for on the way of a reading: one that is stuck in the kernel cannot be killed, and is left behind.
type child struct {
	opts  Options
	stdin io.WriteCloser
	lines chan []byte   // closed when the child's output ends
	stop  chan struct{} // closed by end: whoever reads the output lets go
	kill  func()
	ended <-chan error // gets how the child ended, once it has
	tail  *tail

	who  string // the address of the GPU that it was asked for
	call string // the function that it is in, as far as it told
	at   string // the GPU that the call is for, where it said so
}

// gone says how a child failed: it hung in Call, or it ended there.
type gone struct {
	Call string
	Hung bool
	How  string
}

func (g *gone) Error() string {
	in := ""
	if g.Call != "" {
		in = " in " + g.Call
	}
	if g.Hung {
		return "no answer" + in + " within " + g.How
	}
	return "the helper ended" + in + ": " + g.How
}

// startChild starts the helper.
func startChild(opts Options) (*child, error) {
	cmd := exec.Command(opts.Helper[0], opts.Helper[1:]...)
	cmd.Args[0] = os.Args[0] // the helper is this program under another verb
	// A crash must not write a core or pages of stacks; one call at a time needs few threads.
	cmd.Env = append(os.Environ(), "GOTRACEBACK=none", "GOMAXPROCS=1", "CUDA_CACHE_DISABLE=1")
	if opts.CUDA != "" { // it looks for its compiler by name
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+filepath.Dir(opts.CUDA))
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// Own pipes instead of exec's: its Wait would wait for whoever holds them.
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		outR.Close()
		outW.Close()
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = outW, errW
	err = cmd.Start()
	outW.Close()
	errW.Close()
	if err != nil {
		outR.Close()
		errR.Close()
		return nil, err
	}
	ended := make(chan error, 1)
	// This goroutine ends with the process: one that the kernel does not let go keeps it, as that is what a zombie needs in the end.
	go func() { ended <- cmd.Wait() }()
	c := newChild(opts, in, outR, errR, func() { _ = cmd.Process.Kill() }, ended)
	return c, nil
}

// newChild speaks to a process by its pipes.
func newChild(opts Options, in io.WriteCloser, out, errs io.ReadCloser, kill func(), ended <-chan error) *child {
	c := &child{opts: opts, stdin: in, lines: make(chan []byte, 16), stop: make(chan struct{}), ended: ended, tail: &tail{}}
	c.kill = sync.OnceFunc(func() {
		kill()
		close(c.stop)
		in.Close()
		out.Close() // lets the reader go, even if somebody else holds the other end
		errs.Close()
	})
	go func() {
		defer close(c.lines)
		s := bufio.NewScanner(out)
		s.Buffer(make([]byte, 16<<10), maxLine)
		for s.Scan() {
			select {
			case c.lines <- append([]byte(nil), s.Bytes()...):
			case <-c.stop:
				return
			}
		}
	}()
	go func() {
		_, _ = io.Copy(c.tail, io.LimitReader(errs, 1<<20)) // what it says when it dies; nobody else reads it
		c.tail.close()
	}()
	return c
}

// ask sends a request and calls each with every message of its answer. It returns nil after the end of an answer, a *gone if the child hung or ended, and
// ctx's error. After an error the child is of no more use.
func (c *child) ask(ctx context.Context, r request, each func(message) error) error {
	return c.askFor(ctx, r, bounds{gpuBudget, maxMessages}, each)
}

// bounds are those of a whole answer.
type bounds struct {
	time     time.Duration
	messages int
}

// say sends a request. A child that does not take it is found out by who waits for its answers.
func (c *child) say(r request) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = c.stdin.Write(append(line, '\n'))
	return err
}

// askFor is ask with bounds for the whole answer.
func (c *child) askFor(ctx context.Context, r request, b bounds, each func(message) error) error {
	c.call, c.at = "", ""
	if r.PCI != "" {
		c.who = r.PCI
	}
	if err := c.say(r); err != nil {
		return c.obituary(ctx)
	}
	budget, stop := c.opts.after(c.who, "budget", b.time)
	defer stop()
	for n := 0; ; n++ {
		if n == b.messages {
			return &gone{Call: c.call, How: fmt.Sprintf("it wrote %d lines and more", n)}
		}
		patience := c.opts.CallTimeout
		if opens(c.call) {
			patience = c.opts.OpenTimeout
		}
		timer, stop := c.opts.after(c.who, c.call, patience)
		select {
		case <-ctx.Done():
			stop()
			return ctx.Err()
		case <-timer:
			return &gone{Call: c.call, Hung: true, How: patience.String()}
		case <-budget:
			stop()
			return &gone{Call: c.call, Hung: true, How: b.time.String() + " in all"}
		case line, ok := <-c.lines:
			stop()
			if !ok {
				return c.obituary(ctx)
			}
			m, err := decodeMessage(line)
			if err != nil {
				return &gone{Call: c.call, How: "it wrote " + err.Error()}
			}
			switch {
			case m.Call != "":
				c.call, c.at = m.Call, m.At
			case m.Done:
				return nil
			default:
				if err := each(m); err != nil {
					return &gone{Call: c.call, How: err.Error()}
				}
			}
		}
	}
}

// opens reports whether a call may start hardware up. The time before the first call is the child's own start.
func opens(call string) bool {
	return call == "" || strings.HasPrefix(call, "nvmlInit") || strings.HasPrefix(call, "nvmlDeviceGetHandle") ||
		slices.Contains([]string{"cuInit", "cuDevicePrimaryCtxRetain", "cuModuleLoadDataEx"}, call)
}

// obituary says how a child ended whose output did.
func (c *child) obituary(ctx context.Context) error {
	how := "its output ended"
	timer, stop := c.opts.after(c.who, "end", c.opts.CallTimeout)
	defer stop()
	select {
	case err := <-c.ended:
		if err != nil {
			how = err.Error()
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			if said := c.tail.first(timer); said != "" {
				how += " (" + said + ")"
			}
		}
	case <-timer:
	case <-ctx.Done():
		return ctx.Err()
	}
	return &gone{Call: c.call, How: how}
}

// end lets the child go: it is killed, and not waited for.
func (c *child) end() { c.kill() }

// tail keeps the first line that a child says before it dies.
type tail struct {
	mu   sync.Mutex
	text strings.Builder
	done chan struct{}
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := 1024 - t.text.Len(); room > 0 {
		t.text.Write(b[:min(room, len(b))])
	}
	return len(b), nil
}

func (t *tail) ended() chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done == nil {
		t.done = make(chan struct{})
	}
	return t.done
}

func (t *tail) close() { close(t.ended()) }

// first waits for the end of what is said, or the timer.
func (t *tail) first(timer <-chan time.Time) string {
	select {
	case <-t.ended():
	case <-timer:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	line, _, _ := strings.Cut(strings.TrimSpace(t.text.String()), "\n")
	return clean(line)
}
