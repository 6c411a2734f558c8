package fleet

import (
	"fmt"
	"runtime/debug"
)

// Panic is the error that Catch makes of a panic.
type Panic struct {
	// Reason is what the panic said, Stack where it happened.
	Reason, Stack string
}

func (p *Panic) Error() string { return "panic: " + p.Reason }

// Catch calls f and returns its error, or a *Panic. A panic that nothing catches on its own goroutine ends the process, and a process may be PID 1 of a
// machine: what runs on a goroutine of its own goes through Catch.
func Catch(f func() error) (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = &Panic{fmt.Sprint(reason), string(debug.Stack())}
		}
	}()
	return f()
}
