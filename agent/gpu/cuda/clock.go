package cuda

import "golang.org/x/sys/unix"

// Monotonic is a clock in nanoseconds that all processes of a machine share.
func Monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("the kernel has no monotonic clock: " + err.Error())
	}
	return t.Nano()
}
