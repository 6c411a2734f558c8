package burn

import (
	"sync/atomic"
	"time"
)

// ticker is a clock that goes when it is told to.
type ticker struct{ at atomic.Int64 }

func newTicker() *ticker { return &ticker{} }

func (c *ticker) now() time.Duration  { return time.Duration(c.at.Load()) }
func (c *ticker) add(d time.Duration) { c.at.Add(int64(d)) }
