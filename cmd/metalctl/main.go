// Command metalctl is the fleet server, the CLI and the agent of a bare-metal lifecycle manager for GPU servers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

func main() {
	// Only the ramdisk's build is PID 1 of a machine: a server may well be PID 1 of a container.
	if ramdiskBuild && os.Getpid() == 1 {
		pid1()
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns its exit code; tests call it in process.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return (&program{stdin: stdin, stdout: stdout, stderr: stderr}).run(args)
}

func (p *program) run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot(p)
	root.SetArgs(args)
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	err := root.ExecuteContext(ctx)
	code := exitCode(err)
	err = noRoom(err)
	var silent *exitError
	if err != nil && !(errors.As(err, &silent) && silent.err == nil) {
		printError(p.stderr, err)
	}
	return code
}

// program is what every verb shares: where it talks and what the global flags say.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	flags          globalFlags
	// handsOff is a server's of the same name.
	handsOff time.Duration
}

// Exit codes, as `metalctl help exit-codes` prints them.
const (
	exitDone       = 0
	exitFailed     = 1
	exitUsage      = 2
	exitNotFound   = 3
	exitDenied     = 4
	exitConflict   = 5
	exitTimeout    = 6
	exitNodeFailed = 7
	exitSomeFailed = 8
	exitDiffers    = 9
	exitUnsure     = 10
)

// exitError carries an exit code that the error's kind does not tell; with err nil nothing more is printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// noRoom says what to do where this program's own file did not fit on its disk. What a server says of its disk stays as it is.
func noRoom(err error) error {
	if !fleet.NoSpace(err) || fleet.CodeOf(err) != "" {
		return err
	}
	full := fleet.Errorf(fleet.Unavailable, "MC-CLI-FULL", "%w", err)
	var path *fs.PathError
	if errors.As(err, &path) && !strings.HasPrefix(path.Path, "/dev/") {
		return full.WithHint("free space there (df -h %s) or name another place, then the same again", filepath.Dir(path.Path))
	}
	return full.WithHint("free space where the output goes, then the same again")
}

// usageError marks a wrong command line.
func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	var x *exitError
	if errors.As(err, &x) {
		return x.code
	}
	if errors.Is(err, context.Canceled) {
		return exitTimeout
	}
	var e *fleet.Error
	if !errors.As(err, &e) {
		return exitFailed
	}
	switch e.Kind {
	case fleet.Invalid:
		return exitUsage
	case fleet.NotFound:
		return exitNotFound
	case fleet.Denied:
		return exitDenied
	case fleet.Conflict, fleet.Refused:
		return exitConflict
	case fleet.Timeout:
		return exitTimeout
	default:
		return exitFailed
	}
}

// printError says what failed, why, and the next command to type.
func printError(w io.Writer, err error) {
	if code := fleet.CodeOf(err); code != "" {
		fmt.Fprintf(w, "error %s: %s\n", code, printable(err.Error()))
		if hint := fleet.HintOf(err); hint != "" {
			fmt.Fprintf(w, "  try: %s\n", printable(hint))
		}
		fmt.Fprintf(w, "  more: metalctl help %s\n", code)
		return
	}
	fmt.Fprintf(w, "error: %s\n", printable(err.Error()))
	if hint := fleet.HintOf(err); hint != "" {
		fmt.Fprintf(w, "  try: %s\n", printable(hint))
	}
}
