package fabric

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Lock waits until nobody else of this machine, process or goroutine, has the file locked, and returns what gives it back. The file is made where it is missing.
func Lock(ctx context.Context, path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the fabric: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing gives the lock back
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock the fabric: %w", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fleet.Errorf(fleet.Unavailable, "MC-NET-BUSY", "another change of the fabric's partitions goes on").WithHint("try again when it has ended"), f.Close())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
